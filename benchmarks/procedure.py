"""Controls of the judging itself: studies of which the truth is known, judged, and how often each word is said.

    python -m benchmarks.procedure --out docs/results/procedure.json
    python -m benchmarks.procedure --only placebo --studies 100
    python -m benchmarks.procedure table docs/results/procedure.json

Simulated studies (`benchmarks.simulated`) go through `unbraid.comparison` as stored runs do. A row is one scenario at
one number of seeds: counts, rates and their exact 95 % intervals (Clopper and Pearson 1934). Rows are written as they
come; those that the file has already are not made again.
"""

import argparse
import gc
import json
import math
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.judge import chosen
from benchmarks.simulated import CONTROLS, D_SAE, FOREST, LANGUAGE_RARE, STANDARD, Level, Shifts, Study, simulated
from unbraid.comparison.committed import BASELINE, SCORES, quantity_of, scores_of_rows
from unbraid.comparison.contrast import contrast
from unbraid.comparison.gate import gate
from unbraid.comparison.intervals import LEVEL
from unbraid.comparison.judgement import ALPHA, GAINS, Judgement
from unbraid.comparison.opponents import against_all
from unbraid.comparison.quantities import PRIMARIES, Quantity, ScoreSelector
from unbraid.comparison.scores import Scores
from unbraid.comparison.smallest_effect import SmallestEffect, smallest_effects
from unbraid.comparison.verdict import Rules, TermVerdict, answer, headline_of, judge_primaries, paired_with_bases
from unbraid.dictionary.initialisation import Claim

BOTH, ONE = ("f1", "absorption"), ("f1",)
"""Primaries of the simulated claims."""
PARENTS_TOO = 2.0
"""Gain of parents' recall that comes with a gain of absorption, in spreads: the guard of absorption asks for it."""
Events = Mapping[str, tuple[int, int]]
"""By event, how often it happened, of how many chances."""
Bounds = Mapping[str, tuple[str, float]]
"""By event, "at most" or "at least" which rate."""


@dataclass(frozen=True)
class Scenario:
    """A simulated study's truth, how it is judged, and what is asked of the rates."""

    name: str
    study: Study
    studies: int
    reader: Callable[[Scores, "Scenario"], Events]
    must: Bounds = field(default_factory=dict)
    primaries: Sequence[str] = BOTH
    smallest: float | None = 1.0
    """The smallest effect of interest, in spreads; None: worked out from the scores."""

    @property
    def key(self) -> tuple[str, int]:
        """The scenario's name and number of seeds, which name its row."""
        return self.name, self.study.seeds


# ---- readers: what one study's scores say


def whole(scores: Scores, scenario: Scenario) -> Events:
    """Judge a study as a report does, the gate too."""
    found = answer(scores, D_SAE, rules_of(scores, scenario)).verdicts[0]
    said = "no answer" if found.tone == "unknown" else found.tone
    return words([j for t in found.terms for j in t.primaries], scenario) | {
        f"claim: {t}": hit(t == said) for t in TONES
    }


def claim(scores: Scores, scenario: Scenario) -> Events:
    """Judge the primaries of a study's claim, the gate taken as passed."""
    pairs, _ = paired_with_bases(scores, D_SAE)
    primaries = [quantity_of(short) for short in scenario.primaries]
    given = rules_of(scores, scenario).smallest
    sizes = smallest_effects(scores, D_SAE) if given is None else given
    judged = judge_primaries(scores, pairs, primaries, sizes)
    terms = [TermVerdict(own, base, js, (), math.nan) for (own, base), js in zip(pairs, judged, strict=True)]
    tone, _ = headline_of(terms, primaries)
    return words([j for js in judged for j in js], scenario) | {f"claim: {t}": hit(t == tone) for t in TONES}


TONES = ("yes", "mixed", "no", "undecided", "no answer")


def hit(happened: bool) -> tuple[int, int]:
    """One chance, taken or not."""
    return int(happened), 1


def words(judged: Sequence[Judgement], scenario: Scenario) -> dict[str, tuple[int, int]]:
    """Count the words of contrasts, apart for those with a planted difference and those without."""
    planted = lambda j: bool(scenario.study.gains.get(j.contrast.method, {}).get(short_of(j.metric)))
    found = {}
    for kind, these in (
        ("null", [j for j in judged if not planted(j)]),
        ("planted", [j for j in judged if planted(j)]),
    ):
        if these:
            said = Counter(j.word for j in these)
            counts = {
                "materially better": sum(j.word == "materially better" and j.gained for j in these),
                "better": sum(j.gained for j in these),
                "equivalent": said["equivalent"], "undecided": said["undecided"],
                "worse": sum(j.lost for j in these), "void": said["void"],
                "in doubt": sum(bool(j.doubt) for j in these),
            }  # fmt: skip
            found |= {f"{kind}: {event}": (count, len(these)) for event, count in counts.items()}
            found[f"{kind}: any better"] = hit(any(j.word in GAINS for j in these))
    return found


def through_gate(scores: Scores, scenario: Scenario) -> Events:
    """Pass a scenario's primaries through the gate."""
    found = gate(scores, D_SAE, [quantity_of(short) for short in scenario.primaries])
    return {"passed": hit(all(r.passed for r in found.values()))}


def beats_all(scores: Scores, scenario: Scenario) -> Events:
    """Test the first term against every standard SAE."""
    term = next(m for m in scores.with_role("compared", D_SAE) if m.name == "term-1")
    return {"beats all": hit(against_all(scores, term, quantity_of("f1")).beats_all)}


def one_contrast(scores: Scores, scenario: Scenario) -> Events:
    """Test one contrast by t, and by flips of signs."""
    by_name = {m.name: m for m in scores.methods}
    found = contrast(scores, by_name["term-1"], by_name[BASELINE], quantity_of("f1"))
    spread = FOREST["f1"].spread * (scenario.smallest or math.nan)
    apart, flipped = found.tested.p <= ALPHA, found.p_flipped() <= ALPHA
    return {
        "better": hit(apart and found.gain > 0), "worse": hit(apart and found.gain < 0),
        "better by flips": hit(flipped and found.gain > 0), "worse by flips": hit(flipped and found.gain < 0),
        "equivalent": hit(found.p_equivalent(spread) <= ALPHA),
    }  # fmt: skip


def rules_of(scores: Scores, scenario: Scenario) -> Rules:
    """The rules of a scenario: its primaries, and smallest effects in spreads."""
    selectors = [ScoreSelector(*SCORES[short][:2]) for short in scenario.primaries]
    primaries: dict[Claim, Sequence[Sequence[ScoreSelector]]] = {**PRIMARIES, 1: [(s,) for s in selectors]}
    if scenario.smallest is None:
        return Rules(primaries)
    levels = {quantity_of(short): level for short, level in scenario.study.levels.items()}
    given = {q: SmallestEffect(q, scenario.smallest * level.spread, "given") for q, level in levels.items()}
    return Rules(primaries, given)


def short_of(metric: Quantity) -> str:
    """The short name of a quantity."""
    return next(short for short in SCORES if quantity_of(short) == metric)


# ---- scenarios


def gains(terms: int, size: float, scores: Sequence[str] = BOTH) -> dict[str, Shifts]:
    """The same planted gain for several terms; one of absorption comes with more parents found."""
    more = {"recall_child": PARENTS_TOO} if "absorption" in scores else {}
    return {f"term-{i + 1}": dict.fromkeys(scores, size) | more for i in range(terms)}


def scenarios() -> Iterator[Scenario]:
    """Every scenario, in the order of the documentation."""
    yield from placebos()
    yield from planted()
    yield from guard_scenarios()
    yield from gate_scenarios()
    yield from others()
    yield from committed()


def placebos() -> Iterator[Scenario]:
    """Terms that do nothing: a base under another name."""
    level = {"null: equivalent": ("at least", 0.75), "null: better": ("at most", ALPHA)}
    never: Bounds = {"null: any better": ("at most", ALPHA), "claim: yes": ("at most", ALPHA)}
    yield Scenario("placebo, one term", Study(), 400, whole, level | never)
    yield Scenario("placebo, one term, the gate taken as passed", Study(), 1000, claim, level | never)
    yield Scenario("placebo, one term", Study(seeds=3), 1000, claim, never)
    yield Scenario("placebo, one term", Study(seeds=16), 400, claim, level | never)
    for seeds in (3, 10, 16):
        yield Scenario("placebo, five terms", Study(terms=5, seeds=seeds), 1000 if seeds == 10 else 400, claim, never)
    yield Scenario("placebo, eleven terms", Study(terms=11, seeds=3), 400, claim, never)
    yield Scenario("placebo, smallest effect from the same scores", Study(terms=5), 400, claim, never, smallest=None)


def planted() -> Iterator[Scenario]:
    """Terms that gain as much as the smallest effect, or twice as much."""
    found: Bounds = {"planted: materially better": ("at least", 0.8)}
    for seeds in (10, 16):
        study = Study(seeds=seeds, gains=gains(1, 2, ONE))
        yield Scenario("gain of two, one term, one primary", study, 1000, claim, found, ONE)
        study = Study(seeds=seeds, gains=gains(1, 2))
        yield Scenario("gain of two, one term, two primaries", study, 1000, claim)
    for seeds in (8, 10, 12, 14, 16, 18):
        study = Study(terms=5, seeds=seeds, gains=gains(1, 2))
        yield Scenario("gain of two, one of five terms", study, 400, claim)
        study = Study(terms=5, seeds=seeds, gains=gains(5, 2))
        yield Scenario("gain of two, all of five terms", study, 400, claim)
    never: Bounds = {"claim: no": ("at most", ALPHA)}
    yield Scenario("gain of one, one term, one primary", Study(gains=gains(1, 1, ONE)), 1000, claim, never, ONE)
    yield Scenario("gain of one, one term, two primaries", Study(gains=gains(1, 1)), 1000, claim, never)
    yield Scenario("gain of one, all of five terms", Study(terms=5, gains=gains(5, 1)), 400, claim, never)
    yield Scenario("gain of one, one of five terms", Study(terms=5, gains=gains(1, 1)), 400, claim, never)
    study = Study(terms=5, gains=gains(1, 1, ONE))
    yield Scenario("gain of one by one primary, one of five terms", study, 400, claim, never)
    alone = {"term-1": {"absorption": 3.0}}
    yield Scenario("less absorption, parents found as often", Study(gains=alone), 400, claim, {}, ("absorption",))


def guard_scenarios() -> Iterator[Scenario]:
    """A gain, or a loss, of three spreads, with the recall of rare factors equal, at the bound, or given up."""
    language = FOREST | {"recall_rarest": LANGUAGE_RARE}
    for world, levels in (("forest", FOREST), ("language", language)):
        rare = levels["recall_rarest"]
        for kept in (1.0, 0.9, 0.7):
            said = {1.0: "equal", 0.9: "at the bound", 0.7: "given up"}[kept]
            for seeds in (3, 10, 16) if kept == 1.0 else (10,):
                shift = {"f1": 3.0, "recall_rarest": (kept - 1) * rare.mean / rare.spread}
                study = Study(seeds=seeds, gains={"term-1": shift}, levels=levels)
                yield Scenario(f"guard, gain, rare recall {said}, {world}", study, 400, claim, {}, ONE)
            # The side that is ahead is the base here, and keeps this share of the term's recall.
            shift = {"f1": -3.0, "recall_rarest": (1 / kept - 1) * rare.mean / rare.spread}
            study = Study(gains={"term-1": shift}, levels=levels)
            yield Scenario(f"guard, loss, rare recall {said}, {world}", study, 400, claim, {}, ONE)


def gate_scenarios() -> Iterator[Scenario]:
    """Scores that tell nothing, or something, about how good a dictionary is."""
    flat = {name: dict(of) | {"f1": 0.0} for name, of in STANDARD.items()}
    never, ever = {"passed": ("at most", ALPHA)}, {"passed": ("at least", 0.8)}
    controls = lambda name, f1: {name: {**CONTROLS[name], "f1": f1}}
    at = lambda untrained, truth: flat | controls("untrained", untrained) | controls("truth", truth)
    for terms in (0, 5, 20):
        study = Study(terms=terms, gains=at(0.0, 20.0))
        yield Scenario(f"gate, untrained equals {terms + 3} trained", study, 400, through_gate, never, ONE)
    for seeds in (3, 5):
        study = Study(terms=5, seeds=seeds, gains=at(0.0, 20.0))
        yield Scenario("gate, untrained equals 8 trained", study, 400, through_gate, never, ONE)
    yield Scenario("gate, truth equals 8 trained", Study(terms=5, gains=at(-20, 0)), 400, through_gate, never, ONE)
    for seeds, gap in ((10, 1.0), (10, 2.0), (10, 3.0), (3, 3.0), (3, 20.0)):
        study = Study(terms=5, seeds=seeds, gains=at(-gap, gap))
        must = ever if (seeds, gap) in ((10, 3.0), (3, 20.0)) else {}
        yield Scenario(f"gate, a valid score, {gap:g} spreads apart", study, 400, through_gate, must, ONE)
    same = STANDARD | {"matryoshka": {"absorption": 0.0, "f1": -6.0}}
    yield Scenario(
        "gate, a known fact that does not hold", Study(gains=same), 400, through_gate, never, ("absorption",)
    )


def others() -> Iterator[Scenario]:
    """Every standard SAE at once, and noise that is not normal."""
    never: Bounds = {"beats all": ("at most", ALPHA)}
    best = STANDARD | {"topk": {"f1": 3.0}}
    for name, gain, must in (("equals the best", 3.0, never), ("beats the best by one", 4.0, {}), ("by two", 5.0, {})):
        study = Study(gains=best | {"term-1": {"f1": gain}})
        yield Scenario(f"against all, {name}", study, 400, beats_all, must, ONE)
    alike = {name: dict(of) | {"f1": 0.0} for name, of in STANDARD.items()}
    yield Scenario("against all, equals each", Study(gains=alike), 400, beats_all, never, ONE)
    for law in ("normal", "t3", "skewed up", "skewed down"):
        for seeds in (10,) if law in ("normal", "t3") else (10, 16):
            for gain in (0.0, 1.0):
                study = Study(seeds=seeds, noise=law, gains={"term-1": {"f1": gain}})
                event = "better" if gain == 0 else "equivalent"
                name = f"noise {law}, gain of {gain:g}"
                yield Scenario(name, study, 1000, one_contrast, {event: ("at most", ALPHA)}, ONE)


def committed() -> Iterator[Scenario]:
    """Matryoshka, and a dictionary made from the truth, with the differences that committed rows have."""
    for file, world, d_sae in (("objectives", "forest", 384), ("comparison", "language", 512)):
        rows = json.loads(Path(f"docs/results/{file}.json").read_text())
        scores = scores_of_rows([r for r in chosen(rows, world=world) if r["d_sae"] == d_sae or r["method"] == "truth"])
        levels, differences = measured(scores)
        for name, shifts in differences.items():
            study = Study(gains={"term-1": shifts}, levels=levels)
            for primary in BOTH:
                yield Scenario(f"{name} of {file}, {world}, by {primary}", study, 400, claim, {}, (primary,))


def measured(scores: Scores) -> tuple[dict[str, Level], dict[str, dict[str, float]]]:
    """Levels and spreads of a testbed by its terms, and its positive controls' differences in spreads."""
    by_name = {m.short: m for m in scores.methods}
    base, compared = by_name[BASELINE], [m for m in scores.methods if m.role == "compared"]
    levels: dict[str, Level] = {}
    differences: dict[str, dict[str, float]] = {"matryoshka": {}} | ({"truth": {}} if "truth" in by_name else {})
    for short in FOREST:
        quantity = quantity_of(short)
        known = [c for m in compared if (c := contrast(scores, m, base, quantity)).enough]
        spread = math.sqrt(math.fsum(c.tested.sd**2 for c in known) / len(known))
        levels[short] = Level(known[0].other_value, spread)
        for name, shifts in differences.items():
            values = [v for run in by_name[name].runs if math.isfinite(v := scores.value(run, quantity))]
            if values:
                change = math.fsum(values) / len(values) - levels[short].mean
                shifts[short] = round((quantity.sign or 1) * change / spread, 2)
    return levels, differences


# ---- running


def row_of(scenario: Scenario, studies: int) -> dict[str, Any]:
    """Simulate a scenario's studies, and count."""
    start, hits, chances = time.monotonic(), Counter[str](), Counter[str]()
    alone = scenario.reader in (claim, one_contrast) and scenario.smallest is not None
    study = replace(scenario.study, alone=alone)
    for index in range(studies):
        stream = np.random.default_rng([zlib.crc32(scenario.name.encode()), scenario.study.seeds, index])
        for event, (count, of) in scenario.reader(simulated(study, stream), scenario).items():
            hits[event] += count
            chances[event] += of
    events = {event: rate(hits[event], of, studies) for event, of in chances.items()}
    return {
        "scenario": scenario.name, "seeds": scenario.study.seeds, "terms": scenario.study.terms,
        "primaries": list(scenario.primaries), "studies": studies, "events": events,
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def rate(hits: int, of: int, studies: int) -> dict[str, float]:
    """A rate with its exact 95 % interval; of contrasts, which share a base, as if a study had one."""
    n = min(of, studies)
    k = n * hits / of
    low = stats.beta.ppf((1 - LEVEL) / 2, k, n - k + 1) if k > 0 else 0.0
    high = stats.beta.ppf((1 + LEVEL) / 2, k + 1, n - k) if k < n else 1.0
    return {
        "hits": hits,
        "of": of,
        "rate": round(hits / of, 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def judged_row(row: dict[str, Any], must: Bounds) -> dict[str, Any]:
    """A row with what is asked of its rates: missed where the whole interval is on the wrong side."""
    known = {e: rate(of["hits"], of["of"], row["studies"]) for e, of in row["events"].items()}
    kept = lambda of, how, bound: of["low"] <= bound if how == "at most" else of["high"] >= bound
    bounds = {e: {how: b, "met": kept(known[e], how, b)} for e, (how, b) in must.items()}
    return row | {"events": known, "must": bounds}


def run(out: Path | None, only: str = "", studies: int | None = None) -> list[dict[str, Any]]:
    """Make the rows that are missing, in the order of the scenarios; print each, and write all after each."""
    gc.freeze()  # statsmodels collects garbage at every correction: of what was imported there is none to find
    known = {(r["scenario"], r["seeds"]): r for r in (json.loads(out.read_text()) if out and out.exists() else [])}
    every = list(scenarios())
    wanted = [s for s in every if only in s.name]
    for index, scenario in enumerate(wanted):
        count, row, made = studies or scenario.studies, known.get(scenario.key), False
        if row is None or row["studies"] != count:
            row, made = row_of(scenario, count), True
        known[scenario.key] = row = judged_row(row, scenario.must)
        if made:
            print(f"[{index + 1}/{len(wanted)}] {line_of(row)}", flush=True)
        if out:
            kept = [known[s.key] for s in every if s.key in known]
            out.write_text("[\n" + ",\n".join(json.dumps(r) for r in kept) + "\n]\n")
    return [known[s.key] for s in wanted]


def line_of(row: Mapping[str, Any]) -> str:
    """A row in one line."""
    rates = ", ".join(f"{event} {of['rate']:.3f}" for event, of in row["events"].items() if of["hits"])
    missed = [event for event, of in row["must"].items() if not of["met"]]
    failed = f"; MISSED: {', '.join(missed)}" if missed else ""
    return f"{row['scenario']}, {row['seeds']} seeds, {row['seconds']} s: {rates}{failed}"


TABLE = {
    "placebo, one term": ("null: equivalent", "null: any better", "claim: yes", "claim: no", "claim: undecided"),
    "placebo, five terms": ("null: equivalent", "null: any better", "claim: yes", "claim: no", "claim: undecided"),
    "placebo, eleven terms": ("null: equivalent", "null: any better", "claim: yes", "claim: no", "claim: undecided"),
    "gain of two, one term, one primary": ("planted: better", "planted: materially better"),
    "gain of two, one of five terms": ("planted: better", "planted: materially better"),
    "gain of two, all of five terms": ("planted: better", "planted: materially better"),
    "gain of one, one term, one primary": ("claim: no", "claim: yes"),
    "gain of one, all of five terms": ("claim: no", "claim: yes"),
    "gain of one, one of five terms": ("claim: no", "claim: yes"),
    "gain of one by one primary, one of five terms": ("claim: no", "claim: yes"),
    "less absorption, parents found as often": ("planted: better", "planted: in doubt", "planted: void"),
    "guard, gain, rare recall equal, forest": ("planted: better", "planted: in doubt", "planted: void"),
    "guard, loss, rare recall equal, forest": ("planted: worse", "planted: in doubt", "planted: void"),
    "guard, gain, rare recall at the bound, forest": ("planted: better", "planted: in doubt", "planted: void"),
    "guard, gain, rare recall given up, forest": ("planted: better", "planted: in doubt", "planted: void"),
    "guard, loss, rare recall given up, forest": ("planted: worse", "planted: in doubt", "planted: void"),
    "guard, gain, rare recall equal, language": ("planted: better", "planted: in doubt", "planted: void"),
    "guard, gain, rare recall given up, language": ("planted: better", "planted: in doubt", "planted: void"),
    "gate, untrained equals 3 trained": ("passed",),
    "gate, untrained equals 8 trained": ("passed",),
    "gate, truth equals 8 trained": ("passed",),
    "gate, a valid score, 1 spreads apart": ("passed",),
    "gate, a valid score, 2 spreads apart": ("passed",),
    "gate, a valid score, 3 spreads apart": ("passed",),
    "against all, equals the best": ("beats all",),
    "against all, beats the best by one": ("beats all",),
    "noise normal, gain of 0": ("better", "better by flips", "worse", "worse by flips"),
    "noise t3, gain of 0": ("better", "better by flips", "worse", "worse by flips"),
    "noise skewed down, gain of 0": ("better", "better by flips", "worse", "worse by flips"),
    "noise t3, gain of 1": ("equivalent",),
    "noise skewed up, gain of 1": ("equivalent",),
    "matryoshka of objectives, forest, by absorption": ("planted: better", "planted: void"),
    "truth of objectives, forest, by f1": ("planted: materially better",),
    "truth of objectives, forest, by absorption": ("planted: materially better",),
}
"""The rates that the documentation shows, by scenario."""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rates of `TABLE`, as a table for the documentation."""
    lines = ["| simulated | seeds | studies | how often | bound |", "|---|---|---|---|---|"]
    for row in rows:
        events = [event for event in TABLE.get(row["scenario"], ()) if event in row["events"]]
        said = "; ".join(f"{event} {shown(row['events'][event])}" for event in events)
        bounds = [(e, how, of[how]) for e, of in row["must"].items() for how in of if how != "met" and e in events]
        wanted = "; ".join(f"{event} {how} {bound:.0%}" for event, how, bound in bounds)
        if said:
            lines.append(f"| {row['scenario']} | {row['seeds']} | {row['studies']} | {said} | {wanted} |")
    return "\n".join(lines)


def shown(of: Mapping[str, float]) -> str:
    """A rate and its interval in per cent."""
    return f"{100 * of['rate']:.1f} % [{100 * of['low']:.1f}, {100 * of['high']:.1f}]"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("run", "table"), default="run")
    parser.add_argument("path", nargs="?", type=Path, help="of the table")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="a part of scenarios' names")
    parser.add_argument("--studies", type=int, help="in place of each scenario's own number")
    options = parser.parse_args()
    if options.command == "table":
        print(table(json.loads(options.path.read_text())))
        return
    run(options.out, options.only, options.studies)


if __name__ == "__main__":
    main()
