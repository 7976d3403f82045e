import pytest
import torch

from unbraid.sources.synthetic_language.documents import documents, read, words
from unbraid.sources.synthetic_language.factors import FACTORS, active, with_variable
from unbraid.sources.synthetic_language.lexicon import IDS, NOUNS
from unbraid.sources.synthetic_language.pairs import LEAST, VARIABLES, pairs
from unbraid.sources.synthetic_language.states import PAST

HEADER = "hey , today in the forest , "


def names(text: str) -> set[str]:
    """Factors active at the last word."""
    return {FACTORS[i].name for i in active(read(text.split())[-1])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hey", {"register=plain"}),
        ("hey , now", {"tense=present"}),
        (HEADER + "the", {"setting=outdoors", "place=forest"}),
        (HEADER + "the crows", {"tense=present", "number=plural", "kind=animal", "class=bird", "noun=crow"}),
        (HEADER + "the crows sleep", {"tense=present", "number=plural", "kind=animal", "register=plain"}),
        (HEADER + "the crows fly", {"tense=present", "number=plural", "kind=animal", "class=bird", "register=plain"}),
        (HEADER + "the crows fly and", {"number=plural", "register=plain"}),
        (HEADER + "the big crow is", {"tense=present", "number=singular", "kind=animal"}),
        (
            HEADER + "the big crow flies and it is",
            {"tense=present", "number=singular", "quality=size", "adjective=big"},
        ),
        (HEADER + "the crow flies and it is", {"tense=present", "number=singular", "kind=animal"}),
        (
            HEADER + "the crow flies and it is big",
            {"quality=size", "adjective=big"},
        ),
        (HEADER + "the big crow is big", {"register=plain", "quality=size", "adjective=big"}),
        (HEADER + "the crow sleeps . now", {"tense=present"}),
        (HEADER + "Alice is", {"tense=present", "number=singular", "kind=person"}),
        (HEADER + "Alice sings and she is", {"tense=present", "number=singular", "kind=person"}),
        (HEADER + "the crow near the", {"setting=outdoors", "place=forest"}),
        (HEADER + "the crow is above the fox , so the fox is", {"tense=present", "number=singular", "relation=above"}),
        (HEADER + "the crow is above the fox , so the fox is below", set()),
    ],
)
def test_a_word_holds_what_it_says_and_what_the_next_word_needs(text: str, expected: set[str]) -> None:
    assert names(text) == expected


def test_a_name_holds_all_that_is_known_of_the_person() -> None:
    found = names(HEADER + "Alice")
    assert {f.split("=")[0] for f in found} == {"tense", "number", "kind", "named", "home", "job", "gender"}
    assert {f.split("=")[0] for f in names(HEADER + "Alice lives in")} == {"kind", "named", "home"}


def test_children_are_active_only_with_their_parents() -> None:
    for told in documents(40, seed=3):
        for word in told:
            found = active(word)
            assert all(FACTORS[i].parent == -1 or FACTORS[i].parent in found for i in found)


@pytest.mark.slow
def test_every_factor_occurs_and_none_always() -> None:
    counts = torch.zeros(len(FACTORS))
    total = 0
    for told in documents(2000, seed=4):
        for word in told:
            counts[list(active(word))] += 1
            total += 1
    assert bool((counts > 2).all()) and bool((counts < 0.5 * total).all())


def test_a_text_told_again_differs_in_what_the_variable_decides_and_nothing_else() -> None:
    told = read((HEADER + "the big crows fly and they").split())
    changed = with_variable(told, "plural", 0)
    assert changed is not None
    assert " ".join(words(changed)) == HEADER + "the big crow flies and it"
    yesterday = with_variable(told, "tense", PAST)
    assert yesterday is not None
    assert " ".join(words(yesterday)) == "hey , yesterday in the forest , the big crows flew and they"
    fox = with_variable(told[:-3], "subject", NOUNS.index("fox"))
    assert fox is not None
    assert words(fox)[-1] == "foxes"


def test_a_variable_given_twice_changes_where_it_was_given_last() -> None:
    told = read((HEADER + "a crow flies . today the fox").split())
    changed = with_variable(told, "tense", PAST)
    assert changed is not None
    assert " ".join(words(changed)) == HEADER + "a crow flies . yesterday the fox"


def test_a_text_that_cannot_be_told_again_is_none() -> None:
    told = read((HEADER + "the big crows fly").split())
    assert with_variable(told, "relation", 1) is None  # not in force
    assert with_variable(read((HEADER + "Alice lives").split()), "plural", 1) is None  # one person is one


def test_pairs_are_equally_long_and_decide_the_next_word() -> None:
    for variable in VARIABLES:
        for pair in pairs(variable, 6, seed=1):
            assert len(pair.base) == len(pair.changed)
            assert pair.base[: pair.start] == pair.changed[: pair.start]
            assert 0.5 * float((pair.before - pair.after).abs().sum()) >= LEAST
            for words_ in pair.betraying.values():
                assert all(pair.after[i] == 0 for i in words_)


def test_number_is_betrayed_by_the_verb_form() -> None:
    found = [pair for pair in pairs("class", 60, seed=0) if "number" in pair.betraying and "tense" in pair.betraying]
    assert found
    pair = found[0]
    assert pair.betraying["number"].isdisjoint(pair.betraying["tense"])
    assert any(pair.after[i] == 0 for i in pair.betraying["number"])
    assert max(pair.betraying["number"]) < len(IDS)


def test_an_unknown_variable_is_refused() -> None:
    with pytest.raises(ValueError, match="no variable 'colour'; there are register"):
        pairs("colour", 1, seed=0)
