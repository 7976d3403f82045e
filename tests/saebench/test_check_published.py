"""Runs next to published SAEs: which are alike, at which L0, and what is said where there is nothing to compare."""

import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from benchmarks.published_figures import made
from tests.small import experiment
from tests.spoiled import edit_json, forged

from unbraid.cli.main import main
from unbraid.config.serialise import to_json
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.ista import IstaBatchTopK
from unbraid.objective.objective import Term
from unbraid.runs.results import write_result
from unbraid.runs.run_folder import read_facts
from unbraid.saebench import figures
from unbraid.saebench.check_published import check_run, published_rows
from unbraid.saebench.eval_specs import UNSUPPORTED
from unbraid.saebench.metric_names import METRIC_NAMES
from unbraid.sources.synth import SYNTHSAEBENCH_16K
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.p_annealing import PAnnealing
from unbraid.training.loop import train

ON_PYTHIA = {
    "model_name": "EleutherAI/pythia-160m-deduped", "hook_name": "blocks.8.hook_resid_post", "hook_layer": 8,
}  # fmt: skip
ASKED = {
    "settings": {
        "reconstruction_batches": 200, "variance_batches": 2000, "context_size": 128, "documents_apart": False,
    },
    "seed": 42, "dtype": "float32", "text": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return train([experiment(tokens=160)], tmp_path_factory.mktemp("published"))[0]


@pytest.fixture
def make(trained, tmp_path):
    """`make(...)` is a run of 4,096 latents on a published model's layer, as its files would have it."""

    def run(
        site: dict[str, Any] = ON_PYTHIA, *, width: int = 4096, activation: Any = None, form: Term | None = None,
        source: Any = None, **penalties: Term,
    ) -> Path:  # fmt: skip
        folder = Path(shutil.copytree(trained, tmp_path / f"run-{len(list(tmp_path.iterdir()))}"))
        stored, cfg = (json.loads((folder / name).read_text()) for name in ("experiment.json", "cfg.json"))
        stored["dictionary"] |= {"d_sae": width, "activation": to_json(activation or BatchTopK(80))}
        stored["objective"] |= {"reconstruction": to_json(form or Reconstruction())}
        stored["objective"]["penalties"] |= {name: to_json(term) for name, term in penalties.items()}
        stored["source"] = to_json(source) if source else stored["source"] | {"d_in": None}
        edit_json(folder / "experiment.json", **stored)
        edit_json(folder / "cfg.json", d_sae=width, metadata=cfg["metadata"] | site)
        provenance = json.loads((folder / "provenance.json").read_text())
        (folder / "provenance.json").write_text(json.dumps(provenance | {"summary": summary_of(stored, provenance)}))
        return forged(folder)

    return run


def summary_of(stored: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
    k = stored["dictionary"]["activation"].get("k")
    return provenance["summary"] | {"l0": None if k is None else float(k)}


def scored(folder: Path, name: str, asked: dict[str, Any] = ASKED, **values: float | dict[str, Any]) -> Path:
    scores = [
        {"metric": metric, "value": value, "better": "higher", "kind": "measured", "params": {}}
        for metric, value in values.items()
    ]
    weights = read_facts(folder).weights
    write_result(folder, name, {"eval": name, "version": "1", "asked": asked, "weights": weights, "scores": scores})
    return folder


def core(folder: Path, l0: float, score: float, **asked: Any) -> Path:
    return scored(folder, "saebench_core", ASKED | asked, l0=l0, ce_loss_score=score)


def row(folder: Path, score: str, architecture: str = ""):
    return next(one for one in check_run(folder, architecture).rows if one.score == score)


# ---- figures ------------------------------------------------------------------------------------------------


def test_figures_are_interpolated_linearly_in_the_logarithm_of_l0():
    saes = [(10.0, 0.2), (1000.0, 0.6), (10_000.0, 0.0)]
    assert figures.interpolated(saes, 100.0) == pytest.approx(0.4)
    assert figures.interpolated(saes, 1000 * 10**0.25) == pytest.approx(0.45)
    assert [figures.interpolated(saes, l0) for l0, _ in saes] == pytest.approx([0.2, 0.6, 0.0])


def test_outside_of_the_published_range_nothing_is_made_up():
    saes = [(10.0, 0.2), (1000.0, 0.6)]
    assert figures.interpolated(saes, 9.0) is None and figures.interpolated(saes, 1100.0) is None
    assert figures.interpolated(saes, 9.6) == 0.2 and figures.interpolated(saes, 1040.0) == 0.6
    assert figures.nearest(saes, 99.0) == saes[0] and figures.nearest(saes, 101.0) == saes[1]
    assert figures.interpolated(saes[:1], 10.2) == 0.2 and figures.interpolated(saes[:1], 11.0) is None


def test_every_figure_is_of_a_score_that_a_run_may_have_or_that_is_refused():
    for one in figures.published_figures():
        name = one.eval.removeprefix("saebench_")
        known = {metric.metric for metric in METRIC_NAMES.get(name, ())}
        assert one.metric in known or name in UNSUPPORTED or one.eval == "recovery", one
        assert all(list(saes) == sorted(saes, key=lambda sae: sae[0]) for saes in one.saes.values())
        assert all(math.isfinite(value) and l0 > 0 for saes in one.saes.values() for l0, value in saes)


def test_the_252_saes_of_core_and_the_42_of_absorption_and_ravel_are_there():
    count = lambda metric, **where: sum(
        len(saes)
        for one in figures.published_figures()
        if one.metric == metric and one.tokens and all(getattr(one, key) == value for key, value in where.items())
        for saes in one.saes.values()
    )
    assert count("ce_loss_score") == 252
    assert count("first_letter_absorption_full") == count("ravel_disentanglement") == count("unlearning_score") == 42
    assert max(one.noise or 0 for one in figures.published_figures() if one.metric == "ce_loss_score") < 0.0046


def test_l0_and_figures_are_paired_rightly_as_ravel_rises_with_l0_in_every_architecture():
    (ravel,) = [one for one in figures.published_figures() if one.metric == "ravel_disentanglement" and one.noise]
    assert len(ravel.saes) == 7
    for saes in ravel.saes.values():
        values = [value for _, value in saes]
        assert len(values) == 6 and values == sorted(values)


def test_the_file_is_what_the_published_numbers_make():
    data = os.environ.get("UNBRAID_DATA")
    numbers = Path(data or "nowhere").parent / "numbers"
    if not data or not (numbers / "reliability__ravel_gemma-2-2b_4k.json").is_file():
        pytest.skip("no folder of published numbers beside UNBRAID_DATA")
    assert figures.FILE.read_text(encoding="utf-8") == made(numbers)


@pytest.mark.parametrize("text", ["{", "{}", '{"figures": [{"eval": "core"}]}', '{"figures": [{"saes": {}}]}'])
def test_a_damaged_file_of_figures_is_named(text, tmp_path, monkeypatch):
    (tmp_path / "published.json").write_text(text)
    monkeypatch.setattr(figures, "FILE", tmp_path / "published.json")
    with pytest.raises(ValueError, match=r"published\.json.*install unbraid again"):
        figures.published_figures.__wrapped__()


# ---- runs ---------------------------------------------------------------------------------------------------


def test_a_run_is_compared_at_its_own_l0(make):
    found = row(core(make(), 76.33, 0.95), "ce_loss_score")
    assert found.published == pytest.approx(0.9739, abs=1e-4)
    assert found.difference == pytest.approx(0.95 - 0.9739, abs=1e-4)
    assert found.noise == pytest.approx(0.00158) and found.missing == ""
    assert found.differs == ("seed 42 (published: 0)",)


def test_between_two_published_saes_the_figure_lies_between_theirs(make):
    found = row(core(make(), 55.0, 0.95), "ce_loss_score")
    share = math.log(55 / 38.07) / math.log(76.33 / 38.07)
    assert found.published == pytest.approx(0.95893 + share * (0.97393 - 0.95893), abs=2e-4)


def test_outside_of_the_range_the_nearest_is_named_and_no_difference_is_given(make, capsys):
    folder = core(make(), 5.0, 0.9)
    found = row(folder, "ce_loss_score")
    assert found.published is None and found.difference is None
    assert found.nearest == pytest.approx((19.07, 0.9357), abs=1e-3)
    assert main(["check", "published", str(folder)]) == 0
    assert "0.9357 at L0 19.1" in capsys.readouterr().out


def test_the_l0_is_saebenchs_then_fidelitys_then_the_requested(make):
    folder = make()
    assert (check_run(folder).l0, check_run(folder).l0_from) == (80, "requested")
    scored(folder, "fidelity", l0=70.0)
    assert (check_run(folder).l0, check_run(folder).l0_from) == (70.0, "fidelity")
    core(folder, 60.0, 0.9)
    assert (check_run(folder).l0, check_run(folder).l0_from) == (60.0, "saebench_core")


@pytest.mark.parametrize(
    ("site", "width", "said"),
    [({"model_name": "smollm2", "hook_layer": 10, "hook_name": "blocks.10.hook_resid_post"}, 4096,
      "no published figures on smollm2; there are some of: pythia-160m-deduped, gemma-2-2b"),
     (ON_PYTHIA | {"hook_layer": 3, "hook_name": "blocks.3.hook_resid_post"}, 4096,
      r"on layer 3 \(resid_post\) of pythia-160m-deduped; there are some of: layer 8 \(resid_post\)$"),
     (ON_PYTHIA | {"hook_name": "blocks.8.hook_mlp_out"}, 4096, r"on layer 8 \(mlp_out\)"),
     (ON_PYTHIA, 1024, "of 1,024 latents there; there are some of: 4,096, 16,384, 65,536"),
     (ON_PYTHIA | {"model_name": "/cache/models--EleutherAI--pythia-160m-deduped/snapshots/e9d2"}, 16_384, "^$")],
)  # fmt: skip
def test_where_nothing_was_published_it_is_said_what_was(make, site, width, said):
    check = check_run(make(site, width=width))
    assert bool(check.rows) == (said == "^$")
    assert re.search(said, check.nothing)


@pytest.mark.parametrize(
    ("activation", "form", "penalties", "name"),
    [("BatchTopK", Reconstruction(), {}, "batchtopk"), ("TopK", Reconstruction(), {}, "topk"),
     ("ReLU", Reconstruction(), {}, "standard"), ("JumpReLU", Reconstruction(), {}, "jumprelu"),
     ("ReLU", Reconstruction(), {"sparsity": PAnnealing()}, "panneal"),
     ("BatchTopK", NestedReconstruction(), {}, "matryoshka"), ("ReLU", NestedReconstruction(), {}, ""),
     ("MatchingPursuit", Reconstruction(), {}, "")],
)  # fmt: skip
def test_the_architecture_is_that_of_the_experiment(make, activation, form, penalties, name):
    from unbraid import catalog

    folder = make(activation=catalog.activations()[activation](), form=form, **penalties)
    edit_json(folder / "cfg.json", architecture=None)
    check = check_run(forged(folder))
    assert check.about.startswith(f"{name or 'architecture unknown'}, 4,096 latents, pythia-160m-deduped, layer 8")
    assert bool(check.rows) == bool(name)


def imported(folder: Path, **init: str) -> Path:
    stored = json.loads((folder / "experiment.json").read_text())
    trained = json.loads(init.pop("trained", "{}"))
    stored["dictionary"] |= {"init": {"type": "Imported", "folder": "x", "sha256": "0" * 64, "standard": True} | init}
    edit_json(folder / "experiment.json", **stored)
    edit_json(folder / "provenance.json", imported={"trained": trained})
    return forged(folder)


@pytest.mark.parametrize(
    ("init", "name"),
    [({"format": "dictionary_learning", "architecture": "MatryoshkaBatchTopKSAE"}, "matryoshka"),
     ({"format": "dictionary_learning", "architecture": "AutoEncoder"}, "standard"),
     ({"format": "dictionary_learning", "architecture": "AutoEncoder",
       "trained": '{"trainer_class": "PAnnealTrainer"}'}, "panneal"),
     ({"format": "sparsify", "architecture": "topk"}, "topk"),
     ({"format": "Gemma Scope", "architecture": "jumprelu"}, "jumprelu"),
     ({"format": "SAELens", "architecture": "jumprelu", "trained": '{"training_architecture": "batchtopk"}'},
      "batchtopk"),
     ({"format": "SAELens", "architecture": "jumprelu", "trained": '{"training_architecture": "batchtopk", '
       '"training_architecture_details": {"objective": {"reconstruction": {"type": "NestedReconstruction"}}}}'},
      "matryoshka"),
     ({"format": "SAELens", "architecture": "jumprelu"}, "")],
)  # fmt: skip
def test_an_imported_sae_has_the_architecture_that_its_library_names(make, init, name):
    check = check_run(imported(make(), **init))
    assert check.about.startswith(name or "architecture unknown")
    assert bool(check.rows) == bool(name)


def test_what_is_left_at_inference_is_not_guessed_at_but_may_be_named(make):
    folder = imported(core(make(), 76.33, 0.95), format="SAELens", architecture="jumprelu")
    assert "name it with --architecture" in check_run(folder).nothing
    assert row(folder, "ce_loss_score", "batchtopk").published == pytest.approx(0.9739, abs=1e-4)
    assert not any("tokens" in text for text in check_run(folder, "batchtopk").differs)


def test_missing_scores_name_the_command_that_makes_them_and_fidelitys_is_not_taken(make):
    folder = scored(make(), "fidelity", l0=80.0, loss_recovered=0.5)
    found = row(folder, "ce_loss_score")
    assert found.yours is None and found.difference is None and found.published == pytest.approx(0.9748, abs=1e-3)
    assert f"unbraid eval {folder} --suite saebench --evals core" in found.missing
    assert "loss_recovered of fidelity is another measure" in found.missing


def test_a_result_that_failed_or_was_damaged_says_why(make):
    folder = make()
    weights = read_facts(folder).weights
    write_result(folder, "saebench_core", {"eval": "saebench_core", "weights": weights, "error": "it was killed"})
    assert row(folder, "ce_loss_score").missing == "it was killed"
    (folder / "results" / "saebench_core.json").write_text("{")
    assert "saebench_core.json" in row(folder, "ce_loss_score").missing
    write_result(folder, "saebench_core", {"eval": "saebench_core", "weights": "0" * 64, "scores": []})
    assert "other weights" in row(folder, "ce_loss_score").missing


def test_a_score_that_a_result_lacks_is_missing(make):
    missing = row(scored(make(), "saebench_core", l0=76.0), "ce_loss_score").missing
    assert missing.startswith("its result has no such score: unbraid eval") and "--evals core --force" in missing


def test_settings_that_differ_from_the_published_are_named(make):
    small = ASKED["settings"] | {"reconstruction_batches": 3, "documents_apart": True}
    found = row(core(make(), 76.33, 0.95, settings=small, text="corpus.jsonl"), "ce_loss_score").differs
    assert set(found) == {
        "reconstruction batches 3 (published: 200)", "documents apart True (published: SAEBench's default)",
        "text corpus.jsonl (published: SAEBench's default)", "seed 42 (published: 0)",
    }  # fmt: skip


def test_training_that_differs_is_named(make):
    from unbraid.terms.geometry.orthogonality import Orthogonality

    check = check_run(make(orthogonality=Orthogonality()))
    assert "trained on 160 tokens (published: 500,000,000)" in check.differs
    folder = make(orthogonality=Orthogonality())
    provenance = json.loads((folder / "provenance.json").read_text())
    edit_json(folder / "provenance.json", summary=provenance["summary"] | {"standard": False, "geometry": "whitened"})
    found = check_run(forged(folder)).differs
    assert "not a standard SAE: its objective has Orthogonality" in found, "AuxK is standard"
    assert "trained on whitened activations" in found


LADDER = [
    (BatchTopK(25), Reconstruction(), "batchtopk", 0.6103),
    (IstaBatchTopK(25), Reconstruction(), "ista", 0.6647),
    (BatchTopK(25), NestedReconstruction(), "matryoshka", 0.7551),
    (IstaBatchTopK(25), NestedReconstruction(), "ista_matryoshka", 0.8989),
    (BatchTopK(25), NestedReconstruction(detached=True), "detached", 0.9353),
    (BatchTopK(25), NestedReconstruction(detached=True, order="frequency"), "sorted", 0.9650),
    (BatchTopK(25, first_k=4.0), NestedReconstruction(detached=True, order="frequency"), "annealed", 0.9754),
    (BatchTopK(25, first_k=3.2), NestedReconstruction(
        detached=True, order="frequency", shares=(1 / 128, 1 / 32, 1 / 8, 1 / 4, 1 / 2, 1.0)), "six_widths", 0.9867),
]  # fmt: skip


@pytest.mark.parametrize(("activation", "form", "name", "value"), LADDER, ids=[one[2] for one in LADDER])
def test_a_run_on_the_full_synthsaebench_is_on_a_step_of_its_ladder(make, activation, form, name, value):
    folder = make({"model_name": "synth", "hook_layer": 0, "hook_name": "blocks.0.hook_resid_post"},
                  activation=activation, form=form, source=SYNTHSAEBENCH_16K)  # fmt: skip
    check = check_run(forged(folder))
    (found,) = check.rows
    assert check.about.startswith(f"{name}, 4,096 latents, SynthSAEBench-16k")
    assert found.score == "f1_latents (matching cosine)" and found.published == pytest.approx(value)
    assert found.missing.endswith("--evals recovery")


def test_a_scaled_synthsaebench_is_another_world(make):
    from dataclasses import replace

    small = replace(SYNTHSAEBENCH_16K, num_features=512)
    folder = make({"model_name": "synth", "hook_layer": 0}, source=small)
    assert "no published figures on synth;" in check_run(folder).nothing


# ---- the command --------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_what_differs(make, capsys):
    folder = core(make(), 76.33, 0.95, settings=ASKED["settings"] | {"reconstruction_batches": 3})
    assert main(["check", "published", str(folder), str(make({"model_name": "smollm2", "hook_layer": 10}))]) == 0
    shown = capsys.readouterr().out
    assert "0.9500" in shown and "0.9739" in shown and "−0.0239" in shown and "≤ 0.0016" in shown
    assert "reconstruction batches 3 (published: 200)" in shown
    assert "meowmaryexe/SAEBench-Reliability" in shown and "no published figures on smollm2" in shown


def test_python_gets_plain_data(make):
    (found,) = published_rows([core(make(), 76.33, 0.95)])
    assert json.loads(json.dumps(found))["rows"][0]["yours"] == 0.95


def test_what_cannot_be_read_is_named_and_the_others_are_compared(make, capsys):
    good, bad, unfinished = core(make(), 76.33, 0.95), make(), make()
    (bad / "cfg.json").write_text("{")
    (unfinished / "provenance.json").unlink()
    assert main(["check", "published", str(good), str(bad), str(unfinished)]) == 1
    found = capsys.readouterr()
    assert "0.9739" in found.out and f"error: {bad}" in found.err and f"passed over {unfinished}" in found.err
    assert main(["check", "published", str(unfinished)]) == 2
    assert "none of these runs is finished" in capsys.readouterr().err
