"""SAEBench's JSON to scores: names, directions, params, what is missing, what is not ours."""

import math

import pytest

from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.saebench.metric_names import METRIC_NAMES, TYPE_IDS, definitions
from unbraid.saebench.translation import translate

RUN, SHAPE = "topk-l0_8-s0-abc", (16, 64)


def result(name, **metrics):
    return {
        "eval_type_id": TYPE_IDS[name],
        "sae_lens_release_id": RUN,
        "sae_cfg_dict": {"d_in": 16, "d_sae": 64},
        "eval_result_metrics": metrics,
    }


def scores(name, found, **about):
    noted = {"versions": {"sae-bench": "0.6.0"}} | about
    return {(s.metric, *sorted(s.params.items())): s for s in translate(name, found, noted, run=RUN, shape=SHAPE)}


def test_k_is_a_param_and_latents_are_told_from_activations():
    metrics = {
        "sae": {"sae_test_accuracy": 0.9, "sae_top_1_test_accuracy": 0.7, "sae_top_5_test_accuracy": 0.8},
        "llm": {"llm_test_accuracy": 0.95, "llm_top_1_test_accuracy": 0.6, "llm_top_2_test_accuracy": None},
    }
    found = scores("sparse_probing", result("sparse_probing", **metrics))
    assert found["probe_accuracy", ("k", 1.0), ("reads", "latents")].value == 0.7
    assert found["probe_accuracy", ("k", 1.0), ("reads", "activations")].better == "neither"
    assert len(found) == 5


def test_minus_one_is_not_a_number_and_none_makes_no_row():
    found = scores("core", result("core", sparsity={"l0": 8.0}, misc_metrics={"frac_alive": -1.0}))
    assert math.isnan(found["frac_alive",].value)
    with pytest.raises(ValueError, match="every number"):
        scores("core", result("core", misc_metrics={"frac_alive": -1}))


def test_absorption_has_both_definitions_and_the_gate_beside_it():
    metrics = {"mean_absorption_fraction_score": 0.016, "mean_full_absorption_score": 0.05}
    about = {"probe_f1": {"a": 0.9, "b": 0.5}, "letters": ["a"], "absorption_fraction_0_3_2": 0.16}
    found = scores("absorption", result("absorption", mean=metrics), **about)
    fraction = lambda version: found["first_letter_absorption_fraction", ("definition", version)].value
    assert (fraction("0.6.0"), fraction("0.3.2")) == (0.016, 0.16)
    assert found["first_letter_probe_f1",].value == pytest.approx(0.7)
    assert found["first_letter_letters",].value == 1


def test_scr_says_how_much_there_was_to_regain():
    pair = {
        "professor / nurse": 0.9, "male_professor / female_nurse probe on professor / nurse data": 0.6,
        "male / female": 0.8, "male_professor / female_nurse probe on male / female data": 0.8,
    }  # fmt: skip
    found = scores("scr", result("scr", scr_metrics={"scr_metric_threshold_20": -1.0}), accuracies=[pair])
    assert found["scr", ("n", 20.0)].value == -1
    assert found["scr_room",].value == pytest.approx(0.15)


def test_scr_says_nothing_where_there_was_nothing_to_regain():
    pair = {
        "professor / nurse": 0.6, "male_professor / female_nurse probe on professor / nurse data": 0.55,
        "male / female": 0.6, "male_professor / female_nurse probe on male / female data": 0.56,
    }  # fmt: skip
    with pytest.raises(NotApplicable, match="costs the probe 0.045 of accuracy"):
        scores("scr", result("scr", scr_metrics={"scr_metric_threshold_2": -1.34}), accuracies=[pair])


@pytest.mark.parametrize(
    ("change", "said"),
    [({"eval_type_id": "tpp"}, "expected SAEBench's core, found 'tpp'"),
     ({"sae_lens_release_id": "topk-l0_8-s1"}, "not of"),
     ({"sae_cfg_dict": {"d_in": 64, "d_sae": 16}}, "d_in 64 and d_sae 16, the run has 16 and 64"),
     ({"eval_result_metrics": {"new": {"name": 1.0}}}, "none of the expected numbers"),
     ({"eval_result_metrics": None}, "no result of SAEBench")],
)  # fmt: skip
def test_what_is_not_this_runs_result_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        scores("core", result("core", sparsity={"l0": 8.0}) | change)


def test_another_version_of_saebench_is_refused():
    with pytest.raises(ValueError, match="sae-bench 0.3.2, Unbraid reads 0.6.0"):
        scores("core", result("core", sparsity={"l0": 8.0}), versions={"sae-bench": "0.3.2"})


@pytest.mark.parametrize("name", list(METRIC_NAMES))
def test_every_metric_is_defined(name):
    assert all(text for text in definitions(name).values())
    assert set(METRIC_NAMES) == set(TYPE_IDS)


def test_the_audits_caveat_stands_by_what_it_is_about():
    assert "2605.18229" in definitions("tpp")["tpp"] and "2605.18229" in definitions("scr")["scr"]
