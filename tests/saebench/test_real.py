"""SAEBench itself, offline, on the embedded model and on one that spells."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from tests.data import data_folder

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.experiment.experiment import Experiment, Training
from unbraid.objective.objective import Objective
from unbraid.runs.run import Run
from unbraid.saebench.bench import Bench, evaluate, own_environ
from unbraid.saebench.environment import from_interpreter
from unbraid.saebench.eval_specs import EVAL_SPECS
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.training.loop import train

pytestmark = pytest.mark.saebench


def trained(source: LanguageModel, folder: Path, tokens: int = 30_000) -> Run:
    experiment = Experiment(
        name="real-batchtopk-l0_8",
        source=source,
        objective=Objective(reconstruction=Reconstruction()),
        dictionary=DictionaryConfig(d_sae=256, activation=BatchTopK(8)),
        training=Training(tokens=tokens, batch_size=512, lr=2e-3),
    )
    return Run.open(train([experiment], folder)[0])


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(
        environment=from_interpreter(Path(os.environ["UNBRAID_SAEBENCH"])), work=tmp_path / "work", limit=1200.0,
        environ=own_environ(os.environ),
    )  # fmt: skip


def results(run: Run, *names: str) -> list[dict]:
    return [json.loads((run.path / "results" / f"saebench_{name}.json").read_text()) for name in names]


def test_core_and_meta_structure_of_the_embedded_model(tmp_path, bench):
    source = LanguageModel(text="language://600", buffer_tokens=8192)
    run, untrained = trained(source, tmp_path), trained(source, tmp_path, tokens=0)
    names = ("core", "meta_structure", "absorption")
    assert evaluate([run, untrained], [EVAL_SPECS[name] for name in names], bench) == 0
    core, meta, absorption = results(run, *names)
    found = {score["metric"]: score["value"] for score in core["scores"]}
    null = {score["metric"]: score["value"] for score in results(untrained, "core")[0]["scores"]}
    assert null["ce_loss_score"] < found["ce_loss_score"] - 0.1
    assert 4 < found["l0"] < 16
    assert 0.3 < found["ce_loss_score"] < 1.05
    assert found["explained_variance_reported"] != pytest.approx(found["explained_variance"], abs=1e-3)
    assert 0 < meta["scores"][0]["value"] < 1
    assert "absorption cannot be scored of this model" in absorption["not_applicable"]


def test_absorption_of_a_model_that_spells_and_of_one_that_does_not(tmp_path, bench):
    data = data_folder()
    text = str(data / "corpora" / "tinystories_1000.jsonl.xz")
    spells, does_not = (
        trained(LanguageModel(model=str(data / "models" / name), text=text, buffer_tokens=8192), tmp_path / name)
        for name in ("tinylm-spell", "stories260K")
    )
    assert evaluate([spells, does_not], [EVAL_SPECS["absorption"]], bench) == 0
    (found,), (refused,) = results(spells, "absorption"), results(does_not, "absorption")
    scores = {(s["metric"], s["params"].get("definition")): s["value"] for s in found["scores"]}
    assert scores["first_letter_letters", None] >= 20
    assert scores["first_letter_absorption_fraction", "0.3.2"] != scores["first_letter_absorption_fraction", "0.6.0"]
    assert 0 <= scores["first_letter_absorption_full", None] < 1
    assert "F1" in refused["not_applicable"] or "cannot be scored" in refused["not_applicable"]


def test_scores_of_runs_that_share_what_does_not_depend_on_them_are_those_of_runs_that_do_not(tmp_path, bench):
    data = data_folder()
    source = LanguageModel(
        model=str(data / "models" / "stories260K"), layer=1, buffer_tokens=8192,
        text=str(data / "corpora" / "tinystories_1000.jsonl.xz"),
    )  # fmt: skip
    runs = [trained(source, tmp_path), trained(source, tmp_path, tokens=0)]

    def scored(share: bool) -> list[dict[str, float]]:
        asked = dataclasses.replace(bench, share=share, size="least")
        assert evaluate(runs, [EVAL_SPECS["core"]], asked, force=True) == 0
        found = [json.loads((run.path / "saebench" / "core.json").read_text())["eval_result_metrics"] for run in runs]
        return [{name: v for group in one.values() for name, v in group.items()} for one in found]

    apart, shared = scored(False), scored(True)
    assert apart[0]["kl_div_with_sae"] != pytest.approx(apart[1]["kl_div_with_sae"], rel=0.1)
    for alone, together in zip(apart, shared, strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)
