import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.small import WORLD, experiment
from tests.tiny_lm import source, write_corpus, write_model

from unbraid.config import serialise as config
from unbraid.runs.run import Run
from unbraid.sources.base import Block, Source
from unbraid.sources.cache_files import row_bytes
from unbraid.sources.cached import Cached, write_cache
from unbraid.sources.stream import Stream
from unbraid.terms.causal.effect import Effect
from unbraid.terms.weak_supervision.slowness import Slowness
from unbraid.training.checks import check_needs
from unbraid.training.loop import train


@pytest.fixture(scope="session")
def live(tmp_path_factory):
    home = tmp_path_factory.mktemp("cached")
    return source(write_model(home / "llama"), write_corpus(home / "words.jsonl", 40), max_norm_ratio=1.5)


@pytest.fixture
def folder(live, tmp_path):
    write_cache(live, tmp_path / "cache", seed=3)
    return tmp_path / "cache"


def assert_same(left: Block | None, right: Block | None) -> None:
    assert left is not None and right is not None and left.filtered == right.filtered
    for name in ("x", "tokens", "documents", "positions"):
        assert torch.equal(getattr(left.rows, name), getattr(right.rows, name))


def count(of: Source, split: str = "train") -> int:
    index = 0
    while of.block(index, split=split, seed=3) is not None:  # type: ignore[arg-type]
        index += 1
    return index


def shards(folder: Path) -> dict[str, int]:
    """Name and time of writing of every shard."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*.safetensors"))}


# ---- reading


@pytest.mark.parametrize("split", ["train", "eval"])
def test_with_the_seed_of_the_harvest_every_block_is_the_origins_bit_for_bit(live, folder, split):
    cached = Cached(folder=str(folder))
    assert count(cached, split) == count(live, split) > 0
    for index in range(count(live, split)):
        assert_same(cached.block(index, split=split, seed=3), live.block(index, split=split, seed=3))


def test_another_seed_visits_the_same_shards_in_another_order(live, folder):
    cached = Cached(folder=str(folder))
    assert count(cached) > 3

    def firsts(seed):
        found = (cached.block(i, split="train", seed=seed) for i in range(count(cached)))
        return [tuple(b.rows.x[0].tolist()) for b in found if b is not None]

    assert firsts(8) != firsts(3) and sorted(firsts(8)) == sorted(firsts(3)) and firsts(8) == firsts(8)


def test_a_cache_has_documents_where_its_origin_has(live, folder, tmp_path):
    assert live.has_documents and Cached(folder=str(folder)).has_documents
    assert not WORLD.has_documents and not write_cache(WORLD, tmp_path / "world", seed=0, blocks=1).has_documents


def test_a_term_that_reads_documents_is_refused_on_the_cache_of_a_world(tmp_path):
    cached = write_cache(WORLD, tmp_path / "world", seed=0, blocks=1)
    with pytest.raises(ValueError, match="term 'slow' reads documents, but a Cached has none"):
        check_needs([replace(experiment(slow=Slowness()), source=cached)])


def test_more_epochs_read_the_shards_again_in_another_order(folder):
    once, twice = Cached(folder=str(folder)), Cached(folder=str(folder), epochs=2)
    assert count(twice) == 2 * count(once)
    assert twice.available("train") == 2 * once.available("train")
    assert_same(twice.block(0, split="train", seed=3), once.block(0, split="train", seed=3))


def test_a_cache_streams_like_its_origin(live, folder):
    for a, b, _ in zip(
        Stream(Cached(folder=str(folder)), 32, seed=3), Stream(live, 32, seed=3), range(12), strict=False
    ):
        assert torch.equal(a.x, b.x)


def test_a_cache_knows_what_its_origin_knew(live, folder):
    cached = Cached(folder=str(folder))
    assert cached.d_in == live.d_in and cached.metadata() == live.metadata()
    assert cached.sample_text(2) == live.sample_text(2)
    rows = sum(len(b.rows) for i in range(count(live)) if (b := live.block(i, split="train", seed=3)) is not None)
    assert cached.available("train") == rows
    assert config.from_json(config.to_json(cached)) == cached and hash(cached)


def test_what_needs_the_model_is_read_from_what_the_cache_was_written_from(live, folder):
    cached = Cached(folder=str(folder))
    found, expected = (s.contexts(2, split="train", seed=0) for s in (cached, live))
    assert torch.equal(found.acts, expected.acts) and torch.equal(found.base, expected.base)
    assert torch.equal(found.downstream(2 * found.acts), expected.downstream(2 * expected.acts))
    assert cached.sequences("eval") == live.sequences("eval")
    block = live.block(0, split="train", seed=3)
    assert block is not None and cached.token_texts(block.rows[:20]) == live.token_texts(block.rows[:20]) != []


def test_a_term_that_looks_through_the_model_trains_from_a_cache_as_on_the_model(live, folder, tmp_path):
    weights = []
    for place, source_ in enumerate((Cached(folder=str(folder)), live)):
        member = experiment(effect=Effect(gradient_ratio=0.1, every=1), tokens=256)
        short = replace(member.training, batch_size=64, data_seed=3)
        member = replace(member, source=source_, training=short)
        weights.append(Run.open(train([member], tmp_path / str(place))[0]).dictionary().W_dec)
    assert torch.equal(*weights)


def test_a_cache_whose_text_is_gone_names_it(folder):
    index = json.loads((folder / "index.json").read_text())
    index["source"]["text"] = "gone.jsonl"
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"cache .* activations alone, and what it .*gone\.jsonl.*mend that"):
        Cached(folder=str(folder)).contexts(2, split="train", seed=0)


def test_a_cache_whose_tokenizer_is_another_now_is_not_read_by_it(folder):
    index = json.loads((folder / "index.json").read_text())
    index["metadata"]["tokenizer_sha256"] = "0" * 64
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="another tokenizer_sha256 now"):
        Cached(folder=str(folder)).contexts(2, split="train", seed=0)


def test_bfloat16_halves_the_disk_and_is_read_as_float32(live, tmp_path):
    cached = write_cache(live, tmp_path, seed=3, dtype="bfloat16", splits=("train",), blocks=1)
    block, exact = cached.block(0, split="train", seed=3), live.block(0, split="train", seed=3)
    assert block is not None and exact is not None and block.rows.x.dtype == torch.float32
    torch.testing.assert_close(block.rows.x, exact.rows.x, rtol=0.01, atol=0.01)
    size = (tmp_path / "train-00000.safetensors").stat().st_size
    assert abs(size - len(block.rows) * row_bytes(16, "bfloat16")) < 500


# ---- writing


def test_the_disk_estimate_holds(folder):
    for shard in json.loads((folder / "index.json").read_text())["shards"]["train"]:
        assert abs(shard["bytes"] - shard["rows"] * row_bytes(16, "float32")) < 500


def test_a_finished_cache_is_not_written_again(live, folder):
    before = shards(folder)
    write_cache(live, folder, seed=3)
    assert shards(folder) == before


def test_a_stopped_write_continues_where_it_stopped(live, folder, tmp_path):
    class Killed(Exception):
        pass

    def stop(split, rows, total):
        if rows > 300:
            raise Killed

    with pytest.raises(Killed):
        write_cache(live, tmp_path / "b", seed=3, progress=stop)
    before = shards(tmp_path / "b")
    assert 0 < len(before) < len(shards(folder))
    # What a kill in the middle of a file leaves.
    (tmp_path / "b" / ".train-00002.safetensors.x1").write_bytes(b"half")
    write_cache(live, tmp_path / "b", seed=3)
    after = shards(tmp_path / "b")
    assert all(after[name] == written for name, written in before.items())
    assert not list((tmp_path / "b").glob(".*"))
    for name in after:
        assert (tmp_path / "b" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "b" / "index.json").read_text() == (folder / "index.json").read_text()


def test_blocks_and_tokens_bound_the_harvest_and_can_be_raised_later(live, tmp_path):
    heard = []
    few = write_cache(live, tmp_path, seed=3, blocks=2, splits=("train",), progress=lambda *a: heard.append(a))
    assert count(few) == 2 and [h[0] for h in heard] == ["train", "train"]
    assert heard[-1][1] == few.available("train") and heard[-1][2] == live.available("train")
    before = shards(tmp_path)
    more = write_cache(live, tmp_path, seed=3, tokens=500, splits=("train",))
    assert 500 <= more.available("train") < 700
    assert {name: shards(tmp_path)[name] for name in before} == before
    with pytest.raises(ValueError, match=r"holds \['train'\], not eval; write that split too"):
        more.block(0, split="eval", seed=3)


def test_a_damaged_shard_is_written_again_and_no_other(live, folder):
    before = shards(folder)
    damaged = folder / "train-00001.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (folder / "train-00002.safetensors").unlink()
    write_cache(live, folder, seed=3)
    assert damaged.read_bytes() == whole
    changed = {name for name, written in shards(folder).items() if written != before[name]}
    assert changed == {"train-00001.safetensors", "train-00002.safetensors"}


def test_a_folder_written_from_something_else_is_refused(live, folder):
    other = replace(live, layer=0)
    with pytest.raises(ValueError, match=r"was written with other settings .source.layer.; give another folder"):
        write_cache(other, folder, seed=3)
    with pytest.raises(ValueError, match=r"other settings .dtype, seed."):
        write_cache(live, folder, seed=4, dtype="bfloat16")


def test_a_source_without_an_end_needs_a_bound(tmp_path):
    with pytest.raises(ValueError, match="the train split has no end; say how many blocks or tokens"):
        write_cache(WORLD, tmp_path, seed=0)
    cached = write_cache(WORLD, tmp_path, blocks=1, seed=0)
    assert_same(cached.block(0, split="train", seed=0), WORLD.block(0, split="train", seed=0))
    assert cached.block(1, split="train", seed=0) is None


def test_a_full_disk_says_how_much_is_needed_and_leaves_no_half_file(live, tmp_path, monkeypatch):
    write_cache(live, tmp_path, seed=3, blocks=1, splits=("train",))
    before = shards(tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            OSError, match=r"disk is full: this shard needs [\d,]+ bytes.*about [\d,]+; free some space"
        ):
            write_cache(live, tmp_path, seed=3)
    assert shards(tmp_path) == before and not list(tmp_path.glob(".*"))
    write_cache(live, tmp_path, seed=3)
    assert len(shards(tmp_path)) > 1


# ---- damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "shard .*train-00001.safetensors is missing; run write_cache again"),
        (lambda path: os.truncate(path, 100), r"train-00001.safetensors is cut short or overwritten \(100 bytes, not"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff"), "train-00001.safetensors is corrupt"),
    ],
)
def test_a_damaged_shard_names_itself_and_the_remedy(folder, damage, message):
    damage(folder / "train-00001.safetensors")
    cached = Cached(folder=str(folder))
    assert cached.block(0, split="train", seed=3) is not None
    with pytest.raises(ValueError, match=message):
        cached.block(1, split="train", seed=3)


def test_a_shard_is_verified_once(folder, monkeypatch):
    cached = Cached(folder=str(folder))
    first = cached.block(0, split="train", seed=3)
    monkeypatch.setattr("unbraid.sources.cached.fault_of", None)
    assert_same(cached.block(0, split="train", seed=3), first)


def test_a_folder_without_a_cache_is_named(tmp_path):
    with pytest.raises(
        ValueError, match="there is no cache of activations at .*; write one with `unbraid cache NAME --to "
    ):
        _ = Cached(folder=str(tmp_path)).d_in
    (tmp_path / "index.json").write_text('{"format": 9}')
    with pytest.raises(ValueError, match="has format 9, not 1"):
        _ = Cached(folder=str(tmp_path)).d_in
