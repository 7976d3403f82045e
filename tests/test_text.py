import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import torch
from transformers import AutoTokenizer

from tests.paragraphs import merge_paragraphs
from tests.tiny_lm import CONTEXT, source, write_corpus, write_model, write_tokenizer
from unbraid.sources.language_model.loading import load_model
from unbraid.sources.text import documents as text_documents
from unbraid.sources.text import sampled as text_sampled
from unbraid.sources.text.corpus import Streamed, split_of
from unbraid.sources.text.documents import documents
from unbraid.sources.text.windows import Packed, Reader

LINES = ["the cat saw a dog", "once upon a time", "a bird went home"]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture
def reader(model):
    return make_reader(model)


def make_reader(folder: Path, **changes: Any) -> Reader:
    settings = {"context": 5, "bos": 1, "mask_special": True, "vocabulary": 48, "positions": 40}
    return Reader(tokenizer=AutoTokenizer.from_pretrained(folder), **(settings | changes))


# ---- documents


def test_every_local_form_gives_the_same_documents(tmp_path):
    rows = [{"text": line, "id": i} for i, line in enumerate(LINES)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.jsonl.xz").write_bytes(lzma.compress(lines.encode()))
    table = pyarrow.table({"text": LINES, "id": [0, 1, 2]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    for name in ("a.jsonl", "a.jsonl.xz", "a.parquet", "saved"):
        assert documents(str(tmp_path / name), "text") == LINES


def test_another_column_can_be_chosen(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"story": "a cat"}\n')
    assert documents(str(tmp_path / "a.jsonl"), "story") == ["a cat"]


def test_paragraphs_of_a_text_file_are_merged_to_documents_of_2000_characters(tmp_path):
    paragraph = "the cat saw a dog. " * 40
    (tmp_path / "a.txt").write_text("\n\n".join([paragraph] * 7) + "\n \n\n")
    found = documents(str(tmp_path / "a.txt"), "text")
    assert [len(d) >= 2000 for d in found] == [True, True, False]
    assert "".join(found).replace("\n", "") == paragraph * 7
    assert merge_paragraphs("one\n\ntwo\n\n\n\nthree\nlines", least=4) == ["one\n\ntwo", "three\nlines"]


def failing(tmp_path: Path) -> dict[str, tuple[str, str]]:
    """A text that cannot be read, and what the error must say."""
    (tmp_path / "a.dat").write_text("text\n")
    (tmp_path / "blank.jsonl").write_text('{"text": " "}\n')
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "column.jsonl").write_text('{"story": "x", "id": 1}\n')
    (tmp_path / "number.jsonl").write_text('{"text": 5}\n')
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (tmp_path / "list.jsonl").write_text("5\n")
    pyarrow.parquet.write_table(pyarrow.table({"story": ["x"]}), tmp_path / "column.parquet")
    (tmp_path / "folder").mkdir()
    one = datasets.Dataset.from_dict({"story": ["x"]})
    one.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(str(tmp_path / "dict"))
    return {
        "missing.txt": ("there is no text at .*missing.txt", "hf://owner/name"),
        "a.dat": ("its suffix is none of .txt", "convert it"),
        "blank.jsonl": ("holds no text", "give a .txt"),
        "empty.txt": ("holds no text", "give a .txt"),
        "column.jsonl": ("line 1 has no column 'text'", r"only \['id', 'story'\].*--source.text-column"),
        "column.parquet": ("has no column 'text'", r"only \['story'\].*--source.text-column"),
        "saved": ("has no column 'text'", r"only \['story'\].*--source.text-column"),
        "number.jsonl": ("holds int, not text", "choose another column"),
        "broken.jsonl": ("line 2 of .*broken.jsonl is not JSON", "one object a line"),
        "list.jsonl": ("list.jsonl line 1 holds int, not text", "choose another column"),
        "folder": ("not one saved by datasets.save_to_disk", "give a .txt"),
        "dict": (r"holds the splits \['test', 'train'\]", "give the folder of one"),
    }


def test_text_that_cannot_be_read_says_why_and_what_to_do(tmp_path):
    for name, (reason, remedy) in failing(tmp_path).items():
        with pytest.raises(ValueError, match=f"(?s){reason}.*{remedy}"):
            documents(str(tmp_path / name), "text")


def test_the_hub_is_streamed_by_name_configuration_and_split(monkeypatch):
    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return iter([{"text": "one"}, {"text": "two"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(text_documents.stream("hf://owner/name", "text")) == ["one", "two"]
    assert list(text_documents.stream("hf://owner/na-me.2/20B_en:validation", "text")) == ["one", "two"]
    assert asked == [
        (("owner/name", None), {"split": "train", "streaming": True}),
        (("owner/na-me.2", "20B_en"), {"split": "validation", "streaming": True}),
    ]
    with pytest.raises(ValueError, match=r"no column 'story', only \['text'\]"):
        next(text_documents.stream("hf://owner/name", "story"))


def test_a_hub_data_set_that_cannot_be_had_is_named(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("Couldn't reach it")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match="cannot stream 'hf://owner/name' .Couldn't reach it.; check its name"):
        next(text_documents.stream("hf://owner/name", "text"))
    with pytest.raises(ValueError, match=r"'hf://name' does not name a hub data set; write hf://owner/name"):
        next(text_documents.stream("hf://name", "text"))


def test_without_the_datasets_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"reading this text needs datasets; pip install datasets"):
        next(text_documents.stream("hf://owner/name", "text"))


def test_a_document_keeps_its_split_whatever_stands_around_it():
    splits = {line: split_of(line, 0.5) for line in LINES}
    assert splits == {line: split_of(line, 0.5) for line in reversed(LINES)}
    share = sum(split_of(f"document {i}", 0.05) == "eval" for i in range(4000)) / 4000
    assert abs(share - 0.05) < 0.015
    assert all(split_of(line, 0.0) == "train" for line in LINES)


# ---- windows


def test_windows_never_mix_documents_and_begin_with_bos(reader):
    found = list(enumerate(reader.tokenise(["the a cat dog bird saw", "</s> ran to", "</s> </s>"])))
    packed = Packed.of(found, reader)
    windows = packed.windows(torch.arange(len(packed)))
    assert windows.ids.tolist() == [[1, 3, 4, 5, 6], [1, 7, 8, 2, 2], [1, 2, 9, 10, 2]]
    assert windows.attention.int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    assert windows.keep.int().tolist() == [[0, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0]]
    # The third document holds special tokens only: it has no window.
    assert windows.documents.tolist() == [0, 0, 1] and packed.total == 8
    assert packed.kept.tolist() == windows.keep.sum(1).tolist()


def test_blocks_cover_every_window_of_every_epoch_once(reader):
    lines = [" ".join(["cat"] * n) for n in (3, 9, 1, 14, 6)]
    packed = Packed.of(list(enumerate(reader.tokenise(lines))), reader)
    for size in (5, 8, 33, 1000):
        found, index = [], 0
        while (which := packed.block(index, seed=4, size=size, epochs=3)) is not None:
            found.append(which)
            index += 1
        order = torch.cat(found).view(3, -1)
        assert all(epoch.sort().values.tolist() == list(range(len(packed))) for epoch in order)
        assert not torch.equal(order[0], order[1])
        # Windows of a document stay together and in order.
        for document in packed.document.unique():
            own = (packed.document == document).nonzero()[:, 0].tolist()
            at = order[0].tolist().index(own[0])
            assert order[0][at : at + len(own)].tolist() == own


def test_a_tokenizer_without_padding_or_bos_still_makes_windows(tmp_path):
    write_tokenizer(tmp_path, bos=False)
    bare = make_reader(tmp_path, bos=None)
    bare.tokenizer.pad_token = None
    packed = Packed.of(list(enumerate(bare.tokenise(["the a cat dog bird saw"]))), bare)
    windows = packed.windows(torch.arange(2))
    assert windows.keep.int().tolist() == [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
    assert bare.start == 2


def test_ids_the_model_does_not_embed_are_refused(model):
    small = make_reader(model)
    object.__setattr__(small, "vocabulary", 10)
    with pytest.raises(ValueError, match="the tokenizer gave id 29 but the model embeds 10 tokens"):
        small.tokenise(["the cat who saw"])


# ---- streamed corpora


def streamed(reader: Reader, lines: list[str], opened: list[int], **changes: Any) -> Streamed:
    def open_():
        opened.append(1)
        return iter(lines)

    return Streamed(open_, reader, **({"eval_share": 0.3, "size": 20, "epochs": 1} | changes))


def test_a_stream_gives_any_block_in_any_order(reader, tmp_path):
    lines = documents(str(write_corpus(tmp_path / "a.jsonl", 60)), "text")
    opened: list[int] = []
    corpus = streamed(reader, lines, opened)

    def block(index, of=corpus):
        found = of.block(index, split="train", seed=0)
        return None if found is None else found[0].windows(found[1])

    first = [block(i) for i in range(90)]
    count = sum(w is not None for w in first)
    assert 10 < count < 90 and len(opened) == 1
    for i in (3, 3, 1, count - 1, 0):
        again, once = block(i), first[i]
        assert again is not None and once is not None and torch.equal(again.ids, once.ids)
        assert torch.equal(again.documents, once.documents)
    kept = [int(w.keep.sum()) for w in first if w is not None]
    assert all(20 <= k < 25 for k in kept[:-1])
    local = Packed.of(
        [(i, reader.tokenise([d])[0]) for i, d in enumerate(lines) if split_of(d, 0.3) == "train"], reader
    )
    assert sum(kept) == local.total
    documents_seen = torch.cat([w.documents for w in first if w is not None])
    assert torch.equal(documents_seen, local.document)
    twice = streamed(reader, lines, [], epochs=2)
    assert sum(int(w.keep.sum()) for i in range(180) if (w := block(i, twice)) is not None) == 2 * local.total


def test_a_stream_has_no_known_length_and_its_splits_share_no_document(reader, tmp_path):
    lines = documents(str(write_corpus(tmp_path / "a.jsonl", 60)), "text")
    corpus = streamed(reader, lines, [])
    assert corpus.available("train") == float("inf")
    train, held = (set(corpus.pool(split).document.tolist()) for split in ("train", "eval"))
    assert train and held and not train & held


def test_a_source_on_a_stream_harvests_and_draws_contexts(model, monkeypatch, tmp_path):
    lines = documents(str(write_corpus(tmp_path / "a.jsonl", 60)), "text")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: iter([{"text": line} for line in lines]))
    live = source(model, "hf://owner/name")
    blocks = [live.block(i, split="train", seed=0) for i in range(4)]
    assert all(block is not None for block in blocks)
    again = live.block(1, split="train", seed=9)
    assert again is not None and blocks[1] is not None and torch.equal(again.rows.x, blocks[1].rows.x)
    assert live.contexts(3, split="train", seed=0).acts.shape[0] == 3
    assert live.available("train") == float("inf")


# ---- text sampled from the model


def test_sampled_text_is_seeded_cached_and_read_back(model, tmp_path, monkeypatch):
    lm = load_model(str(model), "main", "float32", "cpu")
    reader = make_reader(model)
    first = text_sampled.sampled("sample://9", lm, reader, batch=4, cache=tmp_path / "a")
    assert len(first) == 9 and all(d.strip() for d in first)
    assert not any(special in d for d in first for special in ("<s>", "</s>", "<unk>"))
    assert text_sampled.sampled("sample://9", lm, reader, batch=4, cache=tmp_path / "b") == first
    assert text_sampled.sampled("sample://9?seed=1", lm, reader, batch=4, cache=tmp_path / "a") != first
    assert sorted(p.suffix for p in (tmp_path / "a").iterdir()) == [".jsonl", ".jsonl"]
    monkeypatch.setattr(text_sampled, "_samples", None)
    assert text_sampled.sampled("sample://9", lm, reader, batch=4, cache=tmp_path / "a") == first


def test_text_of_another_model_is_not_taken_for_this_ones(model, tmp_path):
    reader = make_reader(model)
    lm = load_model(str(model), "main", "float32", "cpu")
    text_sampled.sampled("sample://3", lm, reader, batch=4, cache=tmp_path)
    other = load_model(str(write_model(tmp_path / "gpt2", "gpt2")), "main", "float32", "cpu")
    text_sampled.sampled("sample://3", other, reader, batch=4, cache=tmp_path)
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_samples_follow_the_models_own_distribution(model):
    """Next-token frequencies after BOS, against the softmax."""
    lm = load_model(str(model), "main", "float32", "cpu")
    reader = make_reader(model)
    rng = torch.Generator().manual_seed(0)
    drawn = text_sampled._generate(lm, reader, 4000, 2, rng)
    probabilities = lm(torch.tensor([[1]])).logits[0, 0, : reader.size].softmax(0)
    counts = torch.bincount(torch.tensor([d[0] for d in drawn if d]), minlength=reader.size) / 4000
    kept = torch.arange(reader.size) > 2
    assert (counts - probabilities)[kept].abs().max() < 0.03


def test_a_source_can_train_on_what_its_model_writes(model, tmp_path):
    own = source(model, "sample://40", cache=str(tmp_path), context=CONTEXT)
    block = own.block(0, split="train", seed=0)
    assert block is not None and len(block.rows) > 20


@pytest.mark.parametrize("spec", ["sample://", "sample://0", "sample://many"])
def test_a_sample_without_a_count_is_refused(model, tmp_path, spec):
    lm = load_model(str(model), "main", "float32", "cpu")
    with pytest.raises(ValueError, match="does not say how many documents; write sample://1000"):
        text_sampled.sampled(spec, lm, make_reader(model), batch=4, cache=tmp_path)


def test_importing_the_module_loads_neither_transformers_nor_datasets():
    heavy = {"transformers", "datasets", "pyarrow"}
    code = f"import sys, unbraid.sources.text.corpus; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
