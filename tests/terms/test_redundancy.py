"""Two views of a document: pairing, values by hand, explicit sums, and nothing to do without documents."""

from typing import Literal

import pytest
import torch
from tests.coded import sparse, step
from tests.terms.test_pair_sums import columns
from torch import Tensor

from unbraid.terms.weak_supervision.redundancy import Redundancy, barlow, token_pairs, vicreg

Form = Literal["barlow", "vicreg"]
forms = pytest.mark.parametrize("form", ["barlow", "vicreg"])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quarters(seed: int = 0) -> list[Tensor]:
    """Both views of both halves; the views share some of what they hold."""
    rows = [sparse(60, 7, 0.3, seed), sparse(60, 7, 0.3, seed + 1), sparse(50, 7, 0.4, seed + 2)]
    rows.append(sparse(50, 7, 0.4, seed + 3))
    rows[1][:, :4] = rows[0][:, :4]
    rows[3][:25] = rows[2][:25]
    return rows


def test_rows_are_paired_within_documents_and_documents_kept_apart():
    documents = torch.tensor([5, 7, 5, 7, 5, 7, 7, 9, 9, -1, -1, 3])
    halves = token_pairs(documents, 100, rng())
    used = torch.cat([torch.cat(half) for half in halves])
    assert len(used) == len(used.unique()) == 2 * (1 + 2 + 1)
    assert all(torch.equal(documents[one], documents[other]) for one, other in halves)
    assert not set(documents[halves[0][0]].tolist()) & set(documents[halves[1][0]].tolist())
    assert sum(len(one) for one, _ in token_pairs(documents, 3, rng())) == 3


def test_barlow_worked_out_by_hand():
    # One latent, the same in both views of either half: covariance 1/2. Then the other view says the opposite: -1/2.
    same, opposite = (columns(torch.tensor(rows).double()) for rows in ([[1.0], [0.0]], [[0.0], [1.0]]))
    assert [part.item() for part in barlow(same, same, same, same)] == pytest.approx([0.25, 0])
    assert [part.item() for part in barlow(same, opposite, same, same)] == pytest.approx([1.5 * 0.5, 0])


def test_vicreg_worked_out_by_hand():
    # Two copies differ by 1 between the views of the first half alone, and have covariance 1/2 within every view.
    same, opposite = (columns(torch.tensor(rows).double().repeat(1, 2)) for rows in ([[1.0], [0.0]], [[0.0], [1.0]]))
    found = [part.item() for part in vicreg(same, opposite, same, same)]
    assert found == pytest.approx([2 * 2 / 4, 2 * 2 * 0.25])


def test_both_equal_the_explicit_sums():
    a, a_too, b, b_too = quarters()
    cross = [torch.cov(torch.cat(half, 1).T)[:7, 7:] for half in ((a, a_too), (b, b_too))]
    squares = cross[0] * cross[1]
    stay = ((1 - cross[0].diagonal()) * (1 - cross[1].diagonal())).sum()
    found = barlow(*map(columns, (a, a_too, b, b_too)))
    torch.testing.assert_close(found, (stay, squares.sum() - squares.diagonal().sum()))
    change = ((a - a_too).square().sum() + (b - b_too).square().sum()) / 110
    within = [torch.cov(one.T) * torch.cov(other.T) for one, other in ((a, b), (a_too, b_too))]
    others = torch.stack([part.sum() - part.diagonal().sum() for part in within]).sum()
    torch.testing.assert_close(vicreg(*map(columns, (a, a_too, b, b_too))), (change, others))


@forms
def test_without_two_rows_of_a_document_there_is_nothing(form: Form):
    out = Redundancy(form=form)(step(sparse(40, 5, 0.4)))
    assert out.loss.item() == 0 and out.metrics["pairs"] == 0
    unknown = torch.full((40,), -1)
    assert Redundancy(form=form)(step(sparse(40, 5, 0.4), documents=unknown)).metrics["pairs"] == 0


@forms
def test_latents_that_stay_within_a_document_cost_less(form: Form):
    documents = torch.arange(400) // 2
    topics = sparse(200, 6, 0.3).repeat_interleave(2, 0)
    of = lambda codes: Redundancy(form=form)(step(codes, documents=documents))
    staying, changing = of(topics), of(sparse(400, 6, 0.3))
    assert staying.metrics["stay"].item() == pytest.approx(0, abs=0.1)
    assert changing.metrics["stay"].item() == pytest.approx({"barlow": 1, "vicreg": 2}[form], abs=0.2)
    assert staying.loss < changing.loss


@forms
def test_copies_cost_more_by_what_they_go_with(form: Form):
    documents = torch.arange(400) // 2
    topics = sparse(200, 6, 0.3).repeat_interleave(2, 0)
    out = Redundancy(form=form)(step(topics.repeat(1, 2), documents=documents))
    assert out.metrics["others"].item() == pytest.approx({"barlow": 1, "vicreg": 2}[form], abs=0.3)


@pytest.mark.parametrize(
    ("form", "stay", "others"), [("barlow", (0.4**2 + 0.85**2) / 2, 0.3**2), ("vicreg", 0.4 + 0.85, 2 * 0.5**2)]
)
@pytest.mark.slow
def test_fault_08_views_of_known_correlation_give_what_the_formula_says(form, stay, others):
    """Pairs of Gaussian latents: correlated by .5 in a row; the first by .6 from row to row of a document, and so the
    second by .15, and one with the other by .3."""
    generator, memory, found = rng(), {}, []
    documents = torch.arange(1024) // 2
    for seed in range(60):
        shape = (512, 2, 30)
        shared, own, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
        first = 0.6**0.5 * shared[:, :1] + 0.4**0.5 * own
        codes = torch.cat([first, 0.5 * first + 0.75**0.5 * noise], 2).view(1024, 60) + 6
        with torch.no_grad():
            metrics = Redundancy(form=form)(step(codes, documents=documents, seed=seed, memory=memory)).metrics
        found.append((metrics["stay"].item(), metrics["others"].item()))
    late = torch.tensor(found[25:])
    error = late.std(0) / len(late) ** 0.5
    assert ((late.mean(0) - torch.tensor([stay, others])).abs() < 3 * error).all()
    assert (error < 0.01).all()
