"""Rows of `make bench` as tables: ratios within a run, and their range over runs.

python -m benchmarks.bench_tables docs/results/bench.json
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
Place = tuple[str, str, int, float, int]
"""A case: regime, architecture, latents, active latents a token, rows of a batch."""
OURS, OURS_LOW = "unbraid", "unbraid-bf16"
PEERS = ("sae-lens", "dictionary-learning", "sparsify", "overcomplete")
AUTOCAST = "sae-lens-autocast"
HEAD = (
    "", "ours, ms", *PEERS, "ours / floor", "bf16, ms", "bf16 / float32", f"{AUTOCAST} / bf16", "sae-lens / bf16",
    "bf16 / floor",
)  # fmt: skip
MEMORY_HEAD = ("peak MB", "ours", *PEERS, "ours / state")


class Runs:
    """The times of a case, run by run."""

    def __init__(self, rows: Sequence[Row]):
        self._rows = {(row["run"], row["who"]): row for row in rows}
        self._runs = sorted({row["run"] for row in rows})

    def of(self, who: str, name: str = "cpu_seconds_per_step") -> list[float]:
        """A number of a contender in every run that has it."""
        return [self._rows[run, who][name] for run in self._runs if (run, who) in self._rows]

    def ratios(self, who: str, over: str) -> list[float]:
        """How often a contender's time is another's, in every run that has both."""
        rows = self._rows
        both = [run for run in self._runs if (run, who) in rows and (run, over) in rows]
        name = "cpu_seconds_per_step"
        return [rows[run, who][name] / rows[run, over][name] for run in both]

    def memory(self, who: str) -> list[float]:
        """Peak megabytes, parameters included, in every run."""
        return [
            above + own
            for above, own in zip(self.of(who, "peak_mb_above_weights"), self.of(who, "weights_mb"), strict=True)
        ]


def raced(row: Row) -> bool:
    """True for a step that contenders took in turn: what else is measured has tables of its own (part_tables.py)."""
    return "cpu_seconds_per_step" in row


def cases(rows: Sequence[Row]) -> dict[Place, Runs]:
    """The rows of every case, in order."""
    found: dict[Place, list[Row]] = {}
    for row in filter(raced, rows):
        place = (row["regime"], row["bench"], row["d_sae"], row["active"], row["batch"])
        found.setdefault(place, []).append(row)
    return {place: Runs(own) for place, own in found.items()}


def said(value: float) -> str:
    """A number with two or three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ranged(values: Sequence[float]) -> str:
    """The range of numbers, one a run; nothing where there are none."""
    if not values:
        return ""
    least, most = said(min(values)), said(max(values))
    return least if least == most else f"{least} to {most}"


def name_of(place: Place) -> str:
    """A case in a table."""
    _, bench, d_sae, active, batch = place
    return f"{bench} {d_sae:,}, {active:g} active, {batch:,} rows"


def cells(place: Place, runs: Runs) -> list[str]:
    """The line of a case."""
    milliseconds = lambda who: ranged([1000 * seconds for seconds in runs.of(who)])
    return [
        name_of(place),
        milliseconds(OURS),
        *(ranged(runs.ratios(peer, OURS)) for peer in PEERS),
        ranged(runs.ratios(OURS, "floor")),
        milliseconds(OURS_LOW),
        ranged(runs.ratios(OURS_LOW, OURS)),
        ranged(runs.ratios(AUTOCAST, OURS_LOW)),
        ranged(runs.ratios("sae-lens", OURS_LOW)),
        ranged(runs.ratios(OURS_LOW, "floor-bf16")),
    ]


def times(rows: Sequence[Row], regime: str) -> str:
    """The table of a regime: our time, others' as multiples of it, ours over the floor, the same in bfloat16."""
    return markdown(HEAD, [cells(place, runs) for place, runs in cases(rows).items() if place[0] == regime])


def memory(rows: Sequence[Row], regime: str) -> str:
    """The table of a regime's peak memory, parameters included, and ours over what weights, gradients and optimiser
    take."""
    lines = []
    for place, runs in cases(rows).items():
        if place[0] == regime:
            state = [m / s for m, s in zip(runs.memory(OURS), runs.of(OURS, "state_mb"), strict=True)]
            lines.append([name_of(place), *(ranged(runs.memory(who)) for who in (OURS, *PEERS)), ranged(state)])
    return markdown(MEMORY_HEAD, lines)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table as pages have it."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def times_sae_lens(rows: Sequence[Row]) -> tuple[float, float]:
    """The least and the most of sae-lens's time over ours, of all architectures at their usual sparsity, both widths
    and all runs."""
    ratios = [r for place, runs in cases(rows).items() if place[0] == "usual" for r in runs.ratios("sae-lens", OURS)]
    return min(ratios), max(ratios)


def said_of_sae_lens(rows: Sequence[Row]) -> str:
    """What the README says of it."""
    least, most = times_sae_lens(rows)
    shares = [f"{1 / ratio:.2f}".removeprefix("0") for ratio in (most, least)]
    return f"a training step takes {shares[0]} to {shares[1]} of SAELens's time"


def slower(rows: Sequence[Row]) -> list[str]:
    """The cases in which a peer was faster than ours in every run, with the peer and its ratio."""
    found = []
    for place, runs in cases(rows).items():
        for peer in (*PEERS, AUTOCAST):
            ratios = runs.ratios(peer, OURS)
            if ratios and max(ratios) < 1:
                found.append(f"{place[0]}: {name_of(place)}: {peer} takes {ranged(ratios)} of our time")
    return found


def text(rows: Sequence[Row]) -> str:
    """All tables, and where a peer is faster."""
    regimes = list(dict.fromkeys(row["regime"] for row in rows if raced(row)))
    parts = [f"{regime}\n{times(rows, regime)}" for regime in regimes]
    return "\n\n".join([*parts, memory(rows, "usual"), "A peer is faster in:", *(slower(rows) or ["no case"])])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    print(text(json.loads(parser.parse_args().rows.read_text())))


if __name__ == "__main__":
    main()
