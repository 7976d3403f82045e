"""Extra inputs of a training step besides its rows: drawn when a term first needs them, the same for a whole cohort."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from unbraid import seeding
from unbraid.sources.base import Contexts, Counterfactuals, Source

CONTEXTS = 4
"""Whole sequences a slice term sees in one step."""
PAIRS = 256
"""Minimal pairs a term sees in one step."""
ROWS = 512
"""Corrupted rows a term sees in one step, about."""


@dataclass(frozen=True)
class ExtraInputs:
    """Contexts, minimal pairs and corrupted rows of one step, as the source gives them: raw."""

    source: Source
    seed: int
    index: int
    """The number of the step."""
    _drawn: dict[Any, Any] = field(default_factory=dict, compare=False)

    def contexts(self) -> Contexts:
        if "contexts" not in self._drawn:
            self._drawn["contexts"] = self.source.contexts(CONTEXTS, split="train", seed=self._seed("contexts"))
        return self._drawn["contexts"]

    def counterfactuals(self) -> Counterfactuals:
        if "pairs" not in self._drawn:
            seed = self._seed("counterfactuals")
            self._drawn["pairs"] = self.source.counterfactuals(PAIRS, split="train", seed=seed)
        return self._drawn["pairs"]

    def corrupted(self, share: float) -> Float[Tensor, "row d_in"]:
        if share not in self._drawn:
            seed = self._seed("corrupted")
            self._drawn[share] = self.source.corrupted(ROWS, share=share, split="train", seed=seed)
        return self._drawn[share]

    def _seed(self, name: str) -> int:
        return seeding.integer(self.seed, f"{name}/{self.index}")
