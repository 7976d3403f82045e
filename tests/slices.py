"""Slices whose effects are known, and atoms moved by terms through them: what a term makes of a dictionary alone."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tests.steps import rng, step, with_atoms
from unbraid.effects.effect import pooled_effect
from unbraid.objective.objective import Step, Term
from unbraid.sources.base import Contexts

D_IN = 16


def orthonormal(count: int, seed: int = 1, d_in: int = D_IN) -> Tensor:
    return torch.linalg.qr(torch.randn(d_in, d_in, generator=rng(seed), dtype=torch.float64))[0][:count]


def exponential(planted: Tensor, outputs: Tensor) -> Callable[[Tensor], Tensor]:
    """A residual slice that is exponential along the planted directions, and blind to what is orthogonal to them."""
    return lambda acts: acts + torch.expm1(acts @ planted.T) @ outputs


def at(acts: Tensor, downstream: Callable[[Tensor], Tensor]) -> Contexts:
    """Every token of `acts` [sequence, position, d_in] is kept."""
    return Contexts(acts, torch.ones(acts.shape[:2], dtype=torch.bool), downstream(acts), downstream)


def near_origin(downstream: Callable[[Tensor], Tensor], *, sequences: int = 4, spread: float = 0.1) -> Contexts:
    return at(spread * torch.randn(sequences, 2, D_IN, generator=rng(9), dtype=torch.float64), downstream)


def firing_step(atoms: Tensor, contexts: Contexts, *, memory: dict[str, Tensor] | None = None, seed: int = 0) -> Step:
    """All latents fire at all tokens."""
    dictionary = with_atoms(atoms)
    dictionary.b_enc.data.fill_(10.0)
    made = step(dictionary, torch.zeros(2, atoms.shape[1], dtype=torch.float64), seed=seed, memory=memory)
    return replace(made, contexts=lambda: contexts, normalise=lambda acts: acts, restore=lambda x: x)


def minimise(
    terms: Mapping[str, Term], contexts: Contexts, atoms: Tensor, *, steps: int = 60, lr: float = 6e-2,
    unit: bool = True, momentum: bool = True,
) -> Tensor:  # fmt: skip
    """The atoms after so many steps of Adam (or plain gradient) on the sum of terms; `unit`: held at norm 1."""
    first = firing_step(atoms, contexts)
    dictionary = first.dictionary
    kind = torch.optim.Adam if momentum else torch.optim.SGD
    optimiser = kind([dictionary.W_dec], lr=lr)
    memory: dict[str, dict[str, Tensor]] = {name: {} for name in terms}
    for index in range(steps):
        shared = {}
        total = first.x.new_zeros(())
        for place, (name, term) in enumerate(terms.items()):
            seen = replace(first, rng=rng(1000 * index + place), memory=memory[name], shared=shared)
            total = total + term.weight * term(seen).loss
        optimiser.zero_grad()
        if not total.requires_grad:
            continue
        total.backward()
        if unit:
            dictionary.project_gradient()
        optimiser.step()
        if unit:
            dictionary.renormalise()
    return dictionary.W_dec.detach().clone()


def effect_size(contexts: Contexts, atoms: Tensor, radius: float = 1.0) -> float:
    """Mean norm of the atoms' pooled effects."""
    return float(pooled_effect(contexts, radius * atoms).norm(dim=1).mean())


def coherence(atoms: Tensor) -> float:
    """Mean over atoms of the largest |cos| with another."""
    cosines = (torch.nn.functional.normalize(atoms, dim=1) @ torch.nn.functional.normalize(atoms, dim=1).T).abs()
    return float(cosines.fill_diagonal_(0).amax(1).mean())


def alignment(atoms: Tensor, planted: Tensor) -> float:
    """Mean over planted directions of the largest |cos| with an atom."""
    return float((atoms @ planted.T).abs().amax(0).mean())
