import itertools

import pytest
import torch

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.normaliser import Normaliser, double

SAMPLE = torch.randn(400, 12, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 30, 12) + 5


def test_centred_and_scaled_rows_have_zero_mean_and_unit_mean_square():
    x = Normaliser.fit(SAMPLE, "centre-scale")(SAMPLE)
    assert x.mean(0).abs().max() < 1e-5
    assert float(x.square().mean()) == pytest.approx(1, abs=1e-5)


def test_none_leaves_activations_alone():
    assert torch.equal(Normaliser.fit(SAMPLE, "none")(SAMPLE), SAMPLE)


def test_undo_is_the_inverse():
    normaliser = Normaliser.fit(SAMPLE, "centre-scale")
    torch.testing.assert_close(normaliser.undo(normaliser(SAMPLE)), SAMPLE)


@pytest.mark.parametrize(
    ("activation", "how"),
    list(itertools.product([ReLU(), TopK(4), BatchTopK(4), JumpReLU()], ["centre-scale", "none"])),
)
def test_folding_gives_the_same_reconstruction_of_raw_activations(activation, how):
    normaliser = Normaliser.fit(SAMPLE, how)
    dictionary = DictionaryConfig(d_sae=30, activation=activation).build(normaliser(SAMPLE), seed=0)
    with torch.no_grad():
        dictionary.b_enc.add_(torch.randn(30, generator=torch.Generator().manual_seed(1)))
        dictionary.threshold.mul_(3)
    final = dictionary.for_inference(normaliser(SAMPLE))
    folded = normaliser.fold(final)
    normaliser.check(final, folded, SAMPLE)
    wanted = double(final)(Normaliser(normaliser.mean.double(), normaliser.scale.double())(SAMPLE.double()))
    torch.testing.assert_close(
        double(folded)(SAMPLE.double()),
        wanted * normaliser.scale.double() + normaliser.mean.double(),
        rtol=1e-5,
        atol=1e-4,
    )
    assert torch.allclose(folded.W_dec.norm(dim=1), torch.ones(30))


def test_a_wrong_fold_is_caught():
    normaliser = Normaliser.fit(SAMPLE, "centre-scale")
    dictionary = DictionaryConfig(d_sae=30, activation=TopK(4)).build(normaliser(SAMPLE), seed=0)
    folded = normaliser.fold(dictionary)
    with torch.no_grad():
        folded.b_enc.add_(1.0)
    with pytest.raises(ValueError, match="folding the normalisation changed"):
        normaliser.check(dictionary, folded, SAMPLE)


def test_activations_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="do not vary"):
        Normaliser.fit(torch.ones(10, 3), "centre-scale")


@pytest.mark.parametrize("how", ["none", "centre-scale"])
def test_a_sample_of_nothing_or_of_nan_is_named_as_what_it_is(how: str):
    with pytest.raises(ValueError, match="no activations to fit the normalisation to"):
        Normaliser.fit(torch.zeros(0, 4), how)
    with pytest.raises(ValueError, match="1 of 3 activations hold NaN or infinity .*normalisation is fitted to"):
        Normaliser.fit(torch.tensor([[0.0, 1.0], [torch.nan, 0.0], [2.0, 1.0]]), how)
