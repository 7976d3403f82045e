"""What is minimised: a reconstruction term plus named penalties.

    loss = reconstruction + sum_i ramp * weight_i * penalty_i

A term reads one record, the `Step`, so a new objective needs no new argument anywhere. It declares which parts it
reads in `reads`, so that a source that cannot supply them is refused before training starts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unbraid.codes import Codes
from unbraid.dictionary import Dictionary
from unbraid.source import Batch, Contexts

Reads = Literal["codes", "dense", "decoder", "documents", "contexts"]
"""codes: step.z in either form, never made dense. dense: batch x d_sae. decoder: W_dec alone. documents:
step.batch.documents and positions. contexts: whole sequences and the layers after them."""


@dataclass(frozen=True)
class Step:
    """Everything one training step knows. Terms read it; the only thing they may write to is `memory`."""

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
    memory: dict[str, Tensor] = field(default_factory=dict)
    """This term's own state from step to step; the loop saves and restores it."""

    @cached_property
    def x_hat(self) -> Float[Tensor, "batch d_in"]:
        """The reconstruction, computed on first use (nested reconstruction never needs it)."""
        return self.dictionary.decode(self.z)


class TermOutput(NamedTuple):
    loss: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = {}
    """Logged as metrics/<term>/<name>."""


@dataclass(frozen=True, kw_only=True)
class Term(ABC):
    """One addend of the loss. Subclasses are frozen dataclasses: the fields are the settings, the call is the maths."""

    weight: float = 1.0
    """Multiplies the loss; 0 skips the term altogether."""
    every: int = 1
    """Apply on every n-th step only, n times as strongly."""
    reads: ClassVar[tuple[Reads, ...]] = ("codes",)

    @abstractmethod
    def __call__(self, step: Step) -> TermOutput: ...


@dataclass(frozen=True, kw_only=True)
class TargetL0:
    """Integral control of one penalty's weight until the mean L0 is on target.

    A penalty's weight is not comparable between objectives or widths; L0 is. Each step moves log(weight) by
    rate * clip(log(L0 / target) + lookahead * slope, -1, 1), with a moving average of log L0 and its slope per step.
    L0 follows a
    weight only after a hundred steps or so: without looking ahead the weight winds up meanwhile, and L0 swings for
    ever.
    """

    l0: float = 32.0
    """Wanted mean number of active latents a token."""
    penalty: str = "sparsity"
    """Name of the penalty whose weight is moved."""
    rate: float = 0.05
    """Gain per step."""
    lookahead: float = 100.0
    """Steps ahead of which L0 is foreseen, in a straight line."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    reconstruction: Term
    """What must be explained."""
    penalties: Mapping[str, Term] = field(default_factory=dict)
    """What is asked besides, by name."""
    ramp: float = 0.05
    """Share of training over which penalty weights rise linearly from 0. Terms that must act from the start: set 0."""
    target_l0: TargetL0 | None = None
    """Move one penalty's weight to reach an L0; None keeps all weights as given."""

    def terms(self) -> dict[str, Term]:
        """All terms by name, reconstruction first."""
        return {"reconstruction": self.reconstruction, **self.penalties}

    def check(self) -> None:
        """Raise ValueError when the controller names a penalty there is none of."""
        if self.target_l0 is not None and self.target_l0.penalty not in self.penalties:
            raise ValueError(
                f"target_l0 moves the penalty {self.target_l0.penalty!r}, but there are {sorted(self.penalties)}; "
                "add it, or name another with --objective.target-l0.penalty"
            )


class Weighted(NamedTuple):
    """The loss of one step and what to log."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Tensor]


def evaluate(
    objective: Objective,
    step: Step,
    index: int,
    *,
    scale: Mapping[str, float],
    streams: Callable[[str], torch.Generator],
    memory: Mapping[str, dict[str, Tensor]],
) -> Weighted:
    """The weighted sum of all terms on `step`. `scale` multiplies weights by name (the controller's part).

    Raises ValueError, naming term and step, when a loss is not finite.
    """
    ramp = min(1.0, step.progress / objective.ramp) if objective.ramp > 0 else 1.0
    total, metrics = step.x.new_zeros(()), {}
    for name, term in objective.terms().items():
        weight = term.weight * scale.get(name, 1.0) * term.every * (1.0 if name == "reconstruction" else ramp)
        if weight == 0 or index % term.every:
            continue
        loss, extra = term(replace_keeping(step, streams(name), memory[name]))
        if not bool(torch.isfinite(loss.detach())):
            raise ValueError(
                f"term {name!r} gave {float(loss.detach())} at step {index}; lower its weight or the learning rate"
            )
        total = total + weight * loss
        metrics[f"losses/{name}"] = loss.detach()
        metrics |= {f"metrics/{name}/{key}": value.detach() for key, value in extra.items()}
    return Weighted(total, metrics)


def replace_keeping(step: Step, rng: torch.Generator, memory: dict[str, Tensor]) -> Step:
    """The step as one term sees it: its own random stream and memory, and x_hat if it was computed already."""
    own = replace(step, rng=rng, memory=memory)
    if "x_hat" in step.__dict__:
        own.__dict__["x_hat"] = step.__dict__["x_hat"]
    return own
