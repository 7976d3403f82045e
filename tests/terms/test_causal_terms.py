"""Terms that ask for effects, and for effects that add up: values worked out by hand, and what each would do alone."""

import math
from dataclasses import replace

import pytest
import torch
from tests.slices import (
    D_IN,
    alignment,
    at,
    coherence,
    effect_size,
    exponential,
    firing_step,
    minimise,
    near_origin,
    orthonormal,
)  # fmt: skip
from tests.steps import rng, step, units, with_atoms
from torch import Tensor
from torch.nn.functional import normalize

from unbraid.dictionary.activations.relu import ReLU
from unbraid.effects.effect import everywhere, pooled_effect, token_effects
from unbraid.effects.reward import capped_log
from unbraid.effects.sketch import sketched_jacobian
from unbraid.sources.base import Contexts
from unbraid.terms.causal.causal_head import CausalHead
from unbraid.terms.causal.downstream_reconstruction import DownstreamReconstruction
from unbraid.terms.causal.effect import Effect
from unbraid.terms.causal.effect_sketch import EffectSketch
from unbraid.terms.causal.functional_orthogonality import FunctionalOrthogonality
from unbraid.terms.causal.hessian import Hessian
from unbraid.terms.causal.interaction import Interaction
from unbraid.terms.causal.melbo import MelboReward
from unbraid.terms.causal.readback import Readback
from unbraid.terms.geometry.repulsion import Repulsion
from unbraid.terms.statistics.where_latents_fire import firing

PLANTED, OUTPUTS, START = orthonormal(6), orthonormal(6, 2), units(6, D_IN, 3)
SLICE = near_origin(exponential(PLANTED, OUTPUTS))
GAINS = torch.diag(torch.linspace(3, 0.1, D_IN, dtype=torch.float64))
LINEAR = near_origin(lambda acts: acts + acts @ GAINS)
HELD = math.nextafter(1.0, 0.0)
"""The decay of an average that stays where it is put."""
USUAL = {"usual_size": torch.tensor(1.0, dtype=torch.float64)}


# Effects, and where latents fire.


def test_token_effects_average_to_the_pooled_one_and_do_not_depend_on_how_they_are_batched():
    pushes = 0.7 * START
    apart = token_effects(SLICE, everywhere(pushes, SLICE), copies=1)
    torch.testing.assert_close(apart, token_effects(SLICE, everywhere(pushes, SLICE)))
    torch.testing.assert_close(apart.mean(1), pooled_effect(SLICE, pushes))


def test_a_token_that_is_left_out_is_neither_pushed_nor_measured():
    acts, mask = torch.zeros(1, 3, D_IN).double(), torch.tensor([[True, False, True]])
    seen = []
    after = lambda moved: seen.append(moved) or 2 * moved
    contexts = Contexts(acts, mask, 2 * acts, after)
    effects = token_effects(contexts, everywhere(START[:1], contexts))
    assert effects.shape == (1, 2, D_IN) and seen[-1][0, 0, 1].abs().sum() == 0
    torch.testing.assert_close(effects, START[:1, None].expand(1, 2, D_IN))


def test_latents_that_fire_nowhere_in_the_contexts_are_never_drawn():
    acts = torch.zeros(2, 2, D_IN, dtype=torch.float64)
    acts[0, 0, 0] = acts[1, 1, 3] = 1.0
    contexts = at(acts, lambda moved: 2 * moved)
    of = with_atoms(torch.eye(D_IN, dtype=torch.float64))
    now = replace(step(of, acts[0]), contexts=lambda: contexts, normalise=lambda rows: rows)
    active = firing(now)
    assert active.sampled(9, rng()).sort().values.tolist() == [0, 3]
    assert active.where(torch.tensor([3, 0, 5])).long().tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    MelboReward(radius=1.0)(now).loss.backward()
    assert of.W_dec.grad is not None and of.W_dec.grad.abs().sum(1).nonzero().squeeze(1).tolist() in ([], [0, 3])
    dead = torch.zeros(D_IN, dtype=torch.bool).index_fill(0, torch.tensor([0]), True)
    assert firing(replace(now, dead=dead, shared={})).sampled(9, rng()).tolist() == [3]


# MELBO's reward.


def sizes(term: MelboReward, effects: Tensor, sequences: list[int], counted: list[bool]) -> float:
    found = term._sizes(effects[None], torch.tensor([counted]), torch.tensor(sequences))
    return found.item()


def test_melbos_size_is_the_posts_with_means_for_sums():
    effects = torch.tensor([[3.0, 4.0], [0.0, 1.0], [2.0, 0.0], [9.0, 9.0]], dtype=torch.float64)
    over = ([0, 0, 1, 1], [True, True, True, False])
    assert sizes(MelboReward(p=2.0, q=1.0), effects, *over) == pytest.approx(math.sqrt(((25 + 1) / 2 + 4) / 2))
    assert sizes(MelboReward(p=4.0, q=1.0), effects, *over) == pytest.approx((((625 + 1) / 2 + 16) / 2) ** (1 / 4))
    assert sizes(MelboReward(p=4.0, q=4.0), effects, *over) == pytest.approx((313 ** (1 / 4) + 2) / 2)


def test_melbo_is_the_log_of_the_size_beside_random_directions():
    """Each planted direction moves its own unit output by expm1(1 + x) - expm1(x), x what the token has of it."""
    contexts = at(torch.zeros(1, 1, D_IN, dtype=torch.float64), exponential(PLANTED, OUTPUTS))
    out = MelboReward(radius=1.0, decay=HELD)(firing_step(PLANTED, contexts, memory={"usual_size": torch.tensor(0.5)}))
    assert out.loss.item() == pytest.approx(-math.log(math.expm1(1) / 0.5))
    capped = MelboReward(radius=1.0, decay=HELD, cap=1.0)
    assert capped(firing_step(PLANTED, contexts, memory={"usual_size": torch.tensor(0.5)})).loss.item() == -1.0


def test_the_log_shares_the_gradient_out_and_the_cap_ends_it():
    """One latent a hundred times as sensitive as the other owns 99 % of the gradient of the sizes, half of the log's,
    nothing beyond the cap."""

    def shares(reward) -> Tensor:
        scale = torch.ones(2, dtype=torch.float64, requires_grad=True)
        gradient = torch.autograd.grad(reward(torch.tensor([100.0, 1.0]) * scale).sum(), scale)[0]
        return gradient / gradient.sum()

    assert shares(lambda size: size)[0] > 0.98
    assert shares(lambda size: capped_log(size, math.inf)).tolist() == pytest.approx([0.5, 0.5])
    assert shares(lambda size: capped_log(size, 0.0)).tolist() == pytest.approx([0.5, 0.5])
    assert shares(lambda size: capped_log(size, 2.0)).tolist() == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize(("q", "least", "most"), [(1.0, 0.99, 1.0), (2.0, 0.7, 0.95)])
def test_one_sequence_of_melbo_may_own_the_gradient_unless_q_shares_it(q, least, most):
    """One of eight sequences is moved fifty times as much."""
    factors = torch.ones(8, dtype=torch.float64, requires_grad=True)
    moved = (torch.tensor([50.0] + 7 * [1.0]) * factors)[None, :, None].expand(1, 8, D_IN)
    sizes = MelboReward(q=q)._sizes(moved, torch.ones(1, 8, dtype=torch.bool), torch.arange(8))
    gradient = torch.autograd.grad(sizes.log().sum(), factors)[0]
    assert least < float(gradient[0] / gradient.sum()) < most


def test_an_output_moved_far_more_owns_the_kernel_forms_gradient_and_not_melbos():
    """One planted factor thirty times as strong as the others: the share of its atom, of all that moves atoms."""
    strength = torch.ones(6, dtype=torch.float64)
    strength[0] = 30
    contexts = near_origin(exponential(PLANTED, strength.unsqueeze(1) * OUTPUTS))

    def share(term) -> float:
        now = firing_step(PLANTED + 0.1 * START, contexts)
        term(now).loss.backward()
        assert now.dictionary.W_dec.grad is not None
        norms = now.dictionary.W_dec.grad.norm(dim=1)
        return float(norms[0] / norms.sum())

    assert share(Effect(radius=1.0, columns=6)) > 0.6 > 0.4 > share(MelboReward(radius=1.0, columns=6, cap=0.0))


def test_melbo_alone_turns_all_atoms_to_one_direction_and_the_kernel_form_does_not():
    alone = minimise({"melbo": MelboReward(radius=1.0, columns=6)}, LINEAR, START)
    assert coherence(alone) > 0.99
    kernel = minimise({"effect": Effect(radius=1.0, columns=6)}, LINEAR, START)
    assert coherence(kernel) < 0.4 and effect_size(LINEAR, kernel) > 0.8 * effect_size(LINEAR, alone)


def test_melbo_with_free_norms_buys_effect_with_norm():
    free = minimise({"melbo": MelboReward(radius=1.0, columns=6, cap=0.0)}, SLICE, START, unit=False)
    held = minimise({"melbo": MelboReward(radius=1.0, columns=6, cap=0.0)}, SLICE, START)
    assert effect_size(SLICE, free) > 100 * effect_size(SLICE, held)
    assert held.norm(dim=1).sub(1).abs().max() < 1e-12 and effect_size(SLICE, held) > 2 * effect_size(SLICE, START)


# Its first-order sketch.


def test_the_sketch_measures_mean_squared_derivatives():
    found = sketched_jacobian(LINEAR, 2048, rng(5))
    expected = (START @ GAINS).square().sum(1)
    torch.testing.assert_close((START @ found.T).square().sum(1), expected, rtol=0.1, atol=0)
    few = torch.stack([(START[0] @ sketched_jacobian(LINEAR, 32, rng(seed)).T).square().sum() for seed in range(100)])
    assert float(few.std() / few.mean()) == pytest.approx(math.sqrt(2 / 32), rel=0.25)


def test_the_sketch_pools_tokens_in_squares_where_dct_would_cancel():
    """A slice whose derivative has opposite signs at the two tokens."""
    signs = torch.tensor([[[1.0], [-1.0]]], dtype=torch.float64)
    contexts = at(torch.zeros(1, 2, D_IN, dtype=torch.float64), lambda acts: acts + signs * (acts @ GAINS))
    assert pooled_effect(contexts, START).abs().max() < 1e-12
    found = (START @ sketched_jacobian(contexts, 2048, rng(6)).T).square().sum(1)
    torch.testing.assert_close(found, (START @ GAINS).square().sum(1), rtol=0.1, atol=0)


def test_the_first_order_reward_is_worth_its_formula_and_drawn_anew_when_due():
    term = EffectSketch(rows=4096, refresh=2, cap=0.0)
    now = firing_step(START, LINEAR)
    expected = -((START @ GAINS).norm(dim=1) / (GAINS.square().sum() / D_IN).sqrt()).log().mean()
    assert term(now).loss.item() == pytest.approx(expected.item(), abs=0.02)
    first = now.memory["sketch"]
    term(now)
    assert torch.equal(now.memory["sketch"], first)
    term(replace(now, rng=rng(9)))
    assert not torch.equal(now.memory["sketch"], first)


# Interactions.


def test_interaction_of_a_quadratic_slice_is_the_squared_off_diagonal_of_its_hessian():
    """At the origin, where there is no first-order effect: 8 c^4 sum_(i != j) (d_i H d_j)^2 over floor R^2."""
    hessian = torch.randn(D_IN, D_IN, generator=rng(7), dtype=torch.float64)
    hessian = hessian + hessian.T
    output = units(1, D_IN, 8)[0]
    square = lambda acts: acts + ((acts @ hessian) * acts).sum(-1, keepdim=True) * output
    contexts = at(torch.zeros(1, 1, D_IN, dtype=torch.float64), square)
    atoms, radius = START[:3], 0.6
    inside = atoms @ hessian @ atoms.T
    off = inside.square().sum() - inside.diagonal().square().sum()
    term = Interaction(radius=radius, samples=20_000, floor=0.5)
    expected = 8 * (radius**2 / 3) ** 2 * off / (0.5 * radius**2)
    assert term(firing_step(atoms, contexts)).loss.item() == pytest.approx(expected.item(), rel=0.05)
    both, one, other = (pooled_effect(contexts, part[None]) for part in (atoms[0] + atoms[1], atoms[0], atoms[1]))
    torch.testing.assert_close(both - one - other, (2 * inside[0, 1] * output)[None])


def test_interactions_of_opposite_signs_in_two_contexts_are_seen_though_pooling_cancels_them():
    atoms = torch.eye(D_IN, dtype=torch.float64)[:2]
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).view(2, 1, 1)
    product = lambda acts: acts * 2 + signs * (acts[..., :1] * acts[..., 1:2]) * torch.eye(D_IN).double()[5]
    contexts = at(torch.zeros(2, 1, D_IN, dtype=torch.float64), product)
    assert Hessian(radius=1.0, samples=16)(firing_step(atoms, contexts)).loss.item() < 1e-20
    assert Interaction(radius=1.0, samples=16)(firing_step(atoms, contexts)).loss.item() > 0.1


def test_interaction_alone_hides_atoms_from_the_slice_and_an_effect_term_beside_it_prevents_that():
    start = effect_size(SLICE, START)
    for floor in (0.0, 1e-2):
        alone = minimise({"interaction": Interaction(radius=1.0, floor=floor)}, SLICE, START)
        assert effect_size(SLICE, alone) < 0.7 * start and alignment(alone, PLANTED) < 0.45
    both = {"effect": Effect(radius=1.0, columns=6), "interaction": Interaction(radius=1.0)}
    together = minimise(both, SLICE, START)
    assert effect_size(SLICE, together) > 1.8 * start and alignment(together, PLANTED) > 0.98


def test_one_latent_at_a_token_has_nothing_to_interact_with():
    assert Interaction(radius=1.0)(firing_step(START[:1], SLICE)).loss.item() == 0


# The causal head.


def test_the_head_of_an_additive_slice_learns_its_effects_and_then_charges_nothing():
    memory: dict[str, Tensor] = {}
    contexts = at(torch.zeros(1, 1, D_IN, dtype=torch.float64), exponential(PLANTED, OUTPUTS))
    term = CausalHead(radius=1.0)
    losses = [term(firing_step(PLANTED, contexts, memory=memory, seed=seed)).loss.item() for seed in range(40)]
    assert losses[-1] < 1e-6 * max(losses)
    wanted = math.expm1(1) * OUTPUTS @ memory["projection"].T
    torch.testing.assert_close(memory["heads"], wanted, atol=1e-3, rtol=0)


def test_the_linear_head_misses_what_is_exponential():
    contexts = at(torch.zeros(1, 1, D_IN, dtype=torch.float64), exponential(PLANTED, OUTPUTS))

    def settled(term: CausalHead) -> float:
        memory: dict[str, Tensor] = {}
        losses = [term(firing_step(PLANTED, contexts, memory=memory, seed=seed)).loss.item() for seed in range(60)]
        return sum(losses[-20:]) / 20

    assert settled(CausalHead(radius=1.0, response="linear")) > 1e-3 > 1e3 * settled(CausalHead(radius=1.0))


def test_sets_that_only_teach_cost_atoms_nothing():
    def taught(count: int) -> tuple[int, Tensor]:
        now = firing_step(START, SLICE)
        CausalHead(radius=1.0, draws=1, most=1, taught=count)(now).loss.backward()
        assert now.dictionary.W_dec.grad is not None
        return int(now.memory["seen"].sum()), now.dictionary.W_dec.grad

    assert taught(0)[0] == 1 and taught(30)[0] == 31
    assert int((taught(30)[1].abs().sum(1) > 0).sum()) == 1


def test_the_head_learns_from_what_the_effect_term_measured_in_the_same_step():
    calls = []
    counted = lambda acts: calls.append(acts.shape[0]) or exponential(PLANTED, OUTPUTS)(acts)
    contexts = at(torch.zeros(1, 1, D_IN, dtype=torch.float64), counted)
    now = firing_step(PLANTED, contexts)
    Effect(radius=1.0, columns=6)(now)
    calls.clear()
    head = replace(now, memory={})
    CausalHead(radius=1.0, draws=2, most=1, taught=0)(head)
    assert bool((head.memory["seen"] > 0).all()) and sum(calls) == 32 + 2  # the floor's random directions, two draws
    torch.testing.assert_close(head.memory["heads"], math.expm1(1) * OUTPUTS @ head.memory["projection"].T)
    elsewhere = replace(now, memory={})
    CausalHead(radius=2.0, draws=2, most=1, taught=0)(elsewhere)
    assert int((elsewhere.memory["seen"] > 0).sum()) <= 2


def test_without_a_floor_the_heads_pull_grows_as_effects_vanish():
    hidden = torch.linalg.svd(PLANTED, full_matrices=True)[2][6:]
    null = normalize(units(6, len(hidden), 5) @ hidden, dim=1)

    def pull(floor: float, share: float) -> float:
        """The gradient on atoms that have so little of what the slice sees, from a head that predicts nothing."""
        now = firing_step(normalize(null + share * START, dim=1), SLICE)
        term = CausalHead(radius=1.0, floor=floor)
        term(now)
        now.memory["heads"] = torch.zeros_like(now.memory["heads"])
        term = replace(term, decay=0.0, rate=1e-300, taught=0)
        term(replace(now, rng=rng(1))).loss.backward()
        now.dictionary.project_gradient()
        assert now.dictionary.W_dec.grad is not None
        return float(now.dictionary.W_dec.grad.norm())

    assert pull(0.0, 1e-3) > 50 * pull(0.0, 1e-1)
    assert pull(0.1, 1e-3) < 0.1 * pull(0.1, 1e-1)


@pytest.mark.slow
def test_the_head_alone_gathers_atoms_in_one_direction_and_an_effect_term_beside_it_prevents_that():
    planted = units(6, D_IN, 1)
    contexts = near_origin(exponential(planted, units(6, D_IN, 2)))
    head = CausalHead(radius=1.0)
    alone = minimise({"head": head}, contexts, START, steps=120, lr=2.0, momentum=False)
    assert coherence(alone) > 0.95
    both = {"effect": Effect(radius=1.0, columns=6), "head": CausalHead(radius=1.0)}
    together = minimise(both, SLICE, START)
    assert coherence(together) < 0.05 and alignment(together, PLANTED) > 0.98


def test_the_sketch_alone_gathers_atoms_in_one_direction_and_repulsion_beside_it_prevents_that():
    alone = minimise({"sketch": EffectSketch(cap=0.0)}, LINEAR, START)
    assert coherence(alone) > 0.95 and effect_size(LINEAR, alone) > 1.3 * effect_size(LINEAR, START)
    both = {"sketch": EffectSketch(cap=0.0), "repulsion": Repulsion()}
    assert coherence(minimise(both, LINEAR, START)) < 0.5


# Repulsion, readback, reconstruction as downstream layers see it.


def test_the_gradient_of_repulsion_on_one_row_is_what_sogi_subtracts():
    temperature = 0.3
    now = firing_step(START, SLICE)
    cosines = (START @ START.T).fill_diagonal_(-torch.inf)
    attention = (cosines / temperature).softmax(1)
    Repulsion(temperature=temperature)(now).loss.backward()
    # A row repels the others by its own softmax, and is repelled by theirs.
    expected = (attention @ START + attention.T @ START) / len(START)
    torch.testing.assert_close(now.dictionary.W_dec.grad, expected)


def test_repulsion_spreads_atoms_as_far_as_they_go():
    spread = minimise({"repulsion": Repulsion()}, SLICE, units(12, D_IN, 4), lr=1e-2)
    assert float((spread @ spread.T).fill_diagonal_(-1).amax()) < 0.01 < coherence(units(12, D_IN, 4))


def test_what_orthonormal_atoms_write_is_read_back_and_a_copys_is_read_twice():
    atoms = torch.eye(4, dtype=torch.float64)
    x = torch.rand(8, 4, generator=rng(), dtype=torch.float64)
    out = Readback()(step(with_atoms(atoms, ReLU()), x))
    assert out.loss.item() == pytest.approx(0, abs=1e-20) and out.metrics["read"].item() == pytest.approx(1)
    copied = torch.cat([atoms, atoms[:1]])
    one = Readback(columns=1, size=2.0)
    found = {round(one(step(with_atoms(copied, ReLU()), x, seed=seed)).loss.item(), 9) for seed in range(20)}
    assert found == {0.0, 1.0}  # the copy fires too: |R e_other|^2 / R^2


def test_readback_sees_a_latent_that_a_push_silences():
    atoms = torch.tensor([[1.0, 0.0], [-0.6, 0.8]], dtype=torch.float64)
    now = step(with_atoms(atoms, ReLU()), torch.tensor([[0.0, 0.5]], dtype=torch.float64))
    # Codes 0 and 0.4. Pushing the first silences the second; pushing the second sets itself, the first stays at 0.
    assert Readback(size=1.0)(now).loss.item() == pytest.approx((0.16 + 0.0) / 2)


def test_a_perfect_dictionary_is_not_noticed_downstream_and_a_silent_one_is():
    acts = torch.rand(3, 4, D_IN, generator=rng(3), dtype=torch.float64)
    contexts = at(acts, exponential(PLANTED, OUTPUTS))

    def noticed(scale: float) -> float:
        of = with_atoms(torch.eye(D_IN, dtype=torch.float64))
        of.W_enc.data.mul_(scale)
        now = replace(
            step(of, acts[0]), contexts=lambda: contexts, normalise=lambda a: a - 1.0, restore=lambda x: x + 1.0
        )
        of.b_dec.data.fill_(-1.0)
        return DownstreamReconstruction()(now).loss.item()

    assert noticed(1.0) == pytest.approx(0, abs=1e-20)
    wanted = contexts.base.flatten(0, 1)
    spread = (wanted - wanted.mean(0)).square().sum()
    assert noticed(0.0) == pytest.approx((wanted.square().sum() / spread).item())


# What holds for all.

SLICE_TERMS = (
    MelboReward(radius=1.0), EffectSketch(), Interaction(radius=1.0), CausalHead(radius=1.0), Effect(radius=1.0),
    DownstreamReconstruction(),
)  # fmt: skip


@pytest.mark.parametrize("term", SLICE_TERMS, ids=lambda term: type(term).__name__)
def test_an_identity_slice_has_no_effect_and_leaves_everything_finite(term):
    acts = torch.randn(2, 3, D_IN, generator=rng(), dtype=torch.float64)
    contexts = at(acts, lambda moved: moved)
    assert token_effects(contexts, everywhere(START, contexts)).abs().max() < 1e-12
    now = firing_step(START, contexts)
    out = term(now)
    if out.loss.requires_grad:
        out.loss.backward()
    grad = now.dictionary.W_dec.grad
    assert math.isfinite(out.loss.item()) and (grad is None or bool(grad.isfinite().all()))
    assert all(bool(value.isfinite().all()) for value in now.memory.values())


@pytest.mark.parametrize("term", SLICE_TERMS, ids=lambda term: type(term).__name__)
def test_what_reaches_an_atom_is_tangent_to_its_sphere_and_norms_stay_one(term):
    now = firing_step(START, SLICE)
    term(now).loss.backward()
    now.dictionary.project_gradient()
    grad, atoms = now.dictionary.W_dec.grad, now.dictionary.W_dec.data
    assert grad is not None and grad.abs().sum() > 0
    assert (grad * atoms).sum(1).abs().max() < 1e-12 * grad.norm()
    moved = minimise({"term": term}, SLICE, START, steps=4)
    assert moved.norm(dim=1).sub(1).abs().max() < 1e-12 and not torch.equal(moved, START)


def test_terms_of_a_step_agree_on_one_radius():
    now = firing_step(START, SLICE)
    first, second = (replace(now, memory={}, rng=rng(seed)) for seed in (1, 2))
    radii = [
        float(term(seen).metrics["radius"])
        for term, seen in ((FunctionalOrthogonality(), first), (MelboReward(), second))
    ]
    assert radii[0] == pytest.approx(radii[1]) and second.memory["radius"] == first.memory["radius"]
