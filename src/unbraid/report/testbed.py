"""The part of a report on one testbed: its figures by theme, each with a sentence and its numbers, and its settings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unbraid.comparison.judgement import Judgement
from unbraid.comparison.mdl_selection import EVAL as DESCRIBED
from unbraid.comparison.names import capital
from unbraid.comparison.quantities import PRIMARIES, Quantity
from unbraid.comparison.scores import Scores
from unbraid.comparison.smallest_effect import SmallestEffect
from unbraid.comparison.stored_scores import Definition, StoredScores
from unbraid.comparison.verdict import Answer
from unbraid.report.contrast_figure import contrast_plot
from unbraid.report.costs import cost_plot
from unbraid.report.description_length import Selection, selection
from unbraid.report.dose_figure import dose_plot
from unbraid.report.figures import Plot
from unbraid.report.gate_figure import gate_plot
from unbraid.report.score_figures import score_plot
from unbraid.report.table import Reasons
from unbraid.report.tradeoff import tradeoff_plots
from unbraid.report.training_curves import training_plots
from unbraid.report.width import width_plots


@dataclass(frozen=True)
class Theme:
    """Scores that are about one thing, by the evals that give them."""

    title: str
    evals: tuple[str, ...]
    """Names of evals, or beginnings of names that end in an underscore."""

    def has(self, quantity: Quantity) -> bool:
        """True if the score belongs to the theme."""
        return any(quantity.eval == e or (e.endswith("_") and quantity.eval.startswith(e)) for e in self.evals)


THEMES = (
    Theme("Factors found", ("recovery", "disentanglement", "agreement")),
    Theme("Absorption and splitting", ("absorption", "probe_absorption", "splitting", "hedging", "memorisation")),
    Theme("Latents as knobs", ("controllability", "interchange", "dose", "stitching")),
    Theme("SAEBench", ("saebench_",)),
    Theme("Reconstruction", ("fidelity",)),
)
OTHERS = "Other scores"


@dataclass(frozen=True)
class PlotGroup:
    """Figures under one title."""

    title: str
    plots: list[Plot]
    about: str = ""
    """What to know of all of them."""
    more: tuple[Plot, ...] = ()
    """Figures that are folded."""


def plot_groups(
    stored: StoredScores, scores: Scores, answers: Sequence[Answer], described: Selection | None, *,
    registered: bool = False,
) -> list[PlotGroup]:  # fmt: skip
    """Draw everything that was measured on a testbed, what decides first."""
    texts = definition_texts(stored.definitions)
    groups = [
        PlotGroup("Can the scores be trusted?", list(judge_plots(answers, registered=registered)), GATE),
        PlotGroup("Dose and response", [p for a in answers if (p := dose_plot(scores, a.d_sae, primaries(a)))], DOSE),
        PlotGroup("What a gain costs", tradeoff_plots(scores, deciding(scores)), FRONT),
        PlotGroup("Wider dictionaries", width_plots(scores, texts), WIDER),
        *score_groups(stored, scores, answers, texts),
    ]
    if described is not None:
        groups.append(PlotGroup("Description length", described.plots, DESCRIPTION))
    costs = [plot for plot in (cost_plot(scores),) if plot is not None]
    groups.append(PlotGroup("Costs and training", costs, more=tuple(training_plots(scores))))
    return [group for group in groups if group.plots or group.more]


GATE = (
    "A score counts only if the truth is above the best trained method (scores of reconstruction excepted: the truth "
    "sees no noise) and a standard SAE above chance and all that was not trained, each by a 95 % interval."
)
DOSE = "A term that hardly reached what it asks for was hardly tried, and its null says little."
FRONT = (
    "Means over seeds with 95 % intervals; the dotted line joins what no other method beats on both axes. Controls may "
    "lie beyond the axes: zoom out, or see the numbers."
)
WIDER = "Means over seeds with 95 % intervals, against the number of latents."
DESCRIPTION = (
    "Bits a token at equal distortion: latents are rounded by the coarsest step that keeps it, and the settings that "
    "reach it with all seeds are compared (MDL-SAEs, arXiv 2410.11179, count factorised bits without the decoder)."
)


def judge_plots(answers: Sequence[Answer], *, registered: bool) -> Iterable[Plot]:
    """The gate, and what the procedure says of standard SAEs, at each width. `registered`: the gate is of the runs on
    which a claim card was registered, which are not among these."""
    for answer in answers:
        wide = f" at {answer.d_sae:,} latents" if len(answers) > 1 else ""
        gate = gate_plot(answer.gate, answer.smallest, None if registered else answer.d_sae)
        known = contrast_plot("Standard SAEs against BatchTopK", answer.standards, identifier="standards",
                              d_sae=answer.d_sae)  # fmt: skip
        for plot in (gate, known):
            if plot is not None:
                yield titled(plot, plot.title + wide)


def titled(plot: Plot, title: str) -> Plot:
    """Return a figure under another title."""
    return Plot(title, plot.caption, plot.figure, plot.reading, plot.table, plot.identifier)


def primaries(answer: Answer) -> list[Judgement]:
    """The judgements that decide claims."""
    return [j for said in answer.verdicts for term in said.terms for j in term.primaries]


def deciding(scores: Scores) -> list[Quantity]:
    """The scores that decide claims, as far as they were measured."""
    found = [scores.find(*line) for lines in PRIMARIES.values() for line in lines]
    return list(dict.fromkeys(q for q in found if q is not None and q.sign))


def score_groups(
    stored: StoredScores, scores: Scores, answers: Sequence[Answer], texts: Mapping[tuple[str, str], str]
) -> list[PlotGroup]:
    """A group a theme: its headline scores, and folded the others that its evals give."""
    reasons: Reasons = {(m.run, m.eval): f"{m.kind}: {m.reason}" for m in stored.missing_results}
    smallest: Mapping[Quantity, SmallestEffect] = answers[0].smallest if len(answers) == 1 else {}

    def drawn(quantities: Iterable[Quantity]) -> list[Plot]:
        plots = (score_plot(scores, q, texts.get((q.eval, q.metric), ""), smallest, reasons) for q in quantities)
        return [plot for plot in plots if plot is not None]

    rest = [q for q in scores.quantities if q not in scores.headline and not q.reference]
    rest = [q for q in rest if q.eval != DESCRIBED or not q.params]  # drawn against distortion
    known = lambda q: any(theme.has(q) for theme in THEMES)
    groups = [
        PlotGroup(theme.title, drawn(filter(theme.has, scores.headline)), more=tuple(drawn(filter(theme.has, rest))))
        for theme in THEMES
    ]
    others = [[q for q in found if not known(q)] for found in (scores.headline, rest)]
    return [*groups, PlotGroup(OTHERS, drawn(others[0]), more=tuple(drawn(others[1])))]


def definition_texts(definitions: Sequence[Definition]) -> dict[tuple[str, str], str]:
    """Definitions by eval and metric."""
    return {(d.eval, d.metric): d.text for d in definitions}


def about(scores: Scores, title: str) -> str:
    """Say in a sentence what was run on a testbed."""
    count = {role: len({m.runs[0].method for m in scores.methods if m.role == role}) for role in ROLES}
    parts = [f"{n} {one if n == 1 else many}" for role, (one, many) in ROLES.items() if (n := count[role])]
    runs = [run for method in scores.methods for run in method.runs]
    seeds = len({run.seed for run in runs if not run.control}) or len({run.seed for run in runs})
    levels = sorted({run.requested_l0 for run in runs if run.requested_l0 == run.requested_l0 and not run.control})
    widths = " and ".join(f"{w:,}" for w in scores.widths)
    at = f", at L0 {', '.join(f'{level:g}' for level in levels)}" if levels else ""
    said = ", ".join(parts)
    return f"{capital(title)}: {said}, of {widths or 'unknown'} latents{at}; {seeds} seed{'s' if seeds != 1 else ''}."


ROLES = {
    "standard": ("standard SAE", "standard SAEs"), "compared": ("method with a term", "methods with terms"),
    "control": ("control", "controls"),
}  # fmt: skip


def described_by(stored: StoredScores, scores: Scores) -> Selection | None:
    """The shortest descriptions, if they were scored."""
    return selection(stored, scores)
