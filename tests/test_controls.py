"""Controls and ceilings as dictionaries: what each may not know, may not move, or is told."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.resumed import assert_resumed_equals_whole
from tests.small import WORLD, experiment
from unbraid import seeding
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.baselines import Centroids, RandomPairs
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.constraints import clip_cosine_to_init
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import code_matrix
from unbraid.dictionary.from_truth import SupervisedProbes, TrueDirections, mean_magnitudes
from unbraid.dictionary.initialisation import Initialisation, Origin, RandomAtoms
from unbraid.dictionary.normaliser import Normaliser
from unbraid.evals.fidelity import reconstruction
from unbraid.evals.shared.observe import observe
from unbraid.experiment.study import Study
from unbraid.runs.run import Run
from unbraid.sources.base import Source
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.tensor import Activations
from unbraid.sources.truth import NoTruth
from unbraid.sources.world.world import World
from unbraid.studies.methods import ceilings, controls
from unbraid.training.learner import Learner
from unbraid.training.loop import train

EXACT = World(factors=24, d_in=32, l0=2.0, roots=4, branching=2, depth=1, noise=0.0, interactions=2)


def built(init: Initialisation, world: World = WORLD, *, d_sae: int | None = None, activation=None) -> Dictionary:
    """For raw activations, as a run folder would hold it."""
    sample = fitting_sample(world, 0)
    normaliser = Normaliser.fit(sample, "centre-scale")
    config = DictionaryConfig(d_sae=d_sae or world.factors, activation=activation or JumpReLU(), init=init)
    origin = Origin(world, normaliser)
    return normaliser.fold(config.build(normaliser(sample), seed=0, origin=origin)).requires_grad_(False)


def units(*shape: int, seed: int) -> Tensor:
    vectors = torch.randn(*shape, generator=seeding.stream(seed, "test"), dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("cosine", [-0.5, 0.0, 0.8, 0.99])
def test_held_atoms_are_unit_near_enough_and_the_nearest_such(cosine: float):
    atoms, start = units(200, 5, seed=0), units(200, 5, seed=1)
    held = clip_cosine_to_init(atoms, start, cosine)
    torch.testing.assert_close(held.norm(dim=1), torch.ones(200, dtype=torch.float64))
    assert ((held * start).sum(1) >= cosine - 1e-12).all()
    free = (atoms * start).sum(1) >= cosine
    assert torch.equal(held[free], atoms[free])
    # No other unit vector at that cosine is nearer.
    for seed in range(20):
        across = units(200, 5, seed=seed + 2)
        across = across - (across * start).sum(1, keepdim=True) * start
        across = across / across.norm(dim=1, keepdim=True)
        other = cosine * start + (1 - cosine**2) ** 0.5 * across
        assert ((held * atoms).sum(1) >= (other * atoms).sum(1) - 1e-12)[~free].all()


def held_near_init(min_cosine_to_init: float, tokens: int = 16_000):
    base = experiment(f"held-{round(100 * min_cosine_to_init)}" if min_cosine_to_init > 0 else "free", tokens=tokens)
    training = replace(base.training, lr=1e-2)
    return replace(base, dictionary=replace(base.dictionary, min_cosine_to_init=min_cosine_to_init), training=training)


def test_a_smallest_cosine_holds_every_atom_and_some_are_at_it(tmp_path):
    start = Learner(held_near_init(0.8), fitting_sample(WORLD, 0)).dictionary.W_dec.detach()
    cosines = {}
    for min_cosine_to_init in (0.8, -1.0):
        (folder,) = train([held_near_init(min_cosine_to_init)], tmp_path)
        cosines[min_cosine_to_init] = (Run.open(folder).dictionary().W_dec * start).sum(1)
    assert cosines[0.8].min() > 0.8 - 1e-5 and ((cosines[0.8] - 0.8).abs() < 1e-5).sum() > 10
    assert cosines[-1.0].min() < 0.7


def test_a_held_run_resumed_equals_one_never_stopped(tmp_path):
    assert_resumed_equals_whole([held_near_init(0.8, 6400)], tmp_path, steps=23, every=10)


@pytest.mark.parametrize("min_cosine_to_init", [1.0, -1.1])
def test_a_smallest_cosine_that_is_none_is_refused(min_cosine_to_init: float):
    with pytest.raises(ValueError, match="min_cosine_to_init is .* it must be at least -1 and below 1"):
        replace(experiment().dictionary, min_cosine_to_init=min_cosine_to_init)


def test_every_control_trains_into_a_run_and_keeps_what_is_frozen(tmp_path):
    members = controls(3) | ceilings()
    study = Study(
        source=WORLD, d_sae=64, seeds=(0,), members=members, training=replace(experiment().training, tokens=3200)
    )
    experiments = study.experiments()
    assert all(e.control for e in experiments)
    made = dict(zip(members, (Run.open(folder).dictionary() for folder in train(experiments, tmp_path)), strict=True))
    assert {name: d.d_sae for name, d in made.items() if d.d_sae != 64} == {"pca-l0_3": 32, "truth": 48, "probes": 48}
    untrained = made["untrained-l0_3"]
    for frozen, name in (("frozen-decoder-l0_3", "W_dec"), ("frozen-encoder-l0_3", "W_enc")):
        same = {n: torch.equal(made[frozen].state_dict()[n], untrained.state_dict()[n]) for n in ("W_dec", "W_enc")}
        assert same == {"W_dec": name == "W_dec", "W_enc": name == "W_enc"}
    assert (made["soft-frozen-decoder-l0_3"].W_dec * untrained.W_dec).sum(1).min() > 0.8 - 1e-5
    x = WORLD.sample(4096, seed=1).x
    for name in members:
        l0 = float(made[name].codes(x).l0())
        if name in ceilings():
            assert 2.4 < l0 < 3.0, "what a linear reader is sure of, of the three there are"
        else:
            assert l0 == pytest.approx(1.0 if name == "kmeans-l0_1" else 3.0, rel=0.1), name


def test_random_pairs_read_nothing_of_what_they_write():
    made = built(RandomPairs(), d_sae=512, activation=BatchTopK(3))
    cosines = (made.W_enc.T * made.W_dec).sum(1)
    assert abs(float(cosines.mean())) < 0.05 and cosines.std() == pytest.approx(16**-0.5, rel=0.1)
    tied = built(RandomAtoms(), d_sae=512, activation=BatchTopK(3))
    assert not torch.allclose(made.W_enc, tied.W_enc)


def test_centroids_of_one_hot_data_are_its_directions_and_reconstruct_it():
    """One factor at a time, eight of them: the memoriser is right."""
    directions = torch.linalg.qr(units(12, 12, seed=0)).Q[:8].float()
    which = torch.randint(8, (2000,), generator=seeding.stream(0, "which"))
    x = directions[which] - directions.mean(0)
    made = DictionaryConfig(d_sae=32, activation=TopK(1), init=Centroids()).build(x, seed=0).requires_grad_(False)
    (fvu,) = [s.value for s in reconstruction(made, x, code_matrix(made, x)) if s.metric == "fvu"]
    assert fvu < 1e-4
    torch.testing.assert_close(made.W_dec.norm(dim=1), torch.ones(32))


def test_more_clusters_than_activations_are_refused():
    with pytest.raises(ValueError, match="50 activations cannot be divided into 64 clusters.*--dictionary.d-sae 50"):
        DictionaryConfig(d_sae=64, activation=TopK(1), init=Centroids()).build(WORLD.sample(50, seed=0).x, seed=0)


def detected(made: Dictionary, world: World) -> Tensor:
    """F1 of each factor with its own latent."""
    seen = observe(made, world, rows=8192)
    both = torch.from_numpy(seen.joint_counts.diagonal())
    return 2 * both / (seen.latent_counts + seen.factor_counts)


@pytest.mark.parametrize("init", [TrueDirections(), SupervisedProbes()])
def test_what_is_told_the_truth_of_a_readable_world_detects_everything(init: Initialisation):
    assert detected(built(init, EXACT), EXACT).min() > 0.98


def test_the_truth_of_a_readable_world_reconstructs_it():
    made, world = built(TrueDirections(), EXACT), EXACT
    torch.testing.assert_close(made.W_dec, world.directions)
    torch.testing.assert_close(made.b_dec, world.offset, atol=0.01, rtol=0)
    seen = world.sample(4096, seed=1).x
    (fvu,) = [s.value for s in reconstruction(made, seen, code_matrix(made, seen)) if s.metric == "fvu"]
    assert fvu < 0.01


def test_in_superposition_probes_read_far_better_than_the_transpose():
    told = detected(built(TrueDirections()), WORLD).mean()
    tied = built(TrueDirections(), activation=JumpReLU())
    tied.W_enc.copy_(tied.W_dec.T)
    tied.b_enc.zero_()
    tied.threshold.fill_(0.7)
    assert told > 0.75 and detected(tied, WORLD).mean() < told - 0.2


def test_thresholds_stay_non_negative_and_codes_have_the_size_of_factors():
    for init in (TrueDirections(), SupervisedProbes()):
        made = built(init)
        assert made.threshold.min() >= 0
    labelled = WORLD.labelled(4096, split="eval")
    codes, sizes = built(TrueDirections()).encode(labelled.x), mean_magnitudes(labelled)
    where = (codes > 0) & (labelled.dense() > 0)
    seen = (codes * where).sum(0) / where.sum(0)
    assert ((seen / sizes)[where.sum(0) > 50] - 1).abs().mean() < 0.25


def test_factors_that_never_occur_get_a_latent_that_never_fires():
    rare = World(factors=48, d_in=16, l0=0.5, roots=8, branching=2, depth=1, zipf=6.0, interactions=2)
    never = torch.bincount(rare.labelled(16_384, split="train").factors, minlength=48) == 0
    assert never.any()
    for init in (TrueDirections(), SupervisedProbes()):
        made = built(init, rare)
        assert all(torch.isfinite(value).all() for value in made.state_dict().values())
        torch.testing.assert_close(made.W_dec.norm(dim=1), torch.ones(48))
        assert not observe(made, rare, rows=4096).latent_counts[never].any()


def test_what_is_told_the_truth_says_what_it_lacks():
    with pytest.raises(ValueError, match="48 factors and 64 latents.*--dictionary.d-sae 48"):
        built(TrueDirections(), d_sae=64)
    with pytest.raises(ValueError, match="takes JumpReLU, not TopK"):
        built(SupervisedProbes(), activation=TopK(3))
    with pytest.raises(ValueError, match="build it with an origin"):
        DictionaryConfig(d_sae=48, activation=JumpReLU(), init=TrueDirections()).build(torch.randn(99, 16), seed=0)
    unknown: Source = Activations(torch.randn(99, 16))
    with pytest.raises(NoTruth, match="no factors were given"):
        Study(source=unknown, members=ceilings()).experiments()
