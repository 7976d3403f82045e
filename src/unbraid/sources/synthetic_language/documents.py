"""Documents of the language: sampled, read back, and what the best possible reader would predict."""

from bisect import bisect
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid import seeding
from unbraid.sources.synthetic_language.grammar import moves, relevant
from unbraid.sources.synthetic_language.lexicon import EOS_WORD, IDS
from unbraid.sources.synthetic_language.states import Move, State

LONGEST = 126
"""Words of a document at most; a longer one is cut off, which changes no prediction within it."""
DRAWS = 2**16


class Word(NamedTuple):
    """A word of a document."""

    before: State
    move: Move
    state: State
    """The state after the word."""


def documents(count: int, *, seed: int) -> Iterator[list[Word]]:
    """Yield `count` documents, without the start token."""
    uniform = draws(seed)
    for _ in range(count):
        state, document = State(), []
        while len(document) < LONGEST and state.node != "end":
            ahead, chances = cumulative(relevant(state))
            move = ahead[bisect(chances, next(uniform) * chances[-1])]
            after = move.turn.after(state)
            document.append(Word(state, move, after))
            state = after
        yield document


def draws(seed: int) -> Iterator[float]:
    rng = seeding.stream(seed, "language/documents")
    while True:
        yield from torch.rand(DRAWS, generator=rng, dtype=torch.float64).tolist()


@cache
def cumulative(state: State) -> tuple[tuple[Move, ...], tuple[float, ...]]:
    ahead = moves(state)
    return ahead, tuple(accumulate(move.probability for move in ahead))


def words(document: Sequence[Word]) -> list[str]:
    return [word.move.word for word in document]


def text(document: Sequence[Word]) -> str:
    """Return the words as text, without the end token."""
    return " ".join(word for word in words(document) if word != EOS_WORD)


def read(found: Sequence[str]) -> list[Word]:
    """Return the words of a text with their states. Raises ValueError at the first word the grammar does not allow."""
    state, document = State(), []
    for i, word in enumerate(found):
        move = by_word(relevant(state)).get(word)
        if move is None:
            allowed = sorted(by_word(relevant(state)))
            raise ValueError(
                f"{word!r} cannot follow {' '.join(found[max(0, i - 5) : i])!r}; the language allows "
                f"{', '.join(allowed[:8])}{', …' * (len(allowed) > 8)}"
            )
        document.append(Word(state, move, move.turn.after(state)))
        state = document[-1].state
    return document


@cache
def by_word(state: State) -> dict[str, Move]:
    return {move.word: move for move in moves(state)}


def next_word(state: State) -> Float[Tensor, " vocabulary"]:
    """Return the exact distribution of the next word, float64: no model can predict better."""
    ahead = moves(state)
    probabilities = torch.zeros(len(IDS), dtype=torch.float64)
    probabilities[[IDS[move.word] for move in ahead]] = torch.tensor(
        [move.probability for move in ahead], dtype=torch.float64
    )
    return probabilities
