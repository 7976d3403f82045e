"""Atoms that are learned before there is any code: the first stage of a dictionary in two stages.

    max_D tr( E (Gamma + ridge I)^-1 E' ),   over random sets of atoms and contexts; see causal/kernel.py

Proposed in a comment on the DCT post: learn a decoder that changes the layers after as much and as diversely as it can,
freeze it, and train an encoder to it. With frozen = ("W_dec",) an experiment says the whole of it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.causal.calibration import calibrate_radius
from unbraid.causal.effect import pooled_effect
from unbraid.causal.kernel import explained
from unbraid.dictionary import Acts, Dictionary, Initialisation, Origin, set_tied
from unbraid.source import Source


@dataclass(frozen=True)
class CausalAtoms(Initialisation):
    """Random unit atoms, moved by Adam to what the layers after feel; the encoder their transpose, b_dec the mean."""

    epochs: int = 50
    """Times that every atom is in a set."""
    columns: int = 64
    """Atoms in a set: those that are kept apart."""
    contexts: int = 4
    """Whole sequences, drawn anew for each set."""
    radius: float = 0.0
    """Size of the perturbation, in raw units; 0 calibrates it."""
    ridge: float = 1e-2
    """Added to the diagonal of Gamma: duplicates must not be singular."""
    lr: float = 1e-2
    """Adam's."""

    def __call__(
        self, dictionary: Dictionary, sample: Acts, rng: torch.Generator, origin: Origin | None = None
    ) -> None:
        if origin is None:
            raise ValueError("causal atoms need the layers after the activations: build the dictionary with an origin")
        start = torch.randn(dictionary.d_sae, dictionary.d_in, generator=rng).to(sample)
        set_tied(dictionary, self.learned(start, origin.source, rng), sample)

    def learned(
        self, start: Float[Tensor, "d_sae d_in"], source: Source, rng: torch.Generator
    ) -> Float[Tensor, "d_sae d_in"]:
        """Raises ValueError when nothing comes after the source's activations, or no radius can be calibrated."""
        first = source.contexts(self.contexts, split="train", seed=drawn_seed(rng))
        radius = self.radius or calibrate_radius(first, rng=rng)
        atoms = unit(start).requires_grad_()
        optimiser = torch.optim.Adam([atoms], lr=self.lr)
        for _ in range(self.epochs):
            for chosen in torch.randperm(len(atoms), generator=rng).to(atoms.device).split(self.columns):
                contexts = source.contexts(self.contexts, split="train", seed=drawn_seed(rng))
                with torch.enable_grad():
                    directions = unit(atoms[chosen])  # the gradient is then tangent, and atoms only need rescaling
                    loss = -explained(pooled_effect(contexts, radius * directions), directions, self.ridge)
                    optimiser.zero_grad()
                    loss.backward()
                optimiser.step()
                atoms.data.copy_(unit(atoms.detach()))
        return atoms.detach()


def unit(atoms: Float[Tensor, "k d_in"]) -> Float[Tensor, "k d_in"]:
    return atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)


def drawn_seed(rng: torch.Generator) -> int:
    return int(torch.randint(2**31 - 1, (), generator=rng))
