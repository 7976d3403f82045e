"""The standard sparsity terms, each with a value worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from tests.steps import rng, step, units, with_atoms
from torch import Tensor

from unbraid.dictionary.activations.gated import Gated
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.objective.objective import Step, Term
from unbraid.terms.dead_latents.pre_activation import PreActivation
from unbraid.terms.reconstruction.gate_reconstruction import GateReconstruction
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.terms.reconstruction.sampled_prefixes import SampledPrefixes
from unbraid.terms.sparsity.gate_l1 import GateL1
from unbraid.terms.sparsity.l1 import L1
from unbraid.terms.sparsity.lp import Lp
from unbraid.terms.sparsity.p_annealing import PAnnealing
from unbraid.terms.sparsity.tanh import Tanh

EYE = torch.eye(3, dtype=torch.float64)
X = torch.tensor([[4.0, 1.0, 0.0], [0.0, 9.0, 0.0]], dtype=torch.float64)


def value(term: Term, now: Step) -> float:
    return term(now).loss.item()


def test_the_square_root_of_sizes_by_hand():
    assert value(Lp(floor=0.0), step(with_atoms(EYE), X)) == pytest.approx((2 + 1 + 3) / 2)


def test_lp_at_one_is_l1():
    now = step(with_atoms(EYE), X)
    assert value(Lp(p=1.0), now) == pytest.approx(value(L1(), now))


def test_below_one_large_latents_are_pulled_less():
    of = with_atoms(EYE)
    Lp(floor=0.0)(step(of, X)).loss.backward()
    assert of.b_enc.grad is not None
    assert of.b_enc.grad.tolist() == pytest.approx([0.5 / 2 / 2, (0.5 / 1 + 0.5 / 3) / 2, 0.0])


def test_an_exponent_of_zero_is_refused():
    with pytest.raises(ValueError, match="Lp.p is 0.0; it must be above 0"):
        Lp(p=0.0)


def test_tanh_counts_large_latents_and_weighs_small_ones():
    assert value(Tanh(scale=0.1), step(with_atoms(EYE), X)) == pytest.approx(
        (math.tanh(0.4) + math.tanh(0.1) + math.tanh(0.9)) / 2
    )
    assert value(Tanh(scale=100.0), step(with_atoms(EYE), X)) == pytest.approx(1.5, abs=1e-6)


def annealed(term: PAnnealing, memory: dict[str, Tensor], progress: float) -> dict[str, float]:
    said = term(replace(step(with_atoms(EYE), X), progress=progress, memory=memory))
    return {"loss": said.loss.item(), **{name: float(metric) for name, metric in said.metrics.items()}}


def test_p_falls_in_steps_and_the_penalty_keeps_its_size():
    term, memory = PAnnealing(begin=0.2, end=1.0, changes=4, p_end=0.2, floor=0.0), {}
    seen = [annealed(term, memory, progress) for progress in (0.0, 0.1, 0.3, 0.37, 0.38, 0.53, 0.7, 0.99)]
    assert [round(one["p"], 6) for one in seen] == [1.0, 1.0, 1.0, 0.8, 0.8, 0.6, 0.4, 0.2]
    assert all(one["loss"] == pytest.approx(7.0) for one in seen), "on the same codes"
    assert seen[3]["scale"] == pytest.approx(14 / (4**0.8 + 1 + 9**0.8))


def test_p_annealing_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="p falls from 0.9 to 0.5 of training"):
        PAnnealing(begin=0.9, end=0.5)


def dead(now: Step, *latents: int) -> Step:
    return replace(now, dead=torch.zeros(3, dtype=torch.bool).index_fill(0, torch.tensor(latents), True))


def test_dead_latents_are_charged_what_they_lack_to_their_threshold():
    of = with_atoms(EYE, JumpReLU())
    of.threshold.data.copy_(torch.tensor([2.0, 2.0, 5.0]))
    now = dead(step(of, X), 0, 2)
    assert value(PreActivation(weight=1.0), now) == pytest.approx((0 + 5 + 2 + 5) / 2)
    PreActivation(weight=1.0)(now).loss.backward()
    assert of.b_enc.grad is not None
    assert of.b_enc.grad.tolist() == [-0.5, 0.0, -1.0], "drawn up, the living left alone"


def test_activations_without_thresholds_have_no_pre_activation_loss():
    with pytest.raises(ValueError, match="TopK has no threshold .* use aux_k"):
        PreActivation().check_activation(TopK(3))


def gated() -> Dictionary:
    """Gate: x - 1 at the first latent, x elsewhere; magnitudes: twice x, plus a half at the second."""
    of = with_atoms(EYE, Gated())
    with torch.no_grad():
        of.b_enc.copy_(torch.tensor([-1.0, 0.0, 0.0]))
        of.get_parameter("r_mag").fill_(math.log(2.0))
        of.get_parameter("b_mag").copy_(torch.tensor([0.0, 0.5, 0.0]))
    return of


@pytest.mark.parametrize("path", ["sparse", "dense"])
def test_gated_latents_by_hand(path):
    codes = gated().codes(X, path).dense()
    assert codes.tolist() == [[8.0, 2.5, 0.0], [0.0, 18.5, 0.0]]


def test_the_gate_pays_by_itself_and_reconstructs_by_itself():
    now = step(gated(), X)
    assert value(GateL1(), now) == pytest.approx((3 + 1 + 9) / 2)
    assert value(GateReconstruction(), now) == pytest.approx((1 + 0 + 0) / 2)


def test_the_gate_teaches_the_encoder_and_not_the_decoder():
    of = gated()
    GateReconstruction()(step(of, X)).loss.backward()
    assert of.W_dec.grad is None and of.get_parameter("r_mag").grad is None
    assert of.b_enc.grad is not None and of.b_enc.grad.abs().sum() > 0


def test_without_its_terms_the_gate_learns_nothing_and_magnitudes_do():
    of = gated()
    (of(X) - X).square().sum().backward()
    grads = {name: parameter.grad for name, parameter in of.named_parameters()}
    assert grads["b_enc"] is not None and grads["b_enc"].abs().max() < 1e-12
    assert grads["b_mag"] is not None and grads["b_mag"].abs().sum() > 0


def test_terms_of_the_gate_want_a_gate():
    for term in (GateL1(), GateReconstruction()):
        with pytest.raises(ValueError, match="TopK has no gate .*use --dictionary.activation Gated"):
            term.check_activation(TopK(3))


def test_all_prefixes_of_one_are_plain_reconstruction():
    of, x = with_atoms(units(6, 4, seed=0)), torch.randn(20, 4, generator=rng(1), dtype=torch.float64)
    now = step(of, x)
    whole = ((of(x) - x).square().sum() / 20).item()
    assert value(SampledPrefixes(prefixes=1), now) == pytest.approx(whole)


def test_sampled_prefixes_are_matryoshka_at_the_widths_they_drew():
    of, x = with_atoms(units(8, 4, seed=0)), torch.randn(20, 4, generator=rng(1), dtype=torch.float64)
    term = SampledPrefixes(prefixes=4)
    widths = term.widths(8, rng(0))
    assert widths[-1] == 8 and widths == sorted(set(widths)) and len(widths) > 1
    fixed = NestedReconstruction(shares=tuple(width / 8 for width in widths))
    assert value(term, step(of, x)) == pytest.approx(value(fixed, step(of, x)))


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_narrow_prefixes_are_drawn_as_often_as_the_distribution_says(power):
    term = SampledPrefixes(prefixes=2, power=power)
    drawn = torch.tensor([float(term.widths(1024, rng(seed))[0]) for seed in range(600)])
    assert float((drawn <= 256).double().mean()) == pytest.approx(0.25**power, abs=0.06)
    assert SampledPrefixes(prefixes=500, power=power).widths(8, rng(0)) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_prefixes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="SampledPrefixes.prefixes is 0; it must be at least 1"):
        SampledPrefixes(prefixes=0)


def test_relu_knows_no_gate_of_its_own_and_pays_l1():
    now = step(with_atoms(EYE, ReLU()), X)
    assert value(GateL1(), now) == value(L1(), now)
