"""Agreement: the same found again scores one, what chance finds again scores as stated, and one seed is
no comparison."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array
from scipy.stats import rankdata
from tests.known import EXACT, making, truth, untrained
from tests.small import experiment

from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.evals import agreement as module
from unbraid.evals.agreement import DEFINITIONS, WEAK, agreement, chance_mcc, exclusiveness, live_ranks, peers, pw_mcc
from unbraid.evals.agreement import udr as udr_of_ranks
from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.runs.run import Run, save_run
from unbraid.system.sharing import sharing


def codes(rows: int, columns: int, density: float, seed: int) -> csr_array:
    return csr_array(random_array((rows, columns), density=density, rng=np.random.default_rng(seed)))


def udr(ours: csr_array, theirs: csr_array) -> float:
    return udr_of_ranks(live_ranks(ours), live_ranks(theirs))


def disjoint() -> csr_array:
    """Forty latents, one a row: no two go together."""
    rows = np.arange(2000)
    return csr_array((1.0 + rows, (rows, rows % 40)))


def saved(path: Path, dictionary: Dictionary, *, name: str = "small", seed: int = 0) -> Run:
    sample = EXACT.sample(512, seed=0).x
    base = making(replace(experiment(name), source=EXACT, seed=seed), dictionary)
    return save_run(path / base.folder, base, dictionary, Normaliser.fit(sample, "centre-scale"), sample, {})


def scored(run: Run) -> dict[str, float]:
    return {f"{score.metric}/{score.kind}": score.value for score in agreement(run, peers(run))}


def test_the_same_latents_in_another_order_and_scale_agree_fully():
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    atoms = torch.randn(24, 16, generator=torch.Generator().manual_seed(1))
    assert pw_mcc(atoms, atoms[order] * torch.linspace(0.1, 3, 24).unsqueeze(1)) == pytest.approx(1)
    ours = disjoint()
    theirs = ours[:, ::-1].power(3)  # any increasing map: ranks are the same
    assert udr(ours, theirs) == pytest.approx(1, abs=1e-5)


def test_strangers_agree_as_much_as_chance_says():
    own, other = untrained(EXACT, 96, seed=1), untrained(EXACT, 96, seed=2)
    assert pw_mcc(own.W_dec, other.W_dec) == pytest.approx(chance_mcc(96, 96, EXACT.d_in), abs=0.02)
    assert udr(codes(4000, 20, 0.1, 0), codes(4000, 20, 0.1, 1)) < 0.02


def test_udr_by_hand():
    # Rows give 1 and 1/2 * .25 / .5; a row of nothing gives 0.
    assert exclusiveness(torch.tensor([[0, 1.0], [0.25, 0.25], [0, 0]])) == pytest.approx((1 + 0.0625 / 0.5) / 3)


def test_udr_is_of_spearmans_correlations_without_the_weak_ones():
    ours, theirs = codes(400, 6, 0.3, 0), codes(400, 5, 0.3, 1)
    mixed = csr_array(theirs + 0.5 * ours[:, :5])
    strength = np.abs(np.corrcoef(rankdata(np.hstack([ours.toarray(), mixed.toarray()]), axis=0).T)[:6, 6:])
    strength[strength < WEAK] = 0
    sums = [np.maximum(strength.sum(axis), WEAK) for axis in (0, 1)]
    expected = [(strength.max(axis) ** 2 / total).mean() for axis, total in zip((0, 1), sums, strict=True)]
    assert udr(ours, mixed) == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_a_latent_found_twice_is_found_less_exclusively():
    ours = disjoint()
    twice = csr_array(np.tile(ours.toarray(), 2))
    assert udr(ours, twice) == pytest.approx((1 + 0.5) / 2, abs=1e-5)


def test_dead_latents_do_not_count_and_without_live_ones_there_is_no_score():
    ours = codes(2000, 10, 0.05, 0)
    padded = csr_array(np.column_stack([ours.toarray(), np.zeros((2000, 7))]))
    assert udr(ours, padded) == udr(ours, ours)
    assert math.isnan(udr(ours, csr_array((2000, 7))))


def test_runs_are_compared_with_the_same_experiment_at_other_seeds(tmp_path: Path):
    first = saved(tmp_path, truth(EXACT, activation=TopK(3)), seed=0)
    order = torch.randperm(EXACT.factors, generator=torch.Generator().manual_seed(0))
    second = saved(tmp_path, truth(EXACT, order=order, activation=TopK(3)), seed=1)
    saved(tmp_path, untrained(EXACT, 24), name="other", seed=2)
    assert [run.path for run in peers(first)] == [second.path]
    found = scored(first)
    assert found["pw_mcc/measured"] == pytest.approx(1, abs=1e-5) and found["pw_mcc/chance"] < 0.5
    assert found["udr/measured"] == pytest.approx(found["udr/ceiling"], abs=1e-3)
    assert found["udr/chance"] < 0.05 < 0.5 < found["udr/ceiling"] < 1  # children go with their parents
    assert {score.metric for score in agreement(first, peers(first))} == DEFINITIONS.keys()


def test_unrelated_seeds_are_near_chance(tmp_path: Path):
    runs = [saved(tmp_path, untrained(EXACT, 64, seed), seed=seed) for seed in range(3)]
    found = scored(runs[0])
    assert found["pw_mcc/measured"] == pytest.approx(found["pw_mcc/chance"], abs=0.03)
    assert found["udr/measured"] < 0.3


def test_one_seed_is_no_comparison(tmp_path: Path):
    with pytest.raises(NotApplicable, match="seed"):
        agreement(saved(tmp_path, untrained(EXACT, 24)), [])


def test_two_runs_that_are_scored_together_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = [saved(tmp_path, untrained(EXACT, 24, seed), seed=seed) for seed in range(2)]
    alone = [scored(run) for run in runs]
    calls: list[int] = []
    real = module.pw_mcc
    monkeypatch.setattr(module, "pw_mcc", lambda *atoms: (calls.append(1), real(*atoms))[1])
    chance_mcc.cache_clear()
    with sharing():
        assert [scored(run) for run in runs] == alone and len(calls) == 2, "the pair, and chance"


def test_a_run_gives_one_dictionary_by_whatever_path_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = saved(tmp_path, untrained(EXACT, 24))
    monkeypatch.chdir(tmp_path)
    with sharing():
        assert run.dictionary() is Run.open(Path(run.path.name)).dictionary()
