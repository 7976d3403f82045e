"""The effect term finds the directions a slice was planted with, and says nothing about a slice that does nothing."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.dictionary import Dictionary
from unbraid.objective.objective import Step
from unbraid.sources.base import Batch, Contexts
from unbraid.sources.world.world import World
from unbraid.terms.causal.effect import Effect, explained

D_IN = 16
HELD = math.nextafter(1.0, 0.0)
"""The decay of an average that stays where it is put."""


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def units(count: int, seed: int, d_in: int = D_IN) -> torch.Tensor:
    return normalize(torch.randn(count, d_in, generator=rng(seed), dtype=torch.float64), dim=1)


def orthonormal(count: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(D_IN, D_IN, generator=rng(seed), dtype=torch.float64))[0][:count]


def at_origin(downstream) -> Contexts:
    acts = torch.zeros(1, 1, D_IN, dtype=torch.float64)
    return Contexts(acts, torch.ones(1, 1, dtype=torch.bool), downstream(acts), downstream)


def step(
    contexts: Contexts, atoms: torch.Tensor, *, seed: int = 0, dead: torch.Tensor | None = None, memory=None
) -> Step:
    dictionary = Dictionary(D_IN, len(atoms), ReLU()).double()
    dictionary.W_dec.data.copy_(atoms)
    x = torch.zeros(2, D_IN, dtype=torch.float64)
    index = torch.zeros(2, dtype=torch.long)
    silent = torch.zeros(len(atoms), dtype=torch.bool) if dead is None else dead
    return Step(
        x=x, z=dictionary.codes(x), dictionary=dictionary, batch=Batch(x, index, index, index), dead=silent,
        progress=0.5, contexts=lambda: contexts, rng=rng(seed), memory={} if memory is None else memory,
    )  # fmt: skip


def exponential(directions: torch.Tensor, outputs: torch.Tensor):
    """A residual slice that is exponential along the planted directions."""
    return lambda acts: acts + torch.expm1(acts @ directions.T) @ outputs


def test_orthonormal_atoms_get_melbos_reward_over_e_minus_1():
    planted, outputs = orthonormal(4, 1), units(4, 2)
    contexts = at_origin(exponential(planted, outputs))
    now = step(contexts, planted, memory={"usual_effect": torch.tensor(2.0, dtype=torch.float64)})
    term = Effect(radius=1.0, ridge=1e-300, columns=4, decay=HELD)
    melbo = 4 * math.expm1(1) ** 2  # every atom moves its own unit output by e - 1
    assert term(now).loss.item() == pytest.approx(-melbo / (math.e - 1) / (4 * 2.0))


def test_the_planted_directions_account_for_the_whole_slice():
    """The slice is then a sum of kernel functions of the atoms, whose squared norm is tr(O O' expm1(W W'))."""
    planted, outputs = units(6, 3), units(6, 4)
    effects = torch.expm1(planted @ planted.T) @ outputs
    whole = ((outputs @ outputs.T) * torch.expm1(planted @ planted.T)).sum()
    torch.testing.assert_close(explained(effects, planted, 0.0), whole)
    other = units(6, 5)
    assert explained(torch.expm1(other @ planted.T) @ outputs, other, 0.0) < 0.9 * whole


def test_minimising_it_aligns_atoms_with_the_planted_directions():
    planted = orthonormal(8, 6)
    contexts = at_origin(exponential(planted, units(8, 7)))
    term = Effect(radius=1.0, columns=8, probes=2)
    now = step(contexts, units(8, 8))
    atoms = now.dictionary.W_dec

    def alignment() -> float:
        return float((atoms.detach() @ planted.T).amax(1).mean())

    optimiser = torch.optim.Adam([atoms], lr=5e-2)
    before, effects = alignment(), []
    for index in range(100):
        optimiser.zero_grad()
        out = term(step_like(now, index))
        out.loss.backward()
        now.dictionary.project_gradient()
        optimiser.step()
        now.dictionary.renormalise()
        effects.append(float(out.metrics["effect_over_random"]))
    assert before < 0.5 and alignment() > 0.97
    assert effects[0] < 2 and effects[-1] > 4


def step_like(first: Step, index: int) -> Step:
    return Step(
        x=first.x, z=first.z, dictionary=first.dictionary, batch=first.batch, dead=first.dead, progress=0.5,
        contexts=first.contexts, rng=rng(index), memory=first.memory,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_slice_that_does_nothing_gives_a_loss_near_zero(dtype):
    acts = 30 * torch.randn(2, 4, D_IN, generator=rng(), dtype=dtype)
    contexts = Contexts(acts, torch.ones(2, 4, dtype=torch.bool), acts, lambda moved: moved)
    out = Effect(radius=1.0)(step(contexts, units(8, 1)))
    assert abs(out.loss.item()) < 1e-2 and math.isfinite(out.loss.item())


def test_without_a_radius_an_identity_slice_is_refused():
    acts = torch.randn(2, 4, D_IN, generator=rng(), dtype=torch.float64)
    contexts = Contexts(acts, torch.ones(2, 4, dtype=torch.bool), acts, lambda moved: moved)
    with pytest.raises(ValueError, match="later target layer"):
        Effect()(step(contexts, units(8, 1)))


def test_random_atoms_have_the_effect_of_random_directions():
    world = World(factors=64, d_in=D_IN, l0=3.0, roots=8, interactions=4)
    contexts = world.contexts(4, split="train", seed=0)
    out = Effect(columns=256)(step(contexts, units(256, 9)))
    assert out.metrics["effect_over_random"].item() == pytest.approx(1, abs=0.35)


def test_the_radius_is_calibrated_once_and_kept():
    world = World(factors=64, d_in=D_IN, l0=3.0, roots=8, interactions=4)
    first = step(world.contexts(4, split="train", seed=0), units(32, 9))
    radius = Effect()(first).metrics["radius"]
    second = step(world.contexts(4, split="train", seed=1), units(32, 9), seed=1, memory=first.memory)
    assert Effect()(second).metrics["radius"] == radius > 0
    assert set(first.memory) == {"radius", "usual_effect"}


def test_dead_latents_are_never_rewarded():
    world = World(factors=64, d_in=D_IN, l0=3.0, roots=8, interactions=4)
    dead = torch.arange(32) % 2 == 0
    now = step(world.contexts(2, split="train", seed=0), units(32, 9), dead=dead)
    Effect(columns=64)(now).loss.backward()
    assert now.dictionary.W_dec.grad is not None
    moved = now.dictionary.W_dec.grad.abs().sum(1) > 0
    assert torch.equal(moved, ~dead)


def test_with_every_latent_dead_there_is_nothing_to_reward():
    world = World(factors=64, d_in=D_IN, l0=3.0, roots=8, interactions=4)
    now = step(world.contexts(2, split="train", seed=0), units(32, 9), dead=torch.ones(32, dtype=torch.bool))
    assert Effect()(now).loss.item() == 0


def test_duplicated_atoms_are_worth_little_more_than_one():
    planted = orthonormal(2, 1)
    contexts = at_origin(exponential(planted, units(2, 2)))
    memory = lambda: {"usual_effect": torch.tensor(1.0, dtype=torch.float64)}
    total = lambda atoms: (
        len(atoms) * Effect(radius=1.0, decay=HELD)(step(contexts, atoms, memory=memory())).loss.item()
    )
    alone, twice, distinct = total(planted[:1]), total(planted[[0, 0]]), total(planted)
    assert alone == pytest.approx(twice, rel=1e-2)
    assert distinct == pytest.approx(2 * alone, rel=1e-6)
