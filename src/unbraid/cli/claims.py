"""The commands about claims: register a card, and say the power of a comparison."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unbraid import catalog
from unbraid.cli.arguments import PowerFlags, RegisterFlags
from unbraid.cli.calls import Call
from unbraid.cli.resolve import packages, run_folders
from unbraid.system.terminal import say

if TYPE_CHECKING:
    from rich.table import Table

    from unbraid.comparison.quantities import Quantity
    from unbraid.comparison.scores import Scores
    from unbraid.comparison.tuning import Choice
    from unbraid.experiment.factorial import Factorial

SEEDS = (3, 5, 8, 10, 16)
"""Numbers of seeds for which the smallest difference found is printed."""
WIDTH = 80
"""Columns of sentences that are printed."""


def run_register(call: Call[RegisterFlags]) -> int:
    """Register a claim card on its calibration runs, and print what was fixed; the exit code."""
    from unbraid.comparison.card import read_card
    from unbraid.comparison.registration import register, registration_path
    from unbraid.comparison.stored_scores import read_scores

    options = call.options
    card = read_card(options.card)
    study = factorial_named(card.study, packages(options))
    made = register(options.card, study, read_scores(run_folders(options.runs)))
    lines = [f"registered {options.card} on {made.registered}", f"  SHA-256 {made.sha256}", "", "gate"]
    lines += [laid_out(result.sentence) for result in made.gate]
    lines += ["", "chosen on calibration seeds (gain over the base in smallest effects of interest; FVU in the base's)"]
    lines += [laid_out(chosen_text(choice)) for choice in made.chosen.values()]
    lines += ["", "power", *(laid_out(power.sentence) for power in made.power)]
    lines += ["", f"written to {registration_path(options.card)}; commit it with the card before the runs"]
    say("\n".join(lines))
    return 0


def chosen_text(choice: "Choice") -> str:
    """The setting chosen for a method, and what it was chosen by, in words."""
    from unbraid.comparison.wording import number, signed, significant

    dose = f", dose {number(choice.dose)}" if math.isfinite(choice.dose) else ""
    worth = signed(choice.worth, significant(choice.worth, 2)) if math.isfinite(choice.worth) else "unknown"
    note = f"; {choice.note}" if choice.note else ""
    return (
        f"{choice.method}: {choice.setting.text}, of {choice.tried} tried: gain {worth}, FVU × "
        f"{number(choice.fvu_ratio)}{dose}{note}"
    )


def laid_out(text: str) -> str:
    """A sentence in lines that a terminal shows whole, indented."""
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)


def factorial_named(name: str, allowed: tuple[str, ...]) -> "Factorial":
    """The factorial study of a name. Raises ValueError for what is none."""
    from unbraid.experiment.factorial import Factorial

    made = catalog.make(catalog.pick(name, catalog.experiments(allowed), "factorial study"))
    if not isinstance(made, Factorial):
        raise ValueError(f"{name} is no factorial study, and only those are calibrated and tested on seeds apart")
    return made


def run_power(call: Call[PowerFlags]) -> int:
    """Print how many seeds a difference needs, score by score; the exit code."""
    from rich.console import Console

    from unbraid.comparison.scores import arrange
    from unbraid.comparison.stored_scores import read_scores

    options, console = call.options, Console(highlight=False)
    stored = read_scores(run_folders(options.runs))
    beds = [(bed, arrange(stored.of(bed))) for bed in dict.fromkeys(run.source for run in stored.runs)]
    found = [(bed, d_sae, power_rows(scores, d_sae, options)) for bed, scores in beds for d_sae in scores.widths]
    for testbed, d_sae, rows in found:
        say("\n".join(textwrap.wrap(f"{testbed}, {d_sae:,} latents", WIDTH, max_lines=2, placeholder=" …")))
        for table in power_tables(rows):
            console.print()
            console.print(table)
        console.print()
    say(laid_out(about_power(options)))
    return 0


@dataclass(frozen=True)
class PowerRow:
    """The power by one score."""

    score: str
    sd: float
    effect: float
    """The difference to find; NaN when none is known."""
    to_find: int | None
    """Seeds; None above a thousand."""
    to_equate: int | None
    found: tuple[float, ...]
    """The smallest difference found with each of SEEDS."""


def power_rows(scores: "Scores", d_sae: int, options: PowerFlags) -> list[PowerRow]:
    """The power by each score at one width. Raises ValueError when no score has a spread over seeds."""
    from unbraid.comparison.card import score_name
    from unbraid.comparison.intervals import FEWEST_SEEDS, LEVEL
    from unbraid.comparison.power import detectable, seeds_for_equivalence, seeds_needed
    from unbraid.comparison.smallest_effect import smallest_effects

    smallest, alpha, rows = smallest_effects(scores, d_sae), (1 - LEVEL) / options.comparisons, list[PowerRow]()
    for metric in asked(scores, options.scores):
        sd = spread(scores, d_sae, metric)
        effect = options.effect or (smallest[metric].value if metric in smallest else math.nan)
        known = math.isfinite(effect) and effect > 0 and math.isfinite(sd)
        rows.append(
            PowerRow(
                score_name(metric),
                sd,
                effect if known else math.nan,
                seeds_needed(effect, sd, alpha) if known else None,
                seeds_for_equivalence(effect, sd) if known else None,
                tuple(detectable(sd, n, alpha) for n in SEEDS),
            )  # fmt: skip
        )
    if not any(math.isfinite(row.sd) for row in rows):
        raise ValueError(
            f"no method here shares {FEWEST_SEEDS} seeds with its base by any of these scores, so no spread is known; "
            "give the scored runs of more seeds, of methods and their bases"
        )
    return rows


def power_tables(rows: Sequence[PowerRow]) -> "list[Table]":
    """The seeds that differences need, and the differences that numbers of seeds find: two tables of 80 columns."""
    from rich import box
    from rich.table import Table

    from unbraid.comparison.wording import number

    shown = lambda value: number(value) if math.isfinite(value) else "–"
    count = lambda seeds, row: "–" if math.isnan(row.effect) else "over 1,000" if seeds is None else f"{seeds:,}"
    needs = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0, 0, 1))
    finds = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)  # seven columns, and names of 36 letters
    needs.add_column("score", overflow="fold")
    finds.add_column("smallest difference found with", overflow="fold")
    for title in ("spread", "difference", "seeds to\nfind it", "seeds to\nequate"):
        needs.add_column(title, justify="right", no_wrap=True)
    for n in SEEDS:
        finds.add_column(f"{n}\nseeds", justify="right", no_wrap=True)
    for row in rows:
        needs.add_row(row.score, shown(row.sd), shown(row.effect), count(row.to_find, row), count(row.to_equate, row))
        finds.add_row(row.score, *map(shown, row.found))
    return [needs, finds]


def about_power(options: PowerFlags) -> str:
    """Say what the columns of the tables of power are."""
    from unbraid.comparison.power import POWER

    difference = "the one given" if options.effect else "the smallest effect of interest (docs/judging.md)"
    many = f", corrected for {options.comparisons} comparisons" if options.comparisons > 1 else ""
    return (
        f"Spread: standard deviation over seeds of a method's difference from its base, over all settings here. "
        f"Difference: {difference}. Found: by a paired t-test in {POWER:.0%} of studies{many}. Equated: two equal "
        f"methods are called equivalent in {POWER:.0%}. –: not known."
    )


def asked(scores: "Scores", names: Sequence[str]) -> "list[Quantity]":
    """The scores that are named, or all headline scores. Raises ValueError for one that no run has."""
    from unbraid.comparison.card import no_score, selector_of

    if not names:
        return [q for q in scores.headline if q.sign]
    found = []
    for name in names:
        metric = scores.find(selector_of(name))
        if metric is None:
            raise ValueError(no_score(name, scores.quantities))
        found.append(metric)
    return found


def spread(scores: "Scores", d_sae: int, metric: "Quantity") -> float:
    """The pooled standard deviation over seeds of a difference from the own base, of standard SAEs from BatchTopK where
    no term was added to anything; NaN where no pair has enough seeds."""
    from unbraid.comparison.contrast import contrast
    from unbraid.comparison.power import pooled
    from unbraid.comparison.scores import standard_named
    from unbraid.comparison.smallest_effect import REFERENCE
    from unbraid.comparison.verdict import paired_with_bases

    pairs, _ = paired_with_bases(scores, d_sae)
    reference = standard_named(scores, d_sae, REFERENCE)
    if not pairs and reference is not None:
        pairs = [(m, reference) for m in scores.with_role("standard", d_sae) if m.short != reference.short]
    return pooled(contrast(scores, own, base, metric).tested.sd for own, base in pairs)
