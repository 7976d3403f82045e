"""Documents of the language: sampled, read back, and what the best possible reader would predict."""

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

import torch

from unbraid import seeding
from unbraid.language.grammar import Move, State, moves
from unbraid.language.lexicon import IDS

LONGEST = 126
"""Words of a document at most; a longer one is cut off, which changes no prediction within it."""
DRAWS = 2**16


def documents(count: int, *, seed: int) -> Iterator[list[Move]]:
    """`count` documents, each as the moves that made it, after the start token."""
    uniform = draws(seed)
    for _ in range(count):
        state, told = State(), []
        while len(told) < LONGEST and (ahead := chances(state))[0]:
            move = ahead[0][bisect(ahead[1], next(uniform) * ahead[1][-1])]
            told.append(move)
            state = move.state
        yield told


def draws(seed: int) -> Iterator[float]:
    rng = seeding.stream(seed, "language/documents")
    while True:
        yield from torch.rand(DRAWS, generator=rng, dtype=torch.float64).tolist()


@lru_cache(maxsize=2**14)
def chances(state: State) -> tuple[tuple[Move, ...], tuple[float, ...]]:
    ahead = moves(state)
    return ahead, tuple(accumulate(move.probability for move in ahead))


def text(told: Sequence[Move]) -> str:
    """The words, without the end token."""
    return " ".join(move.word for move in told if move.state.node != "end")


def read(words: Sequence[str]) -> list[State]:
    """The state after each word. Raises ValueError at the first word the grammar does not allow."""
    state, states = State(), []
    for i, word in enumerate(words):
        move = by_word(state).get(word)
        if move is None:
            allowed = sorted(by_word(state))
            raise ValueError(
                f"{word!r} cannot follow {' '.join(words[max(0, i - 5) : i])!r}; the language allows "
                f"{', '.join(allowed[:8])}{', …' * (len(allowed) > 8)}"
            )
        state = move.state
        states.append(state)
    return states


@lru_cache(maxsize=2**16)
def by_word(state: State) -> dict[str, Move]:
    return {move.word: move for move in moves(state)}


@lru_cache(maxsize=2**14)
def next_word(state: State) -> torch.Tensor:
    """The exact distribution of the next word [vocabulary], float64: what no model can beat."""
    probabilities = torch.zeros(len(IDS), dtype=torch.float64)
    for move in moves(state):
        probabilities[IDS[move.word]] += move.probability
    return probabilities


def entropy(state: State) -> float:
    """Entropy of the next word, nats."""
    return -sum(move.probability * math.log(move.probability) for move in moves(state) if move.probability > 0)


def entropy_rate(count: int = 20_000, *, seed: int = 0) -> tuple[float, float]:
    """(entropy a word in nats, its standard error) over `count` sampled documents, end tokens included.

    The mean over documents of exact conditional entropies: less noisy than the mean of -log P.
    """
    totals, lengths = [], []
    for told in documents(count, seed=seed):
        states = [State(), *(move.state for move in told)]
        totals.append(sum(entropy(before) for before, _ in pairwise(states)))
        lengths.append(len(told))
    total, length = torch.tensor(totals, dtype=torch.float64), torch.tensor(lengths, dtype=torch.float64)
    rate = float(total.sum() / length.sum())
    spread = (total - rate * length).std() / length.mean() / math.sqrt(count)
    return rate, float(spread)
