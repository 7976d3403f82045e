"""Other draws of an eval: one dictionary scored on other held-out rows, with the eval's own random choices anew."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from unittest.mock import patch

from jaxtyping import Float
from torch import Tensor

from unbraid.evals.shared.evaluation import Eval
from unbraid.sources.base import Contexts, Split
from unbraid.sources.truth import Labelled
from unbraid.sources.world.world import World

APART = 1000
"""Between the seeds of two draws, so that none meets a seed that something else uses."""


@dataclass(frozen=True, kw_only=True)
class OtherRows(World):
    """A world of which all held-out rows are drawn anew, and nothing else is."""

    draw: int = 0

    def labelled(self, count: int, *, split: Split, seed: int = 0) -> Labelled:
        return super().labelled(count, split=split, seed=self._moved(split, seed))

    def samples(self, index: int, split: Split, seed: int) -> Float[Tensor, "row d_in"]:
        return super().samples(index, split, self._moved(split, seed))

    def contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        return super().contexts(count, split=split, seed=self._moved(split, seed))

    def _moved(self, split: Split, seed: int) -> int:
        return seed + APART * self.draw if split == "eval" else seed


def other_rows(world: World, draw: int) -> OtherRows:
    """Return the same world with other held-out rows; draw 0 has those that evals read."""
    return OtherRows(**{field.name: getattr(world, field.name) for field in fields(world)}, draw=draw)


@contextmanager
def other_choices(evals: Sequence[Eval], draw: int) -> Iterator[None]:
    """Give evals another seed for what they draw themselves: directions, pairs, which latents are set."""
    with ExitStack() as stack:
        for item in evals:
            module = sys.modules[item.score.__module__]
            if hasattr(module, "SEED"):
                stack.enter_context(patch.object(module, "SEED", module.SEED + APART * draw))
        yield
