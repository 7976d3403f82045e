"""Hedging: seen where old atoms give a part of themselves to new ones, and zero where they move at random."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.small import experiment
from torch import Tensor

from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.evals.hedging import DEFINITIONS, expected_projection, hedging, peers, rate
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.formats.widen import Extension
from unbraid.runs.run import Run
from unbraid.training.loop import train


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_a_random_subspace_holds_is_exact():
    """|cos| of an angle averages 2 / pi in the plane, 1/2 in three dimensions; and by drawing."""
    assert expected_projection(1, 2) == pytest.approx(2 / math.pi)
    assert expected_projection(1, 3) == pytest.approx(0.5)
    vectors = normal(20_000, 16, seed=0)
    drawn = (torch.linalg.vector_norm(vectors[:, :5], dim=1) / torch.linalg.vector_norm(vectors, dim=1)).mean()
    assert expected_projection(5, 16) == pytest.approx(float(drawn), abs=3e-3)


def test_change_along_the_new_atoms_is_counted_by_hand():
    """Four old atoms lose 0.5 e_0 each, and e_0 is new: p = 0.5, b = 0.5 E|cos|."""
    change = torch.zeros(4, 16).index_fill(1, torch.tensor([0]), -0.5)
    chance = 0.5 * expected_projection(1, 16)
    assert rate(change, torch.eye(16)[:1]) == pytest.approx((0.5 - chance) / (1 - chance))
    assert rate(change, torch.eye(16)[[0, 0]]) == pytest.approx(rate(change, torch.eye(16)[:1])), "twice is once"


def test_change_at_random_is_at_chance_zero():
    rates = torch.tensor([rate(0.05 * normal(64, 32, seed=i), normal(4, 32, seed=100 + i)) for i in range(50)])
    assert float(rates.mean()) == pytest.approx(0, abs=3 * float(rates.std()) / 50**0.5)
    assert float(rates.abs().max()) < 0.1


def test_no_change_is_no_hedging_and_a_full_span_says_nothing():
    assert rate(torch.zeros(4, 16), normal(2, 16, seed=0)) == 0
    assert math.isnan(rate(normal(4, 16, seed=0), normal(16, 16, seed=1)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Run]:
    """A narrow run, the same trained on without and with new latents."""
    root = tmp_path_factory.mktemp("runs")
    (start,) = train([sized("start", 8)], root)
    init = Extension(str(start))
    folders = train([sized("control", 8, init=init), sized("wider", 12, init=init)], root)
    return {"start": Run.open(start), "control": Run.open(folders[0]), "wider": Run.open(folders[1])}


def sized(name: str, d_sae: int, **how):
    base = experiment(name, tokens=32_000)
    return replace(base, dictionary=DictionaryConfig(d_sae=d_sae, activation=TopK(3), **how))


def by_reference(scores: list[Score]) -> dict[str, float]:
    assert {score.metric for score in scores} == set(DEFINITIONS)
    return {str(score.params["against"]): score.value for score in scores}


@pytest.mark.slow
def test_a_dictionary_with_latents_for_a_sixth_of_the_factors_hedges(runs: dict[str, Run]):
    found = by_reference(hedging(runs["wider"], peers(runs["wider"])))
    assert found.keys() == {"start", "control"}
    assert all(0 < value < 1 for value in found.values())


def test_the_control_is_the_run_that_only_trained_on(runs: dict[str, Run]):
    assert [run.path for run in peers(runs["wider"])] == [runs["control"].path]
    assert peers(runs["start"]) == []


def test_without_a_control_beside_it_is_compared_with_the_start_alone(runs: dict[str, Run], tmp_path: Path):
    (alone,) = train([runs["wider"].experiment], tmp_path)
    assert by_reference(hedging(Run.open(alone), peers(Run.open(alone)))).keys() == {"start"}


def test_runs_that_widen_nothing_are_not_scored(runs: dict[str, Run]):
    with pytest.raises(NotApplicable, match="Extension"):
        hedging(runs["start"], [])
    with pytest.raises(NotApplicable, match="control"):
        hedging(runs["control"], [])
