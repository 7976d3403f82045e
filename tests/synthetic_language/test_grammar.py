import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from benchmarks.language_model.entropy import entropy_rate

from unbraid.sources.synthetic_language import lexicon as lex
from unbraid.sources.synthetic_language import vocabulary
from unbraid.sources.synthetic_language.documents import LONGEST, Word, documents, next_word, read, text, words
from unbraid.sources.synthetic_language.grammar import NODES, moves, relevant
from unbraid.sources.synthetic_language.inflection import plural, verb
from unbraid.sources.synthetic_language.states import State

DOCUMENTS = list(documents(150, seed=7))
STATES = {word.state for told in DOCUMENTS for word in told} | {State()}


def test_every_state_has_a_proper_distribution_over_distinct_words_and_choices() -> None:
    for state in STATES:
        ahead = moves(state)
        if state.node == "end":
            assert ahead == ()
            continue
        assert sum(move.probability for move in ahead) == pytest.approx(1, abs=1e-12)
        assert len({move.word for move in ahead}) == len({move.choice for move in ahead}) == len(ahead)


def test_what_a_node_is_said_to_read_is_all_it_reads() -> None:
    for state in STATES:
        assert tuple(NODES[state.node](state)) == moves(state)


def test_every_word_can_be_said() -> None:
    states = {relevant(word.state) for told in documents(1500, seed=1) for word in told} | {State()}
    assert {move.word for state in states for move in moves(state)} == set(lex.WORDS) - {"<unk>", "<s>"}


def test_documents_read_back_to_the_states_that_made_them() -> None:
    for told in DOCUMENTS:
        assert read(words(told)) == told
        assert len(told) <= LONGEST


def test_the_same_seed_tells_the_same_and_another_seed_something_else() -> None:
    assert list(documents(5, seed=3)) == list(documents(5, seed=3))
    assert list(documents(5, seed=3)) != list(documents(5, seed=4))


def test_a_word_out_of_place_is_refused_with_what_could_stand_there() -> None:
    with pytest.raises(ValueError, match="'flies' cannot follow 'sir , yesterday'.*allows in"):
        read(["sir", ",", "yesterday", "flies"])


@pytest.mark.parametrize("count", [1000, pytest.param(4000, marks=pytest.mark.slow)])
def test_next_words_come_as_often_as_the_exact_distribution_says(count: int) -> None:
    state = read(["hey", ",", "today", "in", "the", "forest", ",", "the", "crow", "sleeps", "."])[-1].state
    exact = next_word(state)
    seen = Counter(
        after.move.word
        for told in documents(count, seed=2)
        for before, after in pairwise(told)
        if before.state.node == state.node and before.state.register == state.register
        if after.move.word not in lex.SETTINGS  # all else depends on the register alone
    )
    total = seen.total() / (1 - float(exact[lex.IDS["outdoors"]]))
    assert total > count / 2
    for word, count in seen.most_common(10):
        p = float(exact[lex.IDS[word]])
        assert abs(count - total * p) < 4 * math.sqrt(total * p * (1 - p))


def test_subject_and_verb_agree_in_number_and_tense() -> None:
    for sentence, right, wrong in (
        ("hey , today in the forest , the crows", "fly", "flies"),
        ("hey , today in the forest , the crow near the boats", "flies", "fly"),
        ("hey , yesterday in the forest , the crow", "flew", "flies"),
        ("hey , today in the forest , Alice lives in London and", "she", "they"),
        ("hey , today in the forest , the crow is above the fox , so the fox is", "below", "above"),
    ):
        p = next_word(read(sentence.split())[-1].state)
        if right == "she":
            right = ("she", "he")[lex.PEOPLE[lex.NAMES.index("Alice")][2]]
        assert p[lex.IDS[right]] > 0 and p[lex.IDS[wrong]] == 0, sentence


def test_named_people_are_all_combinations_of_home_job_and_gender_once() -> None:
    assert len(set(lex.PEOPLE)) == len(lex.NAMES) == 96


@pytest.mark.parametrize(("count", "within"), [(300, 0.025), pytest.param(2000, 0.01, marks=pytest.mark.slow)])
def test_entropy_rate_is_the_mean_of_exact_entropies_and_of_surprise(count: int, within: float) -> None:
    rate, error = entropy_rate(count, seed=5)
    told: list[Word] = [word for document in documents(count, seed=5) for word in document]
    surprise = torch.tensor([-math.log(word.move.probability) for word in told])
    assert error < within
    assert abs(float(surprise.mean()) - rate) < 4 * float(surprise.std()) / math.sqrt(len(told))


def test_text_leaves_the_end_token_out() -> None:
    assert lex.EOS_WORD not in text(next(iter(documents(1, seed=0))))


def test_a_noun_form_is_a_word_of_no_other_kind_and_of_one_noun() -> None:
    forms = [form for noun in lex.NOUNS for form in (noun, plural(noun))]
    assert len(set(forms)) == len(forms) == 2 * len(lex.NOUNS)
    elsewhere = [*lex.PLACES, *lex.SETTINGS, *lex.ADJECTIVES, *lex.RELATIONS, *lex.HOMES, *lex.NAMES]
    tables = (*lex.CLASS_VERBS.values(), *lex.KIND_VERBS.values(), lex.JOB_VERBS.values(), *lex.TRANSITIVE.values())
    every = [form for table in tables for found in table for form in found]
    assert set(forms).isdisjoint({*elsewhere, *every}) and len(set(every)) == len(every)


def test_a_stands_before_consonants_alone() -> None:
    assert not [word for word in (*lex.NOUNS, *lex.ADJECTIVES) if word[0] in "aeiou"]


def test_tables_have_a_row_for_each_class_kind_and_job() -> None:
    assert set(lex.CLASS_VERBS) == set(lex.CLASSES) and set(lex.JOB_VERBS) == set(lex.JOBS)
    assert set(lex.KIND_VERBS) == set(lex.TRANSITIVE) == set(lex.QUALITIES_OF) == set(lex.KINDS)
    assert {c for favoured in lex.PLACES.values() for c in favoured} == set(lex.CLASSES)
    assert sorted(p for places in lex.SETTINGS.values() for p in places) == sorted(lex.PLACES)
    classes = {name: nouns for found in lex.TAXONOMY.values() for name, nouns in found.items()}
    for group in (lex.PLACES, lex.QUALITIES, lex.QUALITIES_OF, classes):
        assert len({len(words) for words in group.values()}) == 1


@pytest.mark.parametrize(
    ("base", "third", "past"),
    [("fly", "flies", "flew"), ("sway", "sways", "swayed"), ("hum", "hums", "hummed"), ("bake", "bakes", "baked"),
     ("worry", "worries", "worried"), ("echo", "echoes", "echoed"), ("hiss", "hisses", "hissed")],
)  # fmt: skip
def test_verbs_are_inflected(base: str, third: str, past: str) -> None:
    assert verb(base) == (base, third, past)


@pytest.mark.parametrize(
    ("noun", "found"),
    [("crow", "crows"), ("fox", "foxes"), ("lily", "lilies"), ("toy", "toys"), ("leaf", "leaves"), ("piano", "pianos"),
     ("birch", "birches")],
)  # fmt: skip
def test_nouns_have_their_plurals(noun: str, found: str) -> None:
    assert plural(noun) == found


def test_exceptions_are_of_words_that_there_are() -> None:
    tables = (*lex.CLASS_VERBS.values(), *lex.KIND_VERBS.values(), lex.JOB_VERBS.values(), *lex.TRANSITIVE.values())
    bases = {found.base for table in tables for found in table}
    assert set(vocabulary.IRREGULAR_PLURALS) <= set(lex.NOUNS)
    assert {*vocabulary.IRREGULAR_PASTS, *vocabulary.DOUBLED} <= bases
