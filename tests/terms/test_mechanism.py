"""Terms that look at finite effects on downstream layers, on slices whose derivatives are known; and local IMA."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.dictionary import Dictionary
from unbraid.effects.curvature import cross_curvature, differences, overlap, random_signs
from unbraid.objective.objective import Step
from unbraid.sources.base import Batch, Contexts
from unbraid.terms.causal.functional_orthogonality import FunctionalOrthogonality
from unbraid.terms.causal.hessian import Hessian
from unbraid.terms.causal.orthogonal_jacobian import OrthogonalJacobian
from unbraid.terms.geometry.local_ima import LocalIma


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def units(count: int, d_in: int, seed: int = 1) -> torch.Tensor:
    return normalize(torch.randn(count, d_in, generator=rng(seed), dtype=torch.float64), dim=1)


def at_origin(downstream, d_in: int) -> Contexts:
    acts = torch.zeros(1, 1, d_in, dtype=torch.float64)
    return Contexts(acts, torch.ones(1, 1, dtype=torch.bool), downstream(acts), downstream)


def step(atoms: torch.Tensor, contexts: Contexts | None = None, x: torch.Tensor | None = None, seed: int = 0) -> Step:
    made = Dictionary(atoms.shape[1], len(atoms), ReLU()).double()
    made.W_dec.data.copy_(atoms)
    made.W_enc.data.copy_(atoms.T)
    rows = torch.zeros(2, atoms.shape[1], dtype=torch.float64) if x is None else x
    index = torch.arange(len(rows))
    return Step(
        x=rows, z=made.codes(rows), dictionary=made, batch=Batch(rows, index, index, index), progress=0.5,
        dead=torch.zeros(len(atoms), dtype=torch.bool), rng=rng(seed),
        contexts=lambda: contexts if contexts is not None else pytest.fail("no contexts here"),
    )  # fmt: skip


def test_second_differences_of_products_are_hessians():
    # On [z0 z1, z0^2 z1]: 2 sum of squared off-diagonal second derivatives is 4, and 16 z0^2 at most.
    z = torch.tensor([1.5, -0.7], dtype=torch.float64)
    f = lambda theta: torch.stack([theta[:, 0] * theta[:, 1], theta[:, 0] ** 2 * theta[:, 1]], 1)
    effect = lambda theta: f(z + theta) - f(z[None])
    size = 0.1
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    _, second = differences(effect, torch.eye(2, dtype=torch.float64), signs, size * 2**0.5)
    variance = (second / size**2).var(0, unbiased=False)
    assert variance.tolist() == pytest.approx([4, 16 * z[0].item() ** 2])


def test_on_a_linear_map_curvature_is_zero_and_overlap_that_of_the_gram_matrix():
    atoms, matrix = units(5, 8), torch.randn(8, 6, generator=rng(2), dtype=torch.float64)
    signs = random_signs(200_000, 5, rng(3))
    first, second = differences(lambda theta: theta @ matrix, atoms, signs, 5**0.5)
    assert second.abs().max() < 1e-12 and cross_curvature(first, second) < 1e-20
    gram = (atoms @ matrix) @ (atoms @ matrix).T
    off_diagonal = gram.square().sum() - gram.diagonal().square().sum()
    assert first.square().sum(1).var().item() == pytest.approx(2 * off_diagonal.item(), rel=0.02)
    assert overlap(first).item() == pytest.approx(2 * off_diagonal.item() / gram.trace().item() ** 2, rel=0.02)


def squares(planted: torch.Tensor):
    """A residual slice that adds, to the input, (1 + projection)^2 - 1 along each planted direction: no interactions
    between orthogonal ones."""
    return lambda acts: acts + ((1 + acts @ planted.T) ** 2 - 1) @ planted


def test_the_hessian_penalty_is_zero_for_the_slices_own_directions_and_not_for_mixtures():
    planted = torch.linalg.qr(torch.randn(6, 6, generator=rng(4), dtype=torch.float64)).Q[:4]
    contexts = at_origin(squares(planted), 6)
    mixed = normalize(
        torch.tensor([[1.0, 1, 0, 0], [1, -1, 0, 0], [0, 0, 1, 1], [0, 0, 1, -1]]).double() @ planted, dim=1
    )
    term = Hessian(radius=0.5, samples=16)
    assert term(step(planted, contexts)).loss.item() < 1e-20
    assert term(step(mixed, contexts)).loss.item() > 1e-3


def test_the_jacobian_penalty_is_zero_for_orthogonal_effects_and_not_for_parallel_ones():
    matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    contexts = at_origin(lambda acts: acts + acts @ matrix, 3)
    term = OrthogonalJacobian(radius=1.0, samples=16)
    assert term(step(torch.eye(3, dtype=torch.float64), contexts)).loss.item() < 1e-20
    twice = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]], dtype=torch.float64)
    # |first|^2 is 4 or 0 (over 2), each half of the time: its variance is the square of its mean.
    many = OrthogonalJacobian(radius=1.0, samples=4096)
    assert many(step(twice, contexts)).loss.item() == pytest.approx(1, abs=0.1)


def test_functional_orthogonality_of_a_linear_slice_is_the_cosine_of_mapped_rows():
    atoms = units(4, 6)
    matrix = torch.randn(6, 6, generator=rng(5), dtype=torch.float64)
    contexts = at_origin(lambda acts: acts + acts @ matrix, 6)
    mapped = normalize(atoms @ matrix, dim=1)
    cosines = (mapped @ mapped.T).fill_diagonal_(-1)
    expected = cosines.amax(1).relu().square().mean().item()
    for neighbours in (True, False):
        found = FunctionalOrthogonality(radius=2.0, columns=4, neighbours=neighbours)(step(atoms, contexts))
        assert found.loss.item() == pytest.approx(expected)


def test_a_duplicate_is_seen_only_with_neighbours():
    atoms = torch.cat([torch.eye(24, dtype=torch.float64), torch.eye(24, dtype=torch.float64)])
    contexts = at_origin(lambda acts: 3 * acts, 24)
    with_neighbours, without = (
        FunctionalOrthogonality(radius=1.0, columns=2, neighbours=n)(step(atoms, contexts)).loss.item()
        for n in (True, False)
    )
    assert with_neighbours == pytest.approx(1) and without == pytest.approx(0)


def test_no_gradient_reaches_the_model():
    weight = torch.eye(6, dtype=torch.float64)  # a frozen model's weights, as LanguageModel loads them
    contexts = at_origin(lambda acts: acts + torch.tanh(acts @ weight), 6)
    for term in (FunctionalOrthogonality(radius=1.0), Hessian(radius=1.0), OrthogonalJacobian(radius=1.0)):
        now = step(units(8, 6), contexts)
        term(now).loss.backward()
        assert weight.grad is None and contexts.acts.grad is None
        assert now.dictionary.W_dec.grad is not None and now.dictionary.W_enc.grad is None


def test_one_living_latent_has_nothing_to_overlap_with():
    contexts = at_origin(lambda acts: 2 * acts, 6)
    for term in (FunctionalOrthogonality(radius=1.0), Hessian(radius=1.0), OrthogonalJacobian(radius=1.0)):
        assert term(step(units(1, 6), contexts)).loss.item() == 0


def test_local_ima_is_zero_for_orthonormal_atoms_and_known_for_two():
    x = torch.tensor([[1.0, 1.0, 0.0], [2.0, 0.0, 0.0]], dtype=torch.float64)
    assert LocalIma()(step(torch.eye(3, dtype=torch.float64), x=x)).loss.item() == pytest.approx(0, abs=1e-12)
    rho = 0.6
    atoms = torch.tensor([[1.0, 0.0], [rho, 0.8]], dtype=torch.float64)
    both = LocalIma(ridge=0.0)(step(atoms, x=torch.tensor([[1.0, 1.0]], dtype=torch.float64))).loss.item()
    assert both == pytest.approx(-0.5 * math.log(1 - rho**2))


def test_local_ima_looks_at_the_most_active_and_not_at_those_apart():
    atoms = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1]], dtype=torch.float64)
    now = step(atoms, x=torch.tensor([[1.0, 1.0, 3.0]], dtype=torch.float64))
    # The third is the most active, then the second (1.4): orthogonal.
    assert LocalIma(most=2)(now).loss.item() == pytest.approx(0, abs=1e-12)
    duplicate = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    apart = step(duplicate, x=torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    apart.dictionary.b_enc.data[1] = -5
    now = step(duplicate, x=torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    alone = Step(**{**vars(now), "z": apart.dictionary.codes(now.x)})
    assert LocalIma()(alone).loss.item() == pytest.approx(0, abs=1e-12)
    assert LocalIma()(now).loss.item() > 3
