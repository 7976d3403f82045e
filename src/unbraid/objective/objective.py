"""The loss that training minimises: a reconstruction term plus named penalties.

    loss = reconstruction + sum_i ramp * weight_i * penalty_i

A term reads one record, the `Step`, so a new objective needs no new argument anywhere. It declares which parts it
reads in `reads`, so that a source that cannot supply them is refused before training starts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.config.settings import (
    Matches,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Settings,
    Share,
    ShareBelowOne,
    SomeText,
)
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.codes import Codes
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Claim
from unbraid.dictionary.joined_codes import joined_codes
from unbraid.dictionary.latent_shards import summed
from unbraid.sources.base import Batch, Contexts, Counterfactuals
from unbraid.system.devices import sent
from unbraid.system.group import ALONE, Group

Reads = Literal["codes", "decoder", "documents", "contexts", "predictions", "counterfactuals", "corrupted"]
"""codes: step.z in either form, never made dense. decoder: the dictionary's weights themselves. documents:
step.batch.documents and positions. contexts: whole sequences and their downstream layers. predictions: the next
tokens that a language model expects there. counterfactuals: minimal pairs. corrupted: rows with some of their
causes replaced."""

Family = Literal[
    "reconstruction", "sparsity", "dead latents", "geometry", "independence", "weak supervision", "causal", "control"
]
"""What kind of objective a term is: what it asks of atoms, codes or effects; a control asks nothing that helps."""


def no_counterfactuals() -> Counterfactuals:
    raise ValueError("this step was given no minimal pairs")


def no_corrupted(share: float) -> Float[Tensor, "row d_in"]:
    raise ValueError(f"this step was given no rows with a share of {share} of their causes replaced")


Rows = Float[Tensor, "row d_in"]
PenaltyName = Annotated[str, Matches(r"\w[\w.-]*", "letters, digits and _ - . (it names what is logged)")]


def unchanged(rows: Rows) -> Rows:
    return rows


def no_normaliser(rows: Rows) -> Rows:
    raise ValueError("this step has no normaliser, so raw activations of contexts have no codes")


@dataclass(frozen=True)
class Step:
    """The record of one training step, which terms read; they may write to `memory` and `shared` alone."""

    x: Float[Tensor, "batch d_in"]
    """Normalised activations."""
    z: Codes
    dictionary: Dictionary
    batch: Batch
    """The raw rows behind x: documents, positions, token ids."""
    dead: Bool[Tensor, " d_sae"]
    """Latents silent for `training.dead_after` tokens."""
    progress: float
    """Share of training done, in [0, 1)."""
    contexts: Callable[[], Contexts]
    """A fresh handful of whole sequences; the same ones for every term of a step."""
    rng: torch.Generator
    """This term's own random stream, fresh every step."""
    counterfactuals: Callable[[], Counterfactuals] = no_counterfactuals
    """Minimal pairs, normalised as x is; the same ones for every term of a step."""
    corrupted: Callable[[float], Float[Tensor, "row d_in"]] = no_corrupted
    """Normalised activations with this share of their causes (tokens, a world's factors) replaced at random."""
    memory: dict[str, Tensor] = field(default_factory=dict)
    """This term's own state from step to step; the loop saves and restores it."""
    normalise: Callable[[Rows], Rows] = no_normaliser
    """From raw activations, as contexts hold them, to what the dictionary reads."""
    restore: Callable[[Rows], Rows] = no_normaliser
    """Back, from what the dictionary writes to raw activations."""
    directions: Callable[[Rows], Rows] = unchanged
    """The unit directions in raw activations, as contexts hold them, along which latents with these atoms write."""
    shared: dict[str, Any] = field(default_factory=dict)
    """What one term of this step has worked out and a later one may use: gone after the step. The numbers of `dead` and
    `living` latents are in it where finding them out would make the host wait."""
    group: Group = ALONE
    """The processes that the batch is shared out to, where these rows are a share of it."""
    logged: bool = True
    """Whether what terms log of this step is looked at; where it is not, they need not work it out."""

    @property
    def dead_latents(self) -> Int[Tensor, " dead"]:
        """The numbers of the dead latents."""
        known = self.shared.get("dead")
        return self.dead.nonzero().squeeze(1) if known is None else known

    @property
    def living_latents(self) -> Int[Tensor, " living"]:
        """The numbers of the others."""
        known = self.shared.get("living")
        return (~self.dead).nonzero().squeeze(1) if known is None else known

    def sampled_latents(self, count: int) -> Int[Tensor, " k"]:
        """`count` living latents, or all there are, from the term's own stream."""
        living = self.living_latents
        order = torch.randperm(len(living), generator=self.rng)[:count]
        return living[sent(order, living.device)]

    def sampled_rows(self, count: int) -> Int[Tensor, " row"]:
        """The numbers of `count` rows of the batch, or of all, from the term's own stream."""
        order = torch.randperm(len(self.x), generator=self.rng)[:count]
        return sent(order, self.x.device)

    def sampled_atoms(self, count: int) -> Float[Tensor, "k d_in"]:
        """The atoms of as many living latents, differentiable."""
        return self.dictionary.W_dec.index_select(0, self.sampled_latents(count))

    def no_loss(self, metrics: Mapping[str, Tensor] = {}) -> "TermOutput":
        """The output of a term that finds nothing to act on in this step: a loss of 0."""
        return TermOutput(self.x.new_zeros(()), metrics)

    @property
    def spread(self) -> Float[Tensor, ""]:
        """Squared distance of the activations from their mean, summed: an error over it is the FVU."""
        return self.spread_of(self.x)

    def fvu(self, error: Float[Tensor, ""]) -> Mapping[str, Tensor]:
        """Return what a reconstruction with this squared error, summed, logs: the FVU, of steps that are logged."""
        return {"fvu": error / self.spread} if self.logged else {}

    def over_latents(self, part: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return a sum over all latents, given that over those of this process: all there are, but where processes hold
        some each."""
        return summed(part, self.dictionary.shards)

    def spread_of(self, rows: Float[Tensor, "batch d_in"]) -> Float[Tensor, ""]:
        """Squared distance of a vector of every row from their mean, summed; of a batch that is shared out, its mean
        over the processes, to which an error is as to the whole."""
        away = rows - self.group.mean(rows.mean(0))
        return self.group.mean(away.square().sum())

    @cached_property
    def x_hat(self) -> Float[Tensor, "batch d_in"]:
        """The reconstruction, computed on first use (nested reconstruction never needs it)."""
        return self.dictionary.decode(self.z)

    def whole(self) -> "Step":
        """Return the step with the rows of all processes, which is the same in each."""
        batch = Batch(*(self.group.joined(column) for column in self.batch.columns()))
        x, z = self.group.joined(self.x), joined_codes(self.z, self.group)
        return replace(self, x=x, z=z, batch=batch, group=ALONE)


class TermOutput(NamedTuple):
    """The loss of a term at one step, and numbers to log."""

    loss: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = {}
    """Logged as metrics/<term>/<name>."""


@dataclass(frozen=True, kw_only=True)
class Term(Settings, ABC):
    """One addend of the loss. Subclasses are frozen dataclasses: the fields are the settings, the call is the maths.

    Annotations state the bounds of settings: `columns: PositiveInt = 8` (`config.settings`)."""

    weight: NonNegativeFloat = 1.0
    """Multiplies the loss; 0 skips the term altogether."""
    gradient_ratio: NonNegativeFloat = 0.0
    """Above 0, `weight` is not used: the weight makes this term's gradient so large a share of the reconstruction's
    (`gradient_ratio.weight`). Ratios compare between terms and widths, as weights do not."""
    start: ShareBelowOne = 0.0
    """Share of training before which the term is left out."""
    every: PositiveInt = 1
    """Apply on every n-th step only, n times as strongly."""
    family: ClassVar[Family]
    """What kind of objective it is."""
    claim: ClassVar[Claim] = 1
    """Which claim a win with it speaks for."""
    standard: ClassVar[bool] = False
    """Whether an SAE trained with such terms alone is one of the field's standard SAEs, the baselines of a report."""
    reads: ClassVar[tuple[Reads, ...]] = ("codes",)
    signed: ClassVar[bool] = False
    """Whether a weight below 0 just asks for more latents, so that an L0 target may move it there."""
    splits: ClassVar[bool] = False
    """Whether it is a mean over rows, but for `Step.spread_of`: processes that train together then evaluate it on their
    own rows. They evaluate all others on the whole batch, each the same."""
    shards: ClassVar[bool] = False
    """Whether it depends on latents by sums over all of them alone: of `Step.x_hat`, or that it takes by
    `Step.over_latents`. Processes that train together may then hold some of the latents each."""
    per_latent: ClassVar[tuple[str, ...]] = ()
    """What of its memory is about one latent each, a row a latent: forgotten of latents that are restarted."""

    @property
    def enabled(self) -> bool:
        """True when the term has a weight or a gradient ratio; otherwise it is skipped."""
        return self.weight != 0 or self.gradient_ratio > 0

    def check_activation(self, activation: Activation) -> None:  # noqa: B027 (most terms suit any)
        """Raise ValueError for an activation that the term says nothing about. Called before training."""

    def only_in_training(self) -> str:
        """Return why a finished dictionary does not say what this term's value is; empty where it does."""
        return ""

    def saved_order(self, memory: Mapping[str, Tensor]) -> Int[Tensor, " d_sae"] | None:
        """Return the latents in the order in which a finished dictionary is saved, given what the term remembers; None
        leaves it as it is. Only the reconstruction's order counts."""
        return None

    def runs_at(self, index: int, progress: float) -> bool:
        """True in a step in which the term is evaluated: it is enabled, has started, and its turn has come."""
        return self.enabled and progress >= self.start and index % self.every == 0

    @abstractmethod
    def __call__(self, step: Step) -> TermOutput: ...


@dataclass(frozen=True, kw_only=True)
class TargetL0(Settings):
    """Control of one penalty's weight that holds the mean L0 on target (`l0_control`).

    A penalty's weight is not comparable between objectives or widths; L0 is. Training starts near the target.
    """

    l0: PositiveFloat = 32.0
    """Wanted mean number of active latents a token."""
    penalty: SomeText = "sparsity"
    """Name of the penalty whose weight is moved."""
    rate: PositiveFloat = 0.05
    """Integral gain: by how much a log L0 off by 1 moves the log of the weight each step."""
    lookahead: NonNegativeFloat = 100.0
    """Proportional gain, in steps: an error counts at once as if it had lasted so long. Without it L0 swings."""


@dataclass(frozen=True, kw_only=True)
class Objective(Settings):
    """The sum of terms that training minimises: the reconstruction and penalties with their strengths."""

    reconstruction: Term
    """The term that measures how well activations are reconstructed."""
    penalties: Mapping[PenaltyName, Term] = field(default_factory=dict)
    """The other terms, by name."""
    ramp: Share = 0.05
    """Share of training over which penalty weights rise linearly from 0, from a penalty's start. Terms that must act
    from the first step: set 0."""
    target_l0: TargetL0 | None = None
    """Move one penalty's weight to reach an L0; None keeps all weights as given."""

    def terms(self) -> dict[str, Term]:
        """All terms by name, reconstruction first."""
        return {"reconstruction": self.reconstruction, **self.penalties}

    def ramped(self, progress: float, term: Term) -> float:
        """Share of its weight that a penalty has by now."""
        return min(1.0, (progress - term.start) / self.ramp) if self.ramp > 0 else 1.0

    def check_together(self) -> None:
        if "reconstruction" in self.penalties:
            raise ValueError("a penalty cannot be called 'reconstruction', as the reconstruction is; name it otherwise")
        if self.reconstruction.gradient_ratio > 0:
            raise ValueError(
                "gradient_ratio is a share of the reconstruction's gradient, so the reconstruction has none; set 0"
            )
        plain = self.reconstruction.every == 1 and self.reconstruction.start == 0 and self.reconstruction.enabled
        if not plain and any(term.gradient_ratio > 0 for term in self.penalties.values()):
            raise ValueError(
                "gradient_ratio is a share of the reconstruction's gradient, so the reconstruction must run on every "
                "step: set its every to 1, its start to 0 and its weight above 0, or give penalties weights instead of "
                "gradient_ratio"
            )
        if self.target_l0 is not None:
            self._check_controlled(self.target_l0.penalty)

    def _check_controlled(self, name: str) -> None:
        if name not in self.penalties:
            raise ValueError(
                f"target_l0 moves the penalty {name!r}, but there are {sorted(self.penalties)}; "
                "add it, or name another with --objective.target-l0.penalty"
            )
        if self.penalties[name].gradient_ratio > 0:
            raise ValueError(
                f"the weight of {name!r} is moved by target_l0 and set by its gradient_ratio; leave one out"
            )
        if self.penalties[name].start > 0:
            raise ValueError(
                f"target_l0 would wind up while {name!r}, whose weight it moves, has not started; set its start to 0"
            )
