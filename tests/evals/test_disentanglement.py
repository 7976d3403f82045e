"""Disentanglement: untrained is at chance, the truth at the ceiling, and permuting, duplicating and killing latents do
what theory says."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from tests.known import EXACT, Undirected, making, truth, untrained
from tests.small import experiment

from unbraid.dictionary.normaliser import Normaliser
from unbraid.evals.disentanglement import DEFINITIONS, disentanglement, disentanglement_scores, measure
from unbraid.evals.shared.evaluation import Score
from unbraid.metrics.latents_and_factors import LatentsAndFactors, magnitudes
from unbraid.runs.run import Run, save_run
from unbraid.sources.world.world import World

ROWS = 4096
CROSSED = World(factors=24, d_in=32, l0=3.0, roots=1, depth=0, correlation=0.0, noise=0.0, interactions=2)
"""Independent factors, each readable exactly."""
TOP = ["dci_disentanglement", "dci_completeness", "mig", "modularity", "infom", "infoc"]


def values(scores: list[Score], kind: str) -> dict[str, float]:
    return {score.metric: score.value for score in scores if score.kind == kind}


def independent(rows: int = ROWS, count: int = 12, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((rows, count)) < np.linspace(0.05, 0.3, count)).astype(float)


def measured(latents: np.ndarray, factors: np.ndarray, *, crossed: bool = False) -> dict[str, float]:
    return measure(LatentsAndFactors(csr_array(latents), csr_array(factors)), crossed=crossed)


@pytest.fixture(scope="module")
def of_untrained() -> list[Score]:
    # One seed for world, dictionary and eval: only named streams keep them apart.
    return disentanglement_scores(untrained(EXACT, 96), EXACT, rows=ROWS)


@pytest.fixture(scope="module")
def of_truth() -> list[Score]:
    return disentanglement_scores(truth(CROSSED), CROSSED, rows=ROWS)


@pytest.fixture(scope="module")
def of_forest() -> list[Score]:
    return disentanglement_scores(truth(EXACT), EXACT, rows=ROWS)


def test_an_untrained_dictionary_is_at_the_stated_chance(of_untrained: list[Score]):
    found, chance = values(of_untrained, "measured"), values(of_untrained, "chance")
    assert found.keys() == chance.keys() == DEFINITIONS.keys() - {"irs"}
    for metric in found.keys() - {"dci_latents_per_factor", "dci_factors_per_latent"}:
        assert found[metric] == pytest.approx(chance[metric], abs=0.08), metric
    for metric in ("dci_latents_per_factor", "dci_factors_per_latent"):
        assert found[metric] == pytest.approx(chance[metric], rel=0.2), metric
    assert found != chance


def test_chance_is_far_below_the_ceiling(of_untrained: list[Score]):
    chance, ceiling = values(of_untrained, "chance"), values(of_untrained, "ceiling")
    for metric in ("dci_disentanglement", "dci_completeness", "mig", "sap", "infom", "infoc", "infoe"):
        assert chance[metric] < ceiling[metric] - 0.2, metric
    assert chance["dci_latents_per_factor"] > 5 * ceiling["dci_latents_per_factor"]


def test_the_truth_of_independent_factors_scores_one(of_truth: list[Score]):
    found = values(of_truth, "measured")
    assert found.keys() == DEFINITIONS.keys()
    assert [found[metric] for metric in TOP] == pytest.approx([1] * 6, abs=0.04)
    assert found["sap"] > 0.9  # of magnitudes with presence: not quite 1
    assert [found[metric] for metric in ("modularity", "infom", "infoc", "telling", "told")] == [1] * 5
    assert [found["explicitness"], found["dci_informativeness"]] == pytest.approx([1, 1], abs=1e-3)
    assert found["infoe"] > 0.95
    assert found["dci_latents_per_factor"] < 1.15 and found["dci_factors_per_latent"] < 1.15


def test_the_truth_is_at_the_ceiling_with_a_forest_and_without(of_truth: list[Score], of_forest: list[Score]):
    for scores in (of_truth, of_forest):
        assert values(scores, "measured") == pytest.approx(values(scores, "ceiling"), abs=0.01)


def test_in_a_forest_the_ceiling_is_below_one_since_a_child_tells_of_its_parent(of_untrained: list[Score]):
    ceiling = values(of_untrained, "ceiling")
    assert 0.5 < ceiling["infom"] < 0.9 and 0.5 < ceiling["mig"] < 0.9
    assert ceiling["dci_disentanglement"] > 0.9  # a readout needs no child beside the parent's own latent


def test_bits_prefer_an_absorbed_code_and_readouts_the_true_one():
    """A parent's latent that falls silent where a child's speaks tells less of the child."""
    true = magnitudes(EXACT.labelled(ROWS, split="eval")).toarray()
    absorbed = true.copy()
    for child, parent in enumerate(EXACT.parents.tolist()):
        if parent >= 0:
            absorbed[true[:, child] > 0, parent] = 0
    found, ceiling = measured(absorbed, true), measured(true, true)
    for metric in ("mig", "sap", "infom", "infoc"):
        assert found[metric] > ceiling[metric] + 0.05, metric
    for metric in ("dci_disentanglement", "dci_completeness"):
        assert found[metric] < ceiling[metric] - 0.01, metric
    assert found["dci_latents_per_factor"] > ceiling["dci_latents_per_factor"] + 0.1


def test_robustness_is_scored_for_independent_factors_alone(of_untrained: list[Score], of_truth: list[Score]):
    assert not [score for score in of_untrained if score.metric == "irs"]
    assert len([score for score in of_truth if score.metric == "irs"]) == 3
    assert values(of_truth, "ceiling")["irs"] > values(of_truth, "chance")["irs"] + 0.1


def test_a_permuted_one_to_one_code_scores_one():
    factors = independent()
    order = np.random.default_rng(1).permutation(factors.shape[1])
    found = measured(factors[:, order] * np.linspace(0.5, 4, len(order)), factors)
    assert [found[metric] for metric in ("infom", "infoc", "modularity")] == [1, 1, 1]
    assert [found[metric] for metric in ("mig", "sap")] == pytest.approx([1, 1], abs=0.01)
    assert found["dci_latents_per_factor"] == pytest.approx(1, abs=0.02)


def test_a_duplicated_latent_lowers_infoc_alone_and_takes_the_gap():
    factors = independent()
    once, twice = measured(factors, factors), measured(np.column_stack([factors, factors]), factors)
    assert twice["infom"] == once["infom"] == 1
    assert twice["infoc"] == pytest.approx((1 / 2 - 1 / 24) / (1 - 1 / 24)) and once["infoc"] == 1
    assert twice["mig"] == twice["sap"] == 0
    assert twice["dci_latents_per_factor"] == pytest.approx(2, abs=0.15)
    assert twice["dci_disentanglement"] == pytest.approx(once["dci_disentanglement"], abs=0.02)
    assert twice["explicitness"] == once["explicitness"] == 1


def test_a_latent_for_two_factors_lowers_infom_and_not_infoc():
    factors = independent(count=8)
    merged = np.maximum(factors[:, ::2], factors[:, 1::2])
    found = measured(merged, factors)
    assert found["infoc"] == 1 and found["infom"] < 0.9
    assert 1.9 < found["dci_factors_per_latent"] < 3


def test_dead_latents_and_constant_factors_change_nothing():
    factors = independent()
    latents = factors + 0.0
    padded = np.column_stack([latents, np.zeros((ROWS, 30))])
    constant = np.column_stack([factors, np.zeros(ROWS), np.ones(ROWS)])
    found, plain = measured(padded, constant), measured(latents, factors)
    share = latents.shape[1] / padded.shape[1]  # disentanglement_lib's modularity counts the dead, as 0
    assert found.pop("modularity_of_all") == pytest.approx(share * plain.pop("modularity_of_all"))
    assert found == pytest.approx(plain, nan_ok=True)


def test_latents_that_tell_of_nothing_are_counted_but_not_averaged_in():
    factors = independent()
    noise = independent(seed=5)
    found = measured(np.column_stack([factors, noise]), factors)
    assert found["telling"] == 0.5 and found["told"] == found["infom"] == 1


def test_a_code_of_zeros_gets_no_credit_and_no_crash():
    found = measured(np.zeros((ROWS, 20)), independent(), crossed=True)
    undefined = {metric for metric, value in found.items() if math.isnan(value)}
    assert undefined == DEFINITIONS.keys() - {
        "mig", "sap", "explicitness", "infoe", "dci_informativeness", "told", "modularity_of_all"
    }  # fmt: skip
    assert [found[m] for m in ("mig", "sap", "dci_informativeness", "told")] == [0] * 4
    assert found["explicitness"] == 0.5 and found["infoe"] == pytest.approx(0)


def test_without_a_factor_that_varies_every_score_is_undefined_but_telling():
    found = measured(independent(), np.ones((ROWS, 3)), crossed=True)
    assert found.pop("telling") == 0
    assert all(math.isnan(value) for value in found.values())


def test_factors_that_are_no_directions_are_scored_by_presence_all_the_same(of_forest: list[Score]):
    found = disentanglement_scores(truth(EXACT), Undirected(EXACT), rows=ROWS)
    assert values(found, "measured") == values(of_forest, "measured")


def test_a_saved_run_scores_as_its_dictionary_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sample = EXACT.sample(512, seed=0).x
    dictionary = untrained(EXACT, 16)
    base = making(replace(experiment(), source=EXACT), dictionary)
    save_run(tmp_path, base, dictionary, Normaliser.fit(sample, "centre-scale"), sample, {})
    run = Run.open(tmp_path)
    monkeypatch.setattr("unbraid.evals.disentanglement.ROWS", 1024)
    assert disentanglement(run) == disentanglement_scores(run.dictionary(), EXACT, rows=1024)
