"""The world is what it says: exact marginals, a real hierarchy, a known downstream map, and no impossible worlds."""

from dataclasses import replace

import pytest
import torch

from unbraid.config.serialise import fingerprint, from_json, to_json
from unbraid.sources.base import Split
from unbraid.sources.stream import Stream
from unbraid.sources.world.world import World

SMALL = World(factors=24, d_in=16, l0=2.0, roots=3, branching=2, depth=2, interactions=3)
EXCLUSIVE = replace(SMALL, exclusive=1.0)
RICH = World(
    factors=32, d_in=16, l0=2.0, roots=3, interactions=3, dense=3, dense_probability=(0.5, 1.0), circles=2, spheres=1
)
"""A forest of 21, 5 single factors, 2 circles, a sphere, 3 dense factors."""
ORTHONORMAL = World(factors=8, d_in=16, coherence=0.0, l0=2.0, roots=8, depth=0, effective=1.0, interactions=2)


def firings(world: World, count: int = 60_000) -> torch.Tensor:
    return (world.sample(count, seed=1).z > 0).double()


def assert_uncorrelated(one: torch.Tensor, other: torch.Tensor | None = None) -> None:
    """Every pair within five and a half standard errors of no covariance, each p being its observed rate."""
    other = one if other is None else other
    p, q = one.mean(0).unsqueeze(1), other.mean(0)
    errors = (one.T @ other / len(one) - p * q).abs() / (p * (1 - p) * q * (1 - q) / len(one)).sqrt()
    if other is one:
        errors.fill_diagonal_(0)
    assert errors.max() < 5.5


def assert_near_binomial(observed: torch.Tensor, p: torch.Tensor, count: torch.Tensor | int) -> None:
    """Within five standard errors of p."""
    assert ((observed - p).abs() <= 5 * (p * (1 - p) / count).sqrt() + 1e-12).all()


@pytest.mark.parametrize(
    "world",
    [SMALL, EXCLUSIVE, replace(SMALL, correlation=0.6), replace(SMALL, correlation=0.0), replace(SMALL, depth=0), RICH],
)
def test_each_factor_fires_with_its_stated_probability(world: World):
    active = firings(world)
    assert_near_binomial(active.mean(0), world.probabilities, len(active))
    sparse = world.probabilities[: world.factors - world.dense]
    assert sparse.sum().item() == pytest.approx(world.l0)


def test_marginals_hold_when_a_sample_is_drawn_in_many_chunks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unbraid.sources.world.active_factors.ROWS", 100)
    active = firings(replace(SMALL), 20_050)
    assert_near_binomial(active.mean(0), SMALL.probabilities, len(active))


def test_children_fire_only_with_their_parent_and_as_often_as_stated():
    active = firings(SMALL)
    children = (SMALL.parents >= 0).nonzero().squeeze(1)
    parents = SMALL.parents[children]
    assert (active[:, children] <= active[:, parents]).all()
    counts = active[:, parents].sum(0)
    assert_near_binomial(active[:, children].sum(0) / counts, SMALL.given_parent[children], counts)


def test_each_level_has_its_own_probabilities():
    world = replace(SMALL, child_given_parent=((0.1, 0.3), (0.6, 0.8)))
    assert [world.given_parent[world.level == level].unique().tolist() for level in (1, 2)] == [[0.1, 0.3], [0.6, 0.8]]
    active = firings(world)
    assert_near_binomial(active.mean(0), world.probabilities, len(active))


def test_an_only_child_fires_at_the_middle_of_the_span():
    assert replace(SMALL, branching=1).given_parent.unique().tolist() == [0.5, 1.0]


def test_dense_factors_come_last_fire_as_stated_and_ignore_the_others():
    active = firings(RICH)
    assert RICH.probabilities[-3:].tolist() == [0.5, 0.75, 1.0] and (active[:, -1] == 1).all()
    assert (RICH.parents[-3:] == -1).all() and (RICH.level[-3:] == 0).all()
    assert_uncorrelated(active[:, -3:-1], active[:, :-3])
    z = RICH.sample(40_000, seed=2).z[:, -1]
    assert z.min() > 0 and z.mean().item() == pytest.approx(1.0085, abs=0.015)


def test_the_twin_keeps_probabilities_directions_and_effects_and_drops_every_dependence():
    world = replace(RICH, correlation=0.8, exclusive=1.0)
    twin = world.twin()
    for name in ("probabilities", "directions", "effects", "pairs", "pair_effects", "offset"):
        assert torch.equal(getattr(twin, name), getattr(world, name))
    assert (twin.parents == -1).all() and (twin.level == 0).all() and (twin.first_children == -1).all()
    active = firings(twin)
    assert_near_binomial(active.mean(0), world.probabilities, len(active))
    assert_uncorrelated(active[:, :-1])
    assert twin.twin() == twin == from_json(to_json(twin)) != world
    assert fingerprint(twin) != fingerprint(world)


def test_the_world_of_the_twin_is_not_independent():
    with pytest.raises(AssertionError):
        assert_uncorrelated(firings(SMALL))


def test_the_forest_is_complete_and_its_tail_has_no_children():
    assert SMALL.level.tolist() == [0] * 3 + [1] * 6 + [2] * 12 + [0] * 3
    assert SMALL.parents.tolist() == [-1] * 3 + [0, 0, 1, 1, 2, 2] + [3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8] + [-1] * 3
    children = (SMALL.parents >= 0).nonzero().squeeze(1)
    assert torch.equal(
        SMALL.probabilities[children], SMALL.probabilities[SMALL.parents[children]] * SMALL.given_parent[children]
    )
    assert SMALL.given_parent[children].unique().tolist() == [0.2, 0.8]


def test_exclusive_siblings_never_fire_together_and_others_do():
    def together(world: World) -> float:
        active = firings(world)
        first = (world.first_children[world.first_children >= 0]).unique()
        return float((active[:, first] * active[:, first + 1]).sum())

    assert together(EXCLUSIVE) == 0
    assert together(SMALL) > 100


def test_correlated_roots_fire_together_more_than_independent_ones():
    def excess(world: World) -> torch.Tensor:
        roots = (world.parents < 0).nonzero().squeeze(1)
        covariance = torch.cov(firings(world)[:, roots].T)
        return covariance[~torch.eye(len(roots), dtype=torch.bool)].abs().mean()

    assert excess(replace(SMALL, correlation=0.8, correlation_rank=1)) > 5 * excess(replace(SMALL, correlation=0.0))


@pytest.mark.parametrize("kind", ["lognormal", "uniform", "quantised"])
def test_magnitudes_have_mean_1_and_the_stated_spread(kind):
    z = replace(SMALL, magnitudes=kind, spread=0.4).sample(40_000, seed=2).z
    values = z[z > 0]
    assert values.mean().item() == pytest.approx(1, abs=5 * 0.4 / len(values) ** 0.5)
    assert values.std().item() == pytest.approx(0.4, rel=0.03)


def test_a_circle_and_a_sphere_show_points_at_the_distance_of_their_magnitude():
    world = replace(RICH, noise=0.0, roots=1, depth=0, factors=3, dense=0, circles=1, spheres=1, l0=1.0, interactions=0)
    sample = world.sample(20_000, seed=3)
    for manifold, other in zip(world.manifolds, reversed(world.manifolds), strict=True):
        torch.testing.assert_close(manifold.basis[0], world.directions[manifold.factor])
        torch.testing.assert_close(manifold.basis @ manifold.basis.T, torch.eye(len(manifold.basis)))
        alone = (sample.z[:, manifold.factor] > 0) & (sample.z[:, other.factor] == 0) & (sample.z[:, 0] == 0)
        x, z = (sample.x - world.offset)[alone], sample.z[alone, manifold.factor]
        points = x @ manifold.basis.T
        torch.testing.assert_close(points @ manifold.basis, x, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(points.norm(dim=1), z)
        cosines = points / z.unsqueeze(1)
        second = cosines.T @ cosines / len(cosines)  # uniform on the sphere: I / dimensions
        torch.testing.assert_close(second, torch.eye(len(manifold.basis)) / len(manifold.basis), atol=0.03, rtol=0)
        assert cosines.mean(0).norm() < 0.06
    assert [len(manifold.basis) for manifold in world.manifolds] == [2, 3]


def test_activations_are_the_factors_directions_summed():
    world = replace(SMALL, noise=0.0)
    sample = world.sample(500, seed=3)
    torch.testing.assert_close(sample.x, world.offset + sample.z @ world.directions)
    assert world.offset.norm().item() == pytest.approx(world.bias)


def test_what_factors_do_not_explain_is_noise_of_the_stated_size():
    world = replace(SMALL, noise=0.3)
    sample = world.sample(2_000, seed=3)
    rest = sample.x - world.offset - sample.z @ world.directions
    assert rest.std().item() == pytest.approx(0.3, rel=0.03)


def test_blocks_depend_on_split_seed_and_index_alone():
    world = replace(SMALL, block_rows=64)
    x = world.block(3, split="train", seed=5).rows.x
    assert torch.equal(x, from_json(to_json(world)).block(3, split="train", seed=5).rows.x)
    elsewhere: list[tuple[int, Split, int]] = [(4, "train", 5), (3, "eval", 5), (3, "train", 6)]
    others = [world.block(index, split=split, seed=seed) for index, split, seed in elsewhere]
    assert not any(torch.equal(x, other.rows.x) for other in others)


def test_rows_are_numbered_from_block_to_block():
    world = replace(SMALL, block_rows=64)
    batches = [world.block(index, split="train", seed=0).rows for index in range(2)]
    assert torch.cat([rows.documents for rows in batches]).tolist() == list(range(128))
    assert (batches[0].tokens == -1).all() and (batches[0].positions == 0).all()


def test_a_stream_reads_a_world_without_end():
    stream = Stream(replace(SMALL, block_rows=64), 48, seed=0)
    assert [len(next(stream)) for _ in range(5)] == [48] * 5


def test_structure_follows_the_worlds_seed_and_samples_do_not():
    other = replace(SMALL, seed=1)
    assert not torch.equal(SMALL.directions, other.directions)
    assert not torch.equal(SMALL.effects, other.effects)
    assert hash(SMALL) != hash(other) and SMALL.metadata()["world"] == fingerprint(SMALL) != fingerprint(other)


def test_downstream_without_factors_is_the_identity():
    x = torch.randn(4, 3, SMALL.d_in)
    assert torch.equal(replace(SMALL, effect=0.0, interaction=0.0).downstream(x), x)


def test_downstream_adds_effects_and_pair_effects_of_open_gates():
    world = replace(SMALL, sharpness=1e4, factors=4, d_in=16, roots=4, depth=0, l0=1.0, effective=1.0, interactions=1)
    i, j = world.pairs[0].tolist()
    dual = torch.linalg.pinv(world.directions)  # column k moves the readout of factor k alone
    moved = world.offset + 2 * dual[:, i] + 3 * dual[:, j]
    wanted = 1.5 * world.effects[i] + 2.5 * world.effects[j] + 1.5 * 2.5 * world.pair_effects[0]
    torch.testing.assert_close(world.downstream(moved) - moved, wanted, atol=1e-3, rtol=1e-3)
    assert world.pair_effects[0].norm().item() == pytest.approx(world.interaction)
    assert world.effects.norm(dim=1).tolist() == pytest.approx([world.effect] * 4)


def test_the_stated_share_of_factors_has_no_effect_and_pairs_have():
    silent = SMALL.effects.norm(dim=1) == 0
    assert silent.sum() == 24 - 18
    assert not silent[SMALL.pairs].any() and SMALL.pairs.unique().numel() == 6


def test_downstream_is_smooth_and_folds_any_leading_dimensions():
    x = SMALL.sample(6, seed=4).x.double()
    assert torch.autograd.gradcheck(SMALL.downstream, (x.requires_grad_(),))
    torch.testing.assert_close(SMALL.downstream(x.view(2, 3, 1, -1)).view(6, -1), SMALL.downstream(x))


def test_a_manifold_opens_its_gate_from_wherever_it_shows():
    circle, sphere = RICH.manifolds[0], RICH.manifolds[-1]
    for manifold in (circle, sphere):
        points = torch.nn.functional.normalize(torch.randn(9, len(manifold.basis)), dim=1)
        gates = RICH.gates(RICH.offset + 2 * points @ manifold.basis)[:, manifold.factor]
        torch.testing.assert_close(gates, torch.full((9,), 1.5), atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_downstream_with_manifolds_can_be_differentiated_forwards_in_batches():
    x, v = RICH.offset.repeat(4, 1), torch.randn(3, 4, RICH.d_in)  # where the distance to every manifold is 0
    moved = torch.func.vmap(lambda one: torch.func.jvp(RICH.downstream, (x,), (one,))[1])(v)
    assert moved.shape == (3, 4, RICH.d_in) and moved.isfinite().all()


@pytest.mark.parametrize(("gate", "opened"), [("additive", 2.0), ("hard", 1.5), ("smooth", 1.5)])
def test_gates_open_linearly_or_above_the_threshold(gate, opened):
    world = replace(ORTHONORMAL, gate=gate)
    gates = world.gates(world.offset + 2 * world.directions[1])
    assert gates[1].item() == pytest.approx(opened, abs=1e-5)
    assert gates[2].item() == pytest.approx(0, abs=0.003)
    torch.testing.assert_close(world.readouts(world.offset + 2 * world.directions[1])[1], gates[1] * world.effect)


def test_readouts_of_factors_without_effect_are_zero():
    silent = SMALL.effects.norm(dim=1) == 0
    assert (SMALL.readouts(SMALL.sample(50, seed=0).x)[:, silent] == 0).all()


def test_effects_lie_in_a_subspace_of_the_stated_dimensions():
    world = replace(SMALL, effect_dimensions=3)
    both = torch.cat([world.effects, world.pair_effects])
    assert torch.linalg.matrix_rank(both, rtol=1e-4) == 3
    assert world.effects.norm(dim=1).max().item() == pytest.approx(world.effect)


def test_an_intervention_moves_what_the_effects_say():
    world = replace(ORTHONORMAL, gate="hard")
    i, j = world.pairs[0].tolist()
    base = (world.offset + 1.5 * world.directions[j]).expand(2, -1)
    change = world.intervene(base, i, torch.tensor([2.0, 0.25]))
    gates = torch.tensor([[1.5], [0.0]])
    wanted = torch.tensor([[2.0], [0.25]]) * world.directions[i] + gates * (
        world.effects[i] + 1.0 * world.pair_effects[0]
    )
    torch.testing.assert_close(change, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(world.intervene(base, i, 2.0)[0], change[0])


@pytest.mark.parametrize("factor", [-1, 8, 100])
def test_an_intervention_on_a_factor_there_is_not_is_refused(factor):
    with pytest.raises(ValueError, match=f"no factor {factor}: this world's are 0 to 7"):
        ORTHONORMAL.intervene(ORTHONORMAL.offset, factor, 1.0)


def test_contexts_are_whole_and_their_base_is_downstream():
    contexts = SMALL.contexts(3, split="train", seed=0)
    assert contexts.acts.shape == (3, SMALL.context_size, SMALL.d_in) and contexts.mask.all()
    assert torch.equal(contexts.base, contexts.downstream(contexts.acts))
    assert not torch.equal(contexts.acts, SMALL.contexts(3, split="train", seed=1).acts)


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"child_given_parent": (0.0, 0.5)}, "above 0 and below 1"),
        ({"child_given_parent": (0.2, 1.0)}, "above 0 and below 1"),
        ({"child_given_parent": (0.4, 0.8), "exclusive": 0.5}, "mean of at most 0.50"),
        ({"roots": 4}, "lower roots, branching or depth"),
        ({"dense": 10}, "14 that are not dense"),
        ({"child_given_parent": ((0.2, 0.4),)}, "one for each level"),
        ({"child_given_parent": ((0.2, 0.4), (0.4, 0.8)), "exclusive": 0.5}, "mean of at most 0.50"),
        ({"coherence": 0.1}, "0.147 .the Welch bound"),
        ({"coherence": 0.0}, "Welch bound"),
        ({"circles": 2, "spheres": 2}, "there are 3; raise factors"),
        ({"d_in": 2, "spheres": 1}, "raise d_in"),
        ({"dense_probability": (0.5, 1.1)}, "above 0 and at most 1"),
        ({"effect_dimensions": 17}, "more than the 16"),
        ({"zipf": -1.0}, "at least 0"),
        ({"magnitudes": "quantised", "levels": 1}, "at least 2"),
        ({"magnitudes": "quantised", "spread": 0.8}, "less than 0.745"),
        ({"correlation_groups": 0}, "at least 1"),
        ({"l0": 23.0}, "lower l0 to"),
        ({"l0": 0.0}, "above 0"),
        ({"correlation": 1.0}, "correlation"),
        ({"effective": 0.2}, "lower interactions"),
        ({"magnitudes": "uniform", "spread": 0.6}, "lognormal"),
        ({"noise": -1.0}, "at least 0"),
        ({"block_rows": 0}, "at least 1"),
        ({"child_given_parent": (0.8, 0.2)}, "the smaller comes first"),
        ({"dense_probability": (0.9, 0.5)}, "the smaller comes first"),
        ({"child_given_parent": ()}, "one for each level"),
        ({"sharpness": 0.0}, "above 0"),
    ],
)
def test_impossible_worlds_are_refused_with_a_remedy(change, remedy):
    with pytest.raises(ValueError, match=remedy):
        replace(SMALL, **change)


def test_the_remedy_for_l0_works():
    with pytest.raises(ValueError, match="lower l0 to") as caught:
        replace(SMALL, l0=23.0)
    remedy = float(str(caught.value).split("lower l0 to ")[1].split()[0])
    assert replace(SMALL, l0=remedy - 0.1).probabilities.max() <= 0.9
