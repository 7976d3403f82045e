"""One-to-one matching of two sets, of atoms with atoms or with factors: the pairs whose similarities sum highest.

    max over one-to-one m of sum_i similarity(i, m(i)),   min(a, b) pairs

Exact (Hungarian) while the matrix is small. Beyond, a pair may be matched only when one is among the 32 most similar
of the other, or as a last resort i with i: the sum is then a lower bound, and equal in every case it was compared in.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

EXACT_ENTRIES = 2**24
"""Similarities up to which the matching is exact: 4,096 squared."""
CANDIDATES = 32
CHUNK_ENTRIES = 2**24
"""Similarities held at once beyond that: 64 MB."""

Pairs = tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]
Block = Callable[[slice], Float[Tensor, "chunk b"]]
"""Similarities of a slice of rows."""


def best_pairs(similarity: Float[Tensor, "a b"]) -> Pairs:
    """Return the best pairs: rows, ascending, and the column of each. Raises ValueError when a similarity is not
    finite."""
    return block_pairs(lambda part: similarity[part].cpu(), *similarity.shape)


def best_atom_pairs(atoms: Float[Tensor, "a d_in"], others: Float[Tensor, "b d_in"]) -> Pairs:
    """Return `best_pairs` by |cosine|, which never holds all a x b of them."""
    return block_pairs(lambda part: cosines(atoms[part], others).abs().cpu(), len(atoms), len(others))


def cosines(atoms: Float[Tensor, "a d_in"], others: Float[Tensor, "b d_in"]) -> Float[Tensor, "a b"]:
    """Return the cosine of every atom with every other; 0 where one has no length."""
    return unit(atoms) @ unit(others).T


def unit(atoms: Float[Tensor, "a d_in"]) -> Float[Tensor, "a d_in"]:
    """Return atoms of norm 1; those of no length stay 0."""
    return torch.nn.functional.normalize(atoms, dim=1)


def block_pairs(block: Block, a: int, b: int) -> Pairs:
    """Return `best_pairs` of a x b similarities that are computed a few rows at a time."""
    if a * b <= EXACT_ENTRIES:
        rows, columns = linear_sum_assignment(block(slice(0, a)).numpy(), maximize=True)
        return torch.from_numpy(rows), torch.from_numpy(columns)
    return sparse_pairs(block, a, b)


def sparse_pairs(block: Block, a: int, b: int) -> Pairs:
    """Return the best matching that uses candidate pairs alone. Raises ValueError when a similarity is not finite."""
    rows, columns, similarity = _candidates(block, a, b)
    if not bool(torch.isfinite(similarity).all()):
        raise ValueError("similarities hold NaN or infinity: a dictionary or its world is broken")
    # Every full matching has min(a, b) pairs, so a constant shifts all alike; a weight of 0 would be no edge.
    cost = 1 + similarity.max() - similarity
    edges = coo_array((cost.double().numpy(), (rows.numpy(), columns.numpy())), shape=(a, b))
    matched_rows, matched_columns = min_weight_full_bipartite_matching(edges.tocsr())
    order = np.argsort(matched_rows)
    return torch.from_numpy(matched_rows[order]).long(), torch.from_numpy(matched_columns[order]).long()


def _candidates(block: Block, a: int, b: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (row, column, similarity) of each row's best columns, each column's best rows, and of i with i, each
    once."""
    chunk = max(1, CHUNK_ENTRIES // b)
    of_columns = torch.full((0, b), -torch.inf), torch.zeros(0, b, dtype=torch.long)
    found = []
    for start in range(0, a, chunk):
        part = block(slice(start, start + chunk))
        rows = torch.arange(start, start + len(part))
        best, columns = part.topk(min(CANDIDATES, b), dim=1)
        found.append((rows.unsqueeze(1).expand_as(columns), columns, best))
        diagonal = rows[rows < b]
        found.append((diagonal, diagonal, part[diagonal - start, diagonal]))
        of_columns = _merge(*of_columns, part, rows)
    best, rows = of_columns
    found.append((rows, torch.arange(b).expand_as(rows), best))
    rows, columns, similarity = (torch.cat([t.flatten() for t in part]) for part in zip(*found, strict=True))
    _, first = np.unique((rows * b + columns).numpy(), return_index=True)
    return rows[first], columns[first], similarity[first]


def _merge(best: Tensor, rows: Tensor, part: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best similarities of each column, and their rows, when `part` with rows `more` comes after."""
    fresh, at = part.topk(min(CANDIDATES, len(part)), dim=0)
    best, rows = torch.cat([best.to(fresh), fresh]), torch.cat([rows, more[at]])
    best, at = best.topk(min(CANDIDATES, len(best)), dim=0)
    return best, rows.gather(0, at)
