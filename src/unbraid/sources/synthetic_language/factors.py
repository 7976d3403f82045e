"""Factors of the language: the properties that every word shows, and those that the next word depends on.

A factor is active at a word when its variable is in force there and either the word *expresses* it (with another value
the same choice would have been another word) or the next word *reads* it (with another value the exact distribution of
the next word would be another). Both are worked out from the grammar by trying the other values, so the labels hold
exactly what a perfect model must know at this place, and no more.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from unbraid.sources.synthetic_language import lexicon as lex
from unbraid.sources.synthetic_language.documents import Word
from unbraid.sources.synthetic_language.grammar import moves, relevant
from unbraid.sources.synthetic_language.inflection import plural
from unbraid.sources.synthetic_language.states import PEOPLE, PLACE_OF, Move, State


class Factor(NamedTuple):
    """A factor of the language, such as "kind=animal"."""

    name: str
    parent: int
    """Index of the parent; -1 for roots."""


class GroupedVariable(NamedTuple):
    """A variable whose values belong to groups."""

    group: str
    members: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]


GROUPED = {
    "place": GroupedVariable("setting", tuple(lex.PLACES), lex.SETTINGS),
    "adjective": GroupedVariable("quality", lex.ADJECTIVES, lex.QUALITIES),
}
"""Variables whose values belong to groups that are factors too."""


def build() -> tuple[Factor, ...]:
    """Return all factors: one for each value of a variable, under their setting, kind, class or attribute holder."""
    found: list[Factor] = []

    def add(name: str, parent: int = -1) -> int:
        found.append(Factor(name, parent))
        return len(found) - 1

    for variable, values in SIMPLE.items():
        for value in values:
            add(f"{variable}={value}")
    for variable, (group, _, groups) in GROUPED.items():
        for name, values in groups.items():
            above = add(f"{group}={name}")
            for value in values:
                add(f"{variable}={value}", above)
    for kind, classes in lex.TAXONOMY.items():
        top = add(f"kind={kind}")
        for name, members in classes.items():
            middle = add(f"class={name}", top)
            for noun in members:
                add(f"noun={noun}", middle)
        if kind == "person":
            named = add("named", top)
            for attribute, values in ATTRIBUTES.items():
                for value in values:
                    add(f"{attribute}={value}", named)
    return tuple(found)


SIMPLE: dict[str, tuple[str, ...]] = {
    "register": tuple(lex.REGISTERS),
    "tense": tuple(lex.TENSES),
    "number": ("singular", "plural"),
    "relation": lex.RELATIONS,
}
ATTRIBUTES: dict[str, tuple[str, ...]] = {"home": lex.HOMES, "job": lex.JOBS, "gender": tuple(lex.GENDERS.values())}
"""Attributes of named people, in the order of `lexicon.PEOPLE`."""
FACTORS = build()
INDEX = {factor.name: i for i, factor in enumerate(FACTORS)}
NUMBERS = ("plural", "other_plural")
THINGS = ("subject", "other")
FORMS = {form: i for i, noun in enumerate(lex.NOUNS) for form in (noun, plural(noun))}
"""Noun of each noun form."""
OF_ANY_SUBJECT = ("head", "predicate", "will", "again", "again will", "be", "again be")
"""Nodes where the next word depends on the subject, be it a thing or a named person."""


def active(word: Word) -> frozenset[int]:
    """Return the factors active at a word; parents of active factors included."""
    return expressed(word) | read_by_next(word.state)


def expressed(word: Word) -> frozenset[int]:
    """Return the factors that a word expresses; parents included."""
    found = set(shown_by_word(word.move.word))
    for place, value in word.move.turn.changes:
        if value != -1:
            found |= with_value(State._fields[place], value)
    if word.before.node == "converse":
        return frozenset()  # `below` answers `above`: the word names the one relation and follows from the other
    return with_parents(frozenset(found)) | shown_by_choice(relevant(word.before), word.move)


@cache
def shown_by_choice(before: State, move: Move) -> frozenset[int]:
    """Return the factors whose other values would have made the same choice another word."""
    stakes = [factors for factors, other in alternatives(before) if choices(other).get(move.choice) != move.word]
    return with_parents(frozenset().union(*stakes))


def read_by_next(state: State) -> frozenset[int]:
    return depended_on(relevant(state))


@cache
def depended_on(state: State) -> frozenset[int]:
    """Return the factors whose other values would give the next word another distribution."""
    here = distribution(state)
    stakes = [factors for factors, other in alternatives(state) if distribution(other) != here]
    return with_parents(frozenset().union(*stakes))


@cache
def distribution(state: State) -> frozenset[tuple[str, float]]:
    return frozenset((move.word, round(move.probability, 12)) for move in moves(state))


@cache
def choices(state: State) -> dict[str, str]:
    """Return the word of each choice."""
    return {move.choice: move.word for move in moves(state)}


def shown_by_word(word: str) -> frozenset[int]:
    """Return the two factors that a noun shows at any place, itself and its number; none for other words."""
    if word not in FORMS:
        return frozenset()
    noun = FORMS[word]
    return frozenset({INDEX[f"noun={lex.NOUNS[noun]}"], INDEX[f"number={SIMPLE['number'][word != lex.NOUNS[noun]]}"]})


def with_value(variable: str, value: int) -> frozenset[int]:
    """Return the most specific factors that hold when a variable has a value."""
    if variable in NUMBERS:
        return frozenset({INDEX[f"number={SIMPLE['number'][value]}"]})
    if variable in SIMPLE:
        return frozenset({INDEX[f"{variable}={SIMPLE[variable][value]}"]})
    if variable in GROUPED:
        return frozenset({INDEX[f"{variable}={GROUPED[variable].members[value]}"]})
    if variable in THINGS and value >= PEOPLE:
        attributes = zip(ATTRIBUTES, ATTRIBUTES.values(), lex.PEOPLE[value - PEOPLE], strict=True)
        return frozenset(INDEX[f"{name}={values[i]}"] for name, values, i in attributes)
    if variable in THINGS:
        return frozenset({INDEX[f"noun={lex.NOUNS[value]}"]})
    return frozenset()  # the verb whose object comes is no factor


@cache
def alternatives(state: State) -> tuple[tuple[frozenset[int], State], ...]:
    """Return (factors that no longer hold, the state with another value), for every variable in force.

    Of each state only what the next word can depend on.
    """
    return tuple((factors, relevant(other)) for factors, other in with_other_values(state))


def with_other_values(state: State) -> Iterator[tuple[frozenset[int], State]]:
    """Yield what `alternatives` returns, before what does not matter is left out."""
    for variable in ("register", "tense", "relation"):
        value = getattr(state, variable)
        for other in range(len(SIMPLE[variable])) if value >= 0 else ():
            if other != value:
                yield with_value(variable, value), state._replace(**{variable: other})
    for variable in NUMBERS:
        value = getattr(state, variable)
        if value >= 0:
            yield with_value(variable, value), state._replace(**{variable: 1 - value})
    for variable in GROUPED:
        if getattr(state, variable) >= 0:
            yield from others_of_group(state, variable)
    for variable in THINGS:
        value = getattr(state, variable)
        if value >= PEOPLE:
            yield from other_people(state, value - PEOPLE)
        elif value >= 0:
            yield from other_nouns(state, variable, value)


def others_of_group(state: State, variable: str) -> Iterator[tuple[frozenset[int], State]]:
    """Yield (factors that no longer hold, the state) for the other values of the group and all of other groups."""
    group, members, groups = GROUPED[variable]
    now = getattr(state, variable)
    (own,) = (name for name, found in groups.items() if members[now] in found)
    for name, found in groups.items():
        stake = with_value(variable, now) if name == own else frozenset({INDEX[f"{group}={own}"]})
        for value in found:
            if value != members[now]:
                yield stake, state._replace(**{variable: members.index(value)})


def other_nouns(state: State, variable: str, noun: int) -> Iterator[tuple[frozenset[int], State]]:
    """Yield (factors that no longer hold, state) for the class's other nouns and its counterpart in other classes."""
    of_class = lex.CLASS_OF[noun]
    size, first = lex.OF_CLASS, of_class * lex.OF_CLASS
    for other in sorted({*range(first, first + size), *range(noun % size, len(lex.NOUNS), size)} - {noun}):
        there = lex.CLASS_OF[other]
        if there == of_class:
            stake = INDEX[f"noun={lex.NOUNS[noun]}"]
        elif lex.KIND_OF[there] == lex.KIND_OF[of_class]:
            stake = INDEX[f"class={lex.CLASSES[of_class]}"]
        else:
            stake = INDEX[f"kind={lex.KINDS[lex.KIND_OF[of_class]]}"]
        yield frozenset({stake}), state._replace(**{variable: other})


def other_people(state: State, person: int) -> Iterator[tuple[frozenset[int], State]]:
    """Yield people who differ in one attribute and, where a thing is possible too, things of other kinds."""
    own = lex.PEOPLE[person]
    for attribute, (name, values) in enumerate(ATTRIBUTES.items()):
        for value in range(len(values)):
            if value != own[attribute]:
                other = lex.PEOPLE.index((*own[:attribute], value, *own[attribute + 1 :]))
                stake = frozenset({INDEX[f"{name}={values[own[attribute]]}"]})
                yield stake, state._replace(subject=PEOPLE + other)
    if state.node in OF_ANY_SUBJECT:
        yield frozenset({INDEX["named"]}), state._replace(subject=lex.NOUNS.index(lex.JOBS[0]))
        for kind, classes in lex.TAXONOMY.items():
            if kind != "person":
                noun = next(iter(classes.values()))[0]
                yield frozenset({INDEX["kind=person"]}), state._replace(subject=lex.NOUNS.index(noun))


@cache
def with_parents(found: frozenset[int]) -> frozenset[int]:
    closed = set(found)
    for factor in found:
        while (factor := FACTORS[factor].parent) >= 0:
            closed.add(factor)
    return frozenset(closed)


# ---- minimal pairs


def with_variable(document: Sequence[Word], variable: str, value: int) -> list[Word] | None:
    """Return the same choices with one variable changed since it last took its value.

    Words correspond one to one. None where the choices cannot be had with the other value (a fish does not fly), or
    take another number of words (the future's `will`).
    """
    now = getattr(document[-1].state, variable)
    if now in (-1, value):
        return None
    start = next(i for i in reversed(range(len(document))) if chooses(document[i], variable, now))
    before, _, after = document[start]
    wanted = after._replace(**{variable: value})
    first = next((move for move in moves(before) if gives(move, variable) and move.turn.after(before) == wanted), None)
    if first is None:
        return None
    new = [*document[:start], Word(before, first, wanted)]
    for word in document[start + 1 :]:
        state = new[-1].state
        same = next((move for move in moves(state) if move.choice == word.move.choice), None)
        if same is None:
            return None
        new.append(Word(state, same, same.turn.after(state)))
    return new


def chooses(word: Word, variable: str, value: int) -> bool:
    """Return whether a word gives the variable this value where another was possible."""
    return gives(word.move, variable) and any(
        gives(move, variable) and getattr(move.turn.after(word.before), variable) != value
        for move in moves(word.before)
    )


def gives(move: Move, variable: str) -> bool:
    """Return whether a move gives the variable a value, rather than leaving the one it has."""
    return any(place == PLACE_OF[variable] for place, _ in move.turn.changes)
