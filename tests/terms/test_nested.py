"""The Matryoshka of 2026: inner levels detached, latents sorted by how often they fire, levels summed, k falling."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.exact import batch
from tests.exact import dictionary as random_dictionary
from tests.resumed import assert_resumed_equals_whole
from tests.small import WORLD, experiment
from tests.terms.test_contract import assert_finite, dictionary, step
from tests.terms.test_terms import axes
from tests.terms.test_terms import step as plain_step
from torch import Tensor

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.objective.objective import Objective, Step
from unbraid.runs.run import Run
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction

THIRDS = (1 / 3, 2 / 3, 1.0)
TODAY = NestedReconstruction(shares=(0.25, 1.0), detached=True, order="frequency", levels="sum", inner_weight=0.5)


def one_row() -> Step:
    """Codes 1, 1 and 3/sqrt(2) of the row (1, 2): prefixes (1, 0), (1, 1) and (2.5, 2.5)."""
    made = axes()
    made.b_enc.data[1] = -1.0
    return plain_step(torch.tensor([[1.0, 2.0]], dtype=torch.float64), made)


def gradient(term: NestedReconstruction, now: Step) -> list[list[float]]:
    (found,) = torch.autograd.grad(term(now).loss, [now.dictionary.W_dec])
    return [[round(float(value), 9) for value in row] for row in found]


def test_a_detached_level_moves_only_the_latents_that_it_adds():
    # Errors (0, -2), (0, -1), (1.5, .5), each twice over times its code of 1; the second level's is not atom 0's.
    whole = NestedReconstruction(shares=THIRDS, levels="sum")
    assert gradient(whole, one_row())[:2] == [[3.0, -4 - 2 + 1], [3.0, -2 + 1]]
    assert gradient(replace(whole, detached=True), one_row())[:2] == [[3.0, -4 + 1], [3.0, -2 + 1]]


def test_levels_are_summed_or_averaged_and_inner_ones_weighted():
    mean = NestedReconstruction(shares=THIRDS)
    given = ((mean, (4 + 1 + 2.5) / 3), (replace(mean, levels="sum"), 7.5), (replace(mean, inner_weight=0.5), 5 / 3))
    for term, wanted in given:
        for detached in (False, True):  # the value is the same
            assert replace(term, detached=detached)(one_row()).loss.item() == pytest.approx(wanted)
    assert NestedReconstruction(shares=(1.0,), detached=True)(one_row()).loss.item() == pytest.approx(2.5)


def test_the_latents_that_fire_most_come_first():
    made = axes()
    made.b_enc.data[0] = -2.5  # of the rows (3, 0) and (1, 2) it fires for the first alone, at .5
    rows = torch.tensor([[3.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    now = plain_step(rows, made)
    # The diagonal fires twice, the axes once: it is the first prefix, and writes (1.5, 1.5) in both rows.
    first = 2 * 1.5**2 + 0.5**2 + 0.5**2
    last = (0.5 + 1.5 - 3) ** 2 + 1.5**2 + 0.5**2 + (2 + 1.5 - 2) ** 2
    term = NestedReconstruction(shares=(1 / 3, 1.0), order="frequency")
    assert term(now).loss.item() == pytest.approx((first + last) / 2 / 2)
    assert now.memory["rate"].tolist() == [0.5, 0.5, 1.0]
    order = term.saved_order(now.memory)
    assert order is not None and order.tolist() == [2, 0, 1]
    assert NestedReconstruction().saved_order({}) is None


@pytest.mark.parametrize("activation", [TopK(4), BatchTopK(4)], ids=str)
def test_codes_in_another_order_are_those_of_the_dictionary_in_that_order(activation):
    made, x = random_dictionary(activation), batch()
    order = torch.randperm(made.d_sae, generator=torch.Generator().manual_seed(0))
    moved = made.in_order(order)
    for path in ("sparse", "dense"):
        given = made.codes(x, path).in_order(order)
        torch.testing.assert_close(given.dense(), moved.codes(x, path).dense())
        for ours, theirs in zip(given.entries(), moved.codes(x, path).entries(), strict=True):
            torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(moved(x), made(x))


def outcome(of: Dictionary, path: str) -> list[Tensor]:
    out = TODAY(step(of, path))  # type: ignore[arg-type]
    found = torch.autograd.grad(out.loss, [of.W_dec, of.W_enc, of.b_dec])
    return [out.loss.detach(), *found]


def test_all_of_it_together_is_the_same_sparse_and_dense_and_survives_zeros():
    for sparse, dense in zip(outcome(dictionary(), "sparse"), outcome(dictionary(), "dense"), strict=True):
        torch.testing.assert_close(sparse, dense, atol=1e-12, rtol=1e-10)
    assert_finite(TODAY, step(dictionary(), x=torch.zeros(64, 16, dtype=torch.float64)))


def test_a_run_stopped_and_resumed_is_the_same_and_is_saved_in_the_order_of_frequency(tmp_path: Path):
    base = experiment(activation=BatchTopK(3, first_k=2.0))
    sorted_ = replace(base, objective=Objective(reconstruction=TODAY, penalties=base.objective.penalties))
    (folder,) = assert_resumed_equals_whole([sorted_], tmp_path, steps=23, every=10)
    fired = Run.open(folder).dictionary().codes(WORLD.sample(1024, seed=3).x).firings().double()
    quarters = fired.view(4, -1).sum(1)
    assert (quarters.diff() < 0).all() and quarters[0] > 2 * quarters[3]


@pytest.mark.parametrize("kind", [TopK, BatchTopK])
def test_k_falls_in_a_line_and_is_itself_in_the_end(kind: type[TopK] | type[BatchTopK]):
    falling = kind(4, first_k=3.0, anneal=0.5)
    assert [falling.at(progress).k for progress in (0.0, 0.25, 0.5, 0.9)] == [12, 8, 4, 4]
    assert kind(4).at(0.0) == kind(4)


def test_a_k_that_begins_above_the_width_and_an_anneal_of_nothing_are_refused():
    with pytest.raises(ValueError, match=r"k = 12 latents \(3 times 4\).*first-k to 2.5"):
        DictionaryConfig(d_sae=10, activation=TopK(4, first_k=3.0))
    with pytest.raises(ValueError, match="with first_k 1 it does not"):
        BatchTopK(4, anneal=0.5)
