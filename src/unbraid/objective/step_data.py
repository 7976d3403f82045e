"""Extra inputs of a step besides its rows: drawn when a term first needs them, the same for all dictionaries."""

from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from unbraid import seeding
from unbraid.sources.base import Contexts, Counterfactuals, Source, Split

CONTEXTS = 4
"""Whole sequences a slice term sees in one step; fewer where the eval split holds fewer."""
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
    split: Split = "train"
    _drawn: dict[Any, Any] = field(default_factory=dict, compare=False)

    def fresh(self) -> "ExtraInputs":
        """Return the same, not drawn yet: what was drawn takes memory, and can be drawn again."""
        return replace(self, _drawn={})

    def contexts(self) -> Contexts:
        if "contexts" not in self._drawn:
            count = CONTEXTS if self.split == "train" else int(max(1, min(CONTEXTS, self.source.sequences("eval"))))
            self._drawn["contexts"] = self.source.contexts(count, split=self.split, seed=self._seed("contexts"))
        return self._drawn["contexts"]

    def counterfactuals(self) -> Counterfactuals:
        if "pairs" not in self._drawn:
            seed = self._seed("counterfactuals")
            self._drawn["pairs"] = self.source.counterfactuals(PAIRS, split=self.split, seed=seed)
        return self._drawn["pairs"]

    def corrupted(self, share: float) -> Float[Tensor, "row d_in"]:
        if share not in self._drawn:
            seed = self._seed("corrupted")
            self._drawn[share] = self.source.corrupted(ROWS, share=share, split=self.split, seed=seed)
        return self._drawn[share]

    def _seed(self, name: str) -> int:
        return seeding.integer(self.seed, f"{name}/{self.index}")
