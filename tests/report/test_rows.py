import json
import math
import random
from pathlib import Path

import pandas as pd
import pytest

from unbraid.comparison.stored_scores import COLUMNS, NUMBERS, describe, read_scores
from unbraid.report import collect, scores_json


def test_rows_hold_every_stored_number(run):
    folder = run("topk-l0_32", 1, {"fvu": 0.2, "mcc": 0.7}, k=32)
    rows = collect([folder])
    assert list(rows.columns) == COLUMNS
    assert set(zip(rows["eval"], rows["metric"], rows["value"], strict=True)) == {
        ("fidelity", "fvu", 0.2),
        ("recovery", "mcc", 0.7),
    }
    first = rows.iloc[0]
    assert (first["name"], first["seed"], first["d_sae"], first["architecture"]) == ("topk-l0_32", 1, 1024, "topk")
    assert first["source"] == "World(d_in=64, factors=512, seed=0)"


def test_scores_json_gives_back_the_rows(run, tmp_path: Path):
    rows = collect([run("topk-l0_32", seed, {"fvu": 0.1 + 0.2, "mcc": math.nan}) for seed in (0, 1)])
    scores_json(rows, tmp_path / "scores.json")
    data = json.loads((tmp_path / "scores.json").read_text())
    assert [row["value"] for row in data] == [0.1 + 0.2, None, 0.1 + 0.2, None]
    again = pd.DataFrame(data, columns=COLUMNS).astype(dict.fromkeys(NUMBERS, "float64"))
    pd.testing.assert_frame_equal(again, rows, check_dtype=False)


def test_order_of_folders_does_not_matter(full_study):
    shuffled = random.Random(0).sample(full_study, len(full_study))
    pd.testing.assert_frame_equal(collect(full_study), collect(shuffled))


def test_a_folder_named_twice_counts_once(run):
    folder = run("topk", 0, {"fvu": 0.2})
    assert len(collect([folder, folder])) == 1


def test_no_folder_is_refused():
    with pytest.raises(ValueError, match="no run folder given"):
        collect([])


def test_a_folder_that_is_no_run_is_named(run, tmp_path: Path):
    with pytest.raises(ValueError, match="elsewhere is not a run folder"):
        collect([run("topk", 0, {"fvu": 0.2}), tmp_path / "elsewhere"])


def test_only_unfinished_runs_are_refused(run):
    with pytest.raises(ValueError, match="none of the 1 runs given is finished"):
        collect([run("topk", 0, finished=False)])


def test_a_damaged_result_is_an_error_with_its_text(run):
    folder = run("topk", 0, {"fvu": 0.2})
    (folder / "results" / "recovery.json").write_text("{")
    (hole,) = read_scores([folder]).missing_results
    assert (hole.kind, hole.eval) == ("damaged", "recovery") and "damaged" in hole.reason


@pytest.mark.parametrize(
    ("penalties", "standard"),
    [
        ({}, True),
        ({"l1": 0.1, "aux_k": 0.03}, True),
        ({"description_length": 0.1}, True),
        ({"hsic": 1.0}, False),
        ({"hsic": 0.0, "l0": 1.0}, True),
    ],
)
def test_baselines_ask_for_sparsity_only(run, penalties, standard):
    assert read_scores([run("x", 0, {"fvu": 0.2}, penalties=penalties)]).runs[0].summary.standard is standard


def test_knobs_are_about_the_second_claim(run):
    claim = lambda **penalties: read_scores([run("x", 0, {"fvu": 0.2}, penalties=penalties)]).runs[0].summary.claim
    assert claim(effect=1.0, hsic=1.0) == claim(melbo=0.1) == 2
    assert claim(hsic=1.0, effect=0.0) == 1


def test_directions_fitted_to_the_layers_after_are_no_baselines_and_about_the_second_claim(run):
    folder = run("melbo", 0, {"fvu": 0.2})
    experiment = json.loads((folder / "experiment.json").read_text())
    experiment["dictionary"]["init"] = {"type": "Melbo", "steps": 3}
    (folder / "experiment.json").write_text(json.dumps(experiment))
    (stored,) = read_scores([folder]).runs
    assert not stored.summary.standard and stored.summary.claim == 2


def test_controls_are_no_baselines(run):
    assert not read_scores([run("x", 0, {"fvu": 0.2}, control=True)]).runs[0].summary.standard


@pytest.mark.parametrize(
    ("name", "method", "l0"),
    [
        ("topk-l0_32", "topk", 32.0),
        ("a-l0_8-b-l0_12.5", "a-l0_8-b", 12.5),
        ("topk-l0_32-lr_0.001", "topk-lr_0.001", 32.0),
        ("topk", "topk", math.nan),
    ],
)
def test_names_of_earlier_versions_state_method_and_l0(run, name, method, l0):
    (stored,) = read_scores([run(name, 0, {"fvu": 0.2})]).runs
    assert stored.method == method and stored.requested_l0 == pytest.approx(l0, nan_ok=True)


def test_description_tells_configurations_apart():
    assert describe({"type": "a.b:C", "x": 1, "y": [True, 0.5]}) == "C(x=1, y=[True, 0.5])"
