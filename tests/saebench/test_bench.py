"""The bench with a fake benchmark: every way it can end leaves a result or its reason, and the others go on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.spoiled import resealed

from unbraid import catalog
from unbraid.comparison.stored_scores import read_scores
from unbraid.evals.shared.evaluation import evaluate as score_by
from unbraid.runs.run import Run
from unbraid.saebench.bench import evaluate
from unbraid.saebench.environment import Environment
from unbraid.saebench.eval_specs import EVAL_SPECS, chosen

CORE, TPP = [EVAL_SPECS["core"]], [EVAL_SPECS["tpp"]]


def stored(run: Run, name: str = "core") -> dict:
    return json.loads((run.path / "results" / f"saebench_{name}.json").read_text())


def values(run: Run, name: str = "core") -> dict:
    return {score["metric"]: score["value"] for score in stored(run, name)["scores"]}


def test_scores_reach_the_report_with_the_raw_json_kept(runs, bench):
    assert evaluate(runs, CORE, bench()) == 0
    rows = read_scores([run.path for run in runs]).rows
    assert set(rows["eval"]) == {"saebench_core"} and set(rows["version"]) == {"1, sae-bench 0.6.0"}
    assert (runs[0].path / "saebench" / "core.json").is_file()
    about = json.loads((runs[0].path / "saebench" / "core.about.json").read_text())
    assert about["versions"] == {"sae-bench": "0.6.0"}
    assert about["request"]["model"] == "local-model" and about["request"]["text"] == "text"


def test_saebenchs_explained_variance_is_marked_and_ours_stands_beside_it(runs, bench):
    evaluate(runs[:1], CORE, bench())
    found = values(runs[0])
    assert found["explained_variance_reported"] == 1.07
    assert found["explained_variance"] <= 1
    (reported,) = [s for s in stored(runs[0])["scores"] if s["metric"] == "explained_variance_reported"]
    assert reported["better"] == "neither"


def test_ours_is_what_fidelity_stores(runs, bench):
    evaluate(runs[:1], CORE, bench())
    measured = values(runs[0])["explained_variance"]
    item = catalog.evals()["fidelity"]
    score_by([runs[0]], [item])
    evaluate(runs[:1], CORE, bench(), force=True)
    assert values(runs[0])["explained_variance"] == measured


@pytest.mark.slow
def test_minus_one_is_missing_where_it_stands_for_it_and_a_number_where_it_is_one(runs, bench):
    labelled = ("language://10",)
    evaluate(runs[:1], CORE + TPP, bench(labelled=labelled))
    assert values(runs[0])["cossim"] is None
    assert values(runs[0], "tpp") == {"tpp": -1.0}


def test_a_failure_is_that_runs_error_with_its_log_and_the_others_go_on(runs, bench):
    assert evaluate(runs, CORE, bench({"tiny-l0_3-s1": "fail"})) == 1
    assert "KeyError: 'acts'" in stored(runs[1])["error"]
    assert "scoring tiny-l0_3-s1" in (runs[1].path / "saebench" / "core.log").read_text()
    assert "scores" in stored(runs[0]) and "scores" in stored(runs[2])
    assert not (runs[0].path / "saebench" / "core.log").exists()


def test_a_process_that_dies_costs_one_run_and_a_new_one_goes_on(runs, bench):
    assert evaluate(runs, CORE, bench({"tiny-l0_3-s1": "die"})) == 1
    error = stored(runs[1])["error"]
    assert "exit code 7" in error and "Segmentation fault, or so" in error
    assert "scores" in stored(runs[0]) and "scores" in stored(runs[2])


@pytest.mark.slow
def test_a_process_that_hangs_is_ended_and_its_last_lines_are_shown(runs, bench):
    assert evaluate(runs, CORE, bench({"tiny-l0_3-s0": "hang"}, limit=5.0)) == 1
    assert "said nothing" in stored(runs[0])["error"] and "waiting for a lock" in stored(runs[0])["error"]
    assert "scores" in stored(runs[1])


def test_a_process_that_ends_without_a_result_is_an_error(runs, bench):
    assert evaluate(runs, CORE, bench({"tiny-l0_3-s1": "leave"})) == 1
    assert "without a result" in stored(runs[1])["error"]
    assert "scores" in stored(runs[2])


def test_a_model_that_cannot_be_loaded_is_every_runs_error_and_asked_once(runs, bench):
    assert evaluate(runs, CORE, bench({"loading": "die"})) == len(runs)
    assert all("no such model" in stored(run)["error"] for run in runs)
    assert (runs[0].path / "saebench" / "core.log").read_text().count("loading") == 1


def test_an_interpreter_that_is_gone_is_an_error_and_no_crash(runs, bench):
    gone = replace(bench(), environment=Environment(Path("nowhere/python"), "0.6.0"))
    assert evaluate(runs[:1], CORE, gone) == 1
    assert "nowhere/python" in stored(runs[0])["error"]


def test_a_refusal_is_a_hole_with_a_reason_and_no_failure(runs, bench):
    assert evaluate(runs, CORE, bench({"tiny-l0_3-s2": "refuse"})) == 0
    assert stored(runs[2])["not_applicable"] == "the model does not spell"


@pytest.mark.parametrize(("fate", "said"), [("mix up", "result of 'another'"), ("age", "sae-bench 0.5.0")])
def test_results_of_another_run_or_version_are_errors(runs, bench, fate, said):
    assert evaluate(runs[:1], CORE, bench({"tiny": fate})) == 1
    assert said in stored(runs[0])["error"]


def test_finished_results_are_kept_and_failures_tried_again(runs, bench):
    evaluate(runs, CORE, bench({"tiny-l0_3-s1": "fail"}))
    seen = []
    assert (
        evaluate(runs, CORE, bench({"tiny-l0_3-s0": "fail"}), on_result=lambda run, name, status: seen.append(status))
        == 0
    )
    assert seen == ["kept", "kept", "2 s"]
    assert not (runs[1].path / "saebench" / "core.log").exists()


def test_another_question_is_asked_anew(runs, bench, tmp_path):
    text = tmp_path / "other.jsonl"
    text.write_text('{"text": "the cat saw the dog"}\n')
    evaluate(runs[:1], CORE, bench())
    evaluate(runs[:1], CORE, bench(text=str(text)))
    assert stored(runs[0])["asked"]["text"] == str(text)


def test_what_is_missing_is_a_reason_until_it_is_there(runs, bench):
    seen = []
    keep = lambda run, name, status: seen.append(status)
    assert evaluate(runs[:1], TPP, bench(), on_result=keep) == 0
    assert "--labelled" in stored(runs[0], "tpp")["not_applicable"]
    assert evaluate(runs[:1], TPP, bench(labelled=("language://10",)), on_result=keep) == 0
    assert "scores" in stored(runs[0], "tpp")
    evaluate(runs[:1], TPP, bench(), on_result=keep)
    assert "not_applicable" in stored(runs[0], "tpp")


def test_a_judge_needs_a_key(runs, bench):
    evaluate(runs[:1], [EVAL_SPECS["autointerp"]], bench())
    assert "OPENAI_API_KEY" in stored(runs[0], "autointerp")["not_applicable"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(lambda t: t | {"W_dec": 2 * t["W_dec"]}, "norm is off 1 by 1.0e+00"),
     (lambda t: t | {"W_enc": t["W_enc"].T.contiguous(), "W_dec": t["W_dec"].T.contiguous()}, "expected tensors")],
)  # fmt: skip
def test_weights_that_saebench_would_take_without_a_word_are_errors(runs, bench, spoil, said):
    weights = runs[0].path / "sae_weights.safetensors"
    save_file(spoil(load_file(weights)), weights)
    resealed(runs[0].path)
    assert evaluate(runs, CORE, bench()) == 1
    assert said in stored(runs[0])["error"]
    assert "scores" in stored(runs[1])


def test_a_model_that_is_gone_is_an_error_that_names_it(runs, bench):
    cfg = json.loads((runs[0].path / "cfg.json").read_text())
    cfg["metadata"]["model_name"] = "/nowhere/at/all"
    (runs[0].path / "cfg.json").write_text(json.dumps(cfg))
    runs[0] = Run.open(resealed(runs[0].path))
    assert evaluate(runs, CORE, bench()) == 1
    assert "/nowhere/at/all" in stored(runs[0])["error"]


def test_a_world_is_no_language_model(runs, bench):
    cfg = json.loads((runs[0].path / "cfg.json").read_text())
    cfg["metadata"] = {"model_name": "world", "hook_name": "blocks.0.hook_resid_post"}
    (runs[0].path / "cfg.json").write_text(json.dumps(cfg))
    runs[0] = Run.open(resealed(runs[0].path))
    assert evaluate(runs[:1], CORE, bench()) == 0
    assert "language model" in stored(runs[0])["not_applicable"]


def test_the_benchmark_sees_no_packages_of_ours(monkeypatch):
    from unbraid.saebench.bench import own_environ

    assert own_environ({"PYTHONPATH": "src", "HOME": "/h", "VIRTUAL_ENV": "v"}) == {"HOME": "/h"}


def test_what_cannot_be_asked_says_why():
    assert "autointerp" not in [eval_spec.name for eval_spec in chosen([])]
    with pytest.raises(ValueError, match="gemma-2-2b-it"):
        chosen(["unlearning"])
    with pytest.raises(ValueError, match="there are: core"):
        chosen(["cores"])
