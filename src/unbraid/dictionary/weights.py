"""The weights of a dictionary and its linear maps: what an activation encodes with.

    pre = (x - b_dec) @ W_enc + b_enc

Parameter names and shapes are SAELens's, so a state dict is already an export. W_enc is stored with its d_sae rows
contiguous (a transposed view), because the sparse kernels read and write it a latent at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unbraid.dictionary.codes import SparseSupport
from unbraid.dictionary.kernels import Kernels
from unbraid.system.group import ALONE, Group

Acts = Float[Tensor, "batch d_in"]
Latents = Float[Tensor, "batch d_sae"]
Path = Literal["auto", "sparse", "dense"]

# Entries of one chunk of pre-activations: 16 MB in float32, about a core's share of cache.
CHUNK_ENTRIES = {"cpu": 2**22, "cuda": 2**28}

MEASURED = 8
"""Rows on which the error of rounded products is measured."""

# Share of active latents above which dense products beat the sparse kernels, by kind of device: on the CPU break-even
# is at .13 (d_in 64, 512 latents) to .21 (512, 4,096; docs/performance.md), elsewhere it has not been measured.
DENSE_ABOVE = {"cpu": 0.15}
DENSE_ABOVE_ELSEWHERE = 0.05

# With products in bfloat16 whole matrices pay sooner, from about 256 inputs on: break-even is at .04 to .08 for ReLU
# and TopK, at some .1 for JumpReLU (512 inputs, 4,096 latents), and proposing pairs pays up to .01 to .015 alone. These
# are constants, not measured as a run begins, so that the machine's load does not decide what a run computes.
DENSE_ABOVE_BFLOAT16 = 0.06
BFLOAT16_PAYS_FROM = 256
PROPOSED_UP_TO = 0.0125

ROUNDING = 1e-5
"""Distance of a norm from 1 that is float32's own."""


@dataclass(frozen=True)
class Chunks:
    """Pre-activations of a batch, computed a few rows at a time into one buffer: use a chunk before taking the next."""

    batch: int
    d_sae: int
    rows: int
    """Rows in a chunk."""
    device: torch.device
    compute: Callable[[slice], Float[Tensor, "rows d_sae"]]
    rounded: "Rounded | None" = None
    """What mends them where they are rounded; None where they are exact."""
    group: Group = ALONE
    """The processes whose rows, after one another, are the batch that is encoded."""
    shards: Group = ALONE
    """The processes of which each has some of the latents."""
    kernels: Kernels | None = None
    """What chooses the largest of rows and computes with the pairs chosen; None: torch's operations."""

    @property
    def among(self) -> Group:
        """The processes that have the pairs of the whole batch together."""
        return self.group if self.shards.alone else self.shards

    def for_share(self, active: float) -> "Chunks":
        """Return these or, where they are rounded and such a share of latents is active that mending them takes longer
        than rounding saves, exact ones."""
        return self if self.rounded is None or active <= PROPOSED_UP_TO else self.rounded.chunks

    def __iter__(self) -> Iterator[tuple[int, Float[Tensor, "rows d_sae"]]]:
        for start in range(0, self.batch, self.rows):
            yield start, self.compute(slice(start, min(start + self.rows, self.batch)))


@dataclass(frozen=True)
class Rounded:
    """Exact pre-activations, for where rounded ones propose the pairs that exact ones choose among."""

    exact: Callable[[SparseSupport], Float[Tensor, " nnz"]]
    """Return the exact pre-activations of these pairs."""
    error: Callable[[], Float[Tensor, ""]]
    """Return the largest error among all latents of the few largest rows."""
    chunks: Chunks
    """All exact pre-activations."""


class Weights(nn.Module):
    """Encoder, atoms, biases and thresholds, all zero when made; the base of `Dictionary`, which adds an activation."""

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        learns_threshold: bool = False,
        extra_parameters: tuple[str, ...] = (),
        tied: bool = False,
        bfloat16: bool = False,
    ):
        super().__init__()
        self.low_precision = bfloat16
        """Products in bfloat16: those of dense codes and of their gradients, and the encoder's where few latents are
        active; it then proposes pairs for sparse codes, which are chosen by exact values."""
        self.dense_above: float | None = None
        """Share of active latents above which codes are dense; None: that of the device."""
        self.kernels: Kernels | None = None
        """What sparse codes are chosen and computed with; None: torch's operations."""
        self.group = ALONE
        """The processes that what is encoded is shared out to."""
        self.shards = ALONE
        """The processes that hold the dictionary together: each an equal share of its latents, in order, and all b_dec.
        These weights are this one's."""
        self.W_enc = nn.Parameter(torch.zeros(d_sae, d_in).t())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(torch.zeros(d_sae, d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.threshold = nn.Parameter(torch.zeros(d_sae), requires_grad=learns_threshold)
        for name in extra_parameters:
            self.register_parameter(name, nn.Parameter(torch.zeros(d_sae)))
        if tied:
            self.W_enc.requires_grad_(False)
            self.b_enc.requires_grad_(False)

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    @property
    def width(self) -> int:
        """The number of latents in all processes that hold the dictionary together."""
        return self.d_sae * self.shards.size

    def dense_limit(self) -> float:
        """Return the share of active latents above which codes are dense."""
        if self.dense_above is not None:
            return self.dense_above
        limit = DENSE_ABOVE.get(self.W_dec.device.type, DENSE_ABOVE_ELSEWHERE)
        return min(limit, DENSE_ABOVE_BFLOAT16) if self.low_precision and self.d_in >= BFLOAT16_PAYS_FROM else limit

    def norms(self) -> Float[Tensor, " d_sae"]:
        """Return the norms of the atoms: exactly 1, but where latents that are compared were trained on whitened
        activations (`Normaliser`)."""
        norms = torch.linalg.vector_norm(self.W_dec.detach(), dim=1)
        return torch.where((norms - 1).abs() <= ROUNDING, 1.0, norms)

    def unit_atoms(self) -> Float[Tensor, "d_sae d_in"]:
        """Return the atoms without their norms, and without gradient."""
        return self.W_dec.detach() / self.norms().unsqueeze(1)

    def pre_activations(self, x: Acts) -> Latents:
        """Return pre-activations of all latents, differentiable, in the precision of the weights."""
        return torch.addmm(self.b_enc, x - self.b_dec, self.W_enc)

    def chunks(self, x: Acts) -> Chunks:
        """Return pre-activations of x a few rows at a time, without gradient; rounded where products are."""
        centred, readers, bias = (x - self.b_dec).detach(), self.W_enc.detach(), self.b_enc.detach()
        whole = self._known(chunks_of(centred, readers, bias))
        if not self.low_precision:
            return whole
        # What is not asked for is not rounded: codes may turn out dense.
        low = cache(lambda: (centred.bfloat16(), readers.bfloat16(), bias.bfloat16()))
        low_chunks = cache(lambda: chunks_of(*low()))

        def exact(pairs: SparseSupport) -> Tensor:
            return pairs.products(centred, readers.t(), pairs.rows_by_latent) + bias[pairs.latents]

        def error() -> Tensor:
            rows = torch.linalg.vector_norm(centred, dim=1).topk(min(MEASURED, len(x))).indices
            low_centred, low_readers, low_bias = low()
            measured = torch.addmm(low_bias, low_centred[rows], low_readers)
            return (torch.addmm(bias, centred[rows], readers) - measured).abs().max()

        compute = lambda part: low_chunks().compute(part)
        return replace(whole, compute=compute, rounded=Rounded(exact, error, whole))

    def chunks_among(self, x: Acts, latents: Int[Tensor, " some"]) -> Chunks:
        """Return `chunks` as if there were these latents alone, in the precision of the weights."""
        readers = self.W_enc.detach().t().index_select(0, latents)
        chunks = chunks_of((x - self.b_dec).detach(), readers.t(), self.b_enc.detach().index_select(0, latents))
        return replace(self._known(chunks), group=ALONE)

    def _known(self, chunks: Chunks) -> Chunks:
        """Return chunks that know with whom and by what pairs are chosen from them."""
        return replace(chunks, group=self.group, shards=self.shards, kernels=self.kernels)


def chunks_of(centred: Acts, readers: Float[Tensor, "d_in latent"], bias: Float[Tensor, " latent"]) -> Chunks:
    """Return products of rows and readers, plus the bias, in the precision of the rows."""
    rows = max(1, CHUNK_ENTRIES.get(centred.device.type, 2**22) // max(1, len(bias)))
    bias = bias.to(centred.dtype)
    buffer = centred.new_empty(min(rows, len(centred)), len(bias))

    def compute(part: slice) -> Tensor:
        return torch.addmm(bias, centred[part], readers, out=buffer[: part.stop - part.start])

    return Chunks(len(centred), len(bias), rows, centred.device, compute)
