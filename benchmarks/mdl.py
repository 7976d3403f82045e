"""Rows and tables of the description-length study: what selection picks, and whether training by the term goes below.

    python -m benchmarks.mdl runs/mdl/* --out docs/results/description-length.json

Of settings whose seeds all reach a distortion, the one with the fewest bits speaks for its group, which favours every
group by its own luck; differences are paired by seed.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unbraid.comparison.intervals import paired_by_seed
from unbraid.comparison.mdl_selection import (
    CODING_SCHEMES,
    CodingScheme,
    Distortion,
    Setting,
    description_length_rows,
    distortions,
    settings,
)
from unbraid.comparison.stored_scores import StoredScores, read_scores
from unbraid.comparison.wording import change, mean_half
from unbraid.system.files import write_text

PER_RUN = ("l0", "fvu", "alive", "bits_per_token")
ALSO = ("absorption_full", "parent_recall_given_child", "parent_recall_alone", "f1", "mcc")
"""Of runs scored by `absorption` and `recovery` too."""

Row = dict[str, Any]
Group = Callable[[Setting], bool]

GROUPS: dict[str, Group] = {
    "standard": lambda s: s.method in ("batchtopk", "jumprelu"),
    "JumpReLU": lambda s: s.method == "jumprelu",
    "trained": lambda s: s.method.startswith("mdl") and "tree" not in s.method,
    "trained down a tree": lambda s: s.method.startswith("mdl-tree"),
    "truth": lambda s: s.method == "truth",
}


def rows_of(stored: StoredScores) -> list[Row]:
    """A row a run: what it is, and its bits by way of counting and FVU."""
    found: dict[str, Row] = {}
    for run in stored.runs:
        found[run.run] = {"name": run.name, "d_sae": run.d_sae, "seed": run.seed, "control": run.control, "bits": {}}
    for row in stored.records:
        own = found[row["run"]]
        if row["metric"] in PER_RUN or (row["metric"] in ALSO and row["kind"] == "measured"):
            own.setdefault(row["metric"], short(row["value"]))
    for row in description_length_rows(stored):
        params = row["params"]
        if "fvu" in params:
            key = f"{params['code']} {params['decoder']}" if "code" in params else params["directions"]
            found[row["run"]]["bits"].setdefault(key, {})[f"{params['fvu']:g}"] = short(row["value"])
    return sorted(found.values(), key=lambda r: (r["d_sae"], r["name"], r["seed"]))


def short(value: float) -> float | None:
    return None if value != value else float(f"{value:.4g}")


def best(among: Sequence[Setting], belongs: Group) -> Setting | None:
    found = [s for s in among if s.reached and belongs(s)]
    return min(found, key=lambda s: s.mean.mean, default=None)


def cell(setting: Setting | None, against: Setting | None = None) -> str:
    if setting is None:
        return "not reached"
    shown = f"{setting.name} {setting.d_sae}: {mean_half(setting.mean)}"
    if against is None or against is setting:
        return shown
    found = paired_by_seed(setting.bits, against.bits)
    return f"{shown} ({change(found.mean, found.half)})"


def by_width(stored: StoredScores, scheme: CodingScheme, at: Distortion) -> str:
    """Fewest bits of standard SAEs at each width."""
    among = settings(stored, scheme, at)
    widths = sorted({s.d_sae for s in among if GROUPS["standard"](s)})
    picked = best(among, GROUPS["standard"])
    cells = [cell(best(among, lambda s, w=w: GROUPS["standard"](s) and s.d_sae == w), picked) for w in widths]
    return f"| {scheme.label} | {at.label} | " + " | ".join(cells) + " |"


def by_group(stored: StoredScores, scheme: CodingScheme, at: Distortion) -> str:
    """Fewest bits of each group, and what it needs more than the standard SAEs' pick."""
    among = settings(stored, scheme, at)
    against = best(among, GROUPS["standard"])
    return (
        f"| {scheme.label} | {at.label} | " + " | ".join(cell(best(among, g), against) for g in GROUPS.values()) + " |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="rows and tables of the description-length study")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--out", type=Path, required=True, help="the JSON of rows")
    options = parser.parse_args(argv)
    stored = read_scores(options.runs)
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows_of(stored))
    write_text(options.out, f"[\n{lines}\n]\n")
    for scheme in CODING_SCHEMES:
        for at in distortions(stored):
            print(by_width(stored, scheme, at))
    print("| | | " + " | ".join(GROUPS) + " |")
    for scheme in CODING_SCHEMES:
        for at in distortions(stored):
            print(by_group(stored, scheme, at))


if __name__ == "__main__":
    main()
