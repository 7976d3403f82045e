"""Nouns and verbs that a state allows, with their probabilities and forms."""

from functools import lru_cache

from unbraid.sources.synthetic_language import lexicon as lex
from unbraid.sources.synthetic_language.inflection import Verb, plural
from unbraid.sources.synthetic_language.states import FUTURE, PAST, PEOPLE, State

PLURAL = 0.4


@lru_cache
def class_shares(place: int) -> tuple[float, ...]:
    """Return the probability of each class in a place."""
    favoured = list(lex.PLACES.values())[place]
    rest = (1 - lex.FAVOURED * len(favoured)) / (len(lex.CLASSES) - len(favoured))
    return tuple(lex.FAVOURED if name in favoured else rest for name in lex.CLASSES)


@lru_cache
def kind_shares(kinds: tuple[str, ...]) -> tuple[float, ...]:
    """Return the probability of each class when kinds are equally likely, and classes within a kind."""
    shares = []
    for i, _ in enumerate(lex.CLASSES):
        kind = lex.KINDS[lex.KIND_OF[i]]
        shares.append(1 / len(kinds) / lex.KIND_OF.count(lex.KIND_OF[i]) if kind in kinds else 0.0)
    return tuple(shares)


@lru_cache
def nouns(shares: tuple[float, ...], number: int) -> tuple[tuple[int, str, int, float], ...]:
    """Return (noun, form, number, probability) of every noun; in both numbers when `number` is -1."""
    found = []
    for i, name in enumerate(lex.NOUNS):
        p = shares[lex.CLASS_OF[i]] * lex.WITHIN_CLASS[i % lex.OF_CLASS]
        for this, word in enumerate((name, plural(name))):
            if p and number in (-1, this):
                found.append((i, word, this, p * ((1 - PLURAL, PLURAL)[this] if number == -1 else 1.0)))
    return tuple(found)


@lru_cache
def adjectives(kind: str) -> tuple[float, ...]:
    """Return the probability of each adjective after "is", of a subject of this kind."""
    fitting = lex.QUALITIES_OF[kind]
    others = len(lex.QUALITIES) - len(fitting)
    shares = []
    for quality, found in lex.QUALITIES.items():
        share = lex.FITTING / len(fitting) if quality in fitting else (1 - lex.FITTING) / others
        shares += [share / len(found)] * len(found)
    return tuple(shares)


def inflected(verb: Verb, s: State) -> str:
    base, third, past = verb
    if s.tense == FUTURE:
        return base
    return past if s.tense == PAST else (third, base)[s.plural]


def copula(s: State, number: int) -> str:
    return "be" if s.tense == FUTURE else (("was", "were"), ("is", "are"))[s.tense][number]


def kind_of(subject: int) -> str:
    return "person" if subject >= PEOPLE else lex.KINDS[lex.KIND_OF[lex.CLASS_OF[subject]]]


@lru_cache
def intransitives(subject: int) -> tuple[tuple[str, Verb, float], ...]:
    """Return (choice, verb, probability) of what a subject does: by its class (a person's job) and by its kind."""
    if subject >= PEOPLE:
        job = lex.JOBS[lex.PEOPLE[subject - PEOPLE][1]]
        own: tuple[Verb, ...] = (lex.JOB_VERBS[job],)
    else:
        own = lex.CLASS_VERBS[lex.CLASSES[lex.CLASS_OF[subject]]]
    of_kind = lex.KIND_VERBS[kind_of(subject)]
    own_shares, kind_shares = halves(len(own), 0.6), halves(len(of_kind), 0.4)
    return (
        *((f"own verb {i}", verb, p) for i, (verb, p) in enumerate(zip(own, own_shares, strict=True))),
        *((f"kind verb {i}", verb, p) for i, (verb, p) in enumerate(zip(of_kind, kind_shares, strict=True))),
    )


def halves(count: int, share: float) -> tuple[float, ...]:
    return (share,) if count == 1 else (share * 2 / 3, share / 3)


def form(noun: int, number: int) -> str:
    return (lex.NOUNS[noun], plural(lex.NOUNS[noun]))[number]
