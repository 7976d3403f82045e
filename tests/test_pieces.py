"""Texts of tokens: end to end they read as the text, whatever a tokenizer makes of spaces and bytes."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from unbraid.sources.text.pieces import pieces

TEXTS = ["a cat, too", "中文 and עברית", "🦊 é\n\tx", "<script>alert('x')</script>"]


def tokenizer_of_bytes() -> PreTrainedTokenizerFast:
    """A token a byte, as GPT-2's is without merges."""
    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(alphabet, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def tokenizer_of_words() -> PreTrainedTokenizerFast:
    """Words with their space in front, which it loses when it is decoded alone, as in SentencePiece."""
    made = Tokenizer(models.WordLevel({"▁a": 0, "▁cat": 1, ",": 2, "▁too": 3, "?": 4}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=made)


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_of_bytes_read_as_the_text(text: str):
    tokenizer = tokenizer_of_bytes()
    ids = tokenizer(text)["input_ids"]
    (found,) = pieces(tokenizer, [ids])
    assert len(found) == len(ids) and "".join(found) == text


def test_a_character_of_several_tokens_is_the_text_of_its_last():
    tokenizer = tokenizer_of_bytes()
    (found,) = pieces(tokenizer, [tokenizer("é中")["input_ids"]])
    assert found == ["", "é", "", "", "中"]


def test_half_a_character_at_the_end_of_a_window_is_shown_as_such():
    tokenizer = tokenizer_of_bytes()
    (found,) = pieces(tokenizer, [tokenizer("a中")["input_ids"][:-1]])
    assert found == ["a", "", "\ufffd"]


def test_a_space_is_kept_that_a_token_loses_alone():
    tokenizer = tokenizer_of_words()
    assert tokenizer.decode([1]) == "cat"
    assert [*pieces(tokenizer, [[0, 1, 3], [1]])] == [["a", " cat", " too"], ["cat"]]
