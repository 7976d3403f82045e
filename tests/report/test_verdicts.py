"""What has no verdict: a missed L0, a score on which untrained controls do as well, an undertrained study."""

import math
import random

import pytest
from tests.report.conftest import curve
from tests.report.test_answer import SEEDS, answered, of, two_methods
from tests.small import WORLD
from unbraid.comparison.compare import arrange

from unbraid.catalog import evals
from unbraid.comparison.convergence import caveat, fall, falls
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

UNTRAINED = {"tokens": 0}


def controls(run, name: str, mcc: float, fvu: float, at=(16.0, 32.0, 64.0)):
    """A control that was not trained, by seeds and L0."""
    noise = lambda l0, seed: 0.002 * random.Random(f"{name}{l0}{seed}").gauss(0, 1)
    return [
        run(
            f"{name}-l0_{l0:g}", seed,
            {"l0": l0, "mcc": mcc + noise(l0, seed), "fvu": fvu / l0 * (1 + noise(l0, seed))},
            control=True, training=UNTRAINED,
        )
        for l0 in at
        for seed in SEEDS
    ]  # fmt: skip


def missing(run, *, scored: bool = True):
    """hsic wins over topk; relu, with a target of 16, has 222, and is the best at everything."""
    folders = two_methods(run, 0.2)
    for seed in SEEDS:
        scores = {"l0": 222.0, "mcc": 0.99, "fvu": 1 / 32} if scored else {"mcc": 0.99, "fvu": 1 / 32}
        folders.append(run("relu-l0_16", seed, scores, target=16.0, reached=222.0, penalties={"l1": 0.1}))
    return folders


def test_fault_14_a_missed_l0_is_no_baseline_and_no_point_of_comparison(run):
    """At equal FVU the run of L0 222 was the baseline of the others."""
    found = answered(missing(run))
    assert found.baselines == ["topk"] and {c.baseline for c in found.all} <= {"topk", "none"}
    assert max(c.point.at for c in found.all if c.point.axis == "L0") < 100
    assert found.verdicts[0].tone == "yes"


@pytest.mark.parametrize("scored", [True, False])
def test_fault_14_a_miss_is_shown_in_table_and_gaps(run, scored):
    stored = read_scores(missing(run, scored=scored))
    scores = arrange(stored)
    (limitation,) = [g for g in limitations(stored, scores, []) if g.kind == "missed L0"]
    assert limitation.what == "relu-l0_16: target 16, reached 222, 222 and 222" and len(limitation.runs) == 3
    rows, _ = table(scores, scores.headline, stored.missing_results)
    (relu,) = [row for row in rows if row.method == "relu"]
    assert relu.missed and relu.l0.short == "missed the target 16" and not any(cell.best for cell in relu.cells)


def test_a_seed_that_missed_counts_alone(run):
    folders = [*two_methods(run, 0.0)]
    for seed in SEEDS:
        l0 = 20.0 if seed == 2 else 16.0
        folders.append(run("relu-l0_16", seed, {"l0": l0, "mcc": 0.6}, target=16.0, penalties={"l1": 0.1}))
    scores = arrange(read_scores(folders))
    assert [r.seed for r in scores.missed] == [2]
    assert [len(m.runs) for m in scores.with_role("standard") if m.name == "relu"] == [2]


def test_when_every_baseline_missed_its_l0_there_is_no_answer(run):
    folders = [
        run(f"{name}-l0_16", seed, {"l0": l0, "mcc": 0.5}, target=16.0, penalties=penalties)
        for name, l0, penalties in (("relu", 30.0, {"l1": 1.0}), ("hsic", 16.0, {"hsic": 1.0}))
        for seed in SEEDS
    ]
    (verdict,) = answered(folders).verdicts
    assert verdict.tone == "unknown" and "every standard SAE missed its target L0" in verdict.headline


def test_fault_15_a_score_that_fails_its_controls_has_no_verdict(run):
    """The card said "says little"; the headline stayed as it was."""
    folders = [*two_methods(run, 0.2), *controls(run, "untrained", 0.95, 2.0)]
    found = answered(folders)
    assert {c.outcome for c in found.all if c.metric.metric == "mcc" and c.point.axis == "L0"} == {"no verdict"}
    assert found.verdicts[0].tone != "yes" and "hsic is better" not in found.verdicts[0].headline
    assert of(found, "mcc").sentence.startswith("No verdict at L0 32.0: the best standard SAE, topk")
    assert "untrained" in of(found, "mcc").sentence


def test_controls_that_are_worse_take_nothing_away(run):
    found = answered([*two_methods(run, 0.2), *controls(run, "untrained", 0.3, 2.0)])
    assert found.verdicts[0].tone == "yes" and not {c.outcome for c in found.all} & {"no verdict"}


def test_a_trained_control_and_a_ceiling_take_nothing_away(run):
    ceiling = [run("frozen-decoder-l0_32", s, {"l0": 32.0, "mcc": 0.99}, control=True) for s in SEEDS]
    assert answered([*two_methods(run, 0.2), *ceiling]).verdicts[0].tone == "yes"


def test_fault_15_a_study_in_which_pca_explains_more_than_every_sae_is_undertrained(run):
    folders = [*two_methods(run, -0.2), *controls(run, "pca", 0.1, 0.5)]
    for verdict in answered(folders).verdicts:
        assert verdict.tone == "unknown" and verdict.headline.startswith("No answer: undertrained")
        assert "pca has FVU" in verdict.headline


def test_pca_that_wins_at_one_l0_only_does_not_make_a_study_undertrained(run):
    folders = [*two_methods(run, -0.2), *controls(run, "pca", 0.1, 0.5, at=(64.0,))]
    folders += controls(run, "pca", 0.1, 2.0, at=(16.0,))
    assert answered(folders).verdicts[0].tone == "no"


def logged(run, per_step: float, seed: int = 0, noise: float = 0.02, **more):
    rng = random.Random(seed)
    log = [
        {
            "step": step, "tokens": step * 10, "lr": 1e-3 * min(1.0, (1000 - step) / 200),
            "losses/reconstruction": math.exp(-per_step * min(step, 800) + noise * rng.gauss(0, 1)),
        }
        for step in range(0, 1000, 5)
    ]  # fmt: skip
    return run("topk-l0_16", seed, {"l0": 16.0, "mcc": 0.5}, log=log, **more)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.02, 0.02), (0.1, 0.1), (0.5, 0.5)])
def test_the_fall_of_a_loss_by_hand(run, share, expected):
    """By `share` in 200 of 1,000 steps; what happens while the learning rate falls is left out."""
    stored = read_scores([logged(run, -math.log(1 - share) / 200)])
    assert fall(stored.runs[0]) == pytest.approx(expected, abs=0.02)


def test_fault_15_a_loss_that_still_falls_is_said_in_headline_and_setup(run):
    folders = [logged(run, 0.001, seed) for seed in SEEDS]
    folders += [run("hsic-l0_16", s, {"l0": 16.0, "mcc": 0.6 + 0.001 * s}, penalties={"hsic": 1.0}) for s in SEEDS]
    scores = arrange(read_scores(folders))
    assert answered(folders).verdicts[0].caveat.startswith("Training had not converged")
    ((_, said),) = [pair for pair in setup(scores).training if pair[0].startswith("fall of the loss")]
    assert said.startswith("topk 1") and said.endswith("(not converged)")


def test_a_loss_at_rest_weakens_nothing(run):
    log = curve(random.Random(0), 16.0, 0.2, 0.5)
    scores = arrange(read_scores([run("topk-l0_16", 0, {"l0": 16.0}, log=log)]))
    assert caveat(falls(scores), ["topk"]) == ""


def test_the_page_shows_all_of_it(run, tmp_path):
    folders = [*missing(run), *controls(run, "untrained", 0.95, 2.0)]
    write_report(folders, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "missed L0" in page and "missed the target 16" in page and "no verdict" in page


def test_fault_15_twenty_steps_on_a_world_give_no_headline(tmp_path):
    """End to end: principal components explain more than SAEs that have hardly begun."""
    training = Training(tokens=20 * 160, batch_size=160, data_seed=0)
    wanted = ("topk-l0_4", "orthogonality-l0_4", "pca-l0_4", "untrained-l0_4")
    members = {n: m for n, m in (standard(4) | disentangling(4) | controls_of(4)).items() if n in wanted}
    study = Study(source=WORLD, d_sae=64, training=training, members=members)
    folders = train(study.experiments(), tmp_path)
    (evaluator,) = [e for e in evals().values() if e.name == "fidelity"]
    assert evaluate([Run.open(folder) for folder in folders], [evaluator]) == 0
    (verdict,) = answered(folders).verdicts
    assert verdict.tone == "unknown" and "undertrained" in verdict.headline and "pca" in verdict.headline
