"""Fitting atoms to a model slice: the base of MELBO and the DCTs, whose atoms become a dictionary.

A fit is an initialisation: with no training after it, a run holds the fitted directions as atoms, strongest first, read
by their transpose, and every eval and the report apply. Trained on with W_dec frozen, it is the two-stage SAE: decoder
first, for its effects, then an encoder for it. Other results of the fit are kept in fit.safetensors.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.serialise import added
from unbraid.config.settings import NonNegativeFloat, NonNegativeInt, PositiveInt, Seed
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Claim, Initialisation, Origin, ProgressCallback, not_kept, set_tied
from unbraid.dictionary.weights import Acts
from unbraid.effects.radius import calibrate_radius, checked_radius, typical_norm
from unbraid.sources.base import Contexts, Source
from unbraid.steering.model_slice import Directions, Slice
from unbraid.steering.push_length import FixedRadius, KlBudget, PushLength


class FitResult(NamedTuple):
    """The directions that a method found, with their strengths."""

    directions: Directions
    """Unit vectors."""
    strengths: Float[Tensor, " k"]
    """Numbers by which atoms are ranked, from large to small; each method's docstring defines them."""


class FitContext(NamedTuple):
    """Everything that a method needs for a fit: the slice, how long pushes are, randomness, and how to report and
    resume."""

    slice: Slice
    length: PushLength
    rng: torch.Generator
    watch: ProgressCallback
    reached: Mapping[str, Tensor] = MappingProxyType({})
    """The state that an earlier attempt stored; the generator continues from there."""
    keep: Callable[[Mapping[str, Tensor]], None] = not_kept
    """Called after each step with the state that later steps depend on, in tensors that do not change afterwards."""


@dataclass(frozen=True, kw_only=True)
class SliceFit(Initialisation, ABC):
    """Base of methods that fit atoms to a model slice.

    Subclasses are frozen dataclasses: the fields are the settings, `fit` is the method.
    """

    contexts: PositiveInt = 8
    """Number of whole sequences on whose downstream layers the fit is made, the same for every seed; all where the
    text has fewer."""
    context_seed: Seed = 0
    """Seed with which these sequences are drawn."""
    last: NonNegativeInt = 0
    """Number of last kept tokens of each context at which effects are measured; 0: all. The DCT's authors use 3."""
    radius: NonNegativeFloat = 0.0
    """Norm of the pushes, in raw units; 0 calibrates it to where random directions leave the linear regime."""
    budget_kl: NonNegativeFloat = added(0.0)
    """Next-token KL, in nats, at which each direction gets its own length in place of one radius for all; 0: no budget.
    It is the mean over the tokens at which effects are measured; no length exceeds the radius. 0.5 is a change that a
    reader notices."""
    keep_skip: bool = False
    """Keep the push itself in its effect where the skip path carries it along, as the published objectives do."""
    claim: ClassVar[Claim] = 2

    def grows(self) -> bool:
        """True if a step of the fit takes longer the more directions are fitted."""
        return True

    @abstractmethod
    def fit(self, count: int, context: FitContext) -> FitResult:
        """Fit `count` directions. Raises ValueError when the method has fewer."""

    def contexts_of(self, source: Source) -> Contexts:
        """Draw the contexts on which the fit is made."""
        count = int(min(self.contexts, max(1, source.sequences("train"))))
        return source.contexts(count, split="train", seed=self.context_seed)

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        if origin is None:
            raise ValueError("this initialisation needs the layers downstream of the source: build it with an origin")
        result = origin.kept.read()
        if "atoms" not in result:
            result = self._result(dictionary.d_sae, rng, origin, result)
            origin.kept.finish(result)
        set_tied(dictionary, origin.normaliser.atoms(result.pop("atoms").to(sample.device)), sample)
        dictionary.fitted = result

    def _result(
        self, count: int, rng: torch.Generator, origin: Origin, reached: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the atoms, strongest first, and what else is stored. `reached`: an earlier attempt's state."""
        contexts = self.contexts_of(origin.source)
        after = Slice.of(contexts, last=self.last, keep_skip=self.keep_skip)
        if reached:
            radius = float(reached["radius"])
            rng.set_state(reached["rng"])
        else:
            radius = self.radius_of(contexts, rng)
        exact = torch.tensor(radius, dtype=torch.float64)
        keep = lambda state: origin.kept.write({**state, "radius": exact, "rng": rng.get_state()})
        length = self.length_of(after, radius)
        found = self.fit(count, FitContext(after, length, rng, origin.watch, reached, keep))
        order = found.strengths.argsort(descending=True)
        atoms = found.directions[order]
        return {
            "atoms": atoms.detach().clone().contiguous(),
            "strengths": found.strengths[order].cpu(),
            **self._pushed(Slice.of(contexts, last=self.last), atoms, length),
        }

    def radius_of(self, contexts: Contexts, rng: torch.Generator) -> float:
        """Return the radius, given or calibrated; under a budget it is the largest length."""
        return checked_radius(contexts, self.radius) or calibrate_radius(contexts, rng=rng)

    def length_of(self, after: Slice, radius: float) -> PushLength:
        """Return the rule for the lengths of pushes."""
        return KlBudget(after, self.budget_kl, radius) if self.budget_kl else FixedRadius(radius)

    def _pushed(self, after: Slice, atoms: Directions, length: PushLength) -> dict[str, Tensor]:
        """Return what the found directions do at their lengths. `radius` is the median length."""
        lengths = length.begin(atoms)
        radius = lengths.median()
        found = {
            "effects": after.pooled(lengths * atoms),
            "lengths": lengths.squeeze(1),
            "radius": radius,
            "relative_radius": radius / typical_norm(after.contexts),
        }
        if after.contexts.predict is not None:
            found["kl"] = after.next_token_kl(lengths * atoms)
        return {name: value.cpu() for name, value in found.items()}


def ascending(optimiser: torch.optim.Optimizer, moved: Tensor) -> dict[str, Tensor]:
    """Return the tensor that an optimiser moves, and its moments, for `keep`."""
    return {"moved": moved.detach().clone()} | {
        f"optimiser/{name}": value.clone() for name, value in optimiser.state[moved].items()
    }


def resume(optimiser: torch.optim.Optimizer, moved: Tensor, reached: Mapping[str, Tensor]) -> None:
    """Restore an optimiser's moments; `moved` is the tensor that it moves."""
    prefix = "optimiser/"
    state = {name.removeprefix(prefix): value for name, value in reached.items() if name.startswith(prefix)}
    # The count of steps stays on the CPU, where torch keeps it.
    optimiser.state[moved] = {name: v if name == "step" else v.to(moved) for name, v in state.items()}
