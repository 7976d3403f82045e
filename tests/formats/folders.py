"""Folders of every format with the same arbitrary weights, made without the libraries: for what strangers may hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

D_IN, D_SAE, K = 6, 10, 3


def weights() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    drawn = {
        "W_enc": torch.randn(D_IN, D_SAE, generator=rng), "b_enc": torch.randn(D_SAE, generator=rng),
        "W_dec": torch.randn(D_SAE, D_IN, generator=rng), "b_dec": torch.randn(D_IN, generator=rng),
        "threshold": torch.rand(D_SAE, generator=rng),
    }  # fmt: skip
    drawn["W_dec"] /= drawn["W_dec"].norm(dim=1, keepdim=True)
    return drawn


LINEAR = ("W_enc", "b_enc", "W_dec", "b_dec")
SAELENS = {
    "d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
    "normalize_activations": "none", "reshape_activations": "none",
    "metadata": {
        "sae_lens_version": "6.54.12", "hook_name": "blocks.1.hook_resid_post", "model_name": "somebody/model",
    },
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "standard": {**SAELENS, "architecture": "standard"},
    "jumprelu": {**SAELENS, "architecture": "jumprelu"},
    "topk": {**SAELENS, "architecture": "topk", "k": K, "rescale_acts_by_decoder_norm": False},
    "abstopk": {**SAELENS, "architecture": "abstopk", "k": K, "rescale_acts_by_decoder_norm": False},
    "matching_pursuit": {
        **SAELENS, "architecture": "matching_pursuit", "max_iterations": 4, "residual_threshold": 0.1,
        "stop_on_duplicate_support": True,
    },
    "before 6": {
        "d_in": D_IN, "d_sae": D_SAE, "dtype": "torch.float32", "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K}, "hook_point": "blocks.1.hook_resid_post", "l1_coefficient": 1e-3,
        "use_ghost_grads": False, "model_name": "gpt2-small",
    },
    "sparsify": {"d_in": D_IN, "num_latents": D_SAE, "expansion_factor": 32, "k": K, "normalize_decoder": True},
    "dictionary_learning": {
        "trainer": {
            "dict_class": "AutoEncoderTopK", "k": K, "activation_dim": D_IN, "dict_size": D_SAE, "lr": 1e-3,
            "lm_name": "somebody/model", "layer": 1, "submodule_name": "resid_post_layer_1",
        },
        "buffer": {"ctx_len": 64},
    },
    "gemma scope 2": {
        "architecture": "jump_relu", "type": "sae", "width": D_SAE, "l0": K, "model_name": "gemma-v3-1b-pt",
        "hf_hook_point_in": "model.layers.1.output", "affine_connection": False,
    },
}  # fmt: skip
"""Of every format that has one."""


def saelens(folder: Path, name: str) -> Path:
    held = {
        "jumprelu": (*LINEAR, "threshold"), "matching_pursuit": ("W_dec", "b_dec"),
    }.get(name, LINEAR)  # fmt: skip
    save_file({key: weights()[key].contiguous() for key in held}, folder / "sae_weights.safetensors")
    return folder / "cfg.json"


def sparsify(folder: Path, name: str) -> Path:
    w = weights()
    tensors = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "W_dec": w["W_dec"], "b_dec": w["b_dec"]}
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "sae.safetensors")
    return folder / "cfg.json"


def dictionary_learning(folder: Path, name: str) -> Path:
    w = weights()
    linear = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "decoder.weight": w["W_dec"].T}
    torch.save(linear | {"b_dec": w["b_dec"], "k": torch.tensor(K), "threshold": torch.tensor(-1.0)}, folder / "ae.pt")
    return folder / "config.json"


def gemma_scope_2(folder: Path, name: str) -> Path:
    save_file({key.lower(): value.contiguous() for key, value in weights().items()}, folder / "params.safetensors")
    return folder / "config.json"


def gemma_scope_1(folder: Path, **changed: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {key: value.numpy() for key, value in weights().items()} | changed
    np.savez(folder / "params.npz", **arrays)
    return folder


WRITERS: dict[str, Callable[[Path, str], Path]] = {
    "sparsify": sparsify, "dictionary_learning": dictionary_learning, "gemma scope 2": gemma_scope_2,
}  # fmt: skip


def made(folder: Path, name: str, **changed: Any) -> Path:
    """The folder of a kind of `CONFIGS`, with some settings changed (None: left out)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**CONFIGS[name], **changed}
    file = WRITERS.get(name, saelens)(folder, name)
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder
