"""States of a document, and the moves between them."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from unbraid.sources.synthetic_language import lexicon as lex

PAST, PRESENT, FUTURE = range(3)
PEOPLE = len(lex.NOUNS)
"""Subjects from here on are named people."""


class State(NamedTuple):
    """The state of a document at a word. A variable that is not in force is -1."""

    node: str = "opener"
    register: int = -1
    tense: int = -1
    place: int = -1
    subject: int = -1
    """A noun, or PEOPLE + a name."""
    plural: int = -1
    """Number of the subject, or of the determiner before it."""
    adjective: int = -1
    relation: int = -1
    other: int = -1
    """The noun a relation holds with."""
    other_plural: int = -1
    """Its number, or that of the determiner before an object."""
    verb: int = -1
    """The transitive verb whose object comes."""


class Turn(NamedTuple):
    """The result of a move: the next node, and the variables that change."""

    node: str
    changes: tuple[tuple[int, int], ...]
    """(place in State, new value)."""

    def after(self, state: State) -> State:
        values = list(state)
        values[0] = self.node
        for place, value in self.changes:
            values[place] = value
        return State._make(values)


class Move(NamedTuple):
    """A word that may come next: the choice it makes, its probability, and its result."""

    choice: str
    """The name of the choice, whatever form its word takes."""
    word: str
    probability: float
    turn: Turn


@cache
def to(node: str, **changes: int) -> Turn:
    return Turn(node, tuple((PLACE_OF[name], value) for name, value in changes.items()))


PLACE_OF = {name: i for i, name in enumerate(State._fields)}


def one(word: str, node: str) -> Iterator[Move]:
    yield Move(word, word, 1.0, to(node))
