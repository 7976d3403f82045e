"""Selection of the (row, latent) pairs that may be active, from chunks of pre-activations, a few rows at a time."""

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.dictionary.codes import SparseSupport, counted, starts
from unbraid.dictionary.weights import Chunks, Latents
from unbraid.system.devices import queued
from unbraid.system.group import Group

PEEK = 32
"""Rows that are looked at to see how many latents are active: at most a few percent of a batch."""

Selection = tuple[Float[Tensor, " nnz"], SparseSupport]
"""Pre-activations of the selected pairs, and which pairs they are."""
Pairs = tuple[Float[Tensor, " nnz"], Int[Tensor, " nnz"], Int[Tensor, " nnz"]]
"""Pre-activations, rows and latents of pairs, row by row."""


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
    if chunks.rounded is None:
        return proposed_of_rows(chunks, k)
    _, proposed = proposed_of_rows(chunks, min(2 * k, chunks.d_sae))
    pre = chunks.rounded.exact(proposed).view(chunks.batch, -1)
    place = pre.topk(k, dim=1, sorted=False).indices.sort(dim=1).values
    return pre.gather(1, place).view(-1), same_in_rows(proposed.latents.view_as(pre).gather(1, place), chunks.d_sae)


def proposed_of_rows(chunks: Chunks, k: int) -> Selection:
    """Select the k largest of every row, by pre-activations as they are, rounded or not."""
    values, latents = [], []
    for _, pre in chunks:
        index = top_k(pre, k)[1].sort(dim=1).values
        values.append(pre.gather(1, index).view(-1))
        latents.append(index)
    return torch.cat(values), same_in_rows(torch.cat(latents), chunks.d_sae)


def same_in_rows(latents: Int[Tensor, "batch k"], d_sae: int) -> SparseSupport:
    """Return the support that has these latents in each row."""
    batch, k = latents.shape
    return SparseSupport(latents.reshape(-1), torch.arange(0, batch * k + 1, k, device=latents.device), d_sae)


def above(chunks: Chunks, bound: Float[Tensor, " d_sae"], dense_above: float) -> Selection | None:
    """Select all pairs above a per-latent bound; None where of the first rows' pairs a larger share than `dense_above`
    is."""
    # Twice the error: the lower bound is rounded itself.
    lower = bound if chunks.rounded is None else bound - 2 * chunks.rounded.error()
    waits = queued(chunks.device)
    if not waits and dense_above < 1 and share_above(chunks, lower) > dense_above:
        return None
    parts = pairs_above(chunks, lambda first: lower.to(first.dtype))
    first = next(parts)
    # The host waits for the number of the first chunk's pairs anyway, and should not wait twice.
    if waits and len(first[0]) > dense_above * min(chunks.rows, chunks.batch) * chunks.d_sae:
        return None
    pre, rows, latents = joined([first, *parts])
    if chunks.rounded is not None:
        pre = chunks.rounded.exact(support_of(rows, latents, chunks.batch, chunks.d_sae))
        kept = (pre > bound[latents]).nonzero().squeeze(1)
        pre, rows, latents = pre[kept], rows[kept], latents[kept]
    return pre, support_of(rows, latents, chunks.batch, chunks.d_sae)


def share_above(chunks: Chunks, bound: Float[Tensor, " d_sae"]) -> float:
    """Return the share of pairs above a per-latent bound in the first rows."""
    pre = chunks.compute(slice(0, min(PEEK, chunks.rows, chunks.batch)))
    return int((pre > bound).sum()) / pre.numel()


def largest(chunks: Chunks, k: int) -> Selection:
    """Select the k * batch largest positive pairs of the whole batch, of which a group's processes have some rows each;
    where there are fewer, all of these, and perhaps others."""
    wanted = k * chunks.batch * chunks.group.size
    proposed = wanted if chunks.rounded is None else 2 * wanted
    if queued(chunks.device):
        pre, rows, latents = largest_at_once(chunks, proposed)
    else:
        pre, rows, latents = largest_above_bound(chunks, k, proposed)
    if chunks.rounded is not None:
        pre = chunks.rounded.exact(support_of(rows, latents, chunks.batch, chunks.d_sae))
        kept = largest_in_group(pre, wanted, chunks.group)
        pre, rows, latents = pre[kept], rows[kept], latents[kept]
    return pre, support_of(rows, latents, chunks.batch, chunks.d_sae)


def largest_above_bound(chunks: Chunks, k: int, wanted: int) -> Pairs:
    """Return so many largest positive pairs, at least k a row where there are as many, by looking at those above a
    bound, the same in all processes of a group."""
    group = chunks.group
    bound = lambda share: lambda first: group.first(bound_of(k, share, first))
    pre, rows, latents = joined(pairs_above(chunks, bound(0.8)))
    for share in (0.4, 0.0):
        # Should the first chunk not be typical, too few entries exceed its bound and a lower one is tried.
        if sum(group.counts(pre.numel())) < k * chunks.batch * group.size:
            pre, rows, latents = joined(pairs_above(chunks, bound(share)))
    kept = largest_in_group(pre, wanted, group)
    return pre[kept], rows[kept], latents[kept]


def largest_at_once(chunks: Chunks, wanted: int) -> Pairs:
    """Return as many largest pairs of the whole batch, whatever their sign: without numbers that the host must wait
    for, such as that of the pairs above a bound."""
    parts: list[tuple[Tensor, Tensor]] = []
    for start, pre in chunks:
        best = pre.view(-1).topk(min(wanted, pre.numel()), sorted=False)
        parts.append((best.values, best.indices + start * chunks.d_sae))
    pre, places = (torch.cat(column) for column in zip(*parts, strict=True))
    if len(pre) > wanted:
        pre, chosen = pre.topk(wanted, sorted=False)
        places = places[chosen]
    if not chunks.group.alone:
        kept = largest_in_group(pre, wanted, chunks.group)
        pre, places = pre[kept], places[kept]
    places, order = places.sort()
    rows = places.div(chunks.d_sae, rounding_mode="floor")
    return pre[order], rows, places - rows * chunks.d_sae


def largest_in_order(values: Float[Tensor, " nnz"], count: int) -> Int[Tensor, " kept"]:
    """Return the places of so many largest values, or of all, ascending."""
    if values.numel() <= count:
        return torch.arange(values.numel(), device=values.device)
    return values.topk(count, sorted=False).indices.sort().values


def largest_in_group(values: Float[Tensor, " nnz"], count: int, group: Group) -> Int[Tensor, " kept"]:
    """Return the places of those of this process's values that are among so many largest of the group's, ascending."""
    if group.alone:
        return largest_in_order(values, count)
    begins = sum(group.counts(len(values))[: group.rank])
    kept = largest_in_order(group.joined(values), count) - begins
    return kept[(kept >= 0) & (kept < len(values))]


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


def pairs_above(chunks: Chunks, bound_from: Callable[[Latents], Tensor | float]) -> Iterator[Pairs]:
    """Yield the pairs of each chunk above a bound that may depend on the first."""
    bound: Tensor | float | None = None
    for start, pre in chunks:
        bound = bound_from(pre) if bound is None else bound
        hits = nonzero(pre > bound)
        row = hits.div(chunks.d_sae, rounding_mode="floor")
        yield pre.view(-1)[hits], row + start, hits - row * chunks.d_sae


def joined(parts: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Pairs:
    """Return the pairs of all parts."""
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


def support_of(rows: Int[Tensor, " nnz"], latents: Int[Tensor, " nnz"], batch: int, d_sae: int) -> SparseSupport:
    """Return the support of these pairs, which are ordered by row, then by latent."""
    counts = counted(rows, batch)
    offsets = torch.cat([starts(counts), counts.sum(0, keepdim=True)])
    return SparseSupport(latents, offsets, d_sae)


def check_k(k: int, d_sae: int, first_k: float = 1.0) -> None:
    """Raise ValueError when k latents, or the `first_k` times as many that training begins with, cannot be active out
    of d_sae."""
    if k > d_sae:
        raise ValueError(f"k = {k} latents cannot be active out of d_sae = {d_sae}")
    if round(first_k * k) > d_sae:
        raise ValueError(
            f"training would begin with k = {round(first_k * k)} latents ({first_k:g} times {k}), which cannot be "
            f"active out of d_sae = {d_sae}: set --dictionary.activation.first-k to {d_sae / k:.3g} or less"
        )


def check_anneal(first_k: float, anneal: float, usual: float) -> None:
    """Raise ValueError for a share of training over which k falls where it does not fall."""
    if first_k == 1 and anneal != usual:
        raise ValueError(
            f"anneal {anneal:g} says over how much of training k falls, and with first_k 1 it does not: set first_k "
            "above 1, or leave anneal out"
        )


def annealed_k(k: int, first_k: float, until: float, progress: float) -> int:
    """Return the k after this share of training: falling in a line from `first_k` times k, and k from `until` on."""
    left = max(0.0, 1 - progress / until)
    return round(k * (1 + (first_k - 1) * left))
