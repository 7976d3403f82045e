"""SAEs that SAELens itself wrote reconstruct here as they do there; what cannot be read is refused with a remedy."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.formats.saelens_saes import D_SAE, SETTINGS, rows, saved

from unbraid.dictionary.activations.topk import TopK
from unbraid.formats import recognise, saelens
from unbraid.formats.published import Published

every_architecture = pytest.mark.parametrize("architecture", SETTINGS)


@torch.no_grad()
def assert_same(theirs: Any, published: Published, *, same_latents: bool = True) -> None:
    x = rows()
    wanted, ours = theirs.encode(x), published.dictionary.encode(x)
    torch.testing.assert_close(published.dictionary(x), theirs(x), rtol=1e-5, atol=2e-5)
    assert (wanted != 0).any() and (wanted == 0).any()
    if same_latents:
        assert torch.equal(ours != 0, wanted != 0), "the same latents are active"
        torch.testing.assert_close(ours, wanted * theirs.W_dec.norm(dim=1), rtol=1e-5, atol=2e-5)
    norms = torch.linalg.vector_norm(published.dictionary.W_dec, dim=1)
    assert (norms - 1).abs().max() < 1e-6


@every_architecture
def test_an_sae_written_by_saelens_reconstructs_equally(architecture: str, tmp_path: Path):
    theirs = saved(architecture, tmp_path)
    published = recognise.read(tmp_path)
    assert (published.format, published.architecture) == ("SAELens", architecture)
    assert published.hook_name == "blocks.2.hook_resid_post" and published.trained["model_name"] == "somebody/model"
    assert_same(theirs, published, same_latents=architecture != "abstopk")


@every_architecture
def test_what_was_read_is_written_so_that_saelens_reads_it(architecture: str, tmp_path: Path):
    from sae_lens import SAE

    theirs = saved(architecture, tmp_path / "theirs")
    saelens.write(recognise.read(tmp_path / "theirs").dictionary, tmp_path / "ours", {})
    again = SAE.load_from_disk(str(tmp_path / "ours"), device="cpu")
    torch.testing.assert_close(again(rows()), theirs(rows()), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("architecture", [name for name in SETTINGS if name != "matching_pursuit"])
def test_an_encoder_that_reads_x_is_folded(architecture: str, tmp_path: Path):
    theirs = saved(architecture, tmp_path, apply_b_dec_to_input=False)
    published = recognise.read(tmp_path)
    assert_same(theirs, published, same_latents=architecture != "abstopk")
    assert any("folded into b_enc" in note for note in published.notes)


def test_matching_pursuit_without_its_bias_is_read_without(tmp_path: Path):
    assert_same(saved("matching_pursuit", tmp_path, apply_b_dec_to_input=False), recognise.read(tmp_path))


def test_a_topk_that_ranks_by_norm_is_folded(tmp_path: Path):
    theirs = saved("topk", tmp_path, unit=False, rescale_acts_by_decoder_norm=True)
    published = recognise.read(tmp_path)
    torch.testing.assert_close(published.dictionary(rows()), theirs(rows()), rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(published.dictionary.encode(rows()), theirs.encode(rows()), rtol=1e-5, atol=2e-5)
    assert any("norms were off 1" in note for note in published.notes)


def test_latents_of_either_sign_are_split_in_two(tmp_path: Path):
    theirs = saved("abstopk", tmp_path)
    published = recognise.read(tmp_path)
    assert published.dictionary.d_sae == 2 * D_SAE and published.dictionary.activation == TopK(5)
    codes = published.dictionary.encode(rows())
    torch.testing.assert_close(codes[:, :D_SAE] - codes[:, D_SAE:], theirs.encode(rows()), rtol=1e-5, atol=2e-5)
    assert (codes >= 0).all() and "40 became 80" in published.notes[0]


@pytest.mark.parametrize("architecture", ["jumprelu", "topk", "gated", "matching_pursuit"])
def test_scaled_activations_are_folded_with_the_factor_beside_the_weights(architecture: str, tmp_path: Path):
    theirs = saved(architecture, tmp_path, normalize_activations="expected_average_only_in")
    with pytest.raises(ValueError, match="factor that it does not hold.*fold_activation_norm_scaling_factor"):
        recognise.read(tmp_path)
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.25}))
    x = 4 * rows()
    published = recognise.read(tmp_path)
    torch.testing.assert_close(published.dictionary(x), theirs(x * 0.25) / 0.25, rtol=1e-5, atol=2e-4)
    theirs.fold_activation_norm_scaling_factor(0.25)
    torch.testing.assert_close(published.dictionary(x), theirs(x), rtol=1e-5, atol=2e-4)


def test_half_precision_is_read_as_it_rounds(tmp_path: Path):
    theirs = saved("topk", tmp_path, dtype="bfloat16")
    published = recognise.read(tmp_path)
    assert published.dictionary.W_dec.dtype == torch.float32
    same = (published.dictionary.encode(rows()) != 0) == (theirs.float().encode(rows()) != 0)
    assert same.float().mean() > 0.99
    assert any("norms were off 1" in note for note in published.notes)


def test_an_atom_of_zeros_never_fires(tmp_path: Path):
    theirs = saved("standard", tmp_path)
    path = tmp_path / "sae_weights.safetensors"
    tensors = load_file(path)
    tensors["W_dec"][7] = 0
    save_file(tensors, path)
    theirs.W_dec.data[7] = 0
    published = recognise.read(tmp_path)
    torch.testing.assert_close(published.dictionary(rows()), theirs(rows()), rtol=1e-5, atol=2e-5)
    assert (published.dictionary.encode(rows())[:, 7] == 0).all() and "1 atoms are zero" in published.notes[0]


def edited(folder: Path, **fields: Any) -> None:
    path = folder / "cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"architecture": "jumprelu_transcoder"}, "is a transcoder .*import an SAE"),
        ({"architecture": "temporal"}, "'temporal' cannot be read .*neighbouring tokens"),
        ({"architecture": "mystery"}, "'mystery' cannot be read; these can: standard, jumprelu"),
        ({"architecture": ""}, "architecture '' cannot be read"),
        ({"normalize_activations": "layer_norm"}, "'layer_norm', which cannot be folded"),
        ({"reshape_activations": "hook_z"}, "heads of hook_z"),
        ({"d_sae": 41}, r"states d_in, d_sae = \(12, 41\), the weights have \(12, 40\)"),
    ],
)
def test_what_has_no_place_here_is_refused_by_name(fields: dict[str, Any], says: str, tmp_path: Path):
    saved("standard", tmp_path)
    edited(tmp_path, **fields)
    with pytest.raises(ValueError, match=says):
        recognise.read(tmp_path)


def changed(folder: Path, **tensors: torch.Tensor | None) -> None:
    path = folder / "sae_weights.safetensors"
    kept = {**load_file(path), **tensors}
    save_file({name: tensor.contiguous() for name, tensor in kept.items() if tensor is not None}, path)


def test_turned_weights_are_named_with_the_remedy(tmp_path: Path):
    theirs = saved("standard", tmp_path)
    changed(tmp_path, W_enc=theirs.W_enc.detach().T)
    with pytest.raises(ValueError, match=r"'W_enc': \[12, 40\]}, found {'W_enc': \[40, 12\]}; transpose W_enc"):
        recognise.read(tmp_path)


def test_missing_and_broken_tensors_are_named(tmp_path: Path):
    saved("jumprelu", tmp_path)
    changed(tmp_path, b_enc=torch.full((D_SAE,), torch.nan))
    with pytest.raises(ValueError, match="b_enc hold NaN"):
        recognise.read(tmp_path)
    changed(tmp_path, threshold=None)
    with pytest.raises(ValueError, match=r"tensors \['threshold'\] are missing; found"):
        recognise.read(tmp_path)


def test_norms_that_would_change_the_choice_are_refused(tmp_path: Path):
    saved("topk", tmp_path, unit=False)
    with pytest.raises(ValueError, match="TopK would choose other latents.*rescale_acts_by_decoder_norm"):
        recognise.read(tmp_path)


def test_truncated_weights_and_empty_folders_are_named(tmp_path: Path):
    saved("standard", tmp_path / "sae")
    with pytest.raises(ValueError, match=r"holds no SAE: expected one of .*did you mean .*sae\?"):
        recognise.read(tmp_path)
    weights = tmp_path / "sae" / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:300])
    with pytest.raises(ValueError, match="sae_weights.safetensors cannot be read .*fetch it again"):
        recognise.read(tmp_path / "sae")
    (tmp_path / "sae" / "cfg.json").unlink()
    with pytest.raises(ValueError, match="cfg.json is missing"):
        recognise.read(tmp_path / "sae")


def test_two_saes_in_one_folder_are_refused(tmp_path: Path):
    saved("standard", tmp_path)
    (tmp_path / "ae.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="put one SAE in a folder"):
        recognise.read(tmp_path)


OLD: dict[str, dict[str, Any]] = {
    "standard": {"activation_fn_str": "relu", "hook_point": "blocks.4.hook_resid_pre"},
    "topk": {"architecture": "standard", "activation_fn": "topk", "activation_fn_kwargs": {"k": 5}},
    "jumprelu": {"architecture": "jumprelu", "normalize_activations": False, "apply_b_dec_to_input": False},
    "gated": {"architecture": "gated", "hook_name": "blocks.4.hook_resid_pre", "finetuning_scaling_factor": False},
}
"""What cfg.json said before SAELens 6."""


@pytest.mark.parametrize("architecture", OLD)
def test_folders_from_before_saelens_6_are_read_as_saelens_reads_them(architecture: str, tmp_path: Path):
    from sae_lens import SAE

    saved(architecture, tmp_path)
    said = {"d_in": 12, "d_sae": D_SAE, "dtype": "torch.float32", "device": "cpu", "model_name": "somebody/model"}
    (tmp_path / "cfg.json").write_text(json.dumps({**said, **OLD[architecture]}))
    theirs, published = SAE.load_from_disk(str(tmp_path), device="cpu"), recognise.read(tmp_path)
    assert published.architecture == architecture == theirs.cfg.architecture()
    assert published.trained["model_name"] == "somebody/model"
    assert_same(theirs, published)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"finetuning_scaling_factor": True}, "fold the factor into W_dec"),
        ({"activation_fn_str": "tanh-relu"}, "'tanh-relu' cannot be read"),
        ({"hook_name": "blocks.4.attn.hook_z"}, "heads of hook_z"),
        ({"normalize_activations": True}, "factor that it does not hold"),
        ({"activation_fn": "topk"}, "k is None; expected a whole number"),
    ],
)
def test_what_version_6_has_no_words_for_is_refused(fields: dict[str, Any], says: str, tmp_path: Path):
    saved("standard", tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps({"d_in": 12, "d_sae": D_SAE, **fields}))
    with pytest.raises(ValueError, match=says):
        recognise.read(tmp_path)
