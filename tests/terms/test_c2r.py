"""C2R: both forms by hand, beside the exact pressure, and what each is blind to."""

import math

import pytest
import torch
from benchmarks.toys.penalty_table import pressures
from tests.steps import rng, step, units, with_atoms
from torch import Tensor

from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.codes import DenseCodes, SparseCodes
from unbraid.objective.objective import Step
from unbraid.terms.geometry.c2r import C2R, mean_products
from unbraid.terms.statistics.nearest_atoms import nearest_atoms

ATOMS = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
"""At cosine 0.6."""


def coded(codes: Tensor, atoms: Tensor = ATOMS) -> Step:
    """A step with exactly these codes, non-negative: the encoder reads one coordinate of x for each latent."""
    wide = torch.zeros(len(atoms), len(atoms), dtype=torch.float64)
    wide[:, : atoms.shape[1]] = atoms
    dictionary = with_atoms(wide)
    dictionary.W_enc.data.copy_(torch.eye(len(atoms)))
    now = step(dictionary, codes)
    assert torch.equal(now.z.dense(), codes)
    return now


def exact(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


TWO_ROWS = exact([3, 4], [1, 0])
"""Root mean squares sqrt(5) and sqrt(8); products 12 and 0."""


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_sum_form_is_worked_out_by_hand(exponent: float):
    loss = C2R(exponent=exponent)(coded(TWO_ROWS)).loss.item()
    assert loss == pytest.approx((math.sqrt(5) + math.sqrt(8)) ** exponent * 0.36)


def test_the_coactivation_form_is_worked_out_by_hand():
    loss = C2R(form="coactivation")(coded(TWO_ROWS)).loss.item()
    assert loss == pytest.approx(12 / (math.sqrt(10) * 4) * 0.36)


def test_the_sum_form_is_the_pressure():
    codes = torch.rand(30, 6, generator=rng(0), dtype=torch.float64).sub(0.5).relu()
    atoms = units(6, 4, seed=1)
    wanted = pressures(codes, torch.full((30,), 1 / 30).double(), atoms).c2r
    assert C2R()(coded(codes, atoms)).loss.item() == pytest.approx(wanted)


def test_duplicates_that_never_fire_together_are_charged_by_the_sum_form_alone():
    apart, together = exact([1, 0], [0, 1]), exact([1, 1], [0, 0])
    atoms = exact([1, 0], [1, 0])
    form = lambda form, codes: C2R(form=form)(coded(codes, atoms)).loss.item()
    assert form("coactivation", apart) == 0
    assert form("coactivation", together) == pytest.approx(1)
    assert form("sum", apart) == form("sum", together) == pytest.approx(2 * math.sqrt(0.5))


def test_scaling_latents_down_lowers_the_sum_form_alone():
    form = lambda form, scale: C2R(form=form)(coded(scale * TWO_ROWS)).loss.item()
    assert form("sum", 0.5) == pytest.approx(0.5 * form("sum", 1.0))
    assert form("coactivation", 0.5) == pytest.approx(form("coactivation", 1.0))


def test_the_sum_form_does_not_depend_on_the_number_of_rows():
    twice = C2R()(coded(torch.cat([TWO_ROWS, TWO_ROWS]))).loss.item()
    assert twice == pytest.approx(C2R()(coded(TWO_ROWS)).loss.item())


@pytest.mark.parametrize("form", ["sum", "coactivation"])
@pytest.mark.parametrize("path", ["sparse", "dense"])
def test_it_differentiates_as_the_dense_expression_does(form, path):
    dictionary = with_atoms(units(40, 8, seed=2), TopK(6))
    now = step(dictionary, torch.randn(64, 8, generator=rng(3), dtype=torch.float64), path=path)
    assert isinstance(now.z, SparseCodes if path == "sparse" else DenseCodes)
    z, atoms = now.z.dense(), dictionary.W_dec
    nearest = nearest_atoms(atoms.detach(), torch.arange(40))
    gram = z.T @ z / 64
    rms = gram.diagonal().clamp_min(1e-30).sqrt()
    use = rms + rms[nearest] if form == "sum" else gram[torch.arange(40), nearest] / (rms * rms[nearest])
    dense = (use * (atoms * atoms[nearest]).sum(1).relu().square()).mean()
    loss = C2R(form=form)(now).loss
    torch.testing.assert_close(loss, dense)
    parameters = [dictionary.W_dec, dictionary.W_enc, dictionary.b_enc]
    for got, wanted in zip(
        torch.autograd.grad(loss, parameters, retain_graph=True),
        torch.autograd.grad(dense, parameters),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


def test_mean_products_are_those_of_the_dense_codes():
    codes = torch.rand(50, 9, generator=rng(4), dtype=torch.float64).sub(0.7).relu()
    neighbours = torch.tensor([8, 0, 0, 3, 5, 4, 1, 2, 7])
    wanted = (codes * codes[:, neighbours]).mean(0)
    torch.testing.assert_close(mean_products(coded(codes, units(9, 9, seed=5)).z, neighbours), wanted)
