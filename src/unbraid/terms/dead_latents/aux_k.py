"""AuxK: dead latents learn to explain what the living ones leave over (Gao et al. 2024, section 2.4 and B.1).

    |e - e_hat|^2 / |e - mean e|^2,   e = x - x_hat (no gradient),   e_hat = the k_aux most active dead latents, decoded

One product with the dead columns finds those; all else touches the pairs found alone or, in bfloat16, whole matrices of
the dead, where so large a share of them is used that these are faster. Zero, and free, while nothing is dead.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import PositiveFloat
from unbraid.dictionary.activations.selection import largest_of_rows, support_of
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.codes import SparseCodes, SparseSupport
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoder import encoded, encoded_pairs
from unbraid.dictionary.products import decoded
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.system.devices import queued


@dataclass(frozen=True, kw_only=True)
class AuxK(Term):
    weight: float = 1 / 32  # Gao et al. 2024, A.2
    k_share: PositiveFloat = 0.5
    """Dead latents used a token, as a share of d_in (Gao et al. 2024, B.1)."""
    family: ClassVar[Family] = "dead latents"
    splits: ClassVar[bool] = True
    shards: ClassVar[bool] = True
    standard: ClassVar[bool] = True

    def __call__(self, step: Step) -> TermOutput:
        dead, dictionary = step.dead_latents, step.dictionary
        dying = sum(dictionary.shards.counts(dead.numel()))
        if not dying:
            return step.no_loss()
        error = (step.x - step.x_hat).detach()
        k = min(max(1, round(self.k_share * dictionary.d_in)), dying)
        low = dictionary.low_precision and step.x.is_cpu and dictionary.shards.alone
        if low and k / dying > dictionary.dense_limit():
            explained = decoded_densely(dictionary, step.x, dead, k)
        else:
            explained = dictionary.written(most_active(dictionary, step.x, dead, k))
        scale = step.spread_of(error).clamp_min(1e-12)
        return TermOutput((explained - error).square().sum() / scale)


def decoded_densely(
    dictionary: Dictionary, x: Float[Tensor, "batch d_in"], latents: Int[Tensor, " some"], k: int
) -> Float[Tensor, "batch d_in"]:
    """Return what `most_active` decodes to, by whole matrices of these latents, in bfloat16."""
    readers, bias = dictionary.W_enc.t().index_select(0, latents), dictionary.b_enc.index_select(0, latents)
    pre = encoded(x, dictionary.b_dec, readers.t(), bias, bfloat16=True)
    values = TopK(k).dense(pre, bias)
    return decoded(values, dictionary.W_dec.index_select(0, latents), bfloat16=True)


def most_active(
    dictionary: Dictionary, x: Float[Tensor, "batch d_in"], latents: Int[Tensor, " some"], k: int
) -> SparseCodes:
    """Return the codes of x by the k largest of these latents alone, rectified, a row; differentiable."""
    with torch.no_grad():
        pre, among = largest_of_rows(dictionary.chunks_among(x, latents), k)
        support = SparseSupport(latents[among.latents], among.offsets, dictionary.d_sae, dictionary.kernels)
        if not queued(pre.device):  # there the host would wait for the number of positive ones
            active = pre > 0
            pre, rows, found = pre[active], support.rows[active], support.latents[active]
            support = support_of(rows, found, len(x), dictionary.d_sae, dictionary.kernels)
    pre = encoded_pairs(x, dictionary.b_dec, dictionary.W_enc, dictionary.b_enc, pre, support)
    return SparseCodes(pre, pre.relu(), support)
