import pytest
import torch

from tests.exact import ACTIVATIONS, D_IN, D_SAE, batch, dictionary, normal
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.codes import SparseCodes
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import PrincipalComponents

SAMPLE = normal(300, D_IN, seed=0).float() * torch.linspace(3, 1, D_IN) + 2


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_atoms_have_unit_norm_from_the_start_and_after_renormalising(activation):
    made = DictionaryConfig(d_sae=D_SAE, activation=activation).build(SAMPLE, seed=0)
    torch.testing.assert_close(made.W_dec.norm(dim=1), torch.ones(D_SAE))
    with torch.no_grad():
        made.W_dec.mul_(torch.rand(D_SAE, 1, generator=torch.Generator().manual_seed(0)) + 0.5)
    made.renormalise()
    torch.testing.assert_close(made.W_dec.norm(dim=1), torch.ones(D_SAE))


def test_renormalising_leaves_no_threshold_negative():
    made = dictionary(JumpReLU())
    with torch.no_grad():
        made.threshold.sub_(1.0)
    made.renormalise()
    assert made.threshold.min() == 0 < made.threshold.max()


def test_a_frozen_decoder_is_not_renormalised():
    made = DictionaryConfig(d_sae=D_SAE, activation=TopK(4), frozen=("W_dec",)).build(SAMPLE, seed=0)
    with torch.no_grad():
        made.W_dec.mul_(2)
    made.renormalise()
    torch.testing.assert_close(made.W_dec.norm(dim=1), torch.full((D_SAE,), 2.0))


def test_the_projected_gradient_is_orthogonal_to_every_atom():
    made, x = dictionary(TopK(4)), batch()
    (made(x) - x).square().sum().backward()
    grad = made.W_dec.grad
    assert grad is not None and (grad * made.W_dec).sum(1).abs().max() > 0.1
    before = grad.clone()
    made.project_gradient()
    assert (grad * made.W_dec).sum(1).abs().max() < 1e-12
    # Only the part along the atom was removed.
    removed = before - grad
    torch.testing.assert_close(removed, (removed * made.W_dec).sum(1, keepdim=True) * made.W_dec)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_the_first_step_starts_from_the_mean_of_the_data(activation):
    made = DictionaryConfig(d_sae=D_SAE, activation=activation).build(SAMPLE, seed=0)
    torch.testing.assert_close(made.b_dec, SAMPLE.mean(0), check_stride=False)
    torch.testing.assert_close(made.W_enc, made.W_dec.T, check_stride=False)


@pytest.mark.parametrize("activation", [ReLU(), TopK(4), BatchTopK(4), JumpReLU()], ids=str)
def test_bfloat16_proposes_the_support_but_values_are_exact(activation, monkeypatch):
    monkeypatch.setattr("unbraid.dictionary.weights.PROPOSED_UP_TO", 1.0)
    made = dictionary(activation, bfloat16=True).float()
    x = batch().float()
    codes = made.codes(x, "sparse")
    assert isinstance(codes, SparseCodes)
    exact = made.pre_activations(x)
    at_support = exact[codes.support.rows, codes.support.latents]
    torch.testing.assert_close(codes.pre, at_support)
    rounded = at_support.bfloat16().float()
    assert (codes.pre - at_support).abs().max() < 1e-3 * (rounded - at_support).abs().max()


def test_bfloat16_gradients_are_those_of_the_exact_values(monkeypatch):
    monkeypatch.setattr("unbraid.dictionary.weights.PROPOSED_UP_TO", 1.0)
    x = batch().float()
    grads = []
    for bfloat16 in (False, True):
        made = dictionary(ReLU(), bfloat16=bfloat16).float()
        made.decode(made.codes(x, "sparse")).square().sum().backward()
        grads.append(made.W_enc.grad)
    relative = (grads[1] - grads[0]).norm() / grads[0].norm()
    assert relative < 1e-3  # the supports differ by pairs within bfloat16's rounding of zero


@pytest.mark.parametrize("path", ["auto", "sparse", "dense"])
def test_a_wrong_width_is_refused_naming_both(path):
    made = dictionary(TopK(4))
    with pytest.raises(ValueError, match=rf"\[\.\.\., {D_IN}\], got \[5, {D_IN + 1}\]"):
        made.codes(torch.zeros(5, D_IN + 1, dtype=torch.float64), path)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="k = 30 latents cannot be active out of d_sae = 24"):
        DictionaryConfig(d_sae=24, activation=TopK(30))
    with pytest.raises(ValueError, match="set --dictionary.d-sae 14"):
        DictionaryConfig(d_sae=15, activation=TopK(3), init=PrincipalComponents()).build(SAMPLE, seed=0)


def test_principal_components_reconstruct_everything_when_all_are_active():
    config = DictionaryConfig(d_sae=2 * D_IN, activation=ReLU(), init=PrincipalComponents())
    torch.testing.assert_close(config.build(SAMPLE, seed=0)(SAMPLE), SAMPLE, rtol=1e-4, atol=1e-4)


def test_the_encoder_is_stored_latent_by_latent():
    """The sparse kernels read and write W_enc a latent at a time; moving or copying must not undo it."""
    made = Dictionary(D_IN, D_SAE, TopK(4))
    for weights in (made.W_enc, made.double().W_enc, made.to("cpu").W_enc):
        assert weights.shape == (D_IN, D_SAE) and weights.t().is_contiguous()
    (made(batch())).sum().backward()
    assert made.W_enc.grad is not None and made.W_enc.grad.t().is_contiguous()


def test_the_fused_optimiser_moves_the_transposed_encoder_as_the_plain_one_does():
    moved = []
    for fused in (False, True):
        made = dictionary(TopK(4)).float()
        optimiser = torch.optim.AdamW(made.parameters(), lr=0.1, fused=fused)
        for seed in range(3):
            optimiser.zero_grad()
            made(batch(seed=seed).float()).square().sum().backward()
            optimiser.step()
        moved.append(made.W_enc.detach())
    assert (moved[0] - dictionary(TopK(4)).float().W_enc).abs().max() > 0.1
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-4, atol=1e-4)
