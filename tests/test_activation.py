import importlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.exact import ACTIVATIONS, BATCH, D_IN, D_SAE, batch, dictionary, normal
from unbraid.dictionary.activations import cpu_search, selection
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU, window
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.selection import (
    above,
    ascending_top_k,
    calibrate,
    largest,
    largest_at_once,
    largest_in_order,
    top_k,
    true_places,
)
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.codes import DenseCodes, SparseCodes
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.weights import Chunks


def chunked(pre: Tensor, rows: int = 5) -> Chunks:
    """Chunks of given pre-activations, all in one buffer, as the dictionary makes them."""
    buffer = torch.empty(rows, pre.shape[1], dtype=pre.dtype)

    def compute(part: slice) -> Tensor:
        return buffer[: part.stop - part.start].copy_(pre[part])

    return Chunks(pre.shape[0], pre.shape[1], rows, pre.device, compute)


@pytest.mark.parametrize(("d_sae", "k"), [(512, 1), (512, 32), (512, 65), (103, 5), (101, 12), (16, 16), (17, 2)])
def test_two_stage_top_k_equals_torch_topk(d_sae, k):
    pre = normal(9, d_sae, seed=d_sae + k)
    values, latents = top_k(pre, k)
    wanted, wanted_latents = pre.topk(k, dim=1)
    order = values.argsort(dim=1, descending=True)
    assert torch.equal(values.gather(1, order), wanted)
    assert torch.equal(latents.gather(1, order), wanted_latents)


def test_the_largest_latents_may_all_stand_in_one_group():
    pre = torch.zeros(2, 512)
    pre[:, 7::64] = torch.arange(1.0, 9.0)  # members of one group of eight, 64 apart
    assert torch.equal(top_k(pre, 8)[1].sort(dim=1).values, torch.arange(7, 512, 64).expand(2, 8))


def test_the_largest_latents_may_all_stand_after_the_last_group():
    pre = torch.zeros(2, 47)
    pre[:, 40:] = torch.arange(1.0, 8.0)
    assert torch.equal(top_k(pre, 5)[1].sort(dim=1).values, torch.arange(42, 47).expand(2, 5))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_selected_latents_ascend_within_a_row(activation):
    selected = activation.support(chunked(normal(BATCH, D_SAE, seed=0)), torch.zeros(D_SAE), 1.0)
    assert selected is not None
    support = selected[1]
    flat = support.rows * D_SAE + support.latents
    assert (flat.diff() > 0).all()
    assert torch.equal(support.counts, torch.bincount(support.latents, minlength=D_SAE))
    assert torch.equal(support.offsets.diff(), torch.bincount(support.rows, minlength=BATCH))


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_batch_top_k_keeps_exactly_k_a_row_on_average_when_that_many_are_positive(scale):
    pre = normal(BATCH, D_SAE, seed=1) * scale
    selected = BatchTopK(4).support(chunked(pre), torch.zeros(()), 1.0)
    assert selected is not None
    assert selected[0].numel() == 4 * BATCH
    assert torch.equal(selected[0].sort().values, pre.view(-1).topk(4 * BATCH).values.sort().values)


def test_the_largest_pairs_found_at_once_are_those_found_above_a_bound():
    """Where too few are positive, others are found too."""
    pre = normal(BATCH, D_SAE, seed=1)
    for k, shift in ((4, 0.0), (1, 3.0), (4, -1.5)):
        found, places = largest_at_once(chunked(pre + shift), k * BATCH)
        positive = found > 0
        others, expected = largest(chunked(pre + shift), k)
        assert torch.equal(found[positive], others) and len(found) == k * BATCH
        assert torch.equal(places[positive], expected.rows * D_SAE + expected.latents)
    assert not positive.all()


def test_batch_top_k_is_exact_when_the_first_chunk_misleads():
    pre = normal(BATCH, D_SAE, seed=1)
    for factor in (100.0, 1e-6):
        first = pre.clone()
        first[:5] *= factor
        selected = BatchTopK(4).support(chunked(first), torch.zeros(()), 1.0)
        assert selected is not None
        assert torch.equal(selected[0].sort().values, first.view(-1).topk(4 * BATCH).values.sort().values)


def test_batch_top_k_keeps_the_positive_latents_when_there_are_fewer():
    pre = normal(BATCH, D_SAE, seed=2) - 2.0
    selected = BatchTopK(4).support(chunked(pre), torch.zeros(()), 1.0)
    assert selected is not None
    assert 0 < selected[0].numel() == int((pre > 0).sum()) < 4 * BATCH


def test_batch_top_k_selects_nothing_negative_when_the_first_chunk_misleads():
    pre = -normal(BATCH, D_SAE, seed=2).abs()
    pre[5:] *= 1e-3
    pre[[6, 9], [2, 3]] = 1.0
    selected = BatchTopK(4).support(chunked(pre), torch.zeros(()), 1.0)
    assert selected is not None
    assert selected[0].tolist() == [1.0, 1.0]


def test_the_calibrated_threshold_keeps_k_latents_a_row():
    for k in (1, 4, 9):
        pre = normal(BATCH, D_SAE, seed=k)
        threshold = calibrate(k, chunked(pre))
        assert int((pre >= threshold).sum()) == k * BATCH


def test_the_calibrated_threshold_is_zero_when_nothing_is_active():
    assert calibrate(4, chunked(-normal(BATCH, D_SAE, seed=0).abs())) == 0.0


@pytest.mark.parametrize("shape", [(3, 8), (5, 24), (3, 7), (1, 64)])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
def test_true_entries_are_found_in_order(shape, density):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < density
    assert torch.equal(true_places(mask), mask.view(-1).nonzero().squeeze(1))


def test_threshold_scans_give_up_above_the_limit():
    pre = normal(BATCH, D_SAE, seed=0)
    share = float((pre[:5] > 0.5).double().mean())
    bound = torch.full((D_SAE,), 0.5)
    assert above(chunked(pre), bound, share - 0.01) is None
    assert above(chunked(pre), bound, share + 0.01) is not None


@pytest.mark.parametrize(
    ("activation", "density"),
    [(TopK(10), 0.1), (TopK(24), 0.24), (BatchTopK(10), 0.1), (BatchTopK(24), 0.24)]
    + [(activation, density) for activation in (ReLU(), JumpReLU(bandwidth=0.0)) for density in (0.1, 0.3)],
    ids=str,
)
def test_codes_are_dense_above_a_share_of_active_latents_or_above_what_is_asked_for(activation, density):
    made, x = Dictionary(D_IN, 100, activation), normal(200, D_IN, seed=1).float()
    with torch.no_grad():
        made.W_enc.copy_(normal(D_IN, 100, seed=0))
        if isinstance(activation, ReLU | JumpReLU):
            made.b_enc.fill_(-float(made.pre_activations(x).view(-1).quantile(1 - density)))
    codes = made.codes(x)
    assert isinstance(codes, SparseCodes if density < 0.15 else DenseCodes)
    assert float(codes.l0()) == pytest.approx(100 * density, rel=0.1)
    made.dense_above = 0.05
    assert isinstance(made.codes(x), DenseCodes)
    made.dense_above = 0.9
    assert isinstance(made.codes(x), SparseCodes)


def test_jump_relu_is_the_identity_above_its_threshold_and_zero_below():
    pre, threshold = torch.tensor([-1.0, 0.4, 0.5, 0.6]), torch.tensor(0.5).expand(4)
    assert torch.equal(JumpReLU().value(pre, threshold), torch.tensor([0.0, 0.0, 0.0, 0.6]))


def test_jump_relu_moves_thresholds_by_the_rectangle_kernel():
    pre, threshold = torch.tensor([0.1, 0.46, 0.53, 0.9]), torch.full((4,), 0.5, requires_grad=True)
    JumpReLU(bandwidth=0.1).value(pre, threshold).sum().backward()
    # -threshold / bandwidth inside the window of width 0.1, else 0 (Rajamanoharan et al. 2024, eq. 11).
    assert threshold.grad is not None
    torch.testing.assert_close(threshold.grad, torch.tensor([0.0, -5.0, -5.0, 0.0]))


def test_a_window_of_zero_width_holds_nothing():
    assert window(torch.ones(3), torch.ones(3), 0.0).sum() == 0


@pytest.mark.parametrize(
    ("module", "name", "activation", "settings"),
    [
        ("topk_sae", "TopKSAE", TopK(4), {"k": 4}),
        ("jumprelu_sae", "JumpReLUSAE", JumpReLU(), {}),
        ("standard_sae", "StandardSAE", ReLU(), {}),
    ],
)
def test_encodings_and_reconstructions_equal_the_oracle(module, name, activation, settings):
    """The oracle: an SAE of SAELens with the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn of deprecations in its own dependencies
        classes = importlib.import_module(f"sae_lens.saes.{module}")
    config = getattr(classes, f"{name}Config")(d_in=D_IN, d_sae=D_SAE, **settings)
    check_against(dictionary(activation).float(), getattr(classes, name)(config))


@torch.no_grad()
def check_against(ours: Dictionary, theirs: Any) -> None:
    weights = {name: p for name, p in ours.state_dict().items() if name in dict(theirs.named_parameters())}
    theirs.load_state_dict(weights)
    x = batch().float()
    codes = theirs.encode(x)
    assert (codes != 0).any()
    for path in ("sparse", "dense"):
        torch.testing.assert_close(ours.codes(x, path).dense(), codes)
    torch.testing.assert_close(ours(x), theirs.decode(codes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("d_sae", "k"), [(96, 5), (300, 7), (512, 8), (513, 8), (519, 64), (520, 66)])
def test_searches_on_the_cpu_find_what_torch_finds(d_sae, k, dtype):
    pre = normal(9, d_sae, seed=d_sae + k).to(dtype)
    values, latents = top_k(pre, k)
    latents, order = latents.sort(dim=1)
    found = cpu_search.largest_in_rows(pre, k)
    assert found is not None
    assert torch.equal(found[0], values.gather(1, order)) and torch.equal(found[1], latents)
    for least in (-5.0, 0.5, 1.5, 2.0, 5.0):  # all, and 31, 7, 2 and no percent
        assert cpu_search.places_above(pre, least).tolist() == (pre > least).view(-1).nonzero().squeeze(1).tolist()
    bound = normal(d_sae, seed=3).to(dtype)
    assert cpu_search.places_above(pre, bound).tolist() == (pre > bound).view(-1).nonzero().squeeze(1).tolist()
    assert cpu_search.count_above(pre, bound) == int((pre > bound).sum())
    flat = pre.view(-1)
    assert cpu_search.smallest_of_largest(flat, 9 * k) == flat.topk(9 * k).values.min()
    places = cpu_search.largest_places(flat, 9 * k)
    assert places is not None
    assert torch.equal(places, flat.topk(9 * k, sorted=False).indices.sort().values)


@pytest.mark.parametrize("d_sae", [96, 512])
@pytest.mark.parametrize("spoilt", [0.0, torch.nan])
def test_searches_on_the_cpu_leave_equal_values_and_nan_to_torch(d_sae, spoilt):
    """Which of them are taken is then as before there were such searches."""
    pre = normal(9, d_sae, seed=0)
    pre[4] = spoilt
    assert cpu_search.largest_in_rows(pre, 8) is None
    values, latents = ascending_top_k(pre, 8)
    assert (latents.diff(dim=1) > 0).all()
    assert torch.equal(latents, top_k(pre, 8)[1].sort(dim=1).values)
    torch.testing.assert_close(values, pre.gather(1, latents), rtol=0, atol=0, equal_nan=True)
    same = torch.full((20,), spoilt)
    assert cpu_search.largest_places(same, 8) is None
    assert str(cpu_search.smallest_of_largest(same, 8)) == str(float(same.topk(8).values.min()))
    assert len(largest_in_order(same, 8)) == 8


def test_the_pairs_chosen_do_not_depend_on_the_bound_that_is_tried_first(monkeypatch):
    pre = normal(BATCH, D_SAE, seed=1)
    expected = largest(chunked(pre), 4)
    for bound in (0.0, 1.0, 10.0):
        monkeypatch.setattr(selection, "bound_of", lambda k, share, first, rows, bound=bound: share * bound)
        found = largest(chunked(pre), 4)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1].latents, expected[1].latents)


def test_of_equal_pairs_the_same_are_chosen_whatever_bound_was_tried_first(monkeypatch):
    """Those that a search among more pairs has always chosen, so that runs made again are the same."""
    pre = (normal(40, D_SAE, seed=1) * 4).round() / 4
    found = largest(chunked(pre, 40), 4)
    monkeypatch.setattr(selection, "largest_at_first_try", lambda chunks, k, wanted: None)
    expected = largest(chunked(pre, 40), 4)
    border = expected[0].min()
    assert int((pre == border).sum()) > int((expected[0] == border).sum()), "otherwise nothing is left open"
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1].latents, expected[1].latents)
