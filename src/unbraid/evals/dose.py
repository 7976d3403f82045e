"""Dose: how far a term moved what it acts on, by which a result, and a null above all, is to be read.

    dose = (base - run) / |base|,   run, base: mean of the term's loss over the same held-out batches,
                                    of the run with the term and of its base without, as both were trained

1 is a penalty that removed all of what its base had, 0 one that did nothing. The loss of a reward is negative, and the
same formula is then run / base - 1: by what share the rewarded quantity grew. A term that no result follows has been
tried only where its dose is not 0.

Losses are those that training logs as losses/<term>, unweighted, on activations normalised as the run's, at the end of
training. Averages that a term keeps from step to step are warmed up on the first batches. Terms that learn as the
dictionary does say nothing of one that is finished (`Term.only_in_training`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.experiment.experiment import Experiment
from unbraid.objective.objective import Objective, Step, Term
from unbraid.objective.step_data import ExtraInputs
from unbraid.runs.run import Run
from unbraid.runs.siblings import alike
from unbraid.sources.base import Batch, Counterfactuals, Predictions
from unbraid.sources.stream import held_out

VERSION = 2
DEFINITIONS = {
    "dose": "share of its base's value by which an added term lowered its own loss: 1 when a penalty removed all of "
    "it, 0 when it did nothing, below 0 when it rose; of a reward, the share by which the reward grew; NaN when the "
    "base's is 0; term: the penalty, by its name in the objective",
    "dose_se": "standard error of dose over held-out batches, which both dictionaries were measured on",
    "term_value": "unweighted loss of an added term on held-out batches: of=run, of the run itself; of=base, of the "
    "run without the term",
}
ROWS = 16_384
"""Number of held-out activations read."""
BATCHES = 16
"""Largest number of batches, each of as many rows as in training where there are so many."""
WARM_UP = 0.25
"""Share of the batches, first ones, on which averages settle; they are not counted."""
APART = ("name", "control", "base", "term", "strength", "objective")
"""Fields in which a run may differ from its base."""
SEED = 0

T = TypeVar("T")


def dose(run: Run, bases: Sequence[Run]) -> list[Score]:
    """Score a run whose objective has a term added to a base. Raises NotApplicable when it has none, when no run of
    the base is in its folder, and when none of what was added has a value without training."""
    experiment = run.experiment
    if experiment.term is None:
        raise NotApplicable("dose is of a term added to a base, and this run's experiment names none (term)")
    if not bases:
        raise NotApplicable(
            f"dose compares with the base {experiment.base!r} without {experiment.term!r}, and the folder holds no "
            "finished run of it at this L0, width and seed, on this source and with this training: train it into the "
            "same folder"
        )
    added = added_terms(experiment, bases[0].experiment.objective)
    reasons = {name: reason for name, term in added.items() if (reason := term.only_in_training())}
    if len(reasons) == len(added):
        raise NotApplicable("; ".join(f"{name} has no value here: {reason}" for name, reason in reasons.items()))
    batches = batches_of(run)
    compared = [Measured.of(one, batches) for one in (run, bases[0])]
    scores = []
    for name, term in added.items():
        if name not in reasons:
            own, base = (one.values(name, term, batches) for one in compared)
            scores += scores_of(name, own, base)
    return scores


def peers(run: Run) -> list[Run]:
    """Return the run of the base: alike in all but the objective, and its objective this one without what was
    added. Of several, the one that lacks least."""
    if run.experiment.term is None:
        return []
    found = [other for other in alike(run, *APART) if is_base(other.experiment, run.experiment)]
    return sorted(found, key=lambda other: -len(other.experiment.objective.penalties))[:1]


def is_base(other: Experiment, experiment: Experiment) -> bool:
    """True where `experiment` is `other` with penalties added."""
    ours, theirs = experiment.objective, other.objective
    same = theirs.reconstruction == ours.reconstruction and theirs.target_l0 == ours.target_l0
    kept = all(ours.penalties.get(name) == term for name, term in theirs.penalties.items())
    named = other.term is None and other.base in (None, experiment.base)
    return same and kept and named and len(theirs.penalties) < len(ours.penalties)


def added_terms(experiment: Experiment, base: Objective) -> dict[str, Term]:
    """Return the penalties that the base has not."""
    return {name: term for name, term in experiment.objective.penalties.items() if name not in base.penalties}


def scores_of(name: str, own: Float[Tensor, " batch"], base: Float[Tensor, " batch"]) -> list[Score]:
    """Return the scores of one term from its values, batch by batch, of the run and of its base."""
    size, lowered = float(base.mean().abs()), base - own
    share = lambda value: value / size if size > 0 else math.nan
    error = float(lowered.std()) / len(lowered) ** 0.5 if len(lowered) > 1 else math.nan
    row = lambda metric, value, **params: Score(
        metric=metric, value=value, better="neither", params={"term": name, **params}
    )
    return [
        row("dose", share(float(lowered.mean()))),
        row("dose_se", share(error)),
        row("term_value", float(own.mean()), of="run"),
        row("term_value", float(base.mean()), of="base"),
    ]


# ---- held-out steps


class Inputs(NamedTuple):
    """The raw inputs of one step, the same for both dictionaries."""

    rows: Batch
    extra: ExtraInputs


def batches_of(run: Run) -> list[Inputs]:
    """Return held-out batches as large as those trained on."""
    rows = held_out(run.source, ROWS)
    size = min(len(rows), run.experiment.training.batch_size)
    return [
        Inputs(rows[size * index : size * (index + 1)], ExtraInputs(run.source, SEED, index, "eval"))
        for index in range(min(BATCHES, len(rows) // size))
    ]


def drawn(draw: Callable[[], T]) -> T:
    """Draw inputs of a step. Raises NotApplicable where the source has none."""
    try:
        return draw()
    except ValueError as reason:
        raise NotApplicable(f"the term reads what the eval split cannot give: {reason}") from reason


@dataclass(frozen=True)
class Measured:
    """A run's dictionary for normalised activations, as it was trained."""

    dictionary: Dictionary
    normaliser: Normaliser
    dead: Bool[Tensor, " d_sae"]
    """Latents that fire in none of the batches."""

    @classmethod
    def of(cls, run: Run, batches: Sequence[Inputs]) -> "Measured":
        """Return the dictionary with the activation it was trained with, where that has its parameters still."""
        normaliser = run.normaliser()
        made, trained = normaliser.unfold(run.dictionary()), run.experiment.dictionary.activation
        if not trained.extra_parameters:
            again = Dictionary(made.d_in, made.d_sae, trained)
            again.load_state_dict(made.state_dict())
            made = again
        made.requires_grad_(False)
        firings = sum(made.unchecked_codes(normaliser(inputs.rows.x)).firings() for inputs in batches)
        return cls(made, normaliser, torch.as_tensor(firings) == 0)

    def values(self, name: str, term: Term, batches: Sequence[Inputs]) -> Float[Tensor, " batch"]:
        """Return the term's loss on each of the batches that are counted, in float64."""
        try:
            term.check_activation(self.dictionary.activation)
        except ValueError as reason:
            raise NotApplicable(f"{name} has no value of the dictionary as it is saved: {reason}") from reason
        if "predictions" in term.reads and batches:
            drawn(lambda: Predictions.of(batches[0].extra.contexts()))
        memory: dict[str, Tensor] = {}
        losses = [float(term(self.step(name, inputs, memory)).loss.detach()) for inputs in batches]
        return torch.tensor(losses[int(WARM_UP * len(losses)) :], dtype=torch.float64)

    def step(self, name: str, inputs: Inputs, memory: dict[str, Tensor]) -> Step:
        """Return the step of held-out rows that the term sees."""
        x, extra = self.normaliser(inputs.rows.x), inputs.extra
        z = self.dictionary.unchecked_codes(x)
        return Step(
            x=x, z=z, dictionary=self.dictionary, batch=inputs.rows, dead=self.dead,
            progress=1 - 1e-6, rng=seeding.stream(SEED, f"dose/{name}/{extra.index}"), memory=memory,
            contexts=lambda: drawn(extra.contexts),
            counterfactuals=lambda: self._normalised(drawn(extra.counterfactuals)),
            corrupted=lambda share: self.normaliser(drawn(lambda: extra.corrupted(share))),
            normalise=self.normaliser, restore=self.normaliser.undo, directions=self.normaliser.directions,
        )  # fmt: skip

    def _normalised(self, pairs: Counterfactuals) -> Counterfactuals:
        return Counterfactuals(self.normaliser(pairs.x), self.normaliser(pairs.changed))
