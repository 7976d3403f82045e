"""The grammar: a Markov chain over states that every reader of the text can follow.

    document  = opener , time in the place , sentence . sentence . … close from the place </s>
    sentence  = [link | time | setting] subject [near the noun] predicate [join pronoun predicate] .
    predicate = verb [object] | is adjective | is above object , so the object is below subject | lives in home | …

From one state every word leads to one next state, so a prefix determines the state and the exact distribution of the
next word is the chain's own: P(next | prefix) = P(next | state). A `Move` also says *what* is chosen ("verb 12"), apart
from the form it takes (flies, flew), so a document can be written again with one variable changed.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from unbraid.sources.synthetic_language import lexicon as lex
from unbraid.sources.synthetic_language.choices import (
    adjectives,
    class_shares,
    copula,
    form,
    inflected,
    intransitives,
    kind_of,
    kind_shares,
    nouns,
)
from unbraid.sources.synthetic_language.inflection import Verb
from unbraid.sources.synthetic_language.states import FUTURE, PEOPLE, PLACE_OF, Move, State, Turn, one, to


def moves(state: State) -> tuple[Move, ...]:
    """Return every word that may follow, with its exact probability and the state it leads to."""
    return _moves(relevant(state))


def relevant(state: State) -> State:
    """Return the state without the variables that the next word cannot depend on.

    There are few such states, so results for them are kept.
    """
    values: list[Any] = [-1] * len(state)
    for place in DEPENDS_ON[state.node]:
        values[place] = state[place]
    return state._make(values)


@cache
def _moves(state: State) -> tuple[Move, ...]:
    return tuple(NODES[state.node](state))


# ---- header and farewell


def opener(s: State) -> Iterator[Move]:
    for register, words in enumerate(lex.REGISTERS.values()):
        for i, word in enumerate(words["open"]):
            p = 1 / len(lex.REGISTERS) / len(words["open"])
            yield Move(f"opener {register} {i}", word, p, to("opened", register=register))


def opened(s: State) -> Iterator[Move]:
    return one(",", "when")


def when(s: State) -> Iterator[Move]:
    yield from times(s, 1.0, "where")


def times(s: State, share: float, node: str) -> Iterator[Move]:
    for tense, words in enumerate(lex.TENSES.values()):
        for i, word in enumerate(words):
            yield Move(f"time {tense} {i}", word, share / 3 / len(words), to(node, tense=tense))


def where(s: State) -> Iterator[Move]:
    return one("in", "where in")


def where_in(s: State) -> Iterator[Move]:
    return one("the", "where the")


def where_the(s: State) -> Iterator[Move]:
    for place, word in enumerate(lex.PLACES):
        yield Move(f"place {place}", word, 1 / len(lex.PLACES), to("placed", place=place))


def placed(s: State) -> Iterator[Move]:
    return one(",", "subject")


def closing(s: State) -> Iterator[Move]:
    return one("from", "closing from")


def closing_from(s: State) -> Iterator[Move]:
    return one("the", "closing the")


def closing_the(s: State) -> Iterator[Move]:
    yield Move("place again", list(lex.PLACES)[s.place], 1.0, to("closed"))


def closed(s: State) -> Iterator[Move]:
    return one(lex.EOS_WORD, "end")


def end(s: State) -> Iterator[Move]:
    return iter(())


# ---- sentences

CLOSE, LINK, TIME, SETTING = 0.16, 0.18, 0.10, 0.10
NAMED = 0.3
DETERMINED = {"the": 0.4, "a": 0.25, "some": 0.15, "this": 0.1, "these": 0.1}
ADJECTIVE = 0.3
NEAR = 0.25
AGAIN = 0.45


def begin(s: State) -> Iterator[Move]:
    """Yield the words after a full stop: farewell, a word that sets the scene, or the subject at once."""
    register = list(lex.REGISTERS.values())[s.register]
    yield Move("close", register["close"][0], CLOSE, to("closing"))
    for i, word in enumerate(register["link"]):
        yield Move(f"link {i}", word, LINK / len(register["link"]), to("subject"))
    yield from times(s, TIME, "subject")
    yield Move("setting", setting(s.place), SETTING, to("subject"))
    yield from subject(s, 1 - CLOSE - LINK - TIME - SETTING)


def setting(place: int) -> str:
    name = list(lex.PLACES)[place]
    return next(word for word, places in lex.SETTINGS.items() if name in places)


def subject(s: State, share: float = 1.0) -> Iterator[Move]:
    """Yield the first word of a subject, a name or a determiner; `share` is their total probability."""
    name_share = share * NAMED / len(lex.NAMES)
    for i, name in enumerate(lex.NAMES):
        yield Move(f"name {i}", name, name_share, to("head", subject=PEOPLE + i, plural=0))
    for word, p in DETERMINED.items():
        number = lex.DETERMINERS[word]
        yield Move(f"determiner {word}", word, share * (1 - NAMED) * p, to("phrase", plural=number))


def phrase(s: State) -> Iterator[Move]:
    for i, word in enumerate(lex.ADJECTIVES):
        yield Move(f"adjective {i}", word, ADJECTIVE / len(lex.ADJECTIVES), to("noun", adjective=i))
    yield from noun(s, 1 - ADJECTIVE)


def noun(s: State, share: float = 1.0) -> Iterator[Move]:
    for i, word, number, p in nouns(class_shares(s.place), s.plural):
        choice = f"noun {i}/{number}" if s.plural == -1 else f"noun {i}"
        yield Move(choice, word, share * p, to("head", subject=i, plural=number))


def head(s: State) -> Iterator[Move]:
    """Yield the words after the subject: something near it, or the predicate."""
    if s.subject < PEOPLE:
        yield Move("near", "near", NEAR, to("near"))
        yield from predicate(s, 1 - NEAR)
    else:
        yield from predicate(s)


def near(s: State) -> Iterator[Move]:
    return one("the", "near the")


def near_the(s: State) -> Iterator[Move]:
    for i, word, number, p in nouns(class_shares(s.place), -1):
        yield Move(f"neighbour {i}/{number}", word, p, to("predicate"))


# ---- predicates


def predicate(s: State, share: float = 1.0) -> Iterator[Move]:
    """Yield the verb, in its form; in the future first `will`."""
    if s.tense == FUTURE:
        yield Move("will", "will", share, to("will"))
    else:
        yield from verbs(s, share)


def verbs(s: State, share: float = 1.0) -> Iterator[Move]:
    for choice, verb, p, turn in predicates(s):
        yield Move(choice, inflected(verb, s), share * p, turn)


def predicates(s: State) -> Iterator[tuple[str, Verb, float, Turn]]:
    """Yield (choice, verb, probability, the move's result) of every predicate."""
    tail = to("tail")
    if s.subject >= PEOPLE:
        yield "live", lex.LIVE, 0.15, to("live")
        yield "work", lex.WORK, 0.15, to("work")
    intransitive = 0.3 if s.subject >= PEOPLE else 0.35
    for choice, verb, p in intransitives(s.subject):
        yield choice, verb, intransitive * p, tail
    kind = kind_of(s.subject)
    transitive = TRANSITIVE[kind]
    share = 0.3 if s.subject >= PEOPLE else 0.4
    for index, verb in transitive:
        yield f"transitive {index}", verb, share / len(transitive), to("object", verb=index)
    be = copula(s, s.plural)
    yield "be", Verb(be, be, be), 0.1 if s.subject >= PEOPLE else 0.25, to("be")


TRANSITIVE: dict[str, tuple[tuple[int, Verb], ...]] = {}
OBJECTS: tuple[tuple[str, ...], ...] = tuple(kinds for table in lex.TRANSITIVE.values() for kinds in table.values())
"""Kinds of things each transitive verb takes, by the verb's number."""
for _kind, _table in lex.TRANSITIVE.items():
    _first = sum(len(found) for found in TRANSITIVE.values())
    TRANSITIVE[_kind] = tuple((_first + i, verb) for i, verb in enumerate(_table))


def object_(s: State) -> Iterator[Move]:
    for word, p in {"the": 0.5, "a": 0.3, "some": 0.2}.items():
        number = lex.DETERMINERS[word]
        yield Move(f"determiner {word}", word, p, to("object noun", other_plural=number))


def object_noun(s: State) -> Iterator[Move]:
    after = to("tail", verb=-1, other_plural=-1)
    for i, word, number, p in nouns(kind_shares(OBJECTS[s.verb]), s.other_plural):
        choice = f"object {i}/{number}" if s.other_plural == -1 else f"object {i}"
        yield Move(choice, word, p, after)


def live(s: State) -> Iterator[Move]:
    return one("in", "live in")


def live_in(s: State) -> Iterator[Move]:
    home = lex.HOMES[lex.PEOPLE[s.subject - PEOPLE][0]]
    yield Move("home", home, 1.0, to("tail"))


def work(s: State) -> Iterator[Move]:
    return one("as", "work as")


def work_as(s: State) -> Iterator[Move]:
    return one("a", "work as a")


def work_as_a(s: State) -> Iterator[Move]:
    job = lex.JOBS[lex.PEOPLE[s.subject - PEOPLE][1]]
    yield Move("job", job, 1.0, to("tail"))


# ---- being: attributes and relations


def be(s: State) -> Iterator[Move]:
    for i, (word, p) in enumerate(zip(lex.ADJECTIVES, adjectives(kind_of(s.subject)), strict=True)):
        yield Move(f"adjective {i}", word, 0.5 * p, to("tail", adjective=i))
    for i, word in enumerate(lex.RELATIONS):
        yield Move(f"relation {i}", word, 0.5 / len(lex.RELATIONS), to("related", relation=i))


def related(s: State) -> Iterator[Move]:
    return one("the", "related the")


def related_the(s: State) -> Iterator[Move]:
    for i, word, number, p in nouns(class_shares(s.place), -1):
        yield Move(f"other {i}/{number}", word, p, to("so", other=i, other_plural=number))


def so(s: State) -> Iterator[Move]:
    return one(",", "so ,")


def so_comma(s: State) -> Iterator[Move]:
    return one("so", "so the")


def so_the(s: State) -> Iterator[Move]:
    return one("the", "so other")


def so_other(s: State) -> Iterator[Move]:
    yield Move("other again", form(s.other, s.other_plural), 1.0, to("so be", other=-1))


def so_be(s: State) -> Iterator[Move]:
    if s.tense == FUTURE:
        yield Move("will", "will", 1.0, to("so will"))
    else:
        yield Move("be", copula(s, s.other_plural), 1.0, to("converse", other_plural=-1))


def so_will(s: State) -> Iterator[Move]:
    yield Move("be", "be", 1.0, to("converse", other_plural=-1))


def converse(s: State) -> Iterator[Move]:
    word = lex.CONVERSE[lex.RELATIONS[s.relation]]
    yield Move("converse", word, 1.0, to("back", relation=-1))


def back(s: State) -> Iterator[Move]:
    after = to("stop")
    if s.subject >= PEOPLE:
        yield Move("subject again", lex.NAMES[s.subject - PEOPLE], 1.0, after)
    else:
        yield Move("the", "the", 1.0, to("back the"))


def back_the(s: State) -> Iterator[Move]:
    yield Move("subject again", form(s.subject, s.plural), 1.0, to("stop"))


# ---- ends of sentences


def tail(s: State) -> Iterator[Move]:
    (join,) = list(lex.REGISTERS.values())[s.register]["join"]
    yield Move("join", join, AGAIN, to("joined"))
    yield Move("stop", ".", 1 - AGAIN, NEXT_SENTENCE)


def stop(s: State) -> Iterator[Move]:
    yield Move("stop", ".", 1.0, NEXT_SENTENCE)


NEXT_SENTENCE = to(
    "begin", subject=-1, plural=-1, adjective=-1, relation=-1, other=-1, other_plural=-1, verb=-1
)  # fmt: skip


def joined(s: State) -> Iterator[Move]:
    named = s.subject >= PEOPLE
    word = list(lex.GENDERS)[lex.PEOPLE[s.subject - PEOPLE][2]] if named else ("it", "they")[s.plural]
    yield Move("pronoun", word, 1.0, to("again"))


def again(s: State) -> Iterator[Move]:
    if s.tense == FUTURE:
        yield Move("will", "will", 1.0, to("again will"))
    else:
        yield from again_verbs(s)


def again_verbs(s: State) -> Iterator[Move]:
    for choice, verb, p in intransitives(s.subject):
        yield Move(choice, inflected(verb, s), 0.7 * p, to("stop"))
    yield Move("be", copula(s, s.plural), 0.3, to("again be"))


def again_be(s: State) -> Iterator[Move]:
    """Yield the adjective that was given before, or any where none was."""
    if s.adjective >= 0:
        yield Move("adjective again", lex.ADJECTIVES[s.adjective], 1.0, to("stop"))
        return
    for i, (word, p) in enumerate(zip(lex.ADJECTIVES, adjectives(kind_of(s.subject)), strict=True)):
        yield Move(f"adjective {i}", word, p, to("stop", adjective=i))


NODES = {
    "opener": opener, "opened": opened, "when": when, "where": where, "where in": where_in, "where the": where_the,
    "placed": placed, "closing": closing, "closing from": closing_from, "closing the": closing_the, "closed": closed,
    "end": end, "begin": begin, "subject": subject, "phrase": phrase, "noun": noun, "head": head, "near": near,
    "near the": near_the, "predicate": predicate, "will": verbs, "object": object_, "object noun": object_noun,
    "live": live, "live in": live_in, "work": work, "work as": work_as, "work as a": work_as_a, "be": be,
    "related": related, "related the": related_the, "so": so, "so ,": so_comma, "so the": so_the, "so other": so_other,
    "so be": so_be, "so will": so_will, "converse": converse, "back": back, "back the": back_the, "tail": tail,
    "stop": stop, "joined": joined, "again": again, "again will": again_verbs, "again be": again_be,
}  # fmt: skip
READS = {
    "closing the": ("place",), "begin": ("register", "place"), "phrase": ("place", "plural"),
    "noun": ("place", "plural"), "head": ("tense", "subject", "plural"), "near the": ("place",),
    "predicate": ("tense", "subject", "plural"), "will": ("tense", "subject", "plural"), "be": ("subject",),
    "object noun": ("verb", "other_plural"), "live in": ("subject",), "work as a": ("subject",),
    "related the": ("place",), "so other": ("other", "other_plural"), "so be": ("tense", "other_plural"),
    "converse": ("relation",), "back": ("subject",), "back the": ("subject", "plural"), "tail": ("register",),
    "joined": ("subject", "plural"), "again": ("tense", "subject", "plural"),
    "again will": ("tense", "subject", "plural"), "again be": ("adjective", "subject"),
}  # fmt: skip
"""Variables that the next word may depend on, where there are any."""
DEPENDS_ON = {node: (0, *(PLACE_OF[name] for name in READS.get(node, ()))) for node in NODES}
