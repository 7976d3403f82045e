"""Fitting atoms to a model slice: what MELBO and every DCT share, and how their atoms become a dictionary.

A fit is an initialisation: with no training after it, a run holds the fitted directions as atoms, strongest first, read
by their transpose, and every eval and the report apply. Trained on with W_dec frozen, it is the two-stage SAE: decoder
first, for its effects, then an encoder for it. What the fit found besides the atoms is kept in fit.safetensors.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, NonNegativeInt, PositiveInt, Seed
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Claim, Initialisation, Origin, Watch, not_kept, set_tied
from unbraid.dictionary.weights import Acts
from unbraid.effects.radius import calibrate_radius, checked_radius, typical_norm
from unbraid.sources.base import Contexts, Source
from unbraid.steering.model_slice import Directions, Slice


class Found(NamedTuple):
    directions: Directions
    """Unit vectors."""
    strengths: Float[Tensor, " k"]
    """What atoms are ranked by, from large to small; each method says what it is."""


class Fitting(NamedTuple):
    """What a method is given."""

    slice: Slice
    radius: float
    rng: torch.Generator
    watch: Watch
    reached: Mapping[str, Tensor] = MappingProxyType({})
    """What an earlier attempt kept; the generator stands where it stood then."""
    keep: Callable[[Mapping[str, Tensor]], None] = not_kept
    """Told after each step all that the rest depends on, in tensors that do not change any more."""


@dataclass(frozen=True, kw_only=True)
class SliceFit(Initialisation, ABC):
    """Subclasses are frozen dataclasses: the fields are the settings, `fit` is the method."""

    contexts: PositiveInt = 8
    """Whole sequences whose layers after are fitted, the same for every seed; all there are where the text has fewer,
    as it has where a few prompts are fitted."""
    context_seed: Seed = 0
    """Which."""
    last: NonNegativeInt = 0
    """Effects are looked at on this many last kept tokens of each context; 0 means all. The DCT's authors take 3."""
    radius: NonNegativeFloat = 0.0
    """Norm of the pushes, in raw units; 0 calibrates it: where random directions leave the linear regime."""
    keep_skip: bool = False
    """Leave what is pushed in its effect, as the published objectives do, where it travels straight through."""
    claim: ClassVar[Claim] = 2

    def grows(self) -> bool:
        """Whether a step of the fit takes longer the more directions are asked for."""
        return True

    @abstractmethod
    def fit(self, count: int, given: Fitting) -> Found:
        """`count` directions. Raises ValueError when the method has not so many."""

    def contexts_of(self, source: Source) -> Contexts:
        """What is fitted."""
        count = int(min(self.contexts, max(1, source.sequences("train"))))
        return source.contexts(count, split="train", seed=self.context_seed)

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        if origin is None:
            raise ValueError("this initialisation pushes the layers after the source: build it with an origin")
        result = origin.kept.read()
        if "atoms" not in result:
            result = self._result(dictionary.d_sae, rng, origin, result)
            origin.kept.finish(result)
        set_tied(dictionary, result.pop("atoms").to(sample.device), sample)
        dictionary.fitted = result

    def _result(
        self, count: int, rng: torch.Generator, origin: Origin, reached: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The atoms, strongest first, and what else is kept beside the run. `reached`: what an earlier attempt kept."""
        contexts = self.contexts_of(origin.source)
        if reached:
            radius = float(reached["radius"])
            rng.set_state(reached["rng"])
        else:
            radius = checked_radius(contexts, self.radius) or calibrate_radius(contexts, rng=rng)
        exact = torch.tensor(radius, dtype=torch.float64)
        keep = lambda state: origin.kept.write({**state, "radius": exact, "rng": rng.get_state()})
        after = Slice.of(contexts, last=self.last, keep_skip=self.keep_skip)
        found = self.fit(count, Fitting(after, radius, rng, origin.watch, reached, keep))
        order = found.strengths.argsort(descending=True)
        atoms = found.directions[order]
        effects = Slice.of(contexts, last=self.last).pooled(radius * atoms)
        return {
            "atoms": atoms.detach().clone().contiguous(),
            "strengths": found.strengths[order].cpu(),
            "effects": effects.cpu(),
            "radius": torch.tensor(radius),
            "relative_radius": torch.tensor(radius / typical_norm(contexts)),
        }


def ascending(optimiser: torch.optim.Optimizer, moved: Tensor) -> dict[str, Tensor]:
    """The tensor an optimiser moves, and its moments, for `keep`."""
    return {"moved": moved.detach().clone()} | {
        f"optimiser/{name}": value.clone() for name, value in optimiser.state[moved].items()
    }


def resume(optimiser: torch.optim.Optimizer, moved: Tensor, reached: Mapping[str, Tensor]) -> None:
    """Give an optimiser the moments it had; `moved` is the tensor it had moved."""
    prefix = "optimiser/"
    state = {name.removeprefix(prefix): value for name, value in reached.items() if name.startswith(prefix)}
    # The count of steps stays on the CPU, where torch keeps it.
    optimiser.state[moved] = {name: v if name == "step" else v.to(moved) for name, v in state.items()}
