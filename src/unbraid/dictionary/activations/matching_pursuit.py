"""Matching pursuit: the encoder is the atoms themselves, used greedily (Costa et al. 2025, arXiv 2506.05239).

    r = x - b_dec;   k times:   i = argmax_j r . d_j,   v = relu(r . d_i),   z_i += v,   r -= v d_i

Which atoms are chosen passes no gradient; the values do, through all rounds. An atom may be chosen again, so at most k
latents are active.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, PositiveInt
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.selection import check_k, support_of
from unbraid.dictionary.codes import Codes, DenseCodes, SparseCodes, SparseSupport
from unbraid.dictionary.kernels import Kernels
from unbraid.dictionary.weights import Acts, Path, Weights

ENTRIES = 2**22
"""Entries of one chunk of products."""


@dataclass(frozen=True)
class MatchingPursuit(Activation):
    """Greedy rounds over the atoms, which are the encoder too (Costa et al. 2025)."""

    k: PositiveInt = 32
    """Rounds: the most latents a row can have."""
    residual: NonNegativeFloat = 0.0
    """Stop a row once no more than this norm is left; 0 goes on for all rounds. In the units of what is encoded."""
    stop_on_repeat: bool = False
    """Stop a row, too, after a round that chose no new atom (SAELens's stop_on_duplicate_support)."""
    tied: ClassVar[bool] = True
    splits: ClassVar[bool] = True
    compares_latents: ClassVar[bool] = True

    def encode(self, dictionary: Weights, x: Acts, path: Path) -> Codes:
        centred, atoms = x - dictionary.b_dec, dictionary.W_dec
        chosen, running = self._choose(centred.detach(), atoms.detach())
        values = replay(centred, atoms, chosen, running)
        if path == "dense" or (path == "auto" and self.k / len(atoms) > dictionary.dense_limit()):
            dense = values.new_zeros(len(x), len(atoms)).scatter_add(1, chosen, values)
            return DenseCodes(dense, dense)
        merged, support = merge(values, chosen, len(atoms), dictionary.kernels)
        return SparseCodes(merged, merged, support)

    def architecture(self) -> Mapping[str, Any]:
        settings = {"max_iterations": self.k, "residual_threshold": self.residual}
        return {"architecture": "matching_pursuit", **settings, "stop_on_duplicate_support": self.stop_on_repeat}

    def check_width(self, d_sae: int) -> None:
        check_k(self.k, d_sae)

    def scaled(self, by: float) -> "MatchingPursuit":
        return replace(self, residual=self.residual * by)

    @torch.no_grad()
    def _choose(
        self, x: Float[Tensor, "batch d_in"], atoms: Float[Tensor, "d_sae d_in"]
    ) -> tuple[Int[Tensor, "batch k"], Float[Tensor, "batch k"]]:
        """Return the atom of every round, and 1 where the row was still running."""
        rows = max(1, ENTRIES // len(atoms))
        parts = [self._choose_rows(part, atoms) for part in x.split(rows)]
        if not parts:
            return x.new_zeros(0, self.k, dtype=torch.long), x.new_zeros(0, self.k)
        chosen, running = zip(*parts, strict=True)
        return torch.cat(chosen), torch.cat(running)

    def _choose_rows(self, left: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        chosen = left.new_zeros(len(left), self.k, dtype=torch.long)
        running = left.new_zeros(len(left), self.k)
        on = left.new_ones(len(left), dtype=torch.bool)
        for turn in range(self.k):
            # The first of equal products, as SAELens has it: where none is positive, atom 0, at no size.
            best = (left @ atoms.T).relu_().max(1).indices
            value = (left * atoms[best]).sum(1).relu() * on
            repeated = ((chosen[:, :turn] == best[:, None]) & (running[:, :turn] > 0)).any(1)
            chosen[:, turn], running[:, turn] = best, on.to(left.dtype)
            left = left - value[:, None] * atoms[best]
            if self.stop_on_repeat:
                on = on & ~repeated & (value > 0)
            if self.residual > 0:
                on = on & (torch.linalg.vector_norm(left, dim=1) >= self.residual)
            if not bool(on.any()):
                break
        return chosen, running


def replay(
    x: Float[Tensor, "batch d_in"],
    atoms: Float[Tensor, "d_sae d_in"],
    chosen: Int[Tensor, "batch k"],
    running: Float[Tensor, "batch k"],
) -> Float[Tensor, "batch k"]:
    """Return the value of every round, differentiable, when it is known which atoms are chosen."""

    def rounds() -> Iterator[Tensor]:
        left = x
        for index, on in zip(chosen.unbind(1), running.unbind(1), strict=True):
            atom = atoms.index_select(0, index)
            value = (left * atom).sum(1).relu() * on
            left = left - value[:, None] * atom
            yield value

    return torch.stack(list(rounds()), 1)


def merge(
    values: Float[Tensor, "batch k"], chosen: Int[Tensor, "batch k"], d_sae: int, kernels: Kernels | None
) -> tuple[Float[Tensor, " nnz"], SparseSupport]:
    """Return one entry a (row, latent) pair, however often it was chosen; rounds without a value leave none."""
    row, turn = (values.detach() > 0).nonzero(as_tuple=True)
    pairs, place = torch.unique(row * d_sae + chosen[row, turn], return_inverse=True)
    merged = values.new_zeros(len(pairs)).index_add(0, place, values[row, turn])
    rows = pairs.div(d_sae, rounding_mode="floor")
    return merged, support_of(rows, pairs % d_sae, len(values), d_sae, kernels)
