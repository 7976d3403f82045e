"""sparsify's folder: cfg.json + sae.safetensors (checked with eai-sparsify 1.3.3). It has TopK SAEs alone.

cfg.json: d_in, num_latents (0: d_in * expansion_factor), k, activation;   encoder.weight and W_dec: [d_sae, d_in]
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unbraid.activation import TopK
from unbraid.dictionary import Dictionary
from unbraid.files import read_json, write_json, write_tensors
from unbraid.formats.published import Parts, Published, assemble, load_safetensors, take

WEIGHTS = "sae.safetensors"


def read(folder: Path) -> Published:
    """Raises ValueError, with the remedy, for what is missing, damaged or no TopK SAE."""
    cfg = read_json(folder / "cfg.json")
    check(cfg, folder)
    tensors = load_safetensors(folder / WEIGHTS)
    W_enc, b_enc, W_dec, b_dec = take(tensors, ("encoder.weight", "encoder.bias", "W_dec", "b_dec"), folder)
    parts = Parts(W_enc=W_enc.T, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, activation=TopK(int(cfg["k"])))
    dictionary, notes = assemble(parts, folder)
    stated = cfg.get("num_latents") or cfg["d_in"] * cfg.get("expansion_factor", 32)
    if (cfg["d_in"], stated) != (dictionary.d_in, dictionary.d_sae):
        raise ValueError(
            f"{folder}: cfg.json states {cfg['d_in']} dimensions and {stated} latents, the weights have "
            f"{dictionary.d_in} and {dictionary.d_sae}"
        )
    # It names the folder after the module it hooked: layers.5 is the output of block 5.
    return Published(
        dictionary=dictionary, format="sparsify", architecture="topk", trained=dict(cfg),
        hook_name=hook_name(folder.name), notes=tuple(notes),
    )  # fmt: skip


def check(cfg: Mapping[str, Any], folder: Path) -> None:
    if cfg.get("transcode") or cfg.get("skip_connection"):
        raise ValueError(
            f"{folder} is a transcoder: it maps one site to another, and every score here is of a dictionary that "
            "explains the activations it reads; import an SAE"
        )
    if cfg.get("activation", "topk") != "topk":
        raise ValueError(f"{folder}: activation {cfg['activation']!r} cannot be read, only 'topk'")
    missing = [key for key in ("d_in", "k") if not isinstance(cfg.get(key), int)]
    if missing:
        raise ValueError(f"{folder}/cfg.json says no {' and no '.join(missing)}; add what it was trained with")


def hook_name(folder: str) -> str:
    prefix, _, layer = folder.rpartition("layers.")
    return f"blocks.{layer}.hook_resid_post" if not prefix and layer.isdigit() else ""


def write(dictionary: Dictionary, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Raises ValueError for all but TopK."""
    if not isinstance(dictionary.activation, TopK):
        raise ValueError(
            f"sparsify has TopK alone, and this is {type(dictionary.activation).__name__}; export it --to saelens"
        )
    tensors: dict[str, Tensor] = {
        "encoder.weight": dictionary.W_enc.T, "encoder.bias": dictionary.b_enc, "W_dec": dictionary.W_dec,
        "b_dec": dictionary.b_dec,
    }  # fmt: skip
    write_tensors(folder / WEIGHTS, {name: torch.clone(tensor.detach()) for name, tensor in tensors.items()})
    write_json(
        folder / "cfg.json",
        {
            "activation": "topk", "d_in": dictionary.d_in, "num_latents": dictionary.d_sae,
            "expansion_factor": max(1, dictionary.d_sae // dictionary.d_in), "k": dictionary.activation.k,
            "normalize_decoder": True, "multi_topk": False, "skip_connection": False, "transcode": False,
        },
    )  # fmt: skip
