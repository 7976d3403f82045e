"""The export to Neuronpedia: files, columns and values are those that its importer reads."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.browser.stored import save, with_examples
from tests.known import EXACT, truth
from tests.small import experiment
from tests.tiny_lm import write_corpus, write_model

from unbraid.browser.neuronpedia import CREATOR, place_of, write_neuronpedia
from unbraid.browser.stored_examples import read_examples
from unbraid.evals.shared.example_contexts import STRONGEST
from unbraid.runs.run import Run
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.training.loop import train

ACTIVATION = {
    "id", "tokens", "index", "layer", "modelId", "maxValue", "maxValueTokenIndex", "minValue", "values", "creatorId",
    "createdAt", "binMin", "binMax", "binContains", "qualifyingTokenIndex",
}  # fmt: skip
"""Columns of the table Activation in apps/webapp/prisma/schema.prisma that are written here."""
FEATURE = {
    "modelId", "layer", "index", "sourceSetName", "creatorId", "createdAt", "maxActApprox", "hasVector", "vector",
    "vectorDefaultSteerStrength", "hookName", "topkCosSimIndices", "topkCosSimValues", "correlated_features_indices",
    "correlated_features_pearson", "neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero",
    "freq_hist_data_bar_heights", "freq_hist_data_bar_values",
}  # fmt: skip
"""Columns of its table Neuron."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("tiny")
    source = LanguageModel(
        model=str(write_model(folder / "tiny")), text=str(write_corpus(folder / "text.jsonl")), layer=1, context=12,
        buffer_tokens=480,
    )  # fmt: skip
    base = replace(experiment("tiny", tokens=640), source=source)
    return with_examples(Run.open(train([base], folder / "runs")[0]))


def read(path: Path) -> list[dict]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def home(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "np"
    place = write_neuronpedia(run, out, repo="me/weights")
    return out / place.model / place.source


def test_the_four_headers_name_one_another(home: Path, run: Run):
    release, model, chosen, source = (
        read(home / f"{name}.jsonl")[0] for name in ("release", "model", "sourceset", "source")
    )
    assert (chosen["releaseName"], chosen["modelId"]) == (release["name"], model["id"])
    assert (source["setName"], source["modelId"]) == (chosen["name"], model["id"])
    assert source["id"] == home.name and model["id"] == home.parent.name and source["hfRepoId"] == "me/weights"
    assert {row["creatorId"] for row in (release, model, chosen, source)} == {CREATOR}


def test_every_latent_has_a_row_with_its_atom_and_rate(home: Path, run: Run):
    rows = read(home / "features" / "batch-0.jsonl.gz")
    found, atoms = read_examples(run), run.dictionary().unit_atoms()
    assert [row["index"] for row in rows] == [str(i) for i in range(len(atoms))] and set(rows[0]) == FEATURE
    assert {tuple(row) for row in rows} == {tuple(rows[0])}  # the importer takes the columns of the first line
    for row, atom, fires in zip(rows, atoms, found.latents["fires"].to_pylist(), strict=True):
        assert row["vector"] == pytest.approx(atom.tolist(), abs=1e-4)
        assert row["frac_nonzero"] == pytest.approx(fires / found.held_out)
        assert sum(row["freq_hist_data_bar_heights"]) == fires


def test_every_context_has_its_tokens_and_the_values_stored(home: Path, run: Run):
    rows, found = read(home / "activations" / "batch-0.jsonl.gz"), read_examples(run)
    texts, contexts = found.rows["text"].to_pylist(), found.contexts.to_pylist()
    assert len(rows) == len(contexts) and len({row["id"] for row in rows}) == len(rows) and set(rows[0]) == ACTIVATION
    for row, context in zip(rows, contexts, strict=True):
        assert row["tokens"] == texts[context["start"] : context["stop"]] and row["index"] == str(context["latent"])
        dense = np.zeros(len(row["tokens"]))
        dense[context["fired"]] = context["values"]
        assert row["values"] == pytest.approx(dense.tolist(), rel=1e-2)
        assert row["maxValue"] == max(row["values"]) == row["values"][row["maxValueTokenIndex"]]
        assert row["qualifyingTokenIndex"] == context["row"] - context["start"]
        assert (row["binContains"] == -1) == (context["band"] == STRONGEST)
        assert row["binMin"] <= row["values"][row["qualifyingTokenIndex"]] <= row["binMax"]


def test_the_hook_is_the_runs_own(run: Run):
    metadata = run.facts.cfg["metadata"]
    place = place_of(metadata, run, "")
    assert f"blocks.{place.layer}.{place.hook}" == metadata["hook_name"]
    assert place_of(metadata, run, "Owner/GPT2 small").model == "gpt2-small"


def test_what_neuronpedia_cannot_have_is_refused(run: Run, tmp_path: Path):
    metadata = run.facts.cfg["metadata"]
    with pytest.raises(ValueError, match=r"blocks\.3\.hook_resid_post"):
        place_of(metadata | {"hook_name": "../../x"}, run, "")
    with pytest.raises(ValueError, match="--model"):
        place_of(metadata, run, "///")
    world = with_examples(save(tmp_path / "world", truth(EXACT), EXACT))
    with pytest.raises(ValueError, match="has no text"):
        write_neuronpedia(world, tmp_path / "np")
    assert not (tmp_path / "np").exists()
