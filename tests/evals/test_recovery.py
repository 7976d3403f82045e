"""Recovery: an untrained dictionary is at chance, the truth at the top, and both survive what should not matter."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tests.small import WORLD, experiment
from torch import Tensor

from unbraid.activation import Activation, JumpReLU, ReLU, TopK
from unbraid.dictionary import Dictionary, DictionaryConfig
from unbraid.evals.recovery import DEFINITIONS, Detection, detection, match, recovery, recovery_scores
from unbraid.evaluation import NotApplicable, Score
from unbraid.normaliser import Normaliser
from unbraid.run import Run, save_run
from unbraid.source import Block, Contexts, Source, Split, no_downstream
from unbraid.sources.world import World

EXACT = World(factors=24, d_in=32, l0=2.0, roots=4, branching=2, depth=1, noise=0.0, interactions=2)
"""Fewer factors than dimensions: each can be read exactly, by the dual basis."""


def truth(world: World, *, order: Tensor | None = None, activation: Activation | None = None) -> Dictionary:
    """The true directions, read by their dual basis, a hair above zero so that rounding does not fire."""
    rows = torch.arange(world.factors) if order is None else order
    made = Dictionary(world.d_in, len(rows), activation or JumpReLU(bandwidth=0.0))
    with torch.no_grad():
        made.W_dec.copy_(world.directions[rows])
        made.W_enc.copy_(torch.linalg.pinv(world.directions.double())[:, rows])
        made.b_dec.copy_(world.offset)
        made.threshold.fill_(1e-3)
    return made


def values(scores: list[Score]) -> dict[str, float]:
    """By metric; the two kinds of mcc apart."""
    return {s.metric + ("_chance" if s.params.get("kind") == "chance" else ""): s.value for s in scores}


def scored(dictionary: Dictionary, world: World = EXACT) -> dict[str, float]:
    return values(recovery_scores(dictionary, world))


def untrained(world: World, d_sae: int, seed: int = 0) -> Dictionary:
    return DictionaryConfig(d_sae=d_sae, activation=TopK(4)).build(world.sample(256, seed=0).x, seed=seed)


@pytest.mark.parametrize("d_sae", [64, 128, 256])
def test_an_untrained_dictionary_is_at_the_stated_chance(d_sae: int):
    # One seed for world, dictionary and eval: only named streams keep them apart.
    world = World(factors=128, d_in=32, seed=0)
    found = scored(untrained(world, d_sae), world)
    assert found["mcc"] == pytest.approx(found["mcc_chance"], abs=0.02)
    assert found["mcc"] != found["mcc_chance"]
    assert found["mcc_chance"] < 0.75 and found["recovered"] < 0.05 and found["f1"] < 0.4


def test_the_truth_scores_one():
    found = scored(truth(EXACT))
    assert found["mcc_chance"] < 0.6
    del found["mcc_chance"]
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=1e-3)


def test_the_truth_in_superposition_is_found_if_not_read():
    found = scored(truth(WORLD), WORLD)
    assert [found[m] for m in ("mcc", "uniqueness", "recovered")] == pytest.approx([1, 1, 1], abs=1e-5)
    assert found["f1"] < 0.9  # three times as many factors as dimensions: no linear readout is exact


def test_the_order_of_latents_does_not_matter():
    order = torch.randperm(EXACT.factors, generator=torch.Generator().manual_seed(0))
    assert scored(truth(EXACT, order=order)) == pytest.approx(scored(truth(EXACT)))


def test_a_second_copy_of_every_latent_changes_nothing():
    doubled = truth(EXACT, order=torch.arange(EXACT.factors).repeat(2))
    found, once = scored(doubled), scored(truth(EXACT))
    assert {m: found[m] for m in DEFINITIONS} == pytest.approx({m: once[m] for m in DEFINITIONS})


def test_duplicates_in_place_of_the_rest_halve_what_is_recovered():
    half = EXACT.factors // 2
    found = scored(truth(EXACT, order=torch.arange(half).repeat(2)))
    assert found["recovered"] == found["uniqueness"] == 0.5
    assert 0.5 < found["mcc"] < 0.8
    assert 0.5 <= found["recall"] < 0.8


def test_variants_of_one_factor_count_once():
    variants = truth(EXACT, order=torch.zeros(8, dtype=torch.long))
    variants.W_dec.data.add_(torch.randn(8, EXACT.d_in, generator=torch.Generator().manual_seed(0)), alpha=0.03)
    variants.renormalise()
    found = scored(variants)
    assert found["uniqueness"] == 1 / 8 and found["recovered"] == 1 / EXACT.factors


def test_too_few_latents_can_be_right_but_not_detect_everything():
    found = scored(truth(EXACT, order=torch.arange(6)))
    assert [found["mcc"], found["uniqueness"]] == pytest.approx([1, 1], abs=1e-5)
    assert found["recovered"] == 0.25
    assert found["recall"] == pytest.approx(0.25) and found["f1"] == pytest.approx(0.25)


def test_the_matching_is_the_best_one_not_the_greedy_one():
    cosines = torch.tensor([[0.9, 0.8], [0.85, 0.1], [0.2, 0.3]])
    assert match(cosines).tolist() == [1, 0, -1]


def test_detection_counts_by_hand():
    found = Detection(*(torch.tensor(column, dtype=torch.float64) for column in ([4, 2, 0], [8, 0, 5], [2, 0, 0])))
    assert found.precision.tolist() == [0.25, 0, 0]
    assert found.recall.tolist() == [0.5, 0, 0]
    assert found.f1.tolist() == pytest.approx([1 / 3, 0, 0])


def test_a_latent_that_always_fires_has_full_recall_and_the_factors_own_rate_as_precision():
    always = truth(EXACT, activation=ReLU())
    always.b_enc.data.fill_(100.0)
    found = detection(always, torch.arange(EXACT.factors), EXACT)
    assert (found.recall == 1).all()
    p = EXACT.probabilities
    assert ((found.precision - p).abs() < 5 * (p * (1 - p) / 32_768).sqrt()).all()


def test_signed_codes_fire_where_they_are_not_zero():
    """Reading minus each factor gives the truth with a minus sign: atoms and codes negative, the same firings."""
    flipped = truth(EXACT, activation=Signed())
    flipped.W_dec.data.neg_()
    flipped.W_enc.data.neg_()
    found = scored(flipped)
    assert [found["mcc"], found["f1"]] == pytest.approx([1, 1], abs=1e-3)


@dataclass(frozen=True)
class Signed(Activation):
    """pre where |pre| > threshold: dense only."""

    def select(self, chunks, threshold, dense_above):
        return None

    def gate(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre * (pre.abs() > threshold)

    def dense(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return self.gate(pre, threshold)


def test_every_score_is_defined_and_higher_is_better():
    scores = recovery_scores(truth(EXACT), EXACT)
    assert {score.metric for score in scores} == set(DEFINITIONS)
    assert all(score.better == "higher" for score in scores)
    assert [s.params for s in scores if s.metric == "mcc"] == [{"kind": "measured"}, {"kind": "chance"}]


def saved(tmp_path: Path, source: Source = WORLD) -> Run:
    sample = WORLD.sample(512, seed=0).x
    base = replace(experiment(activation=TopK(3)), source=source)
    dictionary = untrained(WORLD, 64)
    return save_run(tmp_path, base, dictionary, Normaliser.fit(sample, "centre-scale"), sample, {})


def test_a_saved_run_scores_as_its_dictionary_does(tmp_path: Path):
    run = saved(tmp_path)
    assert recovery(Run.open(tmp_path)) == recovery_scores(run.dictionary(), WORLD)


@dataclass(frozen=True)
class Elsewhere(Source):
    """Activations of unknown origin."""

    @property
    def d_in(self) -> int:
        return WORLD.d_in

    def block(self, index: int, *, split: Split, seed: int) -> Block | None:
        return None

    def contexts(self, count: int, *, split: Split, seed: int) -> Contexts:
        raise no_downstream("elsewhere")

    def available(self, split: Split) -> float:
        return 0

    def metadata(self) -> dict[str, str | int | bool]:
        return {"model_name": "elsewhere", "hook_name": "elsewhere"}

    def sample_text(self, count: int) -> list[str]:
        return []


def test_without_known_factors_it_does_not_apply(tmp_path: Path):
    run = saved(tmp_path, Elsewhere())
    opened = Run.open(tmp_path, packages=("unbraid", Elsewhere.__module__.partition(".")[0]))
    assert opened.path == run.path
    with pytest.raises(NotApplicable, match="World"):
        recovery(opened)
