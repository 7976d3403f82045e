"""Minimal pairs: two texts that differ in one variable of the grammar, and what that changes about the next word.

Both texts have the same length, so activations can be swapped between them place by place. The exact distribution
of the next word is known for both, and so are the words that would show that another variable had changed as well.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid import seeding
from unbraid.sources.synthetic_language import lexicon as lex
from unbraid.sources.synthetic_language.documents import Word, documents, next_word, words
from unbraid.sources.synthetic_language.factors import distribution, with_variable
from unbraid.sources.synthetic_language.grammar import relevant
from unbraid.sources.synthetic_language.lexicon import IDS
from unbraid.sources.synthetic_language.states import PAST, PEOPLE, PRESENT, State

LEAST = 0.2
"""Total variation between the two exact distributions of the next word, at least: else there is nothing to see."""
LONGEST = 48
"""Words of a text at most: short texts are read faster, and show the same."""
PER_DOCUMENT = 2
"""Pairs of one variable taken from a document at most."""

Counterparts = Callable[[State], list[tuple[str, int]]]
"""(variable of State, another value) of everything that would change one variable and no other."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two texts of equal length, up to the place where the changed variable decides the next word."""

    base: tuple[str, ...]
    changed: tuple[str, ...]
    before: Float[Tensor, " vocabulary"]
    """Exact distribution of the next word after `base`."""
    after: Float[Tensor, " vocabulary"]
    """And after `changed`."""
    betraying: Mapping[str, frozenset[int]]
    """For every other variable the next word depends on: words possible only had it changed too."""

    @property
    def start(self) -> int:
        """The first place where the texts differ."""
        return next(i for i, (a, b) in enumerate(zip(self.base, self.changed, strict=True)) if a != b)


def pairs(variable: str, count: int, *, seed: int) -> list[Pair]:
    """Return `count` pairs that differ in a variable. Raises ValueError for a variable that does not exist."""
    if variable not in VARIABLES:
        raise ValueError(f"the language has no variable {variable!r}; there are {', '.join(VARIABLES)}")
    return list(islice(every_pair(variable, seed=seed), count))


def every_pair(variable: str, *, seed: int) -> Iterator[Pair]:
    """Yield pairs that differ in a variable, without end."""
    rng = seeding.stream(seed, f"language/pairs/{variable}")
    for document in documents(10**9, seed=seeding.integer(seed, f"language/pairs/{variable}")):
        found = 0
        for place in torch.randperm(min(LONGEST, len(document)), generator=rng).tolist():
            pair = pair_at(document[: place + 1], variable, rng)
            if pair is not None:
                yield pair
                found += 1
            if found == PER_DOCUMENT:
                break


def pair_at(document: Sequence[Word], variable: str, rng: torch.Generator) -> Pair | None:
    """Return a pair that ends here, or None when the next word does not depend enough on the variable."""
    state = document[-1].state
    values = [(name, value) for name, value in VARIABLES[variable](state) if far(state, name, value)]
    if not values:
        return None
    name, value = values[int(torch.randint(len(values), (1,), generator=rng))]
    changed = with_variable(document, name, value)
    if changed is None:
        return None
    other = changed[-1].state
    return Pair(
        tuple(words(document)), tuple(words(changed)), next_word(state), next_word(other), betraying(other, variable)
    )


def far(state: State, name: str, value: int) -> bool:
    other = state._replace(**{name: value})
    if distribution(relevant(state)) == distribution(relevant(other)):
        return False
    return float((next_word(state) - next_word(other)).abs().sum()) / 2 >= LEAST


def betraying(state: State, variable: str) -> dict[str, frozenset[int]]:
    """Return, for each other variable, the words possible only if that variable had another value."""
    here = support(state)
    found = {}
    for name, counterparts in VARIABLES.items():
        if name != variable and {name, variable} not in OVERLAPPING:
            elsewhere = [support(state._replace(**{field: value})) for field, value in counterparts(state)]
            if betrayed := frozenset().union(*elsewhere) - here:
                found[name] = betrayed
    return found


def support(state: State) -> frozenset[int]:
    return frozenset(IDS[word] for word, _ in distribution(relevant(state)))


# ---- the variables


def simple(name: str, values: Sequence[int]) -> Counterparts:
    def others(state: State) -> list[tuple[str, int]]:
        now = getattr(state, name)
        return [(name, value) for value in values if value != now] if now in values else []

    return others


def number(state: State) -> list[tuple[str, int]]:
    """Return the other grammatical number of the subject, when it is a thing."""
    return [("plural", 1 - state.plural)] if state.plural >= 0 and state.subject < PEOPLE else []


def other_class(state: State) -> list[tuple[str, int]]:
    """Return the corresponding noun of every other class."""
    size = lex.OF_CLASS
    if not 0 <= state.subject < PEOPLE:
        return []
    return [("subject", noun) for noun in range(state.subject % size, PEOPLE, size) if noun != state.subject]


def other_noun(state: State) -> list[tuple[str, int]]:
    """Return the other nouns of the class."""
    if not 0 <= state.subject < PEOPLE:
        return []
    same = [i for i, c in enumerate(lex.CLASS_OF) if c == lex.CLASS_OF[state.subject] and i != state.subject]
    return [("subject", noun) for noun in same]


def attribute(index: int) -> Counterparts:
    """Return the function that finds people who differ in one attribute only."""

    def others(state: State) -> list[tuple[str, int]]:
        if state.subject < PEOPLE:
            return []
        own = lex.PEOPLE[state.subject - PEOPLE]
        differing = [
            i
            for i, person in enumerate(lex.PEOPLE)
            if all((a == b) == (place != index) for place, (a, b) in enumerate(zip(own, person, strict=True)))
        ]
        return [("subject", PEOPLE + i) for i in differing]

    return others


VARIABLES: dict[str, Counterparts] = {
    "register": simple("register", range(len(lex.REGISTERS))),
    # The future takes a word more.
    "tense": simple("tense", (PAST, PRESENT)),
    "place": simple("place", range(len(lex.PLACES))),
    "number": number,
    "class": other_class,
    "noun": other_noun,
    "adjective": simple("adjective", range(len(lex.ADJECTIVES))),
    "relation": simple("relation", range(len(lex.RELATIONS))),
    "home": attribute(0),
    "job": attribute(1),
    "gender": attribute(2),
}
"""The variables that texts of a pair may differ in."""
OVERLAPPING = ({"class", "noun"},)
"""Variables that cannot be held apart: another class is another noun."""
