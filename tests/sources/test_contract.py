"""What every source must do, for every source there is: dropping a file into unbraid/sources is enough to be held to
it. One that cannot be made by its defaults has a small example here."""

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
import torch
from tests import tiny_lm
from tests.small import WORLD

from unbraid import sources
from unbraid.config.serialise import fingerprint, from_json, to_json
from unbraid.sources.base import Batch, Block, Source, Split
from unbraid.sources.cached import Cached, write_cache
from unbraid.sources.synth import Synth
from unbraid.sources.tensor import Activations

SPLITS: tuple[Split, ...] = ("train", "eval")


@dataclass
class Ground:
    """A folder in which examples are made once."""

    home: Path

    def language_model(self) -> Source:
        model = self.home / "model"
        if not model.exists():
            tiny_lm.write_model(model)
            tiny_lm.write_corpus(self.home / "text.jsonl")
        return tiny_lm.source(model, self.home / "text.jsonl")

    def cached(self) -> Source:
        folder = self.home / "cache"
        if not folder.exists():
            write_cache(self.language_model(), folder, seed=0)
        return Cached(folder=str(folder))


EXAMPLES: dict[str, Callable[[Ground], Source]] = {
    "World": lambda ground: WORLD,
    "LanguageModel": Ground.language_model,
    "Cached": Ground.cached,
    "Activations": lambda ground: Activations(torch.randn(40, 6, 5, generator=torch.Generator().manual_seed(0))),
    "Synth": lambda ground: Synth(
        num_features=60, hidden_dim=16, total_root_nodes=4, branching_factor=3, max_depth=2, correlation_rank=4,
        min_prob=0.02, orthogonalization_steps=10, block_rows=256,
    ),
}  # fmt: skip


def kinds() -> dict[str, type[Source]]:
    """Every class of sources in the package that can be made, by name."""
    for module in pkgutil.walk_packages(sources.__path__, "unbraid.sources."):
        importlib.import_module(module.name)
    found, ahead = {}, [Source]
    while ahead:
        below = ahead.pop().__subclasses__()
        own = [cls for cls in below if cls.__module__.startswith("unbraid.") and not inspect.isabstract(cls)]
        found |= {cls.__name__: cls for cls in own}
        ahead += below
    return dict(sorted(found.items()))


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("sources"))


@pytest.fixture(params=kinds())
def source(request: pytest.FixtureRequest, ground: Ground) -> Source:
    if request.param == "Synth":
        pytest.importorskip("sae_lens")
    return EXAMPLES[request.param](ground) if request.param in EXAMPLES else kinds()[request.param]()


def block(of: Source, index: int, split: Split, seed: int = 0) -> Block:
    found = of.block(index, split=split, seed=seed)
    assert found is not None
    return found


def columns(rows: Batch) -> tuple[torch.Tensor, ...]:
    return rows.x, rows.tokens, rows.documents, rows.positions


def same(left: Batch, right: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(columns(left), columns(right), strict=True))


def test_there_are_sources():
    assert {"World", "LanguageModel", "Cached"} <= set(kinds())


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_finite_numbers_of_the_stated_width_with_their_places(source: Source, split: Split):
    rows = block(source, 0, split).rows
    assert len(rows) and rows.x.shape == (len(rows), source.d_in)
    assert rows.x.dtype == torch.float32 and bool(rows.x.isfinite().all())
    for column in (rows.tokens, rows.documents, rows.positions):
        assert column.shape == (len(rows),) and column.dtype == torch.int64
    assert bool((rows.positions >= 0).all()) and bool((rows.tokens >= -1).all())


@pytest.mark.parametrize("split", SPLITS)
def test_a_block_depends_on_source_split_seed_and_index_alone(source: Source, split: Split):
    later = block(source, 0, split, seed=1)
    again = from_json(json.loads(json.dumps(to_json(source))))
    assert same(block(again, 0, split, seed=1).rows, later.rows), "and not on what was read before"
    assert block(again, 0, split, seed=1).filtered == later.filtered


def test_another_seed_is_another_order(source: Source):
    first = block(source, 0, "train").rows
    assert not all(same(block(source, 0, "train", seed=seed).rows, first) for seed in range(1, 6))


def test_held_out_rows_are_of_other_documents_than_those_trained_on(source: Source):
    train, held = (block(source, 0, split).rows for split in SPLITS)
    if source.has_documents:  # their texts may begin alike
        assert not set(train.documents.tolist()) & set(held.documents.tolist())
    else:
        in_both = {tuple(row) for row in train.x.tolist()} & {tuple(row) for row in held.x.tolist()}
        assert len(in_both) <= 1, "but the row in which no factor is active"


@pytest.mark.parametrize("split", SPLITS)
def test_what_is_said_to_be_available_is_what_there_is(source: Source, split: Split):
    said = source.available(split)
    if said == float("inf"):
        assert source.block(1000, split=split, seed=0) is not None
        return
    there = 0
    for index in count():
        if (found := source.block(index, split=split, seed=0)) is None:
            break
        there += len(found.rows) + found.filtered
        if there > said:
            break
    assert there == said


def test_json_gives_the_same_source_back(source: Source):
    again = from_json(json.loads(json.dumps(to_json(source))))
    assert again == source and fingerprint(again) == fingerprint(source)
    assert replace(again) == source, "sources are values"


def test_a_setting_there_is_not_is_refused_by_name(source: Source):
    with pytest.raises(ValueError, match="colour"):
        from_json(to_json(source) | {"colour": "red"})


def test_contexts_are_whole_sequences_with_a_map_downstream_or_a_remedy(source: Source):
    try:
        given = source.contexts(3, split="train", seed=0)
    except ValueError as error:
        assert "use a source that has" in str(error) or ";" in str(error)
        return
    assert given.acts.shape[0] == given.mask.shape[0] == 3 and given.acts.shape[2] == source.d_in
    torch.testing.assert_close(given.downstream(given.acts), given.base)
    assert given.downstream(torch.stack([given.acts, given.acts])).shape == (2, *given.base.shape)
    assert torch.equal(given.acts, source.contexts(3, split="train", seed=0).acts)


@pytest.mark.parametrize("what", ["counterfactuals", "corrupted"])
def test_pairs_and_corrupted_rows_are_reproducible_or_there_is_a_remedy(source: Source, what: str):
    def drawn(seed: int) -> torch.Tensor:
        if what == "corrupted":
            return source.corrupted(8, share=0.5, split="train", seed=seed)
        return source.counterfactuals(8, split="train", seed=seed).changed

    try:
        rows = drawn(1)
    except ValueError as error:
        assert "use a source" in str(error) or "--source" in str(error)
        return
    assert rows.ndim == 2 and rows.shape[1] == source.d_in and bool(rows.isfinite().all())
    assert torch.equal(rows, drawn(1))


def test_what_is_said_of_the_site_is_plain_data(source: Source):
    source.check()
    metadata = dict(source.metadata())
    assert json.loads(json.dumps(metadata)) == metadata
    assert all(isinstance(text, str) for text in source.sample_text(2)) and isinstance(source.token_policy(), str)
