"""Examples: the contexts of a latent are its strongest places and fair samples, and what is stored says what it is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_array
from tests import tiny_lm
from tests.evals.test_absorption import STEADY, absorbing
from tests.finished_runs import SPOKEN, make_world_run
from tests.known import EXACT, Undirected, truth
from tests.small import experiment

from unbraid import catalog, seeding
from unbraid.evals.examples import BINS, tables_of
from unbraid.evals.shared.evaluation import evaluate
from unbraid.evals.shared.example_contexts import AFTER, BANDS, BEFORE, EACH, STRONGEST, TOP, choose, contexts_of
from unbraid.evals.shared.example_tables import SCHEMAS, unpacked
from unbraid.evals.shared.factor_matches import factor_matches
from unbraid.runs.results import read_file, read_result
from unbraid.runs.run import Run
from unbraid.sources.cached import write_cache
from unbraid.sources.language_model.loading import load_model
from unbraid.training.loop import train

WINDOW = 50


@pytest.fixture(scope="module")
def world_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run.open(make_world_run(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def spoken_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    base = replace(experiment("spoken", tokens=1600), source=replace(SPOKEN, context=128))  # factors: whole documents
    return Run.open(train([base], tmp_path_factory.mktemp("spoken"))[0])


def drawn_codes(rows: int = 2000, latents: int = 5) -> csr_array:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(rows, latents)) * (rng.random((rows, latents)) < 0.2)
    dense[:, 3] = 0
    dense[7, 4] = 9.0
    return csr_array(dense)


def tables(run: Run) -> dict[str, pa.Table]:
    evaluate([run], [catalog.evals()["examples"]])
    result = read_result(run.path / "results" / "examples.json")
    assert "error" not in result, result["traceback"]
    parts = [name.split(".")[1] for name in result["files"]]
    return {part: unpacked(part, read_file(run.path, result, f"{part}.parquet")) for part in parts}


def test_the_first_contexts_are_the_strongest_places_each_of_a_window_of_its_own():
    codes, windows = drawn_codes(), np.arange(2000) // WINDOW
    found, dense = contexts_of(codes, windows), np.abs(codes.toarray())
    for latent in (0, 1, 2, 4):
        top = found.row[(found.latent == latent) & (found.band == STRONGEST)]
        by_window = dense[:, latent].reshape(-1, WINDOW)
        best = np.sort(by_window.max(1))[::-1][:TOP]
        assert dense[top, latent].tolist() == best.tolist()
    assert 3 not in found.latent


def test_a_context_stays_in_its_window_and_has_all_firings_in_it():
    codes, windows = drawn_codes(), np.arange(2000) // WINDOW
    found, dense = contexts_of(codes, windows), codes.toarray()
    assert (windows[found.start] == windows[found.row]).all() and (windows[found.stop - 1] == windows[found.row]).all()
    assert (found.row - found.start <= BEFORE).all() and (found.stop - found.row <= AFTER + 1).all()
    for i, (latent, start, stop) in enumerate(zip(found.latent, found.start, found.stop, strict=True)):
        part = slice(found.bounds[i], found.bounds[i + 1])
        seen = np.zeros(stop - start)
        seen[found.fired[part]] = found.values[part]
        assert seen.tolist() == dense[start:stop, latent].tolist()


def test_bands_hold_equally_many_firings_and_no_place_twice():
    size = np.random.default_rng(1).random(400)
    chosen, band = choose(size, np.arange(400), seeding.stream(0, "test"))
    assert len(set(chosen.tolist())) == len(chosen) == TOP + BANDS * EACH
    quarter = np.searchsorted(np.sort(size), size[chosen]) * BANDS // 400 + 1
    assert (quarter[band != STRONGEST] == band[band != STRONGEST]).all()
    assert (quarter[band == STRONGEST] == BANDS).all()


def test_a_latent_that_fires_once_has_one_context():
    chosen, band = choose(np.ones(1), np.zeros(1, dtype=int), seeding.stream(0, "test"))
    assert (chosen.tolist(), band.tolist()) == ([0], [STRONGEST])


def test_codes_that_are_all_zero_have_no_contexts():
    found = contexts_of(csr_array((50, 4)), np.arange(50))
    assert len(found.latent) == len(found.fired) == 0 and found.bounds.tolist() == [0]


@pytest.mark.parametrize("known", [EXACT, Undirected(EXACT)], ids=["directions", "none"])
def test_in_the_truth_each_latent_is_its_factor(known):
    found = factor_matches(truth(EXACT), known)
    assert found.factor.tolist() == list(range(24)) and found.represents.all()
    assert (found.precision > 0.999).all() and (found.recall > 0.999).all() and not found.absorbs
    assert np.isnan(found.cosine).all() if known is not EXACT else (found.cosine > 0.999).all()


def test_a_childs_latent_absorbs_its_parent_where_it_was_made_to():
    found = factor_matches(absorbing(STEADY, 1.0), STEADY)
    children = [child for child, parent in enumerate(STEADY.parents.tolist()) if parent >= 0]
    assert sorted(found.absorbs) == children
    assert all(found.absorbs[child] == [(int(STEADY.parents[child]), 1.0)] for child in children)


def test_a_world_shows_rows_with_their_active_factors(world_run: Run):
    found = tables(world_run)
    assert {name: table.schema for name, table in found.items()} == dict(SCHEMAS)
    rows, contexts = found["rows"].to_pydict(), found["contexts"].to_pydict()
    assert set(contexts["row"]) == set(rows["row"])
    labelled = world_run.source.truth().labelled(32_768, split="eval", seed=0).dense()
    for row, factors, magnitudes in zip(*(rows[name][:50] for name in ("row", "factors", "magnitudes")), strict=True):
        assert labelled[row].nonzero()[:, 0].tolist() == factors
        assert labelled[row][factors].tolist() == pytest.approx(magnitudes)
    assert found["factors"]["parent"].to_pylist() == world_run.source.truth().parents.tolist()


def test_a_language_shows_its_text_and_the_next_tokens(spoken_run: Run):
    found = tables(spoken_run)
    rows, latents = found["rows"].to_pydict(), found["latents"].to_pydict()
    window = [text for text, window in zip(rows["text"], rows["window"], strict=True) if window == 0]
    assert "".join(window).split() == [text.strip() for text in window]
    assert all(sum(bins) == fires for bins, fires in zip(latents["histogram"], latents["fires"], strict=True))
    assert all(len(bins) == BINS for bins in latents["histogram"])
    assert all(by == sorted(by, reverse=True) for by in latents["promoted_by"])
    assert max(found["contexts"]["stop"].to_pylist()) <= len(rows["row"])


def test_a_cache_shows_the_words_of_the_source_that_it_was_written_from(spoken_run: Run, tmp_path: Path):
    cached = write_cache(spoken_run.source, tmp_path / "cache", seed=0)
    ours, theirs = tables_of(spoken_run.dictionary(), cached), tables_of(spoken_run.dictionary(), spoken_run.source)
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs if name != "latents")
    told, known = (unpacked("latents", found["latents"].tobytes()).to_pydict() for found in (ours, theirs))
    assert all(told[name] == known[name] for name in ("promoted", "suppressed", "fires", "near"))


def test_a_cache_whose_model_is_gone_shows_numbers_of_tokens_and_says_why(tmp_path: Path, caplog):
    source = tiny_lm.source(tiny_lm.write_model(tmp_path / "model"), tiny_lm.write_corpus(tmp_path / "text.jsonl"))
    cached = write_cache(source, tmp_path / "cache", seed=0)
    dictionary = Run.open(train([replace(experiment("t", tokens=640), source=cached)], tmp_path)[0]).dictionary()
    (tmp_path / "model").rename(tmp_path / "moved")
    load_model.cache_clear()
    with caplog.at_level("WARNING", logger="unbraid"):
        found = tables_of(dictionary, cached)
    texts = unpacked("rows", found["rows"].tobytes())["text"].to_pylist()
    assert all(text.startswith("#") and text[1:].isdecimal() for text in texts)
    assert unpacked("latents", found["latents"].tobytes())["promoted"].null_count == len(dictionary.unit_atoms())
    for missing in ("words", "next tokens"):
        assert f"shown without {missing}: what it was written from cannot be read: " in caplog.text


def test_what_is_stored_is_sealed_and_made_again_when_it_is_damaged(world_run: Run, tmp_path: Path):
    tables(world_run)
    kept, said = world_run.path / "results" / "examples.contexts.parquet", list[str]()
    whole = kept.read_bytes()
    item = catalog.evals()["examples"]
    for spoil in (lambda: kept.write_bytes(whole[:-1]), kept.unlink):
        spoil()
        assert evaluate([world_run], [item], on_result=lambda run, item, status: said.append(status)) == 0
        assert kept.read_bytes() == whole
    evaluate([world_run], [item], on_result=lambda run, item, status: said.append(status))
    assert ["made again" in status for status in said] == [True, True, False] and said[-1] == "kept"


def test_size_is_what_the_files_take(world_run: Run):
    tables(world_run)
    result = json.loads((world_run.path / "results" / "examples.json").read_text())
    (size,) = [score["value"] for score in result["scores"] if score["metric"] == "size"]
    assert size == sum(seal["bytes"] for seal in result["files"].values()) / 1e6


def test_it_is_run_only_when_it_is_named():
    assert "examples" in catalog.evals() and "examples" not in catalog.default_evals()


def test_a_dead_dictionary_has_tables_too():
    dictionary = truth(EXACT)
    with torch.no_grad():
        dictionary.b_enc.fill_(-1e6)
    found = tables_of(dictionary, EXACT)
    assert found["counts"].tolist() == [0, 0, 32_768]
    assert len(unpacked("contexts", found["contexts"].tobytes())) == 0
