"""Gemma Scope's folders: what is in them, and what their names say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.formats.folders import D_IN, D_SAE, K, gemma_scope_1, made, weights

from unbraid.formats import recognise

ROWS = torch.randn(50, D_IN, generator=torch.Generator().manual_seed(1))
FIRST = "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"


def as_the_paper_has_it(x: torch.Tensor) -> torch.Tensor:
    """Gemma Scope's JumpReLU (Lieberum et al. 2024): the encoder reads x, not x - b_dec."""
    w = weights()
    pre = x @ w["W_enc"] + w["b_enc"]
    return (pre > w["threshold"]) * pre.relu()


def test_fault_25_an_npz_is_read_as_its_paper_has_it(tmp_path: Path):
    published = recognise.read(gemma_scope_1(tmp_path / FIRST))
    assert (published.format, published.architecture) == ("Gemma Scope", "jumprelu")
    torch.testing.assert_close(published.dictionary.encode(ROWS), as_the_paper_has_it(ROWS), rtol=1e-5, atol=1e-5)
    w = weights()
    wanted = as_the_paper_has_it(ROWS) @ w["W_dec"] + w["b_dec"]
    torch.testing.assert_close(published.dictionary(ROWS), wanted, rtol=1e-5, atol=1e-5)


def test_fault_25_it_is_known_by_its_path(tmp_path: Path):
    published = recognise.read(gemma_scope_1(tmp_path / FIRST))
    assert published.stated == {
        "model_name": "google/gemma-2-2b", "hook_name": "blocks.20.hook_resid_post", "hook_layer": 20, "l0": 71,
        "prepend_bos": True, "context_size": 1024,
    }  # fmt: skip
    assert any("its path says 16 thousand latents, and the weights have 10" in note for note in published.notes)
    hub = "models--google--gemma-scope-9b-it-mlp/snapshots/0a1b/layer_3/width_1m/average_l0_9"
    stated = recognise.read(gemma_scope_1(tmp_path / hub)).stated
    assert (stated["model_name"], stated["hook_name"]) == ("google/gemma-2-9b-it", "blocks.3.hook_mlp_out")
    assert "model_name" not in recognise.read(gemma_scope_1(tmp_path / "renamed")).stated


def test_fault_25_other_precisions_and_small_letters(tmp_path: Path):
    w = {key.lower(): value.numpy().astype(np.float16) for key, value in weights().items()}
    (tmp_path / "low").mkdir()
    np.savez_compressed(tmp_path / "low" / "params.npz", **w)  # pyright: ignore[reportArgumentType]
    assert recognise.read(tmp_path / "low").dictionary.d_sae == D_SAE
    whole = gemma_scope_1(tmp_path / "whole", W_enc=np.ones((D_IN, D_SAE), dtype=np.int32))
    with pytest.raises(ValueError, match="expected floating-point weights, found"):
        recognise.read(whole)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("google/gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_71", "is a transcoder.*out of scope"),
        ("google/gemma-scope-2b-pt-att/layer_3/width_16k/average_l0_71", "reads the heads of attention side by side"),
        ("google/gemma-scope-2-1b-pt/crosscoder/layer_3_width_16k", "is a crosscoder.*out of scope"),
    ],
)
def test_fault_25_what_is_no_sae_of_activations_is_refused(path: str, says: str, tmp_path: Path):
    with pytest.raises(ValueError, match=says):
        recognise.read(gemma_scope_1(tmp_path / path))


def test_fault_25_folders_of_crosscoders_without_a_file_we_know_say_where_to_go(tmp_path: Path):
    folder = tmp_path / "gemma-scope-2-1b-pt" / "crosscoder" / "layer_7"
    folder.mkdir(parents=True)
    (folder / "params_layer_0.safetensors").write_bytes(b"")
    with pytest.raises(
        ValueError, match="transcoders or crosscoders, which are out of scope .SAELens and circuit-tracer"
    ):
        recognise.read(folder)


def test_the_second_scope_says_what_it_is(tmp_path: Path):
    published = recognise.read(made(tmp_path / "layer_1_width_16k_l0_small", "gemma scope 2"))
    assert published.stated == {
        "model_name": "gemma-3-1b-pt", "hook_name": "blocks.1.hook_resid_post", "l0": K, "prepend_bos": True,
        "context_size": 1024,
    }  # fmt: skip
    torch.testing.assert_close(published.dictionary.encode(ROWS), as_the_paper_has_it(ROWS), rtol=1e-5, atol=1e-5)


def test_affine_maps_in_the_weights_are_refused(tmp_path: Path):
    from safetensors.torch import save_file

    folder = made(tmp_path, "gemma scope 2")
    held = {key.lower(): value for key, value in weights().items()}
    save_file({**held, "affine_skip_connection": torch.eye(D_IN)}, folder / "params.safetensors")
    with pytest.raises(ValueError, match="a linear map past its latents"):
        recognise.read(folder)
