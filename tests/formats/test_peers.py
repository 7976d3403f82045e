"""SAEs that dictionary_learning and sparsify made reconstruct here as they do there, and ours there as they do here.

The libraries run in environments of their own (tests/oracles/peers.py); without one, these tests are skipped.
"""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.exact import ACTIVATIONS
from tests.oracles.peers import ask

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.formats import dictionary_learning, recognise, sparsify

D_IN, D_SAE = 12, 40

CLASSES = {
    "AutoEncoder": "ReLU", "AutoEncoderNew": "ReLU", "GatedAutoEncoder": "JumpReLU", "JumpReluAutoEncoder": "JumpReLU",
    "AutoEncoderTopK": "TopK", "BatchTopKSAE": "JumpReLU", "MatryoshkaBatchTopKSAE": "JumpReLU",
}  # fmt: skip
"""Every class that dictionary_learning can load, and what it is here."""


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dictionary_learning")
    ask("dictionary-learning", "ask_dictionary_learning.py", "make", folder)
    return folder


@pytest.fixture(scope="module")
def sparsified(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sparsify")
    ask("sparsify", "ask_sparsify.py", "make", folder)
    return folder


@torch.no_grad()
def assert_answers(folder: Path, dictionary: Dictionary, *, same_codes: bool = True) -> None:
    """That the library's answer beside the SAE is ours."""
    x, theirs = load_file(folder.parent / "x.safetensors")["x"], load_file(folder / "answer.safetensors")
    codes = dictionary.encode(x)
    assert (theirs["f"] != 0).any() and (theirs["f"] == 0).any()
    assert torch.equal(codes != 0, theirs["f"] != 0), "the same latents are active"
    if same_codes:
        torch.testing.assert_close(codes, theirs["f"], rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(dictionary(x), theirs["x_hat"], rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_an_sae_of_dictionary_learning_reconstructs_equally(name: str, learned: Path):
    published = recognise.read(learned / name)
    assert (published.format, published.architecture) == ("dictionary_learning", name)
    assert type(published.dictionary.activation).__name__ == CLASSES[name]
    assert published.hook_name == "blocks.3.hook_resid_post" and published.trained["lm_name"] == "somebody/model"
    assert_answers(learned / name, published.dictionary, same_codes="TopK" in name)


def ours(activation: Activation) -> Dictionary:
    made = Dictionary(D_IN, D_SAE, activation)
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
        made.threshold.abs_()
        made.W_dec.div_(made.W_dec.norm(dim=1, keepdim=True))
    return made.requires_grad_(False)


SITE = {"model_name": "somebody/model", "hook_name": "blocks.3.hook_resid_post", "hook_layer": 3}


def test_dictionary_learning_loads_ours_with_equal_outputs(tmp_path: Path):
    made = {type(a).__name__: ours(a) for a in (ReLU(), TopK(5), JumpReLU(bandwidth=0.0))}
    for name, dictionary in made.items():
        dictionary_learning.write(dictionary, tmp_path / name, SITE)
    save_file({"x": torch.randn(300, D_IN)}, tmp_path / "x.safetensors")
    ask("dictionary-learning", "ask_dictionary_learning.py", "load", tmp_path)
    for name, dictionary in made.items():
        assert_answers(tmp_path / name, dictionary)


def test_an_sae_of_sparsify_reconstructs_equally(sparsified: Path):
    published = recognise.read(sparsified / "layers.3")
    assert (published.format, published.hook_name) == ("sparsify", "blocks.3.hook_resid_post")
    assert_answers(sparsified / "layers.3", published.dictionary)


@pytest.mark.parametrize(
    ("name", "says"),
    [("transcoder", "is a transcoder"), ("skip", "is a transcoder"), ("groupmax", "'groupmax' cannot be read")],
)
def test_what_sparsify_has_besides_is_refused(name: str, says: str, sparsified: Path):
    with pytest.raises(ValueError, match=says):
        recognise.read(sparsified / name)


def test_sparsify_loads_ours_with_equal_outputs(tmp_path: Path):
    sparsify.write(ours(TopK(5)), tmp_path / "layers.3", SITE)
    save_file({"x": torch.randn(300, D_IN)}, tmp_path / "x.safetensors")
    ask("sparsify", "ask_sparsify.py", "load", tmp_path)
    assert_answers(tmp_path / "layers.3", ours(TopK(5)))


@pytest.mark.parametrize("activation", [ReLU(), TopK(5), JumpReLU(bandwidth=0.0)], ids=str)
def test_what_we_write_for_dictionary_learning_we_read_again(activation: Activation, tmp_path: Path):
    dictionary_learning.write(ours(activation), tmp_path, SITE)
    x, again = torch.randn(50, D_IN), recognise.read(tmp_path).dictionary
    assert type(again.activation) is type(activation)
    torch.testing.assert_close(again(x), ours(activation)(x), rtol=1e-5, atol=1e-5)


def test_what_we_write_for_sparsify_we_read_again(tmp_path: Path):
    sparsify.write(ours(TopK(5)), tmp_path, SITE)
    x = torch.randn(50, D_IN)
    assert torch.equal(recognise.read(tmp_path).dictionary(x), ours(TopK(5))(x))


def test_what_a_library_has_no_class_for_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no class for MatchingPursuit; export it --to saelens"):
        dictionary_learning.write(ours(MatchingPursuit(5)), tmp_path / "a", SITE)
    for activation in ACTIVATIONS:
        if not isinstance(activation, TopK):
            with pytest.raises(ValueError, match="sparsify has TopK alone"):
                sparsify.write(ours(activation), tmp_path / "b", SITE)
    assert list(tmp_path.iterdir()) == []


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


def test_a_pickle_that_would_run_code_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    dictionary_learning.write(ours(ReLU()), tmp_path, SITE)
    (tmp_path / "ae.pt").write_bytes(pickle.dumps({"bias": Trap()}, protocol=2))
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        recognise.read(tmp_path)
    torch.save({"bias": Trap()}, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        recognise.read(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_what_is_missing_or_unknown_is_named(tmp_path: Path):
    dictionary_learning.write(ours(TopK(5)), tmp_path, SITE)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {**config["trainer"], "dict_class": "IdentityDict"}}))
    with pytest.raises(ValueError, match="dict_class 'IdentityDict' cannot be read; these can: AutoEncoder,"):
        recognise.read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(torch.zeros(3), tmp_path / "ae.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        recognise.read(tmp_path)
    torch.save({"b_dec": torch.zeros(3)}, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match=r"tensors \['encoder.weight', .*are missing; found \['b_dec'\]"):
        recognise.read(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json is missing"):
        recognise.read(tmp_path)


def test_a_batchtopk_without_a_fitted_threshold_is_what_its_library_makes_of_it(tmp_path: Path):
    relu = ours(ReLU())
    dictionary_learning.write(relu, tmp_path, SITE)
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    state |= {"b_dec": state.pop("bias"), "k": torch.tensor(5), "threshold": torch.tensor(-1.0)}
    torch.save(state, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "BatchTopKSAE", "k": 5}}))
    published, x = recognise.read(tmp_path), torch.randn(50, D_IN)
    torch.testing.assert_close(published.dictionary(x), relu(x), rtol=1e-5, atol=1e-5)
    assert "never fitted" in published.notes[0]
