"""Worlds that can be read exactly, and dictionaries that do: what evals against truth must put at the top."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.experiment.experiment import Experiment
from unbraid.sources.base import Split
from unbraid.sources.truth import Labelled, Truth
from unbraid.sources.world.world import World

EXACT = World(factors=24, d_in=32, l0=2.0, roots=4, branching=2, depth=1, noise=0.0, interactions=2)
"""Fewer factors than dimensions: each can be read exactly, by the dual basis."""


CURVED = World(
    factors=24, d_in=32, l0=2.0, roots=4, depth=1, coherence=0.0, circles=1, spheres=1, noise=0.0, interactions=2
)
"""Orthonormal directions; the last two factors are a circle and a sphere."""


def covering(world: World, signs: tuple[int, ...] = (1, -1)) -> Dictionary:
    """The truth of an orthonormal world, with an atom for each signed axis of a manifold."""
    alone = [i for i in range(world.factors) if i not in world.subspaces]
    atoms = torch.cat([world.directions[alone], *(s * basis for basis in world.subspaces.values() for s in signs)])
    return reading(world, atoms, atoms)


def truth(world: World, *, order: Tensor | None = None, activation: Activation | None = None) -> Dictionary:
    """The true directions, read by their dual basis, a hair above zero so that rounding does not fire."""
    rows = torch.arange(world.factors) if order is None else order
    return reading(world, readers(world)[rows], world.directions[rows], activation=activation)


def readers(world: World) -> Tensor:
    """The dual basis: readers(world) @ (x - offset) is the magnitudes."""
    return torch.linalg.pinv(world.directions.double()).T.float()


def reading(
    world: World, W_enc: Tensor, atoms: Tensor, *, b_enc: Tensor | float = 0.0, activation: Activation | None = None
) -> Dictionary:
    """Latents that read by the rows of `W_enc` and write `atoms`, made unit."""
    made = Dictionary(world.d_in, len(atoms), activation or JumpReLU(bandwidth=0.0))
    with torch.no_grad():
        made.W_dec.copy_(atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True))
        made.W_enc.copy_(W_enc.T)
        made.b_enc.copy_(torch.as_tensor(b_enc))
        made.b_dec.copy_(world.offset)
        made.threshold.fill_(1e-3)
    return made.requires_grad_(False)


def untrained(world: World, d_sae: int, seed: int = 0) -> Dictionary:
    return DictionaryConfig(d_sae=d_sae, activation=TopK(4)).build(world.sample(256, seed=0).x, seed=seed)


@dataclass(frozen=True)
class Undirected(Truth):
    """What a world would say if its factors were not directions, only present or not."""

    world: World

    @property
    def names(self) -> tuple[str, ...]:
        return self.world.names

    @property
    def parents(self) -> Tensor:
        return self.world.parents

    @property
    def directions(self) -> None:
        return None

    def labelled(self, count: int, *, split: Split, seed: int = 0) -> Labelled:
        found = self.world.labelled(count, split=split, seed=seed)
        return replace(found, magnitudes=torch.ones_like(found.magnitudes))


def making(base: Experiment, dictionary: Dictionary) -> Experiment:
    """`base` as the experiment of this dictionary, whatever made it."""
    config = replace(base.dictionary, d_sae=dictionary.d_sae, activation=dictionary.activation)
    return replace(base, dictionary=config)
