"""What every activation must do, for every activation there is."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.small import WORLD, experiment
from unbraid.catalog import activations
from unbraid.config.serialise import from_json, to_json
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.formats import saelens
from unbraid.runs.run import Run
from unbraid.training.loop import train

every_activation = pytest.mark.parametrize("kind", activations().values(), ids=activations().keys())
D_SAE, K = 40, 3


def small(kind: type[Activation]) -> Activation:
    """By its defaults, but of few latents."""
    few = {"k", "initial_l0"} & {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return replace(kind(), **dict.fromkeys(few, K))  # type: ignore[type-var]


def rows(seed: int = 0) -> Tensor:
    """Normalised, as a dictionary in training is given them."""
    x = WORLD.sample(256, seed=seed).x.double()
    return (x - x.mean(0)) / x.std()


def dictionary(kind: type[Activation]) -> Dictionary:
    return DictionaryConfig(d_sae=D_SAE, activation=small(kind)).build(rows().float(), seed=0).double()


def test_there_are_activations():
    assert len(activations()) >= 6


@every_activation
def test_json_gives_the_same_activation_back(kind: type[Activation]):
    for activation in (kind(), small(kind)):
        assert from_json(json.loads(json.dumps(to_json(activation)))) == activation


@every_activation
def test_sparse_and_dense_codes_and_their_gradients_are_equal(kind: type[Activation]):
    of, x = dictionary(kind), rows()
    found: list[tuple[Tensor, ...]] = []
    for path in ("sparse", "dense"):
        z = of.codes(x, path)
        loss = (of.decode(z) - x).square().sum()
        named = [p for p in of.parameters() if p.requires_grad]
        given = torch.autograd.grad(loss, named, allow_unused=True)
        found.append((z.dense(), *(torch.zeros_like(p) if g is None else g for p, g in zip(named, given, strict=True))))
    assert bool((found[0][0] != 0).any())
    for sparse, dense in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-9, atol=1e-9)


@every_activation
def test_codes_do_not_depend_on_how_often_they_are_made(kind: type[Activation]):
    of, x = dictionary(kind), rows()
    assert torch.equal(of.encode(x), of.encode(x))


@every_activation
def test_k_latents_are_active_at_most(kind: type[Activation]):
    if not hasattr(kind(), "k"):
        pytest.skip("it has no k")
    active = (dictionary(kind).encode(rows()) != 0).sum(1).double()
    assert float(active.mean()) <= K and float(active.max()) > 0


@every_activation
def test_a_row_of_zeros_and_an_empty_batch_are_survived(kind: type[Activation]):
    of = dictionary(kind)
    for x in (torch.zeros(4, WORLD.d_in, dtype=torch.float64), rows()[:0]):
        assert of.encode(x).shape == (len(x), D_SAE) and bool(of(x).isfinite().all())


@every_activation
@torch.no_grad()
def test_its_form_for_inference_says_of_the_rows_it_was_made_on_what_it_says(kind: type[Activation]):
    of, x = dictionary(kind).float(), rows().float()
    torch.testing.assert_close(of.for_inference(x)(x), of(x), rtol=1e-5, atol=1e-5)


@every_activation
@torch.no_grad()
def test_its_form_for_inference_is_stored_and_read_back(kind: type[Activation], tmp_path: Path):
    form, x = dictionary(kind).float().for_inference(rows().float()), rows(1).float()
    saelens.write(form, tmp_path, {"model_name": "world", "hook_name": "blocks.0.hook_resid_post"})
    torch.testing.assert_close(saelens.read(tmp_path)(x), form(x), rtol=0, atol=1e-5)


@every_activation
@torch.no_grad()
def test_scaled_inputs_give_scaled_reconstructions(kind: type[Activation]):
    """With thresholds and biases, which are in the units of the inputs, scaled as well."""
    of, x = dictionary(kind), rows()
    large = Dictionary(of.d_in, of.d_sae, of.activation.scaled(4.0)).double()
    large.load_state_dict(of.state_dict())
    for name, parameter in large.named_parameters():
        if name in ("b_enc", "b_dec", "b_mag", "threshold"):
            parameter.mul_(4.0)
    torch.testing.assert_close(large(4 * x), 4 * of(x), rtol=1e-9, atol=1e-9)


@every_activation
def test_it_trains_into_a_run_that_is_read_back(kind: type[Activation], tmp_path: Path):
    (folder,) = train([experiment(activation=small(kind), tokens=320)], tmp_path)
    run = Run.open(folder)
    assert run.experiment.dictionary.activation == small(kind)
    assert bool(run.dictionary()(WORLD.sample(32, seed=0).x).isfinite().all())
