"""Selection of the (row, latent) pairs that may be active, from chunks of pre-activations, a few rows at a time."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.dictionary.codes import SparseSupport, counted, starts
from unbraid.dictionary.weights import Chunks, Latents
from unbraid.system.devices import queued

PEEK = 32
"""Rows that are looked at to see how many latents are active: at most a few percent of a batch."""

Selection = tuple[Float[Tensor, " nnz"], SparseSupport]
"""Pre-activations of the selected pairs, and which pairs they are."""


def top_k(pre: Float[Tensor, "rows d_sae"], k: int, group: int = 8) -> tuple[Tensor, Tensor]:
    """Return values and latents of the exact k largest of each row, in two stages: a row's k largest lie in the k
    groups with the largest maxima, or among the last few latents, which fill no group."""
    rows, d_sae = pre.shape
    groups = d_sae // group
    if groups < k:
        values, latents = pre.topk(k, dim=1, sorted=False)
        return values, latents
    grouped = pre[:, : groups * group].unflatten(1, (group, groups))
    best = grouped.amax(1).topk(k, dim=1, sorted=False).indices
    candidates = grouped.gather(2, best.unsqueeze(1).expand(rows, group, k)).flatten(1)
    last = pre[:, groups * group :]
    values, place = (torch.cat([candidates, last], 1) if last.numel() else candidates).topk(k, dim=1, sorted=False)
    member = place.div(k, rounding_mode="floor")
    latents = member * groups + best.gather(1, place % k)
    return values, torch.where(member < group, latents, place + group * (groups - k))


def largest_of_rows(chunks: Chunks, k: int) -> Selection:
    """Select the k largest of every row, whatever their sign."""
    values, latents = [], []
    for _, pre in chunks:
        index = top_k(pre, k)[1].sort(dim=1).values
        values.append(pre.gather(1, index).view(-1))
        latents.append(index.view(-1))
    chosen = torch.cat(latents)
    offsets = torch.arange(0, chunks.batch * k + 1, k, device=chosen.device)
    return torch.cat(values), SparseSupport(chosen, offsets, chunks.d_sae)


def above(chunks: Chunks, bound: Float[Tensor, " d_sae"], dense_above: float) -> Selection | None:
    """Select all pairs above a per-latent bound; None where of the first rows' pairs a larger share than `dense_above`
    is."""
    if dense_above < 1 and share_above(chunks, bound) > dense_above:
        return None
    pre, rows, latents = pairs_above(chunks, lambda first: bound)
    return pre, support_of(rows, latents, chunks)


def share_above(chunks: Chunks, bound: Float[Tensor, " d_sae"]) -> float:
    """Return the share of pairs above a per-latent bound in the first rows."""
    pre = chunks.compute(slice(0, min(PEEK, chunks.rows, chunks.batch)))
    return int((pre > bound).sum()) / pre.numel()


def largest(chunks: Chunks, k: int) -> Selection:
    """Select the k * batch largest positive pairs of the whole batch; where there are fewer, all of these, and on some
    devices others."""
    wanted = k * chunks.batch
    if queued(chunks.device):
        return largest_at_once(chunks, wanted)
    pre, rows, latents = pairs_above(chunks, partial(bound_of, k, 0.8))
    for share in (0.4, 0.0):
        # Should the first chunk not be typical, too few entries exceed its bound and a lower one is tried.
        if pre.numel() < wanted:
            pre, rows, latents = pairs_above(chunks, partial(bound_of, k, share))
    if pre.numel() > wanted:
        kept = pre.topk(wanted, sorted=False).indices.sort().values
        pre, rows, latents = pre[kept], rows[kept], latents[kept]
    return pre, support_of(rows, latents, chunks)


def largest_at_once(chunks: Chunks, wanted: int) -> Selection:
    """Select as many largest pairs of the whole batch, whatever their sign: without numbers that the host must wait
    for, such as that of the pairs above a bound."""
    parts: list[tuple[Tensor, Tensor]] = []
    for start, pre in chunks:
        best = pre.view(-1).topk(min(wanted, pre.numel()), sorted=False)
        parts.append((best.values, best.indices + start * chunks.d_sae))
    pre, places = (torch.cat(column) for column in zip(*parts, strict=True))
    if len(pre) > wanted:
        pre, chosen = pre.topk(wanted, sorted=False)
        places = places[chosen]
    places, order = places.sort()
    rows = places.div(chunks.d_sae, rounding_mode="floor")
    return pre[order], support_of(rows, places - rows * chunks.d_sae, chunks)


def bound_of(k: int, share: float, first: Latents) -> float:
    """Return a share of the smallest entry that a sixteenth of these rows would keep. Exactness does not depend on
    it."""
    sample = first[::16]
    smallest_kept = sample.reshape(-1).topk(k * sample.shape[0], sorted=False).values.min()
    return max(0.0, share * float(smallest_kept))


def calibrate(k: int, chunks: Chunks) -> float:
    """Return the threshold that keeps k latents a row on average over these rows, 0 where none is positive."""
    pre, _ = largest(chunks, k)
    positive = pre[pre > 0]
    return float(positive.min()) if positive.numel() else 0.0


def pairs_above(
    chunks: Chunks, bound_from: Callable[[Latents], Tensor | float]
) -> tuple[Float[Tensor, " nnz"], Int[Tensor, " nnz"], Int[Tensor, " nnz"]]:
    """Return (pre, rows, latents) above a bound that may depend on the first chunk, row by row."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    bound: Tensor | float = 0.0
    for start, pre in chunks:
        if not parts:
            bound = bound_from(pre)
        hits = nonzero(pre > bound)
        row = hits.div(chunks.d_sae, rounding_mode="floor")
        parts.append((pre.view(-1)[hits], row + start, hits - row * chunks.d_sae))
    pre, rows, latents = (torch.cat(column) for column in zip(*parts, strict=True))
    return pre, rows, latents


def nonzero(mask: Bool[Tensor, "rows d_sae"]) -> Int[Tensor, " hit"]:
    """Return flat positions of the true entries, ascending. Eight entries, one integer, are searched at a time, where
    the host does not wait for each search."""
    if mask.numel() % 8 or queued(mask.device):
        return mask.view(-1).nonzero().squeeze(1)
    words = mask.view(-1, 8)
    word = words.view(torch.int64).view(-1).nonzero().squeeze(1)
    place = words.index_select(0, word).view(-1).nonzero().squeeze(1)
    return word[place.div(8, rounding_mode="floor")] * 8 + place % 8


def support_of(rows: Int[Tensor, " nnz"], latents: Int[Tensor, " nnz"], chunks: Chunks) -> SparseSupport:
    """Return the support of these pairs, ordered by row, then by latent."""
    counts = counted(rows, chunks.batch)
    offsets = torch.cat([starts(counts), counts.sum(0, keepdim=True)])
    return SparseSupport(latents, offsets, chunks.d_sae)


def check_k(k: int, d_sae: int) -> None:
    """Raise ValueError when k latents cannot be active out of d_sae."""
    if k > d_sae:
        raise ValueError(f"k = {k} latents cannot be active out of d_sae = {d_sae}")
