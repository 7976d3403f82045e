"""The exact entropy of next words of the synthetic language: the least loss that a model can have."""

import math
from functools import cache

import torch

from unbraid.sources.synthetic_language.documents import documents
from unbraid.sources.synthetic_language.grammar import moves, relevant
from unbraid.sources.synthetic_language.states import State


@cache
def entropy(state: State) -> float:
    """Entropy of the next word in a `relevant` state, nats."""
    return -sum(move.probability * math.log(move.probability) for move in moves(state))


def entropy_rate(count: int = 20_000, *, seed: int = 0) -> tuple[float, float]:
    """(entropy a word in nats, its standard error) over `count` sampled documents, end tokens included.

    The mean over documents of exact conditional entropies: less noisy than the mean of -log P.
    """
    totals, lengths = [], []
    for document in documents(count, seed=seed):
        totals.append(sum(entropy(relevant(word.before)) for word in document))
        lengths.append(len(document))
    total, length = torch.tensor(totals, dtype=torch.float64), torch.tensor(lengths, dtype=torch.float64)
    rate = float(total.sum() / length.sum())
    spread = (total - rate * length).std() / length.mean() / math.sqrt(count)
    return rate, float(spread)
