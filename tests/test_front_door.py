"""`import unbraid as ub`: every example of its docstrings, what it accepts, and what it refuses before training."""

import doctest
import json
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import unbraid as ub
from tests.misuse import CASES
from unbraid import api
from unbraid.formats import recognise
from unbraid.runs.run import Run
from unbraid.sources.language_model.loading import EMBEDDED, located
from unbraid.sources.synthetic_language.documents import documents, text

X = np.random.default_rng(0).normal(size=(1200, 12)).astype("float32")
SMALL = {"d_sae": 32, "activation": ub.TopK(4), "tokens": 4096, "batch_size": 256}


@dataclass(frozen=True, kw_only=True)
class HalfOfL1(ub.Term):
    family = "sparsity"

    def __call__(self, step: ub.Step) -> ub.TermOutput:
        return ub.TermOutput(step.z.values.abs().sum() / len(step.x) / 2)


def test_every_example_works_in_the_order_of_the_functions(tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.chdir(tmp_path)
    folder = located(EMBEDDED)
    names = {"ub": ub, "np": np, "texts": [text(document) for document in documents(300, seed=0)]}
    names |= {"model": AutoModelForCausalLM.from_pretrained(folder), "tokenizer": AutoTokenizer.from_pretrained(folder)}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    told: list[str] = []
    for name in ("fit", "load", "score", "train", "evaluate", "scores", "compare", "gate", "verdicts"):
        for test in doctest.DocTestFinder(recurse=False).find(getattr(api, name), name, globs=names):
            assert test.examples, f"{name} shows no example"
            runner.run(test, out=told.append, clear_globs=False)
            names |= test.globs
    assert runner.summarize(verbose=False).failed == 0, "".join(told)


def test_importing_it_imports_nothing_heavy():
    heavy = {"torch", "numpy", "pandas", "transformers"}
    code = f"import sys, unbraid as ub; dir(ub); sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_it_lists_is_there_and_nothing_else():
    for module in (ub, ub.terms, ub.steering, ub.sources):
        for name in dir(module):
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
            module.nonsense  # noqa: B018


def test_one_line_on_an_array_gives_a_dictionary_for_raw_activations():
    sae = ub.fit(3 + 5 * X, **SMALL)
    z = sae.encode(3 + 5 * X[:8])
    assert z.shape == (8, 32) and int((z > 0).sum(1).max()) <= 4
    error = (sae(3 + 5 * X) - (3 + 5 * torch.from_numpy(X))).square().sum()
    assert float(error) < 0.9 * float((5 * X).var(0).sum() * len(X))


def test_leading_dimensions_are_kept():
    x = X.reshape(100, 12, 12)
    sae = ub.fit(x, **SMALL)
    assert sae(x[:2]).shape == (2, 12, 12) and sae.encode(x[:2]).shape == (2, 12, 32)
    assert sae.encode(x[0, 0]).shape == (32,)


@pytest.mark.parametrize(
    "given",
    [
        lambda: torch.from_numpy(X), lambda: X.astype("float64"), lambda: pd.DataFrame(X),
        lambda: (X[i : i + 100] for i in range(0, 1200, 100)),
        lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(X)), batch_size=64),
    ],
)  # fmt: skip
def test_it_takes_tensors_arrays_frames_and_loaders_alike(given):
    assert torch.equal(ub.fit(given(), **SMALL).W_dec, ub.fit(torch.from_numpy(X), **SMALL).W_dec)


def test_a_loader_may_fill_one_buffer_again_and_again():
    def refilled():
        buffer = torch.empty(100, 12)
        for start in range(0, 1200, 100):
            yield buffer.copy_(torch.from_numpy(X[start : start + 100]))

    assert torch.equal(ub.fit(refilled(), **SMALL).W_dec, ub.fit(X, **SMALL).W_dec)


def test_a_seed_moves_the_order_of_the_data_too():
    first, again, other = (
        ub.fit(X, **{**SMALL, "d_sae": 24}, init=ub.PrincipalComponents(), seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first.W_dec, again.W_dec) and not torch.equal(first.W_dec, other.W_dec)


def test_a_saved_run_is_read_continued_and_never_overwritten(tmp_path):
    sae = ub.fit(X, **SMALL, save=str(tmp_path / "mine"))
    assert torch.equal(sae.W_dec, ub.load(str(tmp_path / "mine")).W_dec)
    written = (tmp_path / "mine" / "provenance.json").read_bytes()
    assert torch.equal(sae.W_dec, ub.fit(X, **SMALL, save=tmp_path / "mine").W_dec)
    with pytest.raises(ValueError, match="mine"):
        ub.fit(X, **{**SMALL, "d_sae": 16}, save=tmp_path / "mine")
    assert (tmp_path / "mine" / "provenance.json").read_bytes() == written


def test_saelens_loads_the_same(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own imports warn
        from sae_lens import SAE

    sae = ub.fit(X, d_sae=32, activation=ub.BatchTopK(4), tokens=8192, batch_size=256, save=tmp_path / "mine")
    theirs = SAE.load_from_disk(tmp_path / "mine")
    x = torch.from_numpy(X)
    assert torch.allclose(sae.encode(x), theirs.encode(x), atol=1e-5) and torch.allclose(sae(x), theirs(x), atol=1e-5)


def test_folders_of_other_libraries_load_too(tmp_path):
    from unbraid.formats.export import export

    sae = ub.fit(X, **SMALL, save=tmp_path / "mine")
    export(tmp_path / "mine", tmp_path / "theirs", "sparsify")
    assert torch.allclose(ub.load(tmp_path / "theirs").W_dec, recognise.read(tmp_path / "theirs").dictionary.W_dec)
    assert torch.allclose(ub.load(tmp_path / "theirs")(X), sae(X), atol=1e-5)


def test_a_name_on_the_hub_is_fetched(tmp_path, monkeypatch):
    ub.fit(X, **SMALL, save=tmp_path / "cache" / "inside")
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or tmp_path / "cache")
    assert ub.load("someone/saes:inside").d_sae == 32 and asked == ["someone/saes"]
    for name in ("nowhere", "../x/y", "a/b/c", "someone/saes:../.."):
        with pytest.raises(ValueError, match="no folder here"):
            ub.load(name)


def test_a_term_of_a_script_trains_is_saved_and_read_back(tmp_path):
    penalties = [HalfOfL1(weight=0.1), HalfOfL1(weight=0.2), ub.terms.Orthogonality()]
    ub.fit(X, **{**SMALL, "activation": ub.ReLU()}, penalties=penalties, save=tmp_path / "mine")
    run = Run.open(tmp_path / "mine", ("unbraid", "tests", "test_front_door"))
    assert list(run.experiment.objective.penalties) == ["half_of_l1", "half_of_l1-2", "orthogonality"]


NOTEBOOK = """
from dataclasses import dataclass
import torch
import unbraid as ub
from unbraid.sources.base import Batch, Block, no_downstream

@dataclass(frozen=True, kw_only=True)
class Squares(ub.Term):
    family = "sparsity"
    def __call__(self, step):
        return ub.TermOutput(step.z.values.square().sum() / len(step.x))

@dataclass(frozen=True, kw_only=True)
class Waves(ub.Source):
    width: int = 12
    @property
    def d_in(self):
        return self.width
    def block(self, index, *, split, seed):
        rng = torch.Generator().manual_seed(1000 * seed + index + (split == "eval"))
        x = torch.randn(2000, self.width, generator=rng).cumsum(1)
        none = torch.full((2000,), -1)
        return Block(Batch(x, none, none, none))
    def contexts(self, count, *, split, seed):
        raise no_downstream("Waves")
    def available(self, split):
        return float("inf")
    def metadata(self):
        return {"model_name": "waves", "hook_name": "waves"}
    def sample_text(self, count):
        return []

if __name__ == "__main__":
    ub.fit(Waves(), d_sae=32, activation=ub.ReLU(), penalties=Squares(weight=0.01), tokens=4096, save="run")
    print(ub.load("run").d_sae)
"""


@pytest.mark.slow
def test_a_term_and_a_source_of_a_notebook_are_read_back_there_and_with_package_by_the_command_line(tmp_path):
    (tmp_path / "mine.py").write_text(NOTEBOOK)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)])}
    run = partial(subprocess.run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    trained = run([sys.executable, "mine.py"])
    assert trained.stdout == "32\n", trained.stderr
    assert '"type": "__main__:Squares"' in (tmp_path / "run" / "experiment.json").read_text()
    command = [sys.executable, "-m", "unbraid.cli", "eval", "run", "--evals", "fidelity"]
    refused = run(command)
    assert refused.returncode and "put it into a module, say mine.py, and name that: --package mine" in refused.stderr
    scored = run([*command, "--package", "mine"])
    assert scored.returncode == 0, scored.stderr
    assert 0 < ub.scores(tmp_path / "run").set_index("metric").value["fvu"] < 2


def test_callbacks_get_metrics(tmp_path):
    class Recorder(ub.callbacks.Callback):
        rows: list[dict[str, float]] = []

        def on_step(self, experiment, step, tokens, metrics):
            self.rows.append({"tokens": tokens, **metrics})

    ub.fit(X, **SMALL, callbacks=Recorder())
    assert Recorder.rows[0]["losses/reconstruction"] > Recorder.rows[-1]["losses/reconstruction"] > 0


def test_scores_of_an_array_with_known_factors():
    factors = np.abs(X[:, :6]) * (X[:, :6] > 0.8)
    sae = ub.fit(
        factors @ np.eye(6, 12, dtype="float32"), d_sae=12, activation=ub.TopK(3), tokens=60_000, batch_size=256
    )
    data = factors @ np.eye(6, 12, dtype="float32")
    table = ub.score(sae, data, factors=pd.DataFrame(factors, columns=list("abcdef")))
    measured = table[table.kind == "measured"].set_index("metric").value
    chance = table[table.kind == "chance"].set_index("metric").value
    assert measured["f1"] > chance["f1"] + 0.1 and measured["fvu"] < 0.5
    assert {"eval", "metric", "params", "kind", "value", "better", "definition"} == set(table.columns)
    assert "interchange" in table.attrs["not_applicable"]
    plain = ub.score(sae, data)
    assert "f1" not in set(plain.metric) and "no factors were given" in plain.attrs["not_applicable"]["recovery"]


def test_runs_may_be_meant_by_path_pattern_folder_or_run(tmp_path):
    ub.fit(X, **SMALL, save=tmp_path / "x" / "one")
    ub.fit(X, **SMALL, seed=1, save=tmp_path / "x" / "two")
    ub.evaluate(tmp_path / "x", "fidelity")
    runs = [Run.open(tmp_path / "x" / name) for name in ("one", "two")]
    for meant in (tmp_path / "x", str(tmp_path / "x" / "*"), runs, [str(run.path) for run in runs]):
        assert set(ub.scores(meant).run) == {"one", "two"}
    assert set(ub.scores(runs[0]).run) == {"one"}
    for path, message in ((tmp_path, "holds no run"), (tmp_path / "no*", "does not exist"), ("", "is empty")):
        with pytest.raises(ValueError, match=message):
            ub.scores(path)


@pytest.fixture(scope="module")
def refusals(tmp_path_factory) -> dict[str, dict[str, str]]:
    """What each misuse raises, in a process without this test's type checks, which would refuse wrong types first."""
    folder = tmp_path_factory.mktemp("misuse")
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("misuse.py"))], cwd=folder, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert not list(folder.iterdir())
    return json.loads(ran.stdout)


@pytest.mark.parametrize("case", CASES)
def test_misuse_is_refused_in_a_sentence_and_nothing_is_written(case, refusals):
    found = refusals[case]
    assert found["type"] == "ValueError" and CASES[case][1] in found["message"] and "\n" not in found["message"]
