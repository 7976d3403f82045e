"""sparsify's folder: cfg.json + sae.safetensors (checked with eai-sparsify 1.3.3). It has TopK SAEs alone.

cfg.json: d_in, num_latents (0: d_in * expansion_factor), k, activation;   encoder.weight and W_dec: [d_sae, d_in]
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.formats.published import Parts, Published, assemble, turned
from unbraid.formats.said import Said
from unbraid.formats.tensors import load_safetensors, quoted, take_all
from unbraid.system.files import write_json, write_tensors

WEIGHTS = "sae.safetensors"
TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")


READ = frozenset({"activation", "d_in", "num_latents", "expansion_factor", "k"})
HARMLESS = frozenset({
    "multi_topk",  # a second loss
    "normalize_decoder",  # the norms are measured
    "dtype",  # so is the precision
    "lookup_max_order", "gram_table_hash",  # of gram_lookup, which is refused
    "exported_by",
})  # fmt: skip
TRANSCODES = (
    "it is a transcoder, which maps one site to another, and every score here is of a dictionary that explains the "
    "activations it reads; transcoders are out of scope (circuit-tracer and SAELens use them): import an SAE"
)
OFF = {
    "transcode": TRANSCODES,
    "skip_connection": TRANSCODES,
    "signed": "its latents have either sign, which no dictionary here has (sparsify dropped them in 2024)",
    "embed_skip": "it adds a map of the embedding to what it reconstructs, which is not among what a dictionary reads",
    "gram_lookup": "it explains what a table of n-grams leaves over, and the table is not in the folder",
}


def read(folder: Path) -> Published:
    """Read a folder. Raises ValueError, with the remedy, when it is incomplete, damaged or no TopK SAE."""
    said = Said.read(folder / "cfg.json")
    check(said)
    d_in, k = said.count("d_in"), said.count("k")
    tensors = load_safetensors(folder / WEIGHTS)
    W_enc, b_enc, W_dec, b_dec = take_all(tensors, TENSORS, folder)
    parts = Parts(W_enc=turned(W_enc), b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, activation=TopK(k))
    dictionary, notes = assemble(parts, folder)
    # A num_latents of 0 is sparsify's way of saying that the factor says it.
    latents = said.fields.get("num_latents") or None
    stated = said.count("num_latents") if latents else d_in * said.count("expansion_factor", 32)
    if (d_in, stated) != (dictionary.d_in, dictionary.d_sae):
        raise ValueError(
            f"{folder}: cfg.json states {d_in} dimensions and {stated} latents, the weights have "
            f"{dictionary.d_in} and {dictionary.d_sae}"
        )
    return Published(
        dictionary=dictionary, format="sparsify", architecture="topk", trained=dict(said.fields),
        stated={"l0": k, **trained_on(folder)}, notes=tuple(notes),
    )  # fmt: skip


def check(said: Said) -> None:
    if said.text("activation", "topk") != "topk":
        raise ValueError(f"{said.file}: activation {quoted(said.fields['activation'])} cannot be read, only 'topk'")
    said.refuse_unread(READ, HARMLESS, OFF)


def trained_on(folder: Path) -> dict[str, Any]:
    """Return the site from the folder's name (layers.5 is the output of block 5), and the training from the
    config.json one folder up."""
    prefix, _, layer = folder.name.rpartition("layers.")
    site = {"hook_name": f"blocks.{layer}.hook_resid_post"} if not prefix and layer.isdigit() else {}
    run = training_settings(folder.parent / "config.json")
    names = {"model_name": "model", "dataset_path": "dataset", "context_size": "ctx_len"}
    return site | {ours: run[theirs] for ours, theirs in names.items() if theirs in run}


def training_settings(file: Path) -> Mapping[str, Any]:
    """sparsify's own settings of training. Another program's file of that name, or none, says nothing of the SAE."""
    try:
        said = Said.read(file).fields
    except ValueError:
        return {}
    return said if "sae" in said else {}


def write(dictionary: Dictionary, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write a folder. Raises ValueError for all but TopK."""
    kind = dictionary.activation.architecture() or {}
    if kind.get("architecture") != "topk":
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
            "expansion_factor": max(1, dictionary.d_sae // dictionary.d_in), "k": kind["k"],
            "normalize_decoder": bool((dictionary.norms() == 1).all()), "multi_topk": False,
            "skip_connection": False, "transcode": False,
        },
    )  # fmt: skip
