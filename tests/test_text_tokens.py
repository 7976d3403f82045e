"""Documents as token ids: the same ids as before, told how far it is, bounded, and from books too."""

import json
import logging
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.data import data_folder
from tests.paragraphs import merge_paragraphs
from tests.tiny_lm import WORDS, source, write_model
from unbraid.sources.stream import held_out
from unbraid.sources.text import tokens as text_tokens
from unbraid.sources.text.corpus import Local, Streamed, split_of
from unbraid.sources.text.cutting import cut, shorter
from unbraid.sources.text.tokens import digest, encode, parts, tokenise_all, warn_if_spelt
from unbraid.sources.text.windows import Packed, Reader
from unbraid.system.notices import Pace, shown


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module")
def reader(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    return Reader(tokenizer=tokenizer, context=12, bos=1, mask_special=True, vocabulary=48, positions=40)


def local(documents, reader: Reader, **changes) -> Local:
    return Local(lambda: documents, reader, **({"eval_share": 0.2, "size": 100, "epochs": 1} | changes))


# ---- the same as one by one


def test_a_corpus_read_in_parts_equals_its_documents_one_by_one(reader, monkeypatch):
    texts = [" ".join(WORDS[i % 7 : i % 7 + 1 + i % 13]) + f" the cat {'a ' * (i % 4)}" for i in range(60)]
    monkeypatch.setattr(text_tokens, "AT_ONCE", 200)
    found = local(texts, reader)
    for split in ("train", "eval"):
        chosen = [(i, reader.tokenise([t])[0]) for i, t in enumerate(texts) if split_of(t, 0.2) == split]
        wanted = Packed.of(chosen, reader)
        for name in ("tokens", "start", "length", "kept", "document", "first", "count"):
            assert torch.equal(getattr(found.packed[split], name), getattr(wanted, name))


def test_token_ids_are_read_as_they_are(reader):
    assert encode(reader.tokenizer, [[5, 6], "the cat", [7]]).flat.tolist() == [5, 6, 3, 5, 7]
    assert [ids.tolist() for ids in reader.tokenise([[5, 6], []])] == [[5, 6], []]
    with pytest.raises(ValueError, match="gave id 48 but the model embeds 48"):
        reader.tokenise([[1, 48]])
    for row in ([-1, 3], [2**40]):
        with pytest.raises(ValueError, match="row of token ids holds .* ids are whole numbers from 0"):
            reader.tokenise([row])


def test_a_document_longer_than_a_part_is_tokenised_in_pieces(reader, monkeypatch):
    long = "the cat saw a dog " * 50
    whole = encode(reader.tokenizer, [long, "a", long])
    monkeypatch.setattr(text_tokens, "AT_ONCE", 100)
    assert torch.equal(encode(reader.tokenizer, [long, "a", long]).flat, whole.flat)
    assert encode(reader.tokenizer, [long, "a", long]).lengths.tolist() == whole.lengths.tolist() == [250, 1, 250]


@given(st.lists(st.text(max_size=30), max_size=40))
def test_parts_hold_every_document_in_order(documents):
    found = list(parts(documents))
    assert [d for part in found for d in part] == documents and all(found)


def test_the_split_is_by_the_content_of_text_and_ids():
    assert digest("the cat") == digest("the cat") != digest("the dog")
    assert digest([1, 2]) == digest([1, 2]) != digest([12])


# ---- books


def test_fault_12_one_book_without_blank_lines_has_both_splits(model, tmp_path):
    words = [WORDS[(i * i + i // 7) % len(WORDS)] for i in range(12_000)]
    for name, between in (("lines.txt", "\n"), ("line.txt", " "), ("sentences.txt", ". ")):
        pieces = [" ".join(words[i : i + 11]) for i in range(0, len(words), 11)]
        (tmp_path / name).write_text(between.join(pieces))
        live = source(model, tmp_path / name, eval_share=0.2)
        assert len(held_out(live, 100)) >= 90 and live.available("train") > 5_000


def test_fault_12_one_giant_document_of_text_or_ids_has_both_splits(model, tmp_path):
    words = [WORDS[(i * i + i // 7) % len(WORDS)] for i in range(12_000)]
    ids = [3 + (i * i + i // 7) % len(WORDS) for i in range(12_000)]
    for value in (" ".join(words), ids):
        (tmp_path / "one.jsonl").write_text(json.dumps({"text": value}) + "\n")
        live = source(model, tmp_path / "one.jsonl", eval_share=0.2)
        assert len(held_out(live, 100)) >= 90 and live.available("train") > 5_000


def test_documents_are_cut_only_where_a_split_would_be_empty(reader):
    book = " ".join(WORDS * 60)
    assert local([book] * 3, reader).available("eval") or local([book] * 3, reader).available("train")
    both = [book + f" {WORDS[i]}" for i in range(12)]
    assert {split_of(d, 0.2) for d in both} == {"train", "eval"}
    found = local(both, reader)
    assert sorted(found.pool("train").document.unique().tolist() + found.pool("eval").document.unique().tolist()) == [
        *range(12)
    ]


def test_fault_12_copies_of_one_document_are_named(reader):
    copied = next(f"the cat saw {word}" for word in WORDS if split_of(f"the cat saw {word}", 0.5) == "eval")
    with pytest.raises(ValueError, match="none of its 9 documents, 1 of them different, leaves a token.*give more"):
        local([copied] * 9, reader, eval_share=0.5)


@given(st.text(alphabet=st.sampled_from(list("ab.!?。 \n\t\u2028é")), max_size=300), st.integers(2, 40))
def test_pieces_of_a_text_make_it_up_and_are_of_bounded_length(text, least):
    pieces = list(cut(text, least))
    assert "".join(pieces) == text
    assert all(least <= len(piece) < 2 * least for piece in pieces[:-1]) and len(pieces[-1]) < 2 * least


def test_text_is_cut_after_lines_else_sentences_else_words_else_anywhere():
    assert list(cut("aaaa bb. c\ndd eeee ffff gggg", 6)) == ["aaaa bb. c\n", "dd eeee ", "ffff gggg"]
    assert list(cut("aaaa bb. cc dd", 6))[0] == "aaaa bb. "
    assert list(cut("aaaaaaaaaaaa", 4)) == ["aaaa", "aaaa", "aaaa"]
    assert list(shorter([[], [1] * 1200])) == [[1] * 500, [1] * 500, [1] * 200]


@given(st.text(alphabet=st.sampled_from(list("ab \n\r\t")), max_size=80), st.integers(1, 20))
def test_paragraphs_are_merged_as_they_always_were(text, least):
    merged, pending = [], []
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.strip():
            pending.append(paragraph.strip("\n"))
        if sum(map(len, pending)) >= least:
            merged.append("\n\n".join(pending))
            pending = []
    assert merge_paragraphs(text, least) == ([*merged, "\n\n".join(pending)] if pending else merged)


# ---- what is told, and bounds


def test_text_that_does_not_fit_in_memory_is_refused_with_the_sizes(reader, monkeypatch):
    monkeypatch.setattr(text_tokens, "free_memory", lambda: 100)
    with pytest.raises(ValueError, match="first 10 documents have 20 tokens, and the 100 bytes that are free take 7"):
        local(["the cat"] * 10, reader)


def test_fault_27_a_long_reading_says_how_far_it_is(caplog):
    now = iter([0.0, 1.0, 6.0, 7.0, 17.0])
    pace = Pace("reading a.jsonl", 200, clock=lambda: next(now))
    with caplog.at_level(logging.INFO, "unbraid"):
        for done in (20, 50, 60, 100):
            pace.at(done, f"{done} lines")
    assert caplog.messages == [
        "reading a.jsonl: 50 lines, 25%, about 18 s left, 6 s so far",
        "reading a.jsonl: 100 lines, 50%, about 17 s left, 17 s so far",
    ]


def test_progress_is_silent_in_python_and_shown_at_the_command_line(capsys):
    pace = Pace("reading", clock=iter([0.0, 9.0, 30.0]).__next__)
    pace.at(1)
    assert capsys.readouterr().err == ""
    with shown():
        pace.at(1)
        logging.getLogger("unbraid").warning("three are empty")
    assert capsys.readouterr().err == "reading: 30 s so far\nnote: three are empty\n"


def test_fault_27_tokenising_tells_documents_and_tokens(reader, monkeypatch, caplog):
    monkeypatch.setattr("unbraid.system.notices.SILENT", -1.0)
    with caplog.at_level(logging.INFO, "unbraid"):
        tokenise_all(["the cat"] * 5, reader.tokenizer, 0.1)
    assert caplog.messages == ["tokenising: 5 documents, 10 tokens, 0 s so far"]


def test_fault_26_chinese_by_byte_fallback_draws_a_warning_and_english_none(caplog):
    tokenizer = AutoTokenizer.from_pretrained(data_folder() / "models" / "stories260K")
    for text, warned in (
        ("从前有一个小女孩，她喜欢读书。" * 5, True),
        ("Once upon a time there was a girl. " * 5, False),
    ):
        caplog.clear()
        warn_if_spelt(tokenizer, encode(tokenizer, [text]).flat, len(text))
        assert ["spells this text out" in message for message in caplog.messages] == [True] * warned


def test_fault_26_a_stream_draws_the_warning_once(caplog):
    tokenizer = AutoTokenizer.from_pretrained(data_folder() / "models" / "stories260K")
    reader = Reader(tokenizer=tokenizer, context=12, bos=1, mask_special=True, vocabulary=512, positions=512)
    lines = [f"从前有一个小女孩{i}" for i in range(200)]
    corpus = Streamed(lambda: iter(lines), reader, eval_share=0.0, size=50, epochs=1)
    for index in range(20):
        corpus.block(index, split="train", seed=0)
    assert ["spells this text out" in message for message in caplog.messages] == [True]


def test_fault_26_bits_of_letters_draw_a_warning_whatever_they_are_called(caplog):
    class Bytes:
        def get_vocab(self):
            return {f"t{i}": i for i in range(5000)}

    warn_if_spelt(Bytes(), torch.zeros(250, dtype=torch.int32), 100)
    assert "2.5 tokens a character" in caplog.messages[0]
    caplog.clear()
    warn_if_spelt(Bytes(), torch.zeros(25, dtype=torch.int32), 100)
    assert not caplog.messages
