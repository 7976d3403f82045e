"""Recovery: an untrained dictionary is at chance, the truth at the top, and both survive what should not matter."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tests.known import CURVED, EXACT, Undirected, covering, making, truth, untrained
from tests.small import WORLD, experiment
from torch import Tensor

from unbraid.dictionary.activations.base import Selecting
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.evals.recovery import DEFINITIONS, bands, recovery, recovery_scores
from unbraid.evals.shared.evaluation import Score
from unbraid.evals.shared.observe import observe
from unbraid.metrics.detection import Detection, detection
from unbraid.runs.run import Run, save_run
from unbraid.sources.base import Block, Contexts, Source, Split, no_downstream
from unbraid.sources.truth import NoTruth, Truth
from unbraid.sources.world.world import World

TOTAL = ("mcc", "precision", "recall", "f1", "uniqueness", "recovered")
"""Scores over all factors, none of which a second copy of every latent changes."""


def values(scores: list[Score]) -> dict[str, float]:
    """By metric; chance apart, and what has parts left out."""
    whole = [s for s in scores if not {"band", "level"} & set(s.params)]
    return {s.metric + ("_chance" if s.kind == "chance" else ""): s.value for s in whole}


def scored(dictionary: Dictionary, world: Truth = EXACT) -> dict[str, float]:
    return values(recovery_scores(dictionary, world))


def measured(found: dict[str, float]) -> dict[str, float]:
    return {metric: value for metric, value in found.items() if not metric.endswith("_chance")}


@pytest.mark.parametrize("d_sae", [64, 128, 256])
@pytest.mark.parametrize("directed", [True, False])
def test_an_untrained_dictionary_is_at_the_stated_chance(d_sae: int, directed: bool):
    # One seed for world, dictionary and eval: only named streams keep them apart.
    world = World(factors=128, d_in=32, seed=0)
    found = scored(untrained(world, d_sae), world if directed else Undirected(world))
    by_chance = {metric: found.pop(f"{metric}_chance") for metric in measured(found)}
    assert found == pytest.approx(by_chance, abs=0.05)
    assert found != by_chance
    assert max(found["f1"], found["f1_latents"]) < 0.5
    assert not directed or (found["mcc"] < 0.75 and found["recovered"] < 0.05)


def test_the_truth_scores_one():
    found = scored(truth(EXACT))
    assert found["mcc_chance"] < 0.6
    assert measured(found) == pytest.approx(dict.fromkeys(measured(found), 1.0), abs=1e-3)


def test_the_truth_scores_one_where_factors_are_no_directions():
    order = torch.randperm(EXACT.factors, generator=torch.Generator().manual_seed(0))
    scores = recovery_scores(truth(EXACT, order=order), Undirected(EXACT))
    found = measured(values(scores))
    assert found == pytest.approx(dict.fromkeys(("precision", "recall", "f1", "f1_latents"), 1.0), abs=1e-3)
    assert {s.params["matching"] for s in scores if "matching" in s.params} == {"f1"}


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
    assert {m: found[m] for m in TOTAL} == pytest.approx({m: once[m] for m in TOTAL})
    assert found["f1_latents"] == pytest.approx(once["f1_latents"])


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
    assert found["f1_latents"] == pytest.approx(1.0), "all latents there are detect their factor"


def test_f1_of_latents_counts_dead_ones_as_nothing_and_f1_of_factors_ignores_them():
    """Where the published order comes from: SynthSAEBench's F1 falls as width passes the number of factors."""
    dead = truth(EXACT, order=torch.arange(EXACT.factors).repeat(2))
    dead.threshold[EXACT.factors :] = 1e6
    found = scored(dead)
    assert found["f1_latents"] == pytest.approx(0.5) and found["f1"] == pytest.approx(1.0)


def test_recovery_is_told_apart_by_level_and_by_frequency():
    """Reading every child too late: roots score 1, children 0."""
    deaf = truth(EXACT)
    deaf.threshold[EXACT.parents >= 0] = 1e6
    scores = recovery_scores(deaf, EXACT)
    assert {s.params["level"]: s.value for s in scores if s.metric == "f1_by_level"} == {0: pytest.approx(1.0), 1: 0.0}
    bands_found = {s.params["band"]: s.value for s in scores if s.metric == "recall_by_frequency"}
    assert bands_found.keys() == set(bands(EXACT.probabilities)) and 0 < bands_found["1e-2 to 1e-1"] < 1


def test_bands_are_decades_and_hold_every_active_factor_once():
    found = bands(torch.tensor([1.0, 0.5, 0.1, 0.03, 0.004, 0.0]))
    assert {name: members.nonzero().squeeze(1).tolist() for name, members in found.items()} == {
        "1e-3 to 1e-2": [4], "1e-2 to 1e-1": [3], "1e-1 to 1e0": [0, 1, 2],
    }  # fmt: skip


def test_detection_counts_by_hand():
    found = Detection(*(torch.tensor(column, dtype=torch.float64) for column in ([4, 2, 0], [8, 0, 5], [2, 0, 0])))
    assert found.precision.tolist() == [0.25, 0, 0]
    assert found.recall.tolist() == [0.5, 0, 0]
    assert found.f1.tolist() == pytest.approx([1 / 3, 0, 0])


def test_a_latent_that_always_fires_has_full_recall_and_the_factors_own_rate_as_precision():
    always = truth(EXACT, activation=ReLU())
    always.b_enc.data.fill_(100.0)
    found = detection(observe(always, EXACT), torch.arange(EXACT.factors), torch.arange(EXACT.factors))
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
class Signed(Selecting):
    """pre where |pre| > threshold: dense only."""

    def support(self, chunks, threshold, dense_above):
        return None

    def value(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre * (pre.abs() > threshold)

    def dense(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return self.value(pre, threshold)


def test_every_score_is_defined_and_higher_is_better():
    scores = recovery_scores(truth(EXACT), EXACT)
    everywhere = {name for name in DEFINITIONS if not name.startswith("labelled")}  # the others: where rows have none
    assert {score.metric for score in scores} == {name for name in everywhere if not name.startswith("manifold")}
    assert {score.metric for score in recovery_scores(covering(CURVED), CURVED)} == everywhere
    assert all(score.better == "higher" for score in scores)
    assert [(s.kind, dict(s.params)) for s in scores if s.metric == "mcc"] == [("measured", {}), ("chance", {})]
    assert {s.params["matching"] for s in scores if "matching" in s.params} == {"cosine"}


def test_a_circle_and_a_sphere_are_found_by_the_union_of_the_latents_that_cover_them():
    found = scored(covering(CURVED), CURVED)
    assert [found[m] for m in ("mcc", "f1", "precision", "recall")] == pytest.approx([1, 1, 1, 1], abs=1e-3)
    assert [found[f"manifold_{m}"] for m in ("precision", "recall", "f1")] == pytest.approx([1, 1, 1], abs=1e-2)
    assert found["manifold_latents"] == (4 + 6) / 2
    assert {s.metric for s in recovery_scores(untrained(CURVED, 8), CURVED) if s.better == "neither"} == {
        "manifold_latents"
    }
    assert found["uniqueness"] == 1 and found["recovered"] == 1
    one_sided = scored(covering(CURVED, signs=(1,)), CURVED)
    # A point has no positive coordinate with probability 1/4 on the circle and 1/8 on the sphere.
    assert one_sided["manifold_recall"] == pytest.approx((3 / 4 + 7 / 8) / 2, abs=0.02)
    assert one_sided["f1"] == pytest.approx(1, abs=1e-3)


def test_one_atom_for_a_manifold_is_no_failure_of_the_factors_that_are_directions():
    found = scored(truth(CURVED), CURVED)
    assert found["f1"] == pytest.approx(1, abs=1e-3) and 0.4 < found["manifold_recall"] < 0.6
    assert scored(untrained(CURVED, 64), CURVED)["manifold_f1"] < 0.3


def test_a_dictionary_that_never_fires_scores_nothing_and_does_not_fail():
    silent = truth(EXACT)
    silent.threshold.fill_(1e6)
    found = measured(scored(silent))
    assert [found[m] for m in ("precision", "recall", "f1", "f1_latents")] == [0, 0, 0, 0]
    assert found["mcc"] == pytest.approx(1.0)


def test_it_agrees_with_saelens():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("sae_lens.synthetic.evals")
    made, labelled = untrained(WORLD, 96), WORLD.labelled(32_768, split="eval")
    found = scored(made, WORLD)
    z = made.encode(labelled.x).detach()
    classified = theirs.compute_classification_metrics(z, labelled.dense(), made.W_dec.detach(), WORLD.directions)
    assert found["f1_latents"] == pytest.approx(classified.f1_score, abs=1e-5)
    mcc = theirs.mean_correlation_coefficient(made.W_dec.detach(), WORLD.directions)
    assert found["mcc"] == pytest.approx(mcc, abs=1e-5)


def saved(tmp_path: Path, source: Source = WORLD) -> Run:
    sample = WORLD.sample(512, seed=0).x
    dictionary = untrained(WORLD, 64)
    base = making(replace(experiment(), source=source), dictionary)
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
    with pytest.raises(NoTruth):
        recovery(opened)
