"""Terms on two tokens of a document, or on minimal pairs: values by hand on codes one can see."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests import coded
from tests.coded import identity

from unbraid.objective.objective import Step
from unbraid.sources.base import Batch, Counterfactuals
from unbraid.terms.statistics.token_pairs import code_differences, earlier_tokens, usual_size
from unbraid.terms.weak_supervision.invariance import Invariance
from unbraid.terms.weak_supervision.slowness import Slowness
from unbraid.terms.weak_supervision.temporal import Temporal


def step(rows: list[list[float]], documents: list[int], positions: list[int] | None = None, **given: Any) -> Step:
    places = torch.tensor(positions) if positions else None
    x = torch.tensor(rows, dtype=torch.float64)
    return coded.step(x, documents=torch.tensor(documents), positions=places, path="auto", **given)


def test_earlier_tokens_are_earlier_and_of_the_same_document():
    rng = torch.Generator().manual_seed(1)
    documents, positions = torch.randint(9, (200,), generator=rng), torch.randperm(200, generator=rng)
    batch = Batch(torch.zeros(200, 1), positions, documents, positions)
    for nearest in (True, False):
        later, earlier = earlier_tokens(batch, rng, nearest=nearest)
        assert len(later) == 200 - len(documents.unique())
        assert torch.equal(documents[later], documents[earlier])
        assert (positions[earlier] < positions[later]).all()
        if nearest:
            for row, before in zip(later.tolist(), earlier.tolist(), strict=True):
                between = (positions > positions[before]) & (positions < positions[row])
                assert not (between & (documents == documents[row])).any()


def test_any_earlier_token_can_be_chosen():
    batch = Batch(torch.zeros(4, 1), torch.arange(4), torch.zeros(4).long(), torch.arange(4))
    seen = {
        tuple(earlier_tokens(batch, torch.Generator().manual_seed(s), nearest=False).earlier.tolist())
        for s in range(60)
    }
    assert len(seen) == 1 * 2 * 3


@pytest.mark.parametrize("path", ["sparse", "dense"])
def test_codes_side_by_side_equal_their_dense_rows(path):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(12, 6, generator=rng, dtype=torch.float64)
    x[5] = -1
    z = identity(6).codes(x, path)
    one, other = torch.tensor([0, 5, 7, 7]), torch.tensor([1, 2, 5, 7])
    found = code_differences(z, one, other)
    dense = torch.zeros(4, 6, dtype=torch.float64).index_put((found.pairs, found.latents), found.change)
    assert torch.equal(dense, x[one].relu() - x[other].relu())
    assert len(found.change) == int(((x[one] > 0) | (x[other] > 0)).sum())


def test_the_scale_is_that_of_active_values_and_remembers():
    made = identity(2)
    memory: dict[str, torch.Tensor] = {}
    x = torch.tensor([[3.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert usual_size(made.codes(x), memory).tolist() == [3, 1]
    x = torch.tensor([[-1.0, 2.0]], dtype=torch.float64)
    assert usual_size(made.codes(x), memory).tolist() == [3, 2]


def test_slowness_is_the_mean_relative_change_from_the_token_before():
    # Latent 1 is 2 and 4 (rms sqrt 10), latent 2 is 3 once: document 0 changes by 2 / sqrt 10 + 3 / 3.
    now = step([[2.0, 0.0], [4.0, 3.0], [0.0, 0.0]], [0, 0, 1])
    assert Slowness()(now).loss.item() == pytest.approx(2 / 10**0.5 + 1)


def test_what_does_not_change_is_slow():
    assert Slowness()(step([[2.0, 1.0]] * 3, [0, 0, 0])).loss.item() == 0


def test_temporal_contrast_by_hand():
    # Two documents; F = first latent: products of later and earlier are [[2, 0], [0, 0]].
    rows = [[1.0, 9, 9, 9], [2.0, 0, 0, 0], [0.0, 5, 5, 5], [0.0, 5, 0, 0]]
    now = step(rows, [0, 0, 1, 1])
    out = Temporal(share=0.25)(now)
    log2 = torch.tensor(2.0).log()
    first = torch.logsumexp(torch.tensor([2.0, 0.0]), 0) - 2
    assert out.loss.item() == pytest.approx(float((first + log2) / 2))


def test_another_token_of_the_same_document_is_no_wrong_answer():
    rows = [[1.0, 0, 0, 0], [3.0, 0, 0, 0], [3.0, 0, 0, 0], [0.0, 1, 0, 0], [0.0, 1, 0, 0]]
    together = Temporal(share=0.5)(step(rows, [0, 0, 0, 1, 1])).loss
    assert together.item() < 0.6  # with it, rows 2 and 3 would each cost log 2 and more


def test_a_batch_without_pairs_costs_nothing():
    now = step([[1.0, 2.0], [3.0, 4.0]], [0, 1])
    assert Temporal()(now).loss.item() == Slowness()(now).loss.item() == 0


def pair(x: list[list[float]], changed: list[list[float]]):
    return Counterfactuals(torch.tensor(x, dtype=torch.float64), torch.tensor(changed, dtype=torch.float64))


def test_invariance_by_hand():
    # Latents 1: 4 -> 0, 2: 0 -> 1, 3: 2 -> 2. Scales 4, 1, 2: differences 1, 1, 0.
    given = pair([[4.0, 0.0, 2.0]], [[0.0, 1.0, 2.0]])
    now = step([[1.0, 1.0, 1.0]], [0], counterfactuals=lambda: given)
    assert Invariance(form="l1")(now).loss.item() == pytest.approx(2)
    assert Invariance(form="ada")(now).loss.item() == 0  # both are the largest: neither is shared
    assert float(Invariance(form="ada")(now).metrics["changed"]) == 2


def test_ada_pays_for_small_changes_beside_a_large_one():
    # Scales: 4 and sqrt((1 + 1.44) / 2).
    given = pair([[4.0, 1.0]], [[0.0, 1.2]])
    now = step([[1.0, 1.0]], [0], counterfactuals=lambda: given)
    assert Invariance(form="ada")(now).loss.item() == pytest.approx(0.2**2 / 1.22)
    alone = replace(now, counterfactuals=lambda: pair([[4.0, 1.0]], [[0.0, 1.0]]), memory={})
    assert Invariance(form="ada")(alone).loss.item() == 0
