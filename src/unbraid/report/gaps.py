"""What was not tested, failed or is missing, each with its reason."""

import math
from dataclasses import dataclass

from unbraid.comparison.compare import AXES, Scores
from unbraid.comparison.guards import unmeasured
from unbraid.comparison.intervals import FEWEST_SEEDS
from unbraid.comparison.stored_scores import EVERY_EVAL, LOG, StoredRun, Study
from unbraid.comparison.verdict import Answer
from unbraid.comparison.wording import listed, number, plural
from unbraid.objective.l0_control import TOLERANCE

MOST_TOLD = 200
"""Methods and points that could not be compared which are listed one by one."""


@dataclass(frozen=True)
class Gap:
    kind: str
    what: str
    reason: str
    runs: list[str]


def gaps(study: Study, scores: Scores, answers: list[Answer]) -> list[Gap]:
    return [
        *holes(study), *not_a_number(study), *unscored(study), *too_few_seeds(scores), *missed_targets(scores),
        *designs(scores, answers),
    ]  # fmt: skip


def holes(study: Study) -> list[Gap]:
    """Errors and evals that do not apply, runs of one reason together."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for hole in study.holes:
        groups.setdefault((hole.kind, hole.eval, hole.reason), []).append(hole.run)
    return [Gap(kind, name, reason, runs) for (kind, name, reason), runs in sorted(groups.items())]


def not_a_number(study: Study) -> list[Gap]:
    groups: dict[str, list[str]] = {}
    for row in study.records:
        if not math.isnan(row["value"]):
            continue
        groups.setdefault(f"{row['eval']}: {row['metric']}", []).append(str(row["run"]))
    return [Gap("NaN", what, "the eval ran and gave NaN; left out of means, and of curves", list(dict.fromkeys(runs)))
            for what, runs in groups.items()]  # fmt: skip


def unscored(study: Study) -> list[Gap]:
    """Evals that some runs have a result of and others have none."""
    have: dict[str, set[str]] = {}
    for hole in study.holes:
        if hole.eval not in (LOG, EVERY_EVAL):
            have.setdefault(hole.eval, set()).add(hole.run)
    for row in study.records:
        have.setdefault(row["eval"], set()).add(row["run"])
    if not have:
        reason = "no results were stored: score the runs first"
        return [Gap("not scored", EVERY_EVAL, reason, [run.run for run in study.runs])]
    found = []
    for name, runs in sorted(have.items()):
        without = [run.run for run in study.runs if run.run not in runs]
        if without:
            found.append(Gap("not scored", name, "no result was stored for some runs", without))
    return found


def too_few_seeds(scores: Scores) -> list[Gap]:
    few = [
        (name, len({run.seed for run in runs}))
        for method in scores.methods
        for name, runs in method.settings.items()
        if len({run.seed for run in runs}) < FEWEST_SEEDS
    ]
    if not few:
        return []
    names = listed([f"{name} ({plural(n, 'seed')})" for name, n in few])
    return [Gap("few seeds", names, f"below {FEWEST_SEEDS} seeds there is no interval and no claim", [])]


def missed_targets(scores: Scores) -> list[Gap]:
    """Runs that did not reach the L0 they were to be trained to, those of one setting together."""
    groups: dict[str, list[StoredRun]] = {}
    for run in scores.missed:
        groups.setdefault(run.name, []).append(run)
    return [
        Gap(
            "missed L0",
            f"{name}: {runs[0].target_l0:g} asked for, {listed([number(scores.reached(run)) for run in runs])} reached",
            f"more than {TOLERANCE:.0%} off, so it is shown and compared with nothing; train longer",
            [run.run for run in runs],
        )
        for name, runs in groups.items()
    ]


def designs(scores: Scores, answers: list[Answer]) -> list[Gap]:
    """Comparisons this set of runs cannot make."""
    found = []
    for axis, wanted in AXES:
        if scores.first(wanted) is None:
            found.append(Gap("not tested", f"matched {axis}", "the runs have no such score", []))
    if missing := unmeasured(scores):
        reason = "the runs have no such score, so wins were not checked for what it would show"
        found.append(Gap("not tested", f"guards against void wins: {listed(missing)}", reason, []))
    if not scores.having("control"):
        found.append(Gap("not tested", "controls", "no control was run: what is trivial is not known", []))
    for answer in answers:
        missed: dict[str, set[str]] = {}
        for c in answer.all:
            if c.word == "not comparable":
                missed.setdefault(f"{c.method} at {c.point.axis} {c.point.at:.3g}", set()).add(c.note)
        told = [Gap("not comparable", what, "; ".join(sorted(notes)), []) for what, notes in missed.items()]
        found += told[:MOST_TOLD]
        if (more := len(told) - MOST_TOLD) > 0:
            found.append(Gap("not comparable", f"{more:,} more methods and points", "for reasons like these", []))
    runs = [run for method in scores.methods for run in method.runs]
    lost = [run.run for run in runs if scores.l0 is None or math.isnan(scores.value(run, scores.l0))]
    if lost:
        found.append(Gap("not comparable", "runs without an L0 score", "they cannot be drawn or matched", lost))
    return found
