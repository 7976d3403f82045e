"""What has no verdict: a missed L0, a score on which untrained controls do as well, an undertrained study."""

import math
import random

import pytest
from tests.report.conftest import curve
from tests.report.planted import WORST, planted_run
from tests.report.test_answer import SEEDS, answered, study
from tests.small import WORLD

from unbraid.catalog import evals
from unbraid.comparison.convergence import caveat, fall, falls
from unbraid.comparison.scores import arrange
from unbraid.comparison.stored_scores import read_scores
from unbraid.evals.shared.evaluation import evaluate
from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Study
from unbraid.report.limitations import limitations
from unbraid.report.page import write_report
from unbraid.report.setup import setup
from unbraid.report.table import table
from unbraid.runs.run import Run
from unbraid.studies.methods import controls as controls_of
from unbraid.studies.methods import disentangling, standard
from unbraid.training.loop import train


def missing(root):
    """hsic wins over BatchTopK; relu, with a target of 16, has 222, and is the best at everything."""
    best = {"f1": 0.45, "absorption_full": -0.29, "fvu": -0.15}
    said = {"standard": True, "base": "relu", "l0": 16.0}
    relu = [
        planted_run(root / "runs", "relu", s, 222, best, summary=said, target=16.0, reached=222.0) for s in SEEDS
    ]  # fmt: skip
    return [*study(root), *relu]


def test_fault_14_a_missed_l0_is_no_baseline_and_compared_with_nothing(tmp_path):
    """At equal FVU the run of L0 222 was the baseline of the others."""
    found = answered(missing(tmp_path))
    assert found.baselines == ["batchtopk", "matryoshka"]
    judged = [j.contrast for j in (*found.exploratory, *found.standards)]
    assert "relu" not in {name for c in judged for name in (c.method, c.other)}
    assert max(level for c in judged if c.axis == "L0" for level in c.levels) < 100
    assert found.verdicts[0].tone == "yes"
    assert all("relu" not in a.opponents for t in found.verdicts[0].terms for a in t.against_all)


def test_fault_14_a_miss_is_shown_in_table_and_gaps(tmp_path):
    stored = read_scores(missing(tmp_path))
    scores = arrange(stored)
    (limitation,) = [g for g in limitations(stored, scores, []) if g.kind == "missed L0"]
    assert limitation.what.startswith("relu-l0_16: target 16, reached 22") and len(limitation.runs) == len(SEEDS)
    rows, _ = table(scores, scores.headline, stored.missing_results)
    (relu,) = [row for row in rows if row.method == "relu"]
    assert relu.missed and relu.l0.short == "missed the target 16" and not any(cell.best for cell in relu.cells)


def test_a_seed_that_missed_counts_alone(run):
    folders = [run("topk-l0_16", seed, {"l0": 16.0, "mcc": 0.6}, k=16) for seed in range(3)]
    for seed in range(3):
        l0 = 20.0 if seed == 2 else 16.0
        folders.append(run("relu-l0_16", seed, {"l0": l0, "mcc": 0.6}, target=16.0, penalties={"l1": 0.1}))
    scores = arrange(read_scores(folders))
    assert [r.seed for r in scores.missed] == [2]
    assert [len(m.runs) for m in scores.with_role("standard") if m.name == "relu"] == [2]


def test_when_every_baseline_missed_its_l0_there_is_no_answer(run):
    folders = [
        run(f"{name}-l0_16", seed, {"l0": l0, "mcc": 0.5}, target=16.0, penalties=penalties)
        for name, l0, penalties in (("relu", 30.0, {"l1": 1.0}), ("hsic", 16.0, {"hsic": 1.0}))
        for seed in range(3)
    ]
    (verdict,) = answered(folders).verdicts
    assert verdict.tone == "unknown" and "every standard SAE missed its target L0" in verdict.headline


def test_a_trained_control_and_a_ceiling_take_nothing_away(tmp_path):
    """Controls that were trained, or see the truth, may be better than every method."""
    folders = study(tmp_path)
    said = {"trivial": False, "sees_truth": False}
    for seed in SEEDS:
        folders.append(planted_run(tmp_path / "runs", "frozen", seed, 8, {"f1": 0.3}, control=True, summary=said))
    assert answered(folders).verdicts[0].tone == "yes"


def test_fault_15_a_study_in_which_pca_explains_more_than_every_sae_is_undertrained(tmp_path):
    pca = {"pca": WORST | {"fvu": -0.15}}
    for verdict in answered(study(tmp_path, controls=pca)).verdicts:
        assert verdict.tone == "unknown" and verdict.headline.startswith("No answer: undertrained")
        assert "pca, which was not trained, explains more" in verdict.headline


def logged(run, per_step: float, seed: int = 0, noise: float = 0.02, **more):
    rng = random.Random(seed)
    log = [
        {
            "step": step, "tokens": step * 10, "lr": 1e-3 * min(1.0, (1000 - step) / 200),
            "losses/reconstruction": math.exp(-per_step * min(step, 800) + noise * rng.gauss(0, 1)),
        }
        for step in range(0, 1000, 5)
    ]  # fmt: skip
    return run("topk-l0_16", seed, {"l0": 16.0, "f1": 0.5}, log=log, **more)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.02, 0.02), (0.1, 0.1), (0.5, 0.5)])
def test_the_fall_of_a_loss_by_hand(run, share, expected):
    """By `share` in 200 of 1,000 steps; what happens while the learning rate falls is left out."""
    stored = read_scores([logged(run, -math.log(1 - share) / 200)])
    assert fall(stored.runs[0]) == pytest.approx(expected, abs=0.02)


def test_fault_15_a_loss_that_still_falls_is_said_in_headline_and_setup(run):
    folders = [logged(run, 0.001, seed) for seed in range(3)]
    folders += [run("hsic-l0_16", s, {"l0": 16.0, "f1": 0.6 + 0.001 * s}, penalties={"hsic": 1.0}) for s in range(3)]
    scores = arrange(read_scores(folders))
    assert answered(folders).verdicts[0].caveat.startswith("Training had not converged")
    ((_, said),) = [pair for pair in setup(scores).training if pair[0].startswith("fall of the loss")]
    assert said.startswith("topk 1") and said.endswith("(not converged)")


def test_a_loss_at_rest_weakens_nothing(run):
    log = curve(random.Random(0), 16.0, 0.2, 0.5)
    scores = arrange(read_scores([run("topk-l0_16", 0, {"l0": 16.0}, log=log)]))
    assert caveat(falls(scores), ["topk"]) == ""


def test_the_page_shows_all_of_it(tmp_path):
    write_report(missing(tmp_path), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "missed L0" in page and "missed its L0 of 16" in page and "(missed its L0)" in page


def test_fault_15_twenty_steps_on_a_world_give_no_headline(tmp_path):
    """End to end: principal components explain more than SAEs that have hardly begun."""
    training = Training(tokens=20 * 160, batch_size=160, data_seed=0)
    wanted = ("batchtopk-l0_4", "orthogonality-l0_4", "pca-l0_4", "untrained-l0_4")
    members = {n: m for n, m in (standard(4) | disentangling(4) | controls_of(4)).items() if n in wanted}
    study = Study(source=WORLD, d_sae=64, training=training, members=members)
    folders = train(study.experiments(), tmp_path)
    (evaluator,) = [e for e in evals().values() if e.name == "fidelity"]
    assert evaluate([Run.open(folder) for folder in folders], [evaluator]) == 0
    (verdict,) = answered(folders).verdicts
    assert verdict.tone == "unknown" and "undertrained" in verdict.headline and "pca" in verdict.headline
