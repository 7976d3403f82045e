"""Steps worked out by hand: a few rows, a few atoms, in float64."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.weights import Path
from unbraid.objective.objective import Step, no_counterfactuals
from unbraid.sources.base import Batch, Contexts, Counterfactuals


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def units(count: int, d_in: int, seed: int) -> Tensor:
    return normalize(torch.randn(count, d_in, generator=rng(seed), dtype=torch.float64), dim=1)


def no_contexts() -> Contexts:
    raise AssertionError("these terms read no contexts")


def with_atoms(atoms: Tensor, activation: Activation | None = None) -> Dictionary:
    """Each latent reads its own atom."""
    dictionary = Dictionary(atoms.shape[1], len(atoms), activation or ReLU()).double()
    dictionary.W_dec.data.copy_(atoms)
    dictionary.W_enc.data.copy_(atoms.T)
    return dictionary


def step(
    dictionary: Dictionary, x: Tensor, *, seed: int = 0, path: Path = "auto", memory: dict[str, Tensor] | None = None,
    progress: float = 0.5, documents: Tensor | None = None, positions: Tensor | None = None,
    counterfactuals: Callable[[], Counterfactuals] = no_counterfactuals,
) -> Step:  # fmt: skip
    """Every row a document of its own, unless `documents` says otherwise."""
    index = torch.arange(len(x))
    of = Batch(x.detach(), index, index if documents is None else documents, index if positions is None else positions)
    return Step(
        x=x, z=dictionary.codes(x, path), dictionary=dictionary, batch=of,
        dead=torch.zeros(dictionary.d_sae, dtype=torch.bool), progress=progress, contexts=no_contexts, rng=rng(seed),
        counterfactuals=counterfactuals, memory={} if memory is None else memory,
    )  # fmt: skip


def decoder_step(atoms: Tensor, *, seed: int = 0, memory: dict[str, Tensor] | None = None) -> Step:
    """For terms that read atoms alone."""
    return step(with_atoms(atoms), torch.zeros(1, atoms.shape[1], dtype=torch.float64), seed=seed, memory=memory)
