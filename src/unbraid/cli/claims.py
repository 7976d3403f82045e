"""The commands about claims: register a card, and say the power of a comparison."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unbraid import catalog
from unbraid.cli.arguments import PowerFlags, RegisterFlags
from unbraid.cli.calls import Call
from unbraid.cli.resolve import packages, run_folders
from unbraid.system.terminal import say

if TYPE_CHECKING:
    from unbraid.comparison.quantities import Quantity
    from unbraid.comparison.scores import Scores
    from unbraid.experiment.factorial import Factorial

SEEDS = (3, 5, 8, 10, 16, 24)
"""Numbers of seeds for which the smallest difference found is printed."""


def run_register(call: Call[RegisterFlags]) -> int:
    """Register a claim card on its calibration runs, and print what was fixed; the exit code."""
    from unbraid.comparison.card import read_card
    from unbraid.comparison.registration import register, registration_path
    from unbraid.comparison.stored_scores import read_scores
    from unbraid.comparison.wording import number

    options = call.options
    card = read_card(options.card)
    study = factorial_named(card.study, packages(options))
    made = register(options.card, study, read_scores(run_folders(options.runs)))
    lines = [f"registered {options.card} on {made.registered}", f"  SHA-256   {made.sha256}", "gate"]
    lines += [f"  {result.sentence}" for result in made.gate]
    lines += ["chosen on calibration seeds"]
    for choice in made.chosen.values():
        dose = f", dose {number(choice.dose)}" if math.isfinite(choice.dose) else ""
        lines.append(
            f"  {choice.method}: {choice.setting.text}, of {choice.tried} tried (worth {number(choice.worth)} smallest "
            f"effects, FVU {number(choice.fvu_ratio)} of its base's{dose}){': ' if choice.note else ''}{choice.note}"
        )
    lines += ["power", *(f"  {power.sentence}" for power in made.power)]
    lines += [f"written to {registration_path(options.card)}; commit both before the runs"]
    say("\n".join(lines))
    return 0


def factorial_named(name: str, allowed: tuple[str, ...]) -> "Factorial":
    """The factorial study of a name. Raises ValueError for what is none."""
    from unbraid.experiment.factorial import Factorial

    made = catalog.make(catalog.pick(name, catalog.experiments(allowed), "factorial study"))
    if not isinstance(made, Factorial):
        raise ValueError(f"{name} is no factorial study, and only those are calibrated and tested on seeds apart")
    return made


def run_power(call: Call[PowerFlags]) -> int:
    """Print how many seeds a difference needs, score by score; the exit code."""
    from unbraid.comparison.scores import arrange
    from unbraid.comparison.stored_scores import read_scores

    stored = read_scores(run_folders(call.options.runs))
    for testbed in dict.fromkeys(run.source for run in stored.runs):
        scores = arrange(stored.of(testbed))
        for d_sae in scores.widths:
            say(f"{testbed[:100]}, {d_sae:,} latents")
            say("\n".join(power_lines(scores, d_sae, call.options)))
    return 0


def power_lines(scores: "Scores", d_sae: int, options: PowerFlags) -> list[str]:
    """The power by each score, as lines of a table."""
    from unbraid.comparison.intervals import LEVEL
    from unbraid.comparison.power import detectable, seeds_for_equivalence, seeds_needed
    from unbraid.comparison.smallest_effect import smallest_effects
    from unbraid.comparison.wording import number

    smallest = smallest_effects(scores, d_sae)
    alpha = (1 - LEVEL) / options.comparisons
    rows = [["score", "sd", "smallest effect", "seeds to find it", "seeds for equivalence",
             *(f"found with {n}" for n in SEEDS)]]  # fmt: skip
    for metric in asked(scores, options.scores):
        sd, pairs = spread(scores, d_sae, metric)
        effect = options.effect or (smallest[metric].value if metric in smallest else math.nan)
        if not math.isfinite(sd):
            rows.append([metric.label, f"too few seeds in {pairs} pairs of methods"])
            continue
        known = math.isfinite(effect) and effect > 0
        needed = seeds_needed(effect, sd, alpha) if known else None
        same = seeds_for_equivalence(effect, sd) if known else None
        rows.append([
            metric.label, number(sd), number(effect) if known else "unknown", count(needed, known),
            count(same, known), *(number(detectable(sd, n, alpha)) for n in SEEDS),
        ])  # fmt: skip
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) for row in rows]


def count(seeds: int | None, known: bool) -> str:
    """A number of seeds in words."""
    return ("over 1,000" if seeds is None else str(seeds)) if known else "unknown"


def asked(scores: "Scores", names: Sequence[str]) -> "list[Quantity]":
    """The scores that are named, or all headline scores. Raises ValueError for one that no run has."""
    from unbraid.comparison.card import score_name, selector_of

    if not names:
        return [q for q in scores.headline if q.sign]
    found = []
    for name in names:
        metric = scores.find(selector_of(name))
        if metric is None:
            known = sorted({score_name(q) for q in scores.quantities if q.sign and not q.reference})
            raise ValueError(f"no run has the score {name!r}; there are {', '.join(known)}")
        found.append(metric)
    return found


def spread(scores: "Scores", d_sae: int, metric: "Quantity") -> tuple[float, int]:
    """The pooled standard deviation over seeds of a difference from the own base, of standard SAEs from BatchTopK where
    no term was added to anything; and the number of pairs."""
    from unbraid.comparison.contrast import contrast
    from unbraid.comparison.power import pooled
    from unbraid.comparison.scores import standard_named
    from unbraid.comparison.smallest_effect import REFERENCE
    from unbraid.comparison.verdict import paired_with_bases

    pairs, _ = paired_with_bases(scores, d_sae)
    reference = standard_named(scores, d_sae, REFERENCE)
    if not pairs and reference is not None:
        pairs = [(m, reference) for m in scores.with_role("standard", d_sae) if m.short != reference.short]
    return pooled(contrast(scores, own, base, metric).tested.sd for own, base in pairs), len(pairs)
