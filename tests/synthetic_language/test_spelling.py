"""The language read by tokenizers that write a word as several tokens: where words end, and what is known there."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests import subword
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from unbraid.sources.base import Batch
from unbraid.sources.cached import write_cache
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import EMBEDDED, located
from unbraid.sources.language_model.whole_texts import language_truth
from unbraid.sources.synthetic_language.documents import documents, read, words
from unbraid.sources.synthetic_language.factors import active
from unbraid.sources.synthetic_language.lexicon import WORDS
from unbraid.sources.synthetic_language.spelling import ORDINARY, first_tokens, prove, spell, spelled
from unbraid.sources.synthetic_language.truth import Told, ends_of_words
from unbraid.sources.truth import Labelled, NoTruth

TEXTS = [[word for word in words(document) if word in ORDINARY] for document in documents(30, seed=4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return subword.source(subword.write_model(tmp_path_factory.mktemp("subword")))


def test_what_is_read_up_to_a_words_last_token_ends_with_the_word():
    tokenizer = subword.tokenizer()
    for text, one in zip(TEXTS, spell(tokenizer, TEXTS), strict=True):
        for number, end in enumerate(one.ends.tolist()):
            assert tokenizer.decode(one.ids[: end + 1]) == " ".join(text[: number + 1])
        assert one.ends[-1] == len(one.ids) - 1 and one.lengths.sum() == len(one.ids)
    assert max(int(one.lengths.max()) for one in spell(tokenizer, TEXTS)) > 2


def test_the_embedded_model_has_a_token_a_word_and_the_other_has_not():
    embedded = AutoTokenizer.from_pretrained(located(EMBEDDED))
    assert prove(embedded) and not prove(subword.tokenizer())
    assert first_tokens(embedded) == {word: i for i, word in enumerate(WORDS) if word in ORDINARY}


@pytest.mark.parametrize(
    ("ids", "offsets", "message"),
    [
        ([5, 6], [(0, 5), (5, 9)], "two words as one token, 'so in' in 'so' 'in'"),
        ([5, 6], [(0, 4), (4, 9)], "two words as one token, 'so i' in 'so' 'in'"),
        ([5, 1, 6], [(0, 2), (2, 5), (5, 9)], "does not know the word 'in'"),
        ([5, 6], [(0, 2), (5, 9)], "leaves out a part of 'in'"),
        ([5, 6, 7], [(0, 2), (2, 5), (5, 8)], "leaves out a part of 'the'"),
    ],
)
def test_tokens_that_do_not_end_where_words_do_are_refused_with_an_example(ids, offsets, message):
    with pytest.raises(NoTruth, match=message):
        spelled(["so", "in", "the"], ids, offsets, 1)


def test_spaces_that_are_tokens_by_themselves_end_no_word():
    found = spelled(["so", "in"], [5, 9, 6], [(0, 2), (2, 3), (3, 5)], None)
    assert found.ends.tolist() == [0, 2]


def spaces_alone() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, and of the spaces between them."""
    vocabulary = {word: i for i, word in enumerate(["<unk>", " ", *ORDINARY])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def test_a_tokenizer_that_begins_many_words_alike_tells_no_next_word():
    assert 2 * len(set(first_tokens(subword.tokenizer()).values())) > len(ORDINARY)
    with pytest.raises(NoTruth, match="begins 1,436 words with 1 tokens"):
        first_tokens(spaces_alone())


def test_a_tokenizer_without_offsets_is_refused():
    with pytest.raises(NoTruth, match="SimpleNamespace does not say of which characters"):
        spell(SimpleNamespace(is_fast=False), [["so"]])


def test_labels_stand_at_the_last_token_of_each_word_and_nowhere_else(model: LanguageModel):
    truth = model.truth()
    found = truth.labelled(10**6, split="eval", seed=3)
    rows = model.windows(int(model.sequences("eval")), split="eval", seed=3)
    texts = [told(model).texts[int(i)].split(" ") for i in rows.documents.tolist()]
    assert len(found.x) == sum(map(len, texts)) < model.available("eval")
    assert not truth.of_all_rows and LanguageModel(text="language://20").truth().of_all_rows
    at, z = 0, found.dense()
    for text, one in list(zip(texts, spell(subword.tokenizer(), texts), strict=True))[:4]:
        acts = model.activations(model.whole([one.ids]))[0, one.ends]
        torch.testing.assert_close(found.x[at : at + len(text)], acts, atol=1e-4, rtol=1e-4)
        for row, word in enumerate(read(text), at):
            assert set(z[row].nonzero()[:, 0].tolist()) == active(word)
        at += len(text)


def counted(labelled: Labelled) -> torch.Tensor:
    return torch.bincount(labelled.factors, minlength=labelled.count)


def test_a_cache_has_the_truth_of_what_it_was_written_from(model: LanguageModel, tmp_path):
    cached = write_cache(model, tmp_path / "cache", seed=3)
    live, kept = (source.truth().labelled(10**6, split="eval") for source in (model, cached))
    assert len(live.x) == len(kept.x) > 500 and not cached.truth().of_all_rows
    assert torch.equal(counted(live), counted(kept))
    torch.testing.assert_close(live.x.sum(0), kept.x.sum(0), atol=1e-2, rtol=1e-4)
    few = cached.truth().labelled(50, split="train")
    assert len(few.x) == 50 and torch.equal(few.x, cached.truth().labelled(100, split="train").x[:50])


def test_a_context_that_cuts_a_document_says_how_long_it_must_be(model: LanguageModel):
    lengths = [len(one.ids) for one in spell(subword.tokenizer(), [t.split(" ") for t in told(model).texts])]
    cut = replace(model, context=max(lengths) - 1)
    with pytest.raises(NoTruth, match=f"the longest has {max(lengths)} .*raise --source.context to {max(lengths)} or"):
        cut.truth()
    replace(model, context=max(lengths)).truth()


def told(model: LanguageModel) -> Told:
    return language_truth(model).told


def test_rows_of_another_text_and_rows_without_a_words_end_are_refused(model: LanguageModel):
    one = spell(subword.tokenizer(), [told(model).texts[0].split(" ")])[0]
    place = next(i for i in range(len(one.ids)) if i not in one.ends.tolist())
    row = Batch(torch.zeros(1, 16), torch.tensor([one.ids[place]]), torch.tensor([0]), torch.tensor([place]))
    empty = replace(language_truth(model), rows=lambda count, split, seed: iter([row]))
    with pytest.raises(ValueError, match="none of 1 activations of the eval split is of a word's last token"):
        empty.labelled(10, split="eval")
    with pytest.raises(ValueError, match="said to be of document 0 of the language are not"):
        ends_of_words(replace(row, tokens=row.tokens + 1), told(model))
    with pytest.raises(ValueError, match="document 60 cannot be of 60 documents"):
        ends_of_words(replace(row, documents=row.documents + 60), told(model))
