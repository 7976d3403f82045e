"""Probes: differences of means by hand, logistic regression as scikit-learn does it, all factors at once."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tests.small import WORLD
from unbraid.metrics.linear_probes import difference_of_means, logistic
from unbraid.sources.truth import Labelled, of_factors
from unbraid.sources.world.world import World


def labelled(x: Tensor, active: list[list[int]]) -> Labelled:
    """`active`: for each row, the factors active in it, out of four."""
    rows = torch.tensor([row for row, factors in enumerate(active) for _ in factors])
    factors = torch.tensor([factor for factors in active for factor in factors])
    return Labelled(x, rows, factors, torch.ones(len(rows)), 4)


ROWS = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 4.0], [0.0, 6.0]])
ACTIVE = [[0, 1, 3], [0, 3], [3], [3]]


def test_the_difference_of_means_by_hand():
    found = difference_of_means(labelled(ROWS, ACTIVE))
    assert found[0].tolist() == [2.0 - 2.5, 1.0 - 5.0]
    assert found[1].tolist() == pytest.approx([1 - 8 / 3, 0 - 4.0])


def test_factors_never_or_always_active_have_no_difference_and_no_probe():
    data = labelled(ROWS, ACTIVE)
    assert difference_of_means(data)[2:].isnan().all()
    assert logistic(data).weights[2:].isnan().all() and logistic(data).bias[2:].isnan().all()
    assert not logistic(data).weights[:2].isnan().any()


def test_a_child_is_compared_within_its_parent():
    found = difference_of_means(labelled(ROWS, ACTIVE), torch.tensor([-1, 0, -1, -1]))
    assert found[1].tolist() == [1.0 - 3.0, 0.0 - 2.0]
    assert found[0].tolist() == [-0.5, -4.0]


def test_rows_with_a_child_and_without_its_parent_count_on_neither_side():
    loose = labelled(torch.cat([ROWS, torch.tensor([[9.0, 9.0]])]), [*ACTIVE, [1]])
    found = difference_of_means(loose, torch.tensor([-1, 0, -1, -1]))
    assert found[1].tolist() == [1.0 - 3.0, 0.0 - 2.0]


def test_within_the_parent_the_difference_is_nearer_the_childs_direction():
    data = WORLD.labelled(8192, split="train")
    children = WORLD.parents >= 0
    cosines = [
        torch.cosine_similarity(difference_of_means(data, parents), WORLD.directions)[children].mean()
        for parents in (None, WORLD.parents)
    ]
    assert cosines[1] > cosines[0] + 0.1


@pytest.mark.parametrize("l2", [1.0, 30.0])
def test_logistic_probes_equal_scikit_learns(l2: float):
    data = WORLD.labelled(2048, split="train")
    found, active = logistic(data, l2=l2), data.dense() > 0
    for factor in (0, 7, 20, 47):
        theirs: Any = LogisticRegression(C=1 / l2, tol=1e-8, max_iter=5000)
        theirs.fit(data.x.double().numpy(), active[:, factor].numpy())
        weights = torch.from_numpy(theirs.coef_[0])
        torch.testing.assert_close(found.weights[factor].double(), weights, rtol=0.01, atol=0.01)
        assert float(found.bias[factor]) == pytest.approx(theirs.intercept_[0], abs=0.02)


def test_probes_read_what_is_linearly_readable():
    exact = World(factors=24, d_in=32, l0=2.0, roots=4, branching=2, depth=1, noise=0.0, interactions=0)
    probes, held_out = logistic(exact.labelled(8192, split="train")), exact.labelled(4096, split="eval")
    said = held_out.x @ probes.weights.T + probes.bias > 0
    assert (said == (held_out.dense() > 0)).double().mean() > 0.998


def test_probes_of_labels_without_meaning_are_at_chance():
    x = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    noise = labelled(x, [[0] if draw else [1] for draw in rng.random(4096) < 0.5])
    found = logistic(noise)
    assert found.weights[:2].abs().max() < 0.1 and found.bias[:2].abs().max() < 0.1
    torch.testing.assert_close(found.weights[0], -found.weights[1], atol=1e-3, rtol=0)


def test_probes_of_some_factors_are_those_of_all():
    rows = WORLD.truth().labelled(4096, split="train")
    part = of_factors(rows, [7, 2])
    assert part.dense().equal(rows.dense()[:, [7, 2]])
    every, some = logistic(rows), logistic(part)
    near = 0.02 * float(every.weights[[7, 2]].norm(dim=1).min())  # each descent ends within its tolerance
    torch.testing.assert_close(some.weights, every.weights[[7, 2]], rtol=0, atol=near)
