"""Splitting: 1 for the truth, n for n parts or copies, and no change with width alone."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from tests.known import CURVED, EXACT, Undirected, covering, making, truth, untrained
from tests.small import WORLD, experiment

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.evals.shared.observe import observe
from unbraid.evals.splitting import DEFINITIONS, effective_counts, mean_found, peers, represented, slope, splitting
from unbraid.experiment.experiment import Experiment
from unbraid.metrics.detection import represented_factor
from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.runs.run import Run, save_run
from unbraid.sources.truth import Truth

ROWS = 4000


def seen(latents: list[np.ndarray], factors: list[np.ndarray]) -> LatentsAndFactors:
    return LatentsAndFactors(csr_array(np.array(latents).T.astype(float)), csr_array(np.array(factors).T.astype(float)))


def rows(start: int, stop: int) -> np.ndarray:
    return (np.arange(ROWS) >= start) & (np.arange(ROWS) < stop)


def scored(dictionary: Dictionary, truth: Truth = EXACT) -> tuple[float, float]:
    observed = observe(dictionary, truth)
    counts = effective_counts(observed)
    return mean_found(counts), represented(counts, observed)


def test_the_truth_has_one_latent_a_factor():
    assert scored(truth(EXACT)) == scored(truth(EXACT), Undirected(EXACT)) == (1, 1)


def test_a_manifolds_latents_are_counted_apart(tmp_path: Path):
    made = covering(CURVED)
    sample = CURVED.sample(512, seed=0).x
    base = making(replace(experiment(), source=CURVED), made)
    run = save_run(tmp_path, base, made, Normaliser.fit(sample, "none"), sample, {})
    found = {s.metric: s.value for s in splitting(run, []) if s.kind == "measured"}
    assert found["latents_per_factor"] == found["represented"] == 1
    assert found["latents_per_manifold"] == pytest.approx(5, abs=0.1)


def test_permuted_it_is_the_same_and_doubled_it_is_two():
    assert scored(truth(EXACT, order=torch.arange(23, -1, -1))) == (1, 1)
    assert scored(truth(EXACT, order=torch.arange(24).repeat(2))) == pytest.approx((2, 1))


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_n_equal_parts_of_a_factor_count_n(n: int):
    """Also beside a child of the factor, active in a tenth of its rows."""
    parts = [rows(k * 1000 // n, (k + 1) * 1000 // n) for k in range(n)]
    child = rows(0, 1000) & (np.arange(ROWS) % 10 == 3)
    counts = effective_counts(seen([*parts, child], [rows(0, 1000), child]))
    assert counts == pytest.approx([n, 1])


def test_unequal_parts_count_as_the_exponential_of_their_entropy():
    counts = effective_counts(seen([rows(0, 750), rows(750, 1000)], [rows(0, 1000)]))
    assert counts == pytest.approx([math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))])


def test_width_alone_changes_nothing():
    """Latents that are dead, fire at random, or always fire."""
    rng = np.random.default_rng(0)
    noise = [rng.random(ROWS) < 0.1 for _ in range(50)]
    others = [np.zeros(ROWS, dtype=bool), np.ones(ROWS, dtype=bool), *noise]
    factors = [rows(0, 1000), rows(3000, 3500)]
    assert effective_counts(seen([*factors, *others], factors)) == pytest.approx([1, 1])


def test_factors_without_a_latent_are_not_counted_and_not_represented():
    factors = [rows(0, 1000), rows(3000, 3500)]
    observed = seen(factors[:1], factors)
    counts = effective_counts(observed)
    assert (mean_found(counts), represented(counts, observed)) == (1, 0.5)


def test_without_any_latent_or_factor_scores_are_nan():
    nothing = np.zeros(ROWS, dtype=bool)
    silent, empty = seen([nothing], [rows(0, 1000)]), seen([rows(0, 10)], [nothing])
    assert math.isnan(mean_found(effective_counts(silent))) and represented(effective_counts(silent), silent) == 0
    assert math.isnan(represented(effective_counts(empty), empty))


def test_a_child_latent_stands_for_the_child_and_a_constant_factor_for_none():
    parent, child = rows(0, 1000), rows(0, 300)
    observed = seen([parent, child, np.ones(ROWS, dtype=bool)], [parent, child, np.ones(ROWS, dtype=bool)])
    assert represented_factor(observed).tolist() == [0, 1, -1]


def test_the_slope_is_what_a_doubling_adds():
    counts = {64: np.array([1.0, 1, 0]), 128: np.array([1.5, 2.5, 1]), 256: np.array([3.0, 3, 1])}
    assert slope(counts) == pytest.approx(1.0), "over the two factors found at every width"
    assert math.isnan(slope({64: np.array([0.0]), 128: np.array([1.0])}))


def saved(root: Path, name: str, d_sae: int, dictionary: Dictionary | None = None, **changes) -> Run:
    base = experiment(name)
    sample = WORLD.sample(512, seed=0).x
    made = dictionary or untrained(WORLD, d_sae)
    made_by: Experiment = making(replace(base, **changes), made)
    return save_run(root / made_by.folder, made_by, made, Normaliser.fit(sample, "none"), sample, {})


def test_the_slope_is_scored_where_runs_differ_in_width_alone(tmp_path: Path):
    once, twice = truth(WORLD), truth(WORLD, order=torch.arange(48).repeat(2))
    for made in (once, twice):
        made.threshold.fill_(0.6)  # three factors a dimension: lower readings are mostly others'
    narrow, wide = saved(tmp_path, "w48", 48, once), saved(tmp_path, "w96", 96, twice)
    other_seed = saved(tmp_path, "other", 96, seed=1)
    assert [run.path for run in peers(narrow)] == [wide.path] and peers(other_seed) == []
    narrowly, widely = ({s.metric: s.value for s in splitting(run, peers(run))} for run in (narrow, wide))
    assert widely["latents_per_factor"] == pytest.approx(2 * narrowly["latents_per_factor"])
    assert narrowly["latents_per_factor_slope"] == pytest.approx(narrowly["latents_per_factor"])
    assert widely["latents_per_factor_slope"] == pytest.approx(narrowly["latents_per_factor_slope"])
    alone = splitting(other_seed, peers(other_seed))
    assert {s.metric for s in alone} == set(DEFINITIONS) - {"latents_per_factor_slope", "latents_per_manifold"}
    measured, chance = (s.value for s in alone if s.metric == "represented")
    assert measured == pytest.approx(chance, abs=0.15), "it was never trained"
