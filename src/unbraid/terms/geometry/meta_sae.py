"""Atoms should not be sparse sums of fewer, simpler directions (MetaSAE, arXiv 2604.03436).

    mean_i relu(1 - |d_i - d_i_hat|^2),   d_i_hat = sum of the k meta-atoms that read d_i most, weighted by reading

A small TopK autoencoder without biases, the meta-SAE, is trained on the atoms alongside, by Adam, on samples and
without gradient to them; then the share of the atoms that it explains is charged, with gradient to the atoms alone. An
atom explained worse than by nothing is not charged. The paper was read as abstract only: widths, k and rates are ours
(k after the meta-SAEs of Leask et al. 2025, arXiv 2502.04878).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.config.settings import NonNegativeInt, PositiveFloat, PositiveInt, ShareAboveZero
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.system.devices import sent
from unbraid.terms.statistics.adam import at_rest, stepped

PARAMETERS = ("encoder", "decoder")
BETAS = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class MetaSAE(Term):
    every: int = 5
    share: ShareAboveZero = 1 / 16
    """Meta-atoms, as a share of the atoms."""
    k: PositiveInt = 4
    """Meta-atoms used for one atom."""
    sample: PositiveInt = 1024
    """Atoms drawn for each step of the meta-SAE, and for the penalty."""
    steps: NonNegativeInt = 2
    """Steps of the meta-SAE each time."""
    lr: PositiveFloat = 1e-3
    """The meta-SAE's."""
    reads: ClassVar[tuple[Reads, ...]] = ("decoder",)
    family: ClassVar[Family] = "geometry"

    def only_in_training(self) -> str:
        return "its meta-SAE learns while the dictionary does and is not kept"

    def __call__(self, step: Step) -> TermOutput:
        atoms, memory = step.dictionary.W_dec, step.memory
        if "steps" not in memory:
            memory |= fresh(atoms.detach(), self._width(len(atoms)), step.rng)
        for _ in range(self.steps):
            gradients = self._gradients(memory, draw(atoms.detach(), self.sample, step.rng))
            memory |= unit_atoms(stepped(memory, gradients, self.lr, BETAS))
        explained = self._explained(memory, draw(atoms, self.sample, step.rng))
        return TermOutput(explained.relu().mean(), {"explained": explained.mean()})

    def _width(self, d_sae: int) -> int:
        return min(d_sae, max(self.k, round(self.share * d_sae)))

    def _explained(
        self, parameters: Mapping[str, Tensor], atoms: Float[Tensor, "sample d_in"]
    ) -> Float[Tensor, " sample"]:
        """Share of each unit atom's square that the meta-SAE explains; negative where it does harm."""
        encoder, decoder = parameters["encoder"], parameters["decoder"]
        values, index = (atoms @ encoder.T).topk(min(self.k, len(encoder)), dim=1, sorted=False)
        reconstructed = (values.relu().unsqueeze(2) * decoder[index]).sum(1)
        return 1 - (atoms - reconstructed).square().sum(1)

    def _gradients(self, parameters: Mapping[str, Tensor], atoms: Float[Tensor, "sample d_in"]) -> dict[str, Tensor]:
        """Gradients of the meta-SAE's error, for each of its parameters."""
        own = {name: parameters[name].clone().requires_grad_() for name in PARAMETERS}
        with torch.enable_grad():
            found = torch.autograd.grad(-self._explained(own, atoms).mean(), list(own.values()))
        return dict(zip(PARAMETERS, found, strict=True))


def draw(atoms: Float[Tensor, "d_sae d_in"], count: int, rng: torch.Generator) -> Float[Tensor, "sample d_in"]:
    return atoms.index_select(0, sent(torch.randperm(len(atoms), generator=rng)[:count], atoms.device))


def fresh(atoms: Float[Tensor, "d_sae d_in"], width: int, rng: torch.Generator) -> dict[str, Tensor]:
    """A meta-SAE that starts from copies of atoms, so that none of it is dead. An atom that is its own copy is not
    pushed: the penalty is flat where reconstruction is exact."""
    start = draw(atoms, width, rng)
    return at_rest({"encoder": start, "decoder": start.clone()})


def unit_atoms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Meta-atoms of unit norm."""
    norms = torch.linalg.vector_norm(state["decoder"], dim=1, keepdim=True)
    return {**state, "decoder": state["decoder"] / norms.clamp_min(1e-12)}
