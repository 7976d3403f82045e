"""Pushes of equal next-token KL: lengths, the gradient on that surface, and fits on it, where the answer is known."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tests.callbacks import AtFit
from tests.causal.slices import rng, units
from tests.causal.test_resumed_fits import Killed, assert_equal_fits
from tests.causal.test_runs import fitted
from tests.tiny_lm import source, write_corpus, write_model
from torch import Tensor

from unbraid.dictionary.initialisation import no_progress
from unbraid.sources.base import Contexts
from unbraid.steering.base import FitContext, SliceFit
from unbraid.steering.exponential_dct import ExponentialDct
from unbraid.steering.linear_dct import LinearDct
from unbraid.steering.melbo import Melbo
from unbraid.steering.model_slice import Slice
from unbraid.steering.push_length import FixedRadius, KlBudget
from unbraid.training.loop import train

D_IN, D_OUT, VOCABULARY = 6, 5, 7
MAP = torch.randn(D_IN, D_OUT, dtype=torch.float64, generator=rng(1))
UNEMBEDDING = torch.randn(D_OUT, VOCABULARY, dtype=torch.float64, generator=rng(2))


def linear(scale: float = 1.0) -> Slice:
    """One token, a linear slice, and a softmax of what it gives."""
    acts = torch.ones(1, 1, D_IN, dtype=torch.float64)
    downstream = lambda moved: scale * moved @ MAP
    predict = lambda left, at: left[..., at, :] @ UNEMBEDDING
    mask = torch.ones(1, 1, dtype=torch.bool)
    return Slice.of(Contexts(acts, mask, downstream(acts), downstream, predict=predict))


def fisher() -> Tensor:
    """The matrix F of KL = 1/2 theta' F theta for small pushes theta."""
    p = (torch.ones(1, D_IN, dtype=torch.float64) @ MAP @ UNEMBEDDING).softmax(-1).squeeze(0)
    out = MAP @ UNEMBEDDING
    return out @ (torch.diag(p) - torch.outer(p, p)) @ out.T


def test_small_pushes_cost_half_the_fisher_form():
    pushes = 1e-3 * units(4, D_IN, 3)
    expected = 0.5 * ((pushes @ fisher()) * pushes).sum(1)
    torch.testing.assert_close(linear().next_token_kl(pushes), expected, rtol=1e-2, atol=0)
    cost, gradient = linear().kl_and_gradient(pushes)
    torch.testing.assert_close(cost, linear().next_token_kl(pushes))
    torch.testing.assert_close((gradient * pushes).sum(1), 2 * cost, rtol=1e-2, atol=0)


def test_each_direction_gets_the_length_at_which_it_spends_the_budget():
    after, v = linear(), units(5, D_IN, 4)
    lengths = KlBudget(after, 0.02, 5.0).begin(v)
    torch.testing.assert_close(after.next_token_kl(lengths * v), torch.full((5,), 0.02).double(), rtol=0.03, atol=0)
    assert float(lengths.max() / lengths.min()) > 1.2


def test_what_costs_too_little_is_pushed_as_far_as_allowed_and_no_farther():
    longest = 5.0
    rule, v = KlBudget(linear(1e-6), 0.3, longest), units(2, D_IN, 4)
    torch.testing.assert_close(rule.begin(v), torch.full((2, 1), longest).double(), rtol=1e-6, atol=0)
    gradient = units(2, D_IN, 5)
    followed = rule.follow(v, rule.begin(v), gradient)
    torch.testing.assert_close(followed.gradient, gradient)  # there it is a fixed radius
    assert float(followed.lengths.max()) <= longest * (1 + 1e-6)


def test_the_gradient_is_that_of_a_score_whose_push_keeps_to_the_budget():
    """By finite differences of score(l(v) v), with l found anew for every v."""
    after, v, way = linear(), units(1, D_IN, 6), units(1, D_IN, 7)
    rule = KlBudget(after, 0.05, 5.0)
    score = lambda pushes: after.pooled(pushes).square().sum(1)

    def exact(direction: Tensor) -> Tensor:
        push = direction / direction.norm() * rule.begin(direction / direction.norm())
        for _ in range(40):  # to rounding: the search ends within two hundredths
            cost, slope = after.kl_and_gradient(push)
            push = push * (1 + (0.05 - cost) / (slope * push).sum(1))
        return push

    push = exact(v).requires_grad_()
    gradient = torch.autograd.grad(score(push).sum(), push)[0]
    lengths = push.detach().norm(dim=1, keepdim=True)
    kept = rule.follow(v, lengths, gradient).gradient
    along = way - (way * v).sum() * v
    step = 1e-5
    measured = (score(exact(v + step * along)) - score(exact(v - step * along))) / (2 * step)
    torch.testing.assert_close((lengths * kept * along).sum(1), measured, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close((kept * v).sum(1), torch.zeros(1).double(), atol=1e-9, rtol=0)


def test_a_fixed_radius_leaves_gradients_and_lengths_as_they_are():
    v, gradient = units(3, D_IN, 8), units(3, D_IN, 9)
    followed = FixedRadius(2.5).follow(v, FixedRadius(2.5).begin(v), gradient)
    assert followed.gradient is gradient and bool((followed.lengths == 2.5).all())


def test_melbo_under_a_small_budget_finds_the_most_effect_per_unit_of_root_kl():
    """The first generalised eigenvector of (M M', F): not the eigenvector of M M', which it finds at a fixed radius."""
    after = linear()
    moved, cost = MAP @ MAP.T, fisher() + 1e-9 * torch.eye(D_IN)
    ratio = lambda v: ((v @ moved) * v).sum() / ((v @ cost) * v).sum()
    root = torch.linalg.cholesky(cost)
    solved = torch.linalg.solve_triangular(root, moved, upper=False)
    best = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, solved.T, upper=False))
    method = Melbo(orthogonality="none", steps=400, lr=1e-2)
    rules = KlBudget(after, 1e-4, 5.0), FixedRadius(1e-2)
    kept, fixed = (method.fit(3, FitContext(after, rule, rng(), no_progress)) for rule in rules)
    found, other = (max(float(ratio(v)) for v in fit.directions) for fit in (kept, fixed))
    assert 0.5 * float(best.max()) < found < 1.01 * float(best.max())
    assert found > 100 * other


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    home = tmp_path_factory.mktemp("budget")
    text = write_corpus(home / "words.jsonl", count=3)
    return source(write_model(home / "model"), text, downstream_layer=2, eval_share=0.0)


BUDGETED: dict[str, SliceFit] = {
    "melbo": Melbo(steps=2, budget_kl=0.2),
    "melbo joint": Melbo(orthogonality="joint", steps=6, budget_kl=0.2, last=2),
    "kernel": ExponentialDct(steps=6, budget_kl=0.2),
    "sogi": ExponentialDct(solver="sogi", steps=4, budget_kl=0.2),
    "linear": LinearDct(budget_kl=0.2),
}


@pytest.mark.parametrize("init", BUDGETED.values(), ids=BUDGETED)
def test_a_fit_under_a_budget_reports_what_its_directions_cost_and_resumes_bit_for_bit(tmp_path, model, init):
    made = fitted(init)
    made = replace(made, source=model, training=replace(made.training, normalise="none"))
    (whole,) = train([made], tmp_path / "whole")
    fit = load_file(whole / "fit.safetensors")
    within = fit["lengths"] < 0.999 * fit["lengths"].max()
    torch.testing.assert_close(fit["kl"][within], torch.full((int(within.sum()),), 0.2), rtol=0.03, atol=0)
    assert bool((fit["kl"] < 0.21).all())
    assert fit["radius"] == fit["lengths"].median()

    def stop(_: object, done: int, total: int) -> None:
        if done >= 3:
            raise Killed

    with pytest.raises(Killed):
        train([made], tmp_path / "cut", checkpoint_steps=1, callbacks=[AtFit(stop)])
    (cut,) = train([made], tmp_path / "cut", resume=True)
    assert_equal_fits(whole, cut)


def test_a_budget_where_nothing_is_predicted_is_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(ValueError, match="its fit has a budget of next-token KL, but these contexts predict no tokens"):
        train([fitted(LinearDct(budget_kl=0.5))], tmp_path)
    assert not any(tmp_path.iterdir())


def test_no_length_exceeds_the_radius(tmp_path, model):
    made = fitted(LinearDct(budget_kl=0.5, radius=0.1))
    made = replace(made, source=model, training=replace(made.training, normalise="none"))
    fit = load_file(train([made], tmp_path)[0] / "fit.safetensors")
    torch.testing.assert_close(fit["lengths"], torch.full((8,), 0.1))
    assert float(fit["kl"].max()) < 0.5
