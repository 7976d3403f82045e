"""Activations: how pre-activations become codes. Values, not subclasses of the dictionary.

Each knows three things: which (row, latent) pairs may be active (`select`, from chunks of pre-activations, never the
whole batch x d_sae), the value of such a pair (`gate`), and the same in one dense expression (`dense`, the oracle).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, PositiveInt, Settings
from unbraid.dictionary.codes import Codes, Support, starts

Latents = Float[Tensor, "batch d_sae"]

# Above this share of active latents four dense products beat the sparse kernels (measured on CPU, d_in 512: break-even
# 11 % at 4k latents, above 3 % at 16k; docs/performance.md).
DENSE_ABOVE = 0.05


@dataclass(frozen=True)
class Chunks:
    """Pre-activations of a batch, computed a few rows at a time into one buffer: use a chunk before taking the next."""

    batch: int
    d_sae: int
    rows: int
    """Rows in a chunk."""
    compute: Callable[[slice], Float[Tensor, "rows d_sae"]]

    def __iter__(self) -> Iterator[tuple[int, Float[Tensor, "rows d_sae"]]]:
        for start in range(0, self.batch, self.rows):
            yield start, self.compute(slice(start, min(start + self.rows, self.batch)))


Selection = tuple[Float[Tensor, " nnz"], Support]


class Activation(Settings, ABC):
    learns_threshold: ClassVar[bool] = False
    own: ClassVar[tuple[str, ...]] = ()
    """Parameters it adds to the dictionary, one number a latent."""
    tied: ClassVar[bool] = False
    """Whether the encoder is the atoms, transposed, and no parameter of its own."""

    @abstractmethod
    def select(self, chunks: Chunks, threshold: Float[Tensor, " d_sae"], dense_above: float) -> Selection | None:
        """Pre-activations and support of the pairs that may be active or get gradient; None when too many are."""

    @abstractmethod
    def gate(self, pre: Float[Tensor, " *entry"], threshold: Float[Tensor, " *entry"]) -> Float[Tensor, " *entry"]:
        """Value of each selected pair."""

    @abstractmethod
    def dense(self, pre: Latents, threshold: Float[Tensor, " d_sae"]) -> Latents:
        """All values at once."""

    def finish(self, z: Codes, parameters: Mapping[str, Tensor]) -> Codes:
        """Codes from selected and gated ones, by the dictionary's own per-latent parameters: most are done already."""
        return z

    def scaled(self, by: float) -> "Activation":
        """The same for inputs `by` times as large. Most have no setting in the units of their inputs."""
        return self


@dataclass(frozen=True)
class ReLU(Activation):
    """max(pre, 0)."""

    def select(self, chunks: Chunks, threshold: Tensor, dense_above: float) -> Selection | None:
        return above(chunks, torch.zeros_like(threshold), dense_above)

    def gate(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre.relu()

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        return pre.relu()


@dataclass(frozen=True)
class TopK(Activation):
    """The k largest latents of every row, rectified (Gao et al. 2024)."""

    k: PositiveInt = 32

    def select(self, chunks: Chunks, threshold: Tensor, dense_above: float) -> Selection | None:
        if self.k / chunks.d_sae > dense_above:
            return None
        values, latents = [], []
        for _, pre in chunks:
            index = top_k(pre, self.k)[1].sort(dim=1).values
            values.append(pre.gather(1, index).view(-1))
            latents.append(index.view(-1))
        offsets = torch.arange(0, chunks.batch * self.k + 1, self.k, device=threshold.device)
        return torch.cat(values), Support(torch.cat(latents), offsets, chunks.d_sae)

    def gate(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre.relu()

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        values, latents = pre.topk(self.k, dim=1, sorted=False)
        return torch.zeros_like(pre).scatter(1, latents, values.relu())


@dataclass(frozen=True)
class BatchTopK(Activation):
    """The k * batch largest latents of the whole batch, rectified (Bussmann et al. 2024).

    Rows then share a budget, so a trained dictionary is given one threshold that keeps k a row on average (`calibrate`)
    and is used, and saved, as JumpReLU.
    """

    k: PositiveInt = 32

    def select(self, chunks: Chunks, threshold: Tensor, dense_above: float) -> Selection | None:
        if self.k / chunks.d_sae > dense_above:
            return None
        wanted = self.k * chunks.batch
        # Should the first chunk not be typical, too few entries exceed its bound and a lower one is tried.
        for share in (0.8, 0.4, 0.0):
            selected = pairs_above(chunks, partial(self._bound, share))
            assert selected is not None
            pre, rows, latents = selected
            if pre.numel() >= wanted:
                break
        if pre.numel() > wanted:
            kept = pre.topk(wanted, sorted=False).indices.sort().values
            pre, rows, latents = pre[kept], rows[kept], latents[kept]
        return pre, support_of(rows, latents, chunks)

    def _bound(self, share: float, first: Latents) -> float:
        """A share of the smallest entry that a sixteenth of these rows would keep. Exactness does not depend on it."""
        sample = first[::16]
        smallest_kept = sample.reshape(-1).topk(self.k * sample.shape[0], sorted=False).values.min()
        return max(0.0, share * float(smallest_kept))

    def gate(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre.relu()

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        flat = pre.relu().view(-1)
        values, index = flat.topk(min(self.k * pre.shape[0], flat.numel()), sorted=False)
        return torch.zeros_like(flat).scatter(0, index, values).view_as(pre)


@dataclass(frozen=True)
class JumpReLU(Activation):
    """pre where pre > threshold, else 0; thresholds learn straight through (Rajamanoharan et al. 2024, eq. 11)."""

    bandwidth: NonNegativeFloat = 0.5
    """Width of the window around a threshold in which it gets gradient, in normalised activations. 0: inference.
    Thresholds settle at 0.5 to 2 there, so narrower windows leave most of them without gradient (docs/log.md)."""
    initial_l0: PositiveInt = 128
    """Thresholds start at one value, the one that leaves this many latents active a token (at most a quarter of
    them); with an L0 target, as many as that."""
    learns_threshold: ClassVar[bool] = True

    def select(self, chunks: Chunks, threshold: Tensor, dense_above: float) -> Selection | None:
        return above(chunks, threshold.detach() - self.bandwidth / 2, dense_above)

    def gate(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return _JumpReLU.apply(pre, threshold, self.bandwidth)

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        return _JumpReLU.apply(pre, threshold.expand_as(pre), self.bandwidth)


def window(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """The rectangle kernel: 1 / bandwidth within half a bandwidth of the threshold, else 0."""
    if bandwidth == 0:
        return torch.zeros_like(pre)
    return ((pre - threshold).abs() < bandwidth / 2).to(pre.dtype) / bandwidth


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pre, threshold = ctx.saved_tensors
        d_threshold = -threshold * window(pre, threshold, ctx.bandwidth) * grads[0]
        return grads[0] * (pre > threshold), d_threshold, None


def top_k(pre: Float[Tensor, "rows d_sae"], k: int, group: int = 16) -> tuple[Tensor, Tensor]:
    """Exact top-k of each row, in two stages: a row's k largest lie in the k groups with the largest maxima."""
    rows, d_sae = pre.shape
    groups = d_sae // group
    if d_sae % group or groups < k:
        values, latents = pre.topk(k, dim=1, sorted=False)
        return values, latents
    strided = pre.view(rows, group, groups)
    best = strided.amax(1).topk(k, dim=1, sorted=False).indices
    candidates = strided.gather(2, best.unsqueeze(1).expand(rows, group, k)).view(rows, group * k)
    values, place = candidates.topk(k, dim=1, sorted=False)
    return values, place.div(k, rounding_mode="floor") * groups + best.gather(1, place % k)


def above(chunks: Chunks, bound: Float[Tensor, " d_sae"], dense_above: float) -> Selection | None:
    """All pairs above a per-latent bound; None as soon as the first chunk shows more than `dense_above` of them."""
    selected = pairs_above(chunks, lambda first: bound, dense_above)
    if selected is None:
        return None
    pre, rows, latents = selected
    return pre, support_of(rows, latents, chunks)


def pairs_above(
    chunks: Chunks, bound_from: Callable[[Latents], Tensor | float], dense_above: float = float("inf")
) -> tuple[Tensor, Tensor, Tensor] | None:
    """(pre, rows, latents) above a bound that may depend on the first chunk, row by row.

    None when in that chunk a larger share than `dense_above` is.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    bound: Tensor | float = 0.0
    for start, pre in chunks:
        if not parts:
            bound = bound_from(pre)
        hits = nonzero(pre > bound)
        if not parts and hits.numel() > dense_above * pre.numel():
            return None
        row = hits.div(chunks.d_sae, rounding_mode="floor")
        parts.append((pre.view(-1)[hits], row + start, hits - row * chunks.d_sae))
    pre, rows, latents = (torch.cat(column) for column in zip(*parts, strict=True))
    return pre, rows, latents


def nonzero(mask: Bool[Tensor, "rows d_sae"]) -> Int[Tensor, " hit"]:
    """Flat positions of the true entries, ascending. Eight entries, one integer, are searched at a time."""
    if mask.numel() % 8:
        return mask.view(-1).nonzero().squeeze(1)
    words = mask.view(-1, 8)
    word = words.view(torch.int64).view(-1).nonzero().squeeze(1)
    place = words.index_select(0, word).view(-1).nonzero().squeeze(1)
    return word[place.div(8, rounding_mode="floor")] * 8 + place % 8


def support_of(rows: Int[Tensor, " nnz"], latents: Int[Tensor, " nnz"], chunks: Chunks) -> Support:
    counts = torch.bincount(rows, minlength=chunks.batch)
    offsets = torch.cat([starts(counts), counts.sum(0, keepdim=True)])
    return Support(latents, offsets, chunks.d_sae)


def calibrate(k: int, chunks: Chunks) -> float:
    """The threshold that keeps k latents a row on average over these rows: how BatchTopK becomes JumpReLU."""
    selected = BatchTopK(k).select(chunks, torch.zeros(()), dense_above=1.0)
    assert selected is not None
    positive = selected[0][selected[0] > 0]
    return float(positive.min()) if positive.numel() else 0.0
