"""Selection of the (row, latent) pairs that may be active, from chunks of pre-activations, a few rows at a time."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.dictionary.activations import cpu_search
from unbraid.dictionary.codes import SparseSupport, counted, starts
from unbraid.dictionary.kernels import Kernels
from unbraid.dictionary.weights import Chunks, Latents
from unbraid.system.devices import queued
from unbraid.system.group import Group

PEEK = 32
"""Rows that are looked at to see how many latents are active: at most a few percent of a batch."""

Selection = tuple[Float[Tensor, " nnz"], SparseSupport]
"""Pre-activations of the selected pairs, and which pairs they are."""
Pairs = tuple[Float[Tensor, " nnz"], Int[Tensor, " nnz"]]
"""Pre-activations of pairs and their places: row * d_sae + latent, ascending."""


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
    """Select the k largest of every row, whatever their sign, of which processes may have some latents each."""
    if chunks.shards.alone:
        return own_largest_of_rows(chunks, k)
    own = min(k, chunks.d_sae)
    pre, offered = own_largest_of_rows(chunks, own) if own else no_pairs(chunks)
    kept = agreed_in_rows(pre.view(chunks.batch, own), k, chunks.shards).reshape(-1).nonzero().squeeze(1)
    rows, latents = offered.rows[kept], offered.latents[kept]
    return pre[kept], support_of(rows, latents, chunks.batch, chunks.d_sae, chunks.kernels)


def agreed_in_rows(offered: Float[Tensor, "batch own"], k: int, group: Group) -> Bool[Tensor, "batch own"]:
    """Return which of the values that this process offers for each row are among the k largest of all that are."""
    batch, own = offered.shape
    most = max(group.counts(own))
    mine = offered.new_full((most, batch), -torch.inf)
    mine[:own] = offered.T
    values = group.joined(mine)
    # All have the same values, so that where some are equal all take the same ones.
    chosen = torch.zeros_like(values, dtype=torch.bool).scatter_(0, values.topk(k, dim=0).indices, True)
    return chosen[group.rank * most :][:own].T


def no_pairs(chunks: Chunks) -> Selection:
    """Select nothing, as of no latents."""
    none = torch.empty(0, dtype=torch.long, device=chunks.device)
    return chunks.compute(slice(0, 0)).view(-1), support_at(none, chunks)


def own_largest_of_rows(chunks: Chunks, k: int) -> Selection:
    """Select the k largest of every row among this process's latents."""
    chunks = chunks.for_share(k / chunks.d_sae)
    if chunks.rounded is None:
        return proposed_of_rows(chunks, k)
    _, proposed = proposed_of_rows(chunks, min(2 * k, chunks.d_sae))
    pre = chunks.rounded.exact(proposed).view(chunks.batch, -1)
    place = pre.topk(k, dim=1, sorted=False).indices.sort(dim=1).values
    return pre.gather(1, place).view(-1), same_in_rows(proposed.latents.view_as(pre).gather(1, place), chunks)


def proposed_of_rows(chunks: Chunks, k: int) -> Selection:
    """Select the k largest of every row, by pre-activations as they are, rounded or not."""
    largest_in_rows = ascending_top_k if chunks.kernels is None else chunks.kernels.largest_in_rows
    values, latents = joined([largest_in_rows(pre, k) for _, pre in chunks])
    return values.view(-1), same_in_rows(latents, chunks)


def ascending_top_k(pre: Float[Tensor, "rows d_sae"], k: int) -> tuple[Tensor, Tensor]:
    """Return values and latents of the k largest of each row, latents ascending."""
    found = cpu_search.largest_in_rows(pre, k) if cpu_search.searchable(pre) else None
    if found is None:
        latents = top_k(pre, k)[1].sort(dim=1).values
        found = pre.gather(1, latents), latents
    return found


def same_in_rows(latents: Int[Tensor, "batch k"], chunks: Chunks) -> SparseSupport:
    """Return the support that has these latents in each row."""
    batch, k = latents.shape
    offsets = torch.arange(0, batch * k + 1, k, device=latents.device)
    return SparseSupport(latents.reshape(-1), offsets, chunks.d_sae, chunks.kernels)


def above(chunks: Chunks, bound: Float[Tensor, " d_sae"], dense_above: float) -> Selection | None:
    """Select all pairs above a per-latent bound; None where of the first rows' pairs a larger share than `dense_above`
    is."""
    waits = queued(chunks.device)
    if not waits and (dense_above < 1 or chunks.rounded is not None):
        share = share_above(chunks if chunks.rounded is None else chunks.rounded.chunks, bound)
        if share > dense_above:
            return None
        chunks = chunks.for_share(share)
    # Twice the error: the lower bound is rounded itself.
    lower = bound if chunks.rounded is None else bound - 2 * chunks.rounded.error()
    parts = pairs_above(chunks, lambda first: lower.to(first.dtype))
    first = next(parts)
    # The host waits for the number of the first chunk's pairs anyway, and should not wait twice.
    if waits and len(first[0]) > dense_above * min(chunks.rows, chunks.batch) * chunks.d_sae:
        return None
    pre, places = joined([first, *parts])
    if chunks.rounded is not None:
        support = support_at(places, chunks)
        pre = chunks.rounded.exact(support)
        kept = (pre > bound[support.latents]).nonzero().squeeze(1)
        pre, places = pre[kept], places[kept]
    return pre, support_at(places, chunks)


def share_above(chunks: Chunks, bound: Float[Tensor, " d_sae"]) -> float:
    """Return the share of pairs above a per-latent bound in the first rows."""
    pre = chunks.compute(slice(0, min(PEEK, chunks.rows, chunks.batch)))
    above = cpu_search.count_above(pre, bound) if cpu_search.searchable(pre) else int((pre > bound).sum())
    return above / pre.numel()


def largest(chunks: Chunks, k: int) -> Selection:
    """Select the k * batch largest positive pairs of the whole batch, of which a group's processes have some rows, or
    some latents, each; where there are fewer, all of these, and perhaps others."""
    # Shards of latents may differ in size, and all are to do the same.
    chunks = chunks.for_share(chunks.shards.first(k / chunks.d_sae))
    wanted = k * chunks.batch * chunks.group.size
    proposed = wanted if chunks.rounded is None else 2 * wanted
    if queued(chunks.device):
        pre, places = largest_at_once(chunks, proposed)
    else:
        pre, places = largest_above_bound(chunks, k, proposed)
    if chunks.rounded is not None:
        pre = chunks.rounded.exact(support_at(places, chunks))
        kept = largest_in_group(pre, wanted, chunks.among)
        pre, places = pre[kept], places[kept]
    return pre, support_at(places, chunks)


def largest_above_bound(chunks: Chunks, k: int, wanted: int) -> Pairs:
    """Return so many largest positive pairs, at least k a row where there are as many, by looking at those above a
    bound, the same in all processes of a group."""
    group = chunks.among
    if chunks.rounded is None and group.alone and (found := largest_at_first_try(chunks, k, wanted)) is not None:
        return found
    typical = -(-k // chunks.shards.size)  # of the latents here
    bound = lambda share: lambda first: group.first(bound_of(typical, share, first, chunks.rows))
    pre, places = joined([*pairs_above(chunks, bound(0.8))])
    for share in (0.4, 0.0):
        # Should the first chunk not be typical, too few entries exceed its bound and a lower one is tried.
        if sum(group.counts(pre.numel())) < k * chunks.batch * chunks.group.size:
            pre, places = joined([*pairs_above(chunks, bound(share))])
    kept = largest_in_group(pre, wanted, group)
    return pre[kept], places[kept]


def largest_at_first_try(chunks: Chunks, k: int, wanted: int) -> Pairs | None:
    """Return so many largest pairs by a bound that is found, and leaves fewer pairs, in less time; None where it leaves
    too few, or where equal values leave open which these are: which are taken then is decided among more."""
    # At a share of .9 a third of the tries fail where 160 pairs give the bound (32 rows, k 5).
    pre, places = joined([*pairs_above(chunks, lambda first: bound_of(k, 0.85, first, 32))])
    if len(pre) <= wanted or not cpu_search.searchable(pre):
        return None
    kept = cpu_search.largest_places(pre, wanted)
    return None if kept is None else (pre[kept], places[kept])


def largest_at_once(chunks: Chunks, wanted: int) -> Pairs:
    """Return as many largest pairs of the whole batch, whatever their sign: without numbers that the host must wait
    for, such as that of the pairs above a bound."""
    parts: list[tuple[Tensor, Tensor]] = []
    for start, pre in chunks:
        best = pre.view(-1).topk(min(wanted, pre.numel()), sorted=False)
        parts.append((best.values, best.indices + start * chunks.d_sae))
    pre, places = joined(parts)
    if len(pre) > wanted:
        pre, chosen = pre.topk(wanted, sorted=False)
        places = places[chosen]
    if not chunks.among.alone:
        kept = largest_in_group(pre, wanted, chunks.among)
        pre, places = pre[kept], places[kept]
    places, order = places.sort()
    return pre[order], places


def largest_in_order(values: Float[Tensor, " nnz"], count: int) -> Int[Tensor, " kept"]:
    """Return the places of so many largest values, or of all, ascending."""
    if values.numel() <= count:
        return torch.arange(values.numel(), device=values.device)
    found = cpu_search.largest_places(values, count) if cpu_search.searchable(values) else None
    return values.topk(count, sorted=False).indices.sort().values if found is None else found


def largest_in_group(values: Float[Tensor, " nnz"], count: int, group: Group) -> Int[Tensor, " kept"]:
    """Return the places of those of this process's values that are among so many largest of the group's, ascending."""
    if group.alone:
        return largest_in_order(values, count)
    begins = sum(group.counts(len(values))[: group.rank])
    kept = largest_in_order(group.joined(values), count) - begins
    return kept[(kept >= 0) & (kept < len(values))]


def bound_of(k: int, share: float, first: Latents, rows: int) -> float:
    """Return a share of the smallest entry that a sixteenth of these rows would keep, or about as few as `rows`.
    Exactness does not depend on it."""
    sample = first[:: max(16, len(first) // rows)]
    entries, kept = sample.reshape(-1), k * len(sample)
    if cpu_search.searchable(entries):
        smallest_kept = cpu_search.smallest_of_largest(entries, kept)
    else:
        smallest_kept = float(entries.topk(kept, sorted=False).values.min())
    return max(0.0, share * smallest_kept)


def calibrate(k: int, chunks: Chunks) -> float:
    """Return the threshold that keeps k latents a row on average over these rows, 0 where none is positive."""
    pre, _ = largest(chunks, k)
    positive = chunks.shards.joined(pre[pre > 0])
    return float(positive.min()) if positive.numel() else 0.0


def pairs_above(chunks: Chunks, bound_from: Callable[[Latents], Tensor | float]) -> Iterator[Pairs]:
    """Yield the pairs of each chunk above a bound that may depend on the first."""
    bound: Tensor | float | None = None
    for start, pre in chunks:
        bound = bound_from(pre) if bound is None else bound
        hits = cpu_search.places_above(pre, bound) if cpu_search.searchable(pre) else true_places(pre > bound)
        yield pre.view(-1).index_select(0, hits), hits + start * chunks.d_sae if start else hits


def joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the two columns of all parts."""
    if len(parts) == 1:
        return parts[0]
    first, second = (torch.cat(column) for column in zip(*parts, strict=True))
    return first, second


def true_places(mask: Bool[Tensor, "rows d_sae"]) -> Int[Tensor, " hit"]:
    """Return flat positions of the true entries, ascending."""
    return cpu_search.true_places(mask) if mask.is_cpu else mask.view(-1).nonzero().squeeze(1)


def support_at(places: Int[Tensor, " nnz"], chunks: Chunks) -> SparseSupport:
    """Return the support of the pairs at these places, which ascend."""
    rows = places.div(max(1, chunks.d_sae), rounding_mode="floor")
    return support_of(rows, places - rows * chunks.d_sae, chunks.batch, chunks.d_sae, chunks.kernels)


def support_of(
    rows: Int[Tensor, " nnz"],
    latents: Int[Tensor, " nnz"],
    batch: int,
    d_sae: int,
    kernels: Kernels | None,
) -> SparseSupport:
    """Return the support of these pairs, which are ordered by row, then by latent."""
    counts = counted(rows, batch)
    offsets = torch.cat([starts(counts), counts.sum(0, keepdim=True)])
    return SparseSupport(latents, offsets, d_sae, kernels)


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
