"""Text that people have: every format and packing, files that are slightly off, and files made to do harm."""

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.data import data_folder
from tests.paragraphs import merge_paragraphs
from tests.tiny_lm import source, write_model
from unbraid.sources.text import bytes as text_bytes
from unbraid.sources.text import documents as text_documents
from unbraid.sources.text import rows as text_rows
from unbraid.sources.text.bytes import lines
from unbraid.sources.text.cutting import joined
from unbraid.sources.text.documents import documents, paragraphs, read

DOCUMENTS = ["the cat saw a dog", "once upon\na time", 'she said: "a, b"\tand é 猫 🐈']
MESSAGES = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "the cat"}]


def zstd(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd,
}  # fmt: skip


def as_csv(texts: list[str], delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([["id", "text"], *([i, text] for i, text in enumerate(texts))])
    return out.getvalue().encode()


def as_parquet(texts: list[str]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": range(len(texts)), "text": pyarrow.array(texts, "string")}), out)
    return out.getvalue()


def as_arrow(texts: list[str]) -> bytes:
    out = io.BytesIO()
    table = pyarrow.table({"text": pyarrow.array(texts, "string")})
    with pyarrow.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def rows_of(texts: list[str]) -> list[dict[str, Any]]:
    return [{"id": i, "text": text} for i, text in enumerate(texts)]


FORMATS: dict[str, Callable[[list[str]], bytes]] = {
    ".jsonl": lambda texts: "".join(json.dumps(row) + "\n" for row in rows_of(texts)).encode(),
    ".ndjson": lambda texts: "\n".join(json.dumps(row, ensure_ascii=False) for row in rows_of(texts)).encode(),
    ".json": lambda texts: json.dumps(rows_of(texts), indent=1).encode(),
    ".csv": lambda texts: as_csv(texts, ","),
    ".tsv": lambda texts: as_csv(texts, "\t"),
    ".parquet": as_parquet,
    ".arrow": as_arrow,
}


def put(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def jsonl(folder: Path, *values: Any, name: str = "a.jsonl") -> str:
    return put(folder, name, "".join(json.dumps(value) + "\n" for value in values).encode())


# ---- formats (fault 25)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("form", FORMATS)
def test_fault_25_every_format_and_packing_gives_the_same_documents(tmp_path, form, packing):
    data = PACKINGS[packing](FORMATS[form](DOCUMENTS))
    assert documents(put(tmp_path, f"a{form}{packing}", data), "text") == DOCUMENTS


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), min_size=1, max_size=8),
    form=st.sampled_from(sorted(FORMATS)), packing=st.sampled_from(sorted(PACKINGS)),
)  # fmt: skip
def test_any_documents_written_in_any_form_are_read_back_equal(texts, form, packing):
    with tempfile.TemporaryDirectory() as folder:
        written = put(Path(folder), f"a{form}{packing}", PACKINGS[packing](FORMATS[form](["word", *texts])))
        assert documents(written, "text") == ["word", *texts]


@settings(max_examples=80, deadline=None)
@given(
    data=st.one_of(st.binary(max_size=200), st.text(max_size=80).map(lambda t: t.encode("utf-8", "surrogatepass"))),
    start=st.sampled_from([b"", b"PAR1", b"ARROW1", *text_bytes.PACKED, *text_bytes.NO_TEXT, b"[", b'{"', b'"']),
    form=st.sampled_from([*FORMATS, ".txt", ".dat"]), packing=st.sampled_from(sorted(PACKINGS)),
)  # fmt: skip
def test_any_bytes_end_in_documents_or_in_a_sentence_that_names_the_file(data, start, form, packing):
    with tempfile.TemporaryDirectory() as folder:
        written = put(Path(folder), f"odd{form}{packing}", start + data)
        try:
            assert all(isinstance(document, str | list) for document in read(written, "text"))
        except ValueError as error:
            assert f"odd{form}{packing}" in str(error)


@settings(max_examples=40, deadline=None)
@given(form=st.sampled_from(sorted(FORMATS)), packing=st.sampled_from(sorted(PACKINGS)), data=st.data())
def test_a_file_with_changed_or_missing_bytes_ends_in_documents_or_a_sentence(form, packing, data):
    whole = bytearray(PACKINGS[packing](FORMATS[form](DOCUMENTS * 4)))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    kept = whole[: data.draw(st.integers(0, len(whole)))]
    with tempfile.TemporaryDirectory() as folder:
        written = put(Path(folder), f"odd{form}{packing}", bytes(kept))
        try:
            assert all(isinstance(document, str | list) for document in read(written, "text"))
        except ValueError as error:
            assert "odd" in str(error)


def test_fault_25_a_folder_of_shards_is_read_in_order_of_names(tmp_path):
    (tmp_path / "data").mkdir()
    for i, text in enumerate(DOCUMENTS):
        put(tmp_path / "data", f"train-0000{i}-of-00003.parquet", as_parquet([text]))
    (tmp_path / "README.md").write_text("about it")
    put(tmp_path, ".hidden.parquet", b"not one")
    assert documents(str(tmp_path), "text") == DOCUMENTS


def test_a_folder_of_several_kinds_or_splits_is_refused(tmp_path):
    put(tmp_path, "train-0.parquet", as_parquet(["a"]))
    put(tmp_path, "validation-0.parquet", as_parquet(["b"]))
    with pytest.raises(ValueError, match=r"holds files of the splits \['train', 'validation'\]; put those of one"):
        documents(str(tmp_path), "text")
    jsonl(tmp_path, {"text": "c"})
    with pytest.raises(ValueError, match=r"mixes files of several kinds \(1 of json, 2 of parquet\)"):
        documents(str(tmp_path), "text")


def test_what_is_neither_file_nor_folder_or_may_not_be_listed_is_a_sentence(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(ValueError, match="pipe.jsonl is neither a file nor a folder; give a .txt"):
        documents(str(tmp_path / "pipe.jsonl"), "text")

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rglob", refused)
    with pytest.raises(ValueError, match="cannot read .*Permission denied"):
        documents(str(tmp_path), "text")


def test_a_folder_saved_by_datasets_keeps_its_order_and_filters(tmp_path):
    saved = datasets.Dataset.from_list(rows_of(DOCUMENTS)).select([2, 0])
    saved.save_to_disk(str(tmp_path / "saved"))
    assert documents(str(tmp_path / "saved"), "text") == [DOCUMENTS[2], DOCUMENTS[0]]
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot read .*saved"):
        documents(str(tmp_path / "saved"), "text")


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.jsonl", gzip.compress(b'{"text": "a"}'), ["a"]),
        ("a.jsonl.gz", b'{"text": "a"}', ["a"]),
        ("a.txt", b'{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        ("a.json", b'{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        ("a.jsonl", b'[{"text": "a"},\n {"text": "b"}]', ["a", "b"]),
        ("a.csv", b'{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        ("a.csv", b"id;text\n1;a, b\n2;c\n", ["a, b", "c"]),
        ("a.csv", b"id\ttext\n1\ta, b\n2\tc\n", ["a, b", "c"]),
        ("corpus", b'{"text": "a"}\n', ["a"]),
        ("a.jsonl", as_parquet(["a"]), ["a"]),
        ("a.TXT.XZ", lzma.compress(b"a"), ["a"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # packed bytes hold the time
)
def test_the_content_says_what_a_file_is_whatever_its_name(tmp_path, name, data, expected):
    assert documents(put(tmp_path, name, data), "text") == expected


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"PK\x03\x04rest", "is a zip archive, not text; unpack it"),
        ("a.tar.gz", gzip.compress(b"name" + bytes(253) + b"ustar" + bytes(250)), "is a tar archive"),
        ("a.pdf", b"%PDF-1.7", "is a PDF"),
        ("a.txt", "a b".encode("utf-16"), "is UTF-16; convert it: iconv -f UTF-16"),
        ("a.txt", "some words".encode("utf-16-le"), "binary, or UTF-16 without its mark"),
        ("a.parquet", b"not that", "named as Parquet but does not begin as such"),
        ("a.dat", b"words", r"its suffix is none of .txt .* \.parquet .*nor that with \.gz.*convert it"),
        ("a.jsonl", b"just words\nin lines", "line 1 of .*a.jsonl is not JSON .*name it .txt if it is plain text"),
        ("a.json", b"[1, 2", r"line 1 of .*a.json is not JSON"),
        ("a.json", b'[{"text": "a"},\n{"text": ]', r"a.json is not JSON \(.*line 2 .*write a list of objects"),
        ("a.csv", b"text\na, b\n", "line 2 has 2 fields and the first line 1; put text with commas in quotes"),
        ("a.csv", b'text\n"open\n', "line 2 is not CSV"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}' * 9)[:-9], "cannot read .*a.jsonl.gz .*get it again"),
        ("a.jsonl.zst", zstd(b'{"text": "a"}' * 9)[:-9], "cannot read .*a.jsonl.zst .*get it again"),
        ("a.parquet", as_parquet(["a"])[:-9], "cannot read .*a.parquet .*get it again"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # packed bytes hold the time
)
def test_what_is_no_text_is_named_with_a_remedy(tmp_path, name, data, said):
    with pytest.raises(ValueError, match=f"(?s){said}"):
        documents(put(tmp_path, name, data), "text")


# ---- columns


def test_fault_25_the_columns_there_are_and_the_likeliest_are_named(tmp_path):
    long = {"id": 1, "title": "short", "story": "a much longer text", "n": 0.5, "ids": [1], "ok": True, "no": None}
    with pytest.raises(ValueError) as caught:
        documents(jsonl(tmp_path, long, long), "text")
    assert "line 1 has no column 'text', only ['id', 'ids', 'n', 'no', 'ok', 'story', 'title']" in str(caught.value)
    assert "(id: a whole number, ids: token ids, n: a number, no: nothing, ok: yes or no, story: text" in str(
        caught.value
    )
    assert str(caught.value).endswith("choose with --source.text-column, such as story")
    put(tmp_path, "a.parquet", as_parquet(["a"]))
    with pytest.raises(
        ValueError, match=r"no column 'story', only \['id', 'text'\] \(id: a whole number, text: text\)"
    ):
        documents(str(tmp_path / "a.parquet"), "story")
    with pytest.raises(ValueError, match=r"no column 'story', only \['id', 'text'\] .*such as text"):
        documents(put(tmp_path, "a.csv", b"id,text\n1,a cat\n"), "story")


def test_a_table_without_names_does_not_fill_the_error_with_its_first_text(tmp_path):
    with pytest.raises(ValueError) as caught:
        documents(put(tmp_path, "a.csv", b"a" * 500 + b",1\nb,2\n"), "text")
    assert "aaaa…" in str(caught.value) and len(str(caught.value)) < 400


def test_a_wrong_column_of_a_long_file_is_told_early(tmp_path, monkeypatch):
    monkeypatch.setattr(text_rows, "PATIENCE", 5)
    written = jsonl(tmp_path, *[{"story": "a"}] * 9, "text")
    with pytest.raises(ValueError, match="no column 'text'"):
        list(read(written, "text"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "llama")


def test_fault_25_chats_are_written_out_by_the_tokenizers_template(model, tmp_path):
    written = jsonl(tmp_path, *[{"messages": MESSAGES, "id": i} for i in range(40)])
    live = source(model, written, text_column="messages", eval_share=0.0)
    with pytest.raises(ValueError, match="line 1 cannot be written out: the tokenizer has no chat template; choose"):
        live.block(0, split="train", seed=0)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }} said {{ m['content'] }} {% endfor %}"
    tokenizer.save_pretrained(tmp_path / "chatty")
    for path in model.iterdir():
        if not (tmp_path / "chatty" / path.name).exists():
            (tmp_path / "chatty" / path.name).symlink_to(path)
    live = source(tmp_path / "chatty", written, text_column="messages", eval_share=0.0)
    assert "said hello" in live.sample_text(1)[0] and "said the cat" in live.sample_text(1)[0]
    with pytest.raises(ValueError, match="holds chats, and no tokenizer is at hand"):
        documents(written, "messages")


def test_fault_25_token_ids_are_read_without_tokenising(model, tmp_path):
    rows = [{"input_ids": [3 + (i + j) % 30 for j in range(5 + i % 9)]} for i in range(60)]
    put(tmp_path, "a.parquet", b"")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for written in (jsonl(tmp_path, *rows), str(tmp_path / "a.parquet")):
        assert list(read(written, "input_ids")) == [row["input_ids"] for row in rows]
        live = source(model, written, text_column="input_ids")
        assert live.available("train") + live.available("eval") == sum(len(row["input_ids"]) for row in rows)
    with pytest.raises(ValueError, match="the tokenizer gave id 99,?.* but the model embeds 48"):
        source(model, jsonl(tmp_path, *rows, {"input_ids": [3, 99]}), text_column="input_ids").available("train")
    with pytest.raises(ValueError, match="holds token ids, not text"):
        documents(written, "input_ids")


@pytest.mark.parametrize("value", [5, True, [1, "a"], ["a", "b"], {"a": 1}, [True], [1.5], [[1]]])
def test_a_column_of_something_else_is_named(tmp_path, value):
    with pytest.raises(ValueError, match="column 'text' of .*line 2 holds .*, not text .*choose another column"):
        documents(jsonl(tmp_path, {"text": "a"}, {"text": value}), "text")


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        ({"text": ["a", "b"], "id": [1, 2]}, ["a", "b"]),
        ({"version": 1, "data": [{"text": "a"}, {"text": "b"}]}, ["a", "b"]),
        ({"text": "a"}, ["a"]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([1, 2], [[1, 2]]),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_fault_23_json_of_another_shape_is_read_where_it_is_clear(tmp_path, whole, expected, indent):
    for name in ("a.json", "a.jsonl"):
        assert list(read(put(tmp_path, name, json.dumps(whole, indent=indent).encode()), "text")) == expected


def test_lines_of_texts_are_documents(tmp_path):
    assert documents(jsonl(tmp_path, "a", "b c"), "text") == ["a", "b c"]
    with pytest.raises(ValueError, match="line 2 holds int, not text"):
        documents(jsonl(tmp_path, "a", 5), "text")


# ---- files that are slightly off (fault 23)


def test_fault_23_marks_blank_lines_and_line_ends_of_other_systems_are_read(tmp_path):
    plain = '{"text": "a"}\n{"text": "b"}\n'
    for data in (
        plain + "\n", plain + "\n \n\n", "\n" + plain, plain.replace("\n", "\r\n"), plain.replace("\n", "\r"),
        "\ufeff" + plain, "\ufeff\n" + plain, plain[:-1],
    ):  # fmt: skip
        assert documents(put(tmp_path, "a.jsonl", data.encode()), "text") == ["a", "b"]
        assert documents(put(tmp_path, "a.jsonl.xz", lzma.compress(data.encode())), "text") == ["a", "b"]
    table = "\ufeffid,text\r\n1,a\r\n\r\n2,b\r\n"
    assert documents(put(tmp_path, "a.csv", table.encode()), "text") == ["a", "b"]
    for data in ("\ufeffa\n\nb", "a\r\n\r\nb\r\n", "a\r\rb"):
        assert documents(put(tmp_path, "a.txt", data.encode()), "text") == ["a\n\nb"]


def test_fault_23_nulls_empties_and_rows_without_the_column_are_counted_and_left_out(tmp_path, caplog):
    written = jsonl(tmp_path, {"text": "a"}, {"text": None}, {"text": ""}, {"id": 1}, {"text": []}, {"text": "b"})
    assert documents(written, "text") == ["a", "b"]
    assert caplog.messages == [f"{written}: 4 of 6 documents are empty and were left out"]
    caplog.clear()
    table = pyarrow.table({"text": ["a", None, "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert documents(str(tmp_path / "a.parquet"), "text") == ["a", "b"]
    assert len(caplog.messages) == 1 and "1 of 3" in caplog.messages[0]
    caplog.clear()
    assert documents(jsonl(tmp_path, {"text": "a"}), "text") == ["a"] and not caplog.messages


@pytest.mark.parametrize("form", [".jsonl", ".json", ".csv", ".txt"])
def test_fault_23_latin_1_names_file_line_and_remedy(tmp_path, form):
    texts = {".jsonl": '{"text": "a"}\n{"text": "café"}\n', ".csv": "text\ncafé\n", ".txt": "a\ncafé\n",
             ".json": '[{"text":\n"café"}]'}  # fmt: skip
    with pytest.raises(ValueError, match="line 2 of .*odd.* is not UTF-8 text.*iconv -f LATIN1 -t UTF-8 'odd"):
        documents(put(tmp_path, f"odd{form}", texts[form].encode("latin-1")), "text")


def test_fault_23_half_characters_are_joined_or_replaced(tmp_path, caplog):
    written = put(tmp_path, "a.jsonl", rb'{"text": "a \ud83d b"}' + b"\n" + rb'{"text": "\ud83d\udc08 \udc08"}')
    assert documents(written, "text") == ["a � b", "🐈 �"]
    assert caplog.messages == [f"{written}: half characters (lone surrogates) in 2 documents were replaced"]
    put(tmp_path, "b.jsonl", rb'{"text": "\ud83d\udc08"}')
    assert documents(str(tmp_path / "b.jsonl"), "text") == ["🐈"] and len(caplog.messages) == 1


def test_fault_23_zero_bytes_tabs_and_a_huge_line_are_text(model, tmp_path):
    assert documents(put(tmp_path, "a.jsonl", b'{"text": "a\\u0000b\tc"}'), "text") == ["a\0b\tc"]
    assert documents(put(tmp_path, "a.txt", b"some words a\0b and more"), "text") == ["some words a\0b and more"]
    huge = "the cat " * 400_000
    assert documents(jsonl(tmp_path, {"text": huge}, {"text": "b"}), "text") == [huge, "b"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_fault_23_deep_json_and_numbers_without_end_are_sentences(tmp_path, name):
    for data in ("[" * 100_000, '{"a":' * 100_000, '{"text": ' + "9" * 5000 + "}", '{"text": 1e999999}'):
        with pytest.raises(ValueError, match=name):
            documents(put(tmp_path, name, data.encode()), "text")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab \n\r\té\x0b")), max_size=60), st.integers(1, 9))
def test_plain_text_read_in_parts_gives_the_paragraphs_of_the_whole(text, size):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        path = Path(put(Path(folder), "a.txt", text.encode()))
        patched.setattr(text_bytes, "PIECE", size)
        patched.setattr(text_documents.texts, "__defaults__", (size,))
        assert list(joined(paragraphs(path), 4)) == merge_paragraphs(path.read_text(encoding="utf-8"), 4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", b""]), max_size=30), st.integers(1, 5))
def test_lines_are_those_of_the_whole_file_whatever_the_size_of_pieces(parts, size):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(text_bytes, "PIECE", size)
        path = Path(put(Path(folder), "a.txt", b"".join(parts)))
        assert list(lines(path)) == b"".join(parts).splitlines(keepends=True)


def test_a_long_text_without_blank_lines_is_cut_as_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(text_documents, "ENDLESS", 10_000)
    text = "the cat saw a dog. " * 5000
    found = documents(put(tmp_path, "a.txt", text.encode()), "text")
    assert "".join(found) == text and all(len(document) < 20_000 for document in found) and len(found) > 20


# ---- files made to do harm (fault 21)


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("form", [".jsonl", ".txt", ".json", ".csv", ".parquet"])
def test_fault_21_a_file_packed_to_burst_is_refused_with_its_sizes(tmp_path, monkeypatch, packing, form):
    monkeypatch.setattr(text_bytes, "UNSUSPICIOUS", 2**20)
    monkeypatch.setattr(text_bytes, "TIMES", 10)
    begin = {".jsonl": b'{"text": "', ".json": b'["', ".csv": b'text\n"', ".parquet": b"PAR1", ".txt": b""}[form]
    written = put(tmp_path, f"bomb{form}{packing}", PACKINGS[packing](begin + b"a" * 5_000_000))
    with pytest.raises(ValueError, match=r"bomb.* has [\d,]+ bytes and unpacks to more than [\d,]+, which is no text"):
        documents(written, "text")


def test_fault_21_a_line_or_a_value_too_long_for_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(text_bytes, "free_memory", lambda: 12_000_000)
    monkeypatch.setattr(text_bytes, "PIECE", 10_000)
    long = b'{"text": "' + b"a" * 3_000_000 + b'"}'
    with pytest.raises(ValueError, match="a.jsonl has a line of more than 1,000,000 bytes"):
        documents(put(tmp_path, "a.jsonl", long), "text")
    many = json.dumps([{"text": "a" * 50}] * 50_000, indent=0).encode()
    with pytest.raises(ValueError, match="a.json must be read at once and holds more than 1,000,000 bytes.*to .jsonl"):
        documents(put(tmp_path, "a.json", many), "text")


def test_fault_21_more_text_than_memory_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_documents, "free_memory", lambda: 1000)
    with pytest.raises(ValueError, match="holds more text than half of the memory that is free"):
        documents(jsonl(tmp_path, {"text": "a" * 500}), "text")


def test_fault_21_a_parquet_file_is_refused_by_the_sizes_it_states(tmp_path, monkeypatch):
    monkeypatch.setattr(text_rows, "free_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"row group of [\d,]+ bytes, unpacked, more than half of the 1,000 bytes"):
        documents(put(tmp_path, "a.parquet", as_parquet([f"word {i}" for i in range(500)])), "text")


def test_fault_27_reading_a_long_file_tells_the_share_that_is_read(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("unbraid.system.notices.SILENT", -1.0)
    with caplog.at_level(logging.INFO, "unbraid"):
        documents(put(tmp_path, "a.jsonl", b'{"text": "a"}\n'), "text")
    assert caplog.messages == ["reading a.jsonl: 100%, about 0 s left, 0 s so far"]


def test_committed_corpora_are_read_as_they_always_were():
    folder = data_folder() / "corpora"
    text = (folder / "tinyshakespeare.txt").read_text(encoding="utf-8")
    assert documents(str(folder / "tinyshakespeare.txt"), "text") == merge_paragraphs(text)
    with lzma.open(folder / "tinystories_1000.jsonl.xz", "rt", encoding="utf-8") as rows:
        assert documents(str(folder / "tinystories_1000.jsonl.xz"), "text") == [json.loads(row)["text"] for row in rows]
