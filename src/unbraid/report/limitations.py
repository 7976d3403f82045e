"""Limitations of a report: everything that was not tested, failed or is missing, with the reason."""

import math
from dataclasses import dataclass

from unbraid import catalog
from unbraid.comparison.guards import unmeasured_guards
from unbraid.comparison.intervals import FEWEST_SEEDS
from unbraid.comparison.names import score_name
from unbraid.comparison.quantities import AXES
from unbraid.comparison.scores import Scores
from unbraid.comparison.stored_scores import EVERY_EVAL, LOG, StoredRun, StoredScores
from unbraid.comparison.verdict import Answer
from unbraid.comparison.wording import listed, number, plural
from unbraid.objective.l0_control import TOLERANCE

MOST_LISTED = 200
"""Largest number of methods without comparison that are listed one by one."""


@dataclass(frozen=True)
class Limitation:
    """One thing that was not tested, failed or is missing, with the runs concerned."""

    kind: str
    what: str
    reason: str
    runs: list[str]


def limitations(stored: StoredScores, scores: Scores, answers: list[Answer]) -> list[Limitation]:
    """List everything that weakens or limits the report on one source."""
    return [
        *without_scores(stored), *not_a_number(stored), *unscored(stored), *too_few_seeds(scores),
        *missed_targets(scores), *designs(scores, answers),
    ]  # fmt: skip


def without_scores(stored: StoredScores) -> list[Limitation]:
    """List errors and evals that do not apply, grouped by reason."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for result in stored.missing_results:
        groups.setdefault((result.kind, result.eval, result.reason), []).append(result.run)
    return [Limitation(kind, name, reason, runs) for (kind, name, reason), runs in sorted(groups.items())]


def not_a_number(stored: StoredScores) -> list[Limitation]:
    """List metrics that are NaN for some runs."""
    groups: dict[str, list[str]] = {}
    for row in stored.records:
        if not math.isnan(row["value"]):
            continue
        groups.setdefault(f"{row['eval']}: {row['metric']}", []).append(str(row["run"]))
    reason = "the eval ran and gave NaN; left out of means, and of curves"
    return [Limitation("NaN", what, reason, list(dict.fromkeys(runs))) for what, runs in groups.items()]


def unscored(stored: StoredScores) -> list[Limitation]:
    """List evals of which some runs have a result and others have none.

    Those that run only when they are named are left out: they were run where somebody wanted them.
    """
    have: dict[str, set[str]] = {}
    named = catalog.evals().keys() - catalog.default_evals().keys()
    for result in stored.missing_results:
        if result.eval not in (LOG, EVERY_EVAL):
            have.setdefault(result.eval, set()).add(result.run)
    for row in stored.records:
        have.setdefault(row["eval"], set()).add(row["run"])
    if not have:
        reason = "no results were stored: score the runs first"
        return [Limitation("not scored", EVERY_EVAL, reason, [run.run for run in stored.runs])]
    found = []
    for name, runs in sorted(have.items()):
        if name in named:
            continue
        without = [run.run for run in stored.runs if run.run not in runs]
        if without:
            found.append(Limitation("not scored", name, "no result was stored for some runs", without))
    return found


def too_few_seeds(scores: Scores) -> list[Limitation]:
    """List settings with too few seeds for an interval."""
    few = [
        (name, len({run.seed for run in runs}))
        for method in scores.methods
        for name, runs in method.settings.items()
        if len({run.seed for run in runs}) < FEWEST_SEEDS
    ]
    if not few:
        return []
    names = listed([f"{name} ({plural(n, 'seed')})" for name, n in few])
    return [Limitation("few seeds", names, f"below {FEWEST_SEEDS} seeds there is no interval and no claim", [])]


def missed_targets(scores: Scores) -> list[Limitation]:
    """List runs that missed their target L0, grouped by setting."""
    groups: dict[str, list[StoredRun]] = {}
    for run in scores.missed:
        groups.setdefault(run.name, []).append(run)
    return [
        Limitation(
            "missed L0",
            f"{name}: target {runs[0].target_l0:g}, reached {listed([number(scores.reached_l0(run)) for run in runs])}",
            f"more than {TOLERANCE:.0%} off, so it is shown and compared with nothing; train longer",
            [run.run for run in runs],
        )
        for name, runs in groups.items()
    ]


def designs(scores: Scores, answers: list[Answer]) -> list[Limitation]:
    """List the comparisons that this set of runs cannot make."""
    found = []
    for axis, wanted in AXES:
        if scores.find(wanted) is None:
            found.append(Limitation("not tested", f"matched {axis}", "the runs have no such score", []))
    if missing := unmeasured_guards(scores):
        reason = "the runs have no such score, so gains were not checked for what it would show"
        found.append(
            Limitation("not tested", f"guards against void gains: {listed([*map(score_name, missing)])}", reason, [])
        )
    if scores.quantities and not any(q.reference for q in scores.quantities):
        reason = "none is stored with these scores, so the gate shows less than it could"
        found.append(Limitation("not tested", "against chance and ceilings", reason, []))
    if not scores.with_role("control"):
        found.append(
            Limitation("not tested", "controls", "no control was run, so trivial scores cannot be recognised", [])
        )
    for answer in answers:
        missed: dict[str, set[str]] = {}
        primaries = [j for said in answer.verdicts for term in said.terms for j in term.primaries]
        for j in [*primaries, *answer.exploratory]:
            if j.word == "not compared":
                c = j.contrast
                missed.setdefault(f"{c.method} with {c.other} at equal {c.axis}", set()).add(c.note)
        for name in answer.orphans:
            missed[f"{name} with a base of its own"] = {"no standard SAE here is this method without its term"}
        listing = [Limitation("not compared", what, "; ".join(sorted(notes)), []) for what, notes in missed.items()]
        found += listing[:MOST_LISTED]
        if (more := len(listing) - MOST_LISTED) > 0:
            found.append(Limitation("not compared", f"{more:,} more methods", "for reasons like these", []))
    runs = [run for method in scores.methods for run in method.runs]
    lost = [run.run for run in runs if scores.l0 is None or math.isnan(scores.value(run, scores.l0))]
    if lost:
        found.append(Limitation("not compared", "runs without an L0 score", "they cannot be drawn or matched", lost))
    return found
