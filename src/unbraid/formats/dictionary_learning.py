"""dictionary_learning's folder: ae.pt + config.json (checked with dictionary-learning 0.1.0).

ae.pt is a pickle; only the tensors in it are read (`weights_only`), and only from a folder that the user names.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unbraid.dictionary.activations.gated import gated_as_jumprelu
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.formats.published import THRESHOLDED, Parts, Published, as_thresholds, assemble, check_vectors, turned
from unbraid.formats.said import Said
from unbraid.formats.tensors import load_torch, quoted, shown, take, take_all
from unbraid.system.files import write_atomically, write_json

WEIGHTS = "ae.pt"
CONFIG = "config.json"
SITES = {
    "resid_post": "blocks.{}.hook_resid_post", "resid_pre": "blocks.{}.hook_resid_pre",
    "mlp_out": "blocks.{}.hook_mlp_out", "attn_out": "blocks.{}.hook_attn_out",
}  # fmt: skip
"""What submodule_name begins with, by habit."""

Reader = Callable[[Mapping[str, Tensor], Said], tuple[Parts, list[str]]]

READ = frozenset({"dict_class", "activation_dim", "dict_size", "k", "lm_name", "layer", "submodule_name", "norm_factor",
                  "target_l0"})  # fmt: skip
HARMLESS = frozenset({
    "trainer_class", "wandb_name", "lr", "steps", "warmup_steps", "decay_start", "device", "seed", "dtype",
    "exported_by",
    "resample_steps", "l1_penalty", "sparsity_warmup_steps", "lambda_warm_steps", "initial_sparsity_penalty",
    "sparsity_penalty", "sparsity_coefficient", "sparsity_function", "p_start", "p_end", "anneal_start", "anneal_end",
    "n_sparsity_updates", "sparsity_queue_length", "sparsity_loss_queue_length", "adaptive_sparsity_penalty",
    "activation_queue_length", "steps_before_annealing", "auxk_alpha", "top_k_aux", "threshold_beta",
    "threshold_start_step", "bandwidth", "group_fractions", "group_weights", "group_sizes", "weights_temperature",
    "k_anneal_steps", "anneal_end_k", "use_april_update_mode",
})  # fmt: skip
"""How it was trained. Groups of a Matryoshka SAE shape its loss; all of them are used afterwards."""
OUT_OF_SCOPE = (
    "it maps one site, or several, to another, and every score here is of a dictionary that explains the activations "
    "it reads; transcoders and crosscoders are out of scope (dictionary_learning and SAELens use them): import an SAE"
)


def relu(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    bias, W_enc, b_enc, W_dec = take_all(
        tensors, ("bias", "encoder.weight", "encoder.bias", "decoder.weight"), said.file.parent
    )
    return Parts(W_enc=turned(W_enc), b_enc=b_enc, W_dec=turned(W_dec), b_dec=bias, activation=ReLU()), []


def relu_uncentred(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    names = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
    W_enc, b_enc, W_dec, b_dec = take_all(tensors, names, said.file.parent)
    return Parts(
        W_enc=turned(W_enc), b_enc=b_enc, W_dec=turned(W_dec), b_dec=b_dec, activation=ReLU(), reads_centred=False
    ), []


def gated(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    """Read a GatedAutoEncoder, as the JumpReLU with equal codes."""
    names = ("encoder.weight", "gate_bias", "r_mag", "mag_bias", "decoder.weight", "decoder_bias")
    W_enc, b_gate, r_mag, b_mag, W_dec, b_dec = take_all(tensors, names, said.file.parent)
    check_vectors(turned(W_enc), (b_gate, r_mag, b_mag), said.file.parent)
    as_jumprelu = gated_as_jumprelu(turned(W_enc), b_gate, r_mag, b_mag)
    parts = Parts(**as_jumprelu._asdict(), W_dec=turned(W_dec), b_dec=b_dec, activation=THRESHOLDED)
    return parts, ["its gate and magnitudes are one JumpReLU, with equal codes"]


def jumprelu(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    """Return the parts of a JumpReLU SAE, whose encoder reads activations without subtracting the decoder's bias."""
    W_enc, b_enc, W_dec, b_dec, threshold = take_all(
        tensors, ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"), said.file.parent
    )
    return Parts(
        W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, activation=THRESHOLDED, threshold=threshold,
        reads_centred=False,
    ), []  # fmt: skip


def topk(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    names = ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec")
    W_enc, b_enc, W_dec, b_dec = take_all(tensors, names, said.file.parent, besides=("k", "threshold"))
    k = latents_a_row(tensors, said)
    return Parts(W_enc=turned(W_enc), b_enc=b_enc, W_dec=turned(W_dec), b_dec=b_dec, activation=TopK(k)), []


def batchtopk(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    names = ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec")
    W_enc, b_enc, W_dec, b_dec = take_all(tensors, names, said.file.parent, besides=("k", "threshold"))
    plain = Parts(W_enc=turned(W_enc), b_enc=b_enc, W_dec=turned(W_dec), b_dec=b_dec, activation=THRESHOLDED)
    return one_threshold(plain, tensors, said)


def matryoshka(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    """Return the parts of a Matryoshka BatchTopK SAE, used as one dictionary: its groups matter in training alone."""
    besides = ("k", "threshold", "group_sizes", "group_indices")
    W_enc, b_enc, W_dec, b_dec = take_all(
        tensors, ("W_enc", "b_enc", "W_dec", "b_dec"), said.file.parent, besides=besides
    )
    return one_threshold(
        Parts(W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, activation=THRESHOLDED), tensors, said
    )


def latents_a_row(tensors: Mapping[str, Tensor], said: Said) -> int:
    """k, which the weights and the settings both may say."""
    held = tensors.get("k")
    stated = said.count("k") if said.fields.get("k") is not None else None
    if held is None and stated is None:
        raise ValueError(f"{said.file}: neither ae.pt nor config.json says k; add it to config.json under trainer")
    if held is not None and (held.numel() != 1 or not float(held).is_integer() or held < 1):
        raise ValueError(f"{said.file.parent}: ae.pt says k = {shown(held.tolist())}; expected a whole number above 0")
    k = stated if held is None else int(held)
    if stated not in (None, k):
        raise ValueError(f"{said.file}: k is {stated}, and in ae.pt {k}; which one is right is unknown")
    assert k is not None
    return k


def one_threshold(parts: Parts, tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    (threshold,) = take(tensors, ("threshold",), said.file.parent)
    if threshold.numel() != 1:
        raise ValueError(f"{said.file.parent}: threshold has {threshold.numel()} numbers; expected one for all latents")
    notes = ["its threshold was never fitted (-1): it is a ReLU SAE, as it is in its own library"] * bool(threshold < 0)
    return replace(parts, threshold=as_thresholds(threshold.clamp_min(0).reshape(()), parts.b_enc.numel())), notes


READERS: dict[str, Reader] = {
    "AutoEncoder": relu, "AutoEncoderNew": relu_uncentred, "GatedAutoEncoder": gated, "JumpReluAutoEncoder": jumprelu,
    "AutoEncoderTopK": topk, "BatchTopKSAE": batchtopk, "MatryoshkaBatchTopKSAE": matryoshka,
}  # fmt: skip


def read(folder: Path) -> Published:
    """Read a folder. Raises ValueError, with the remedy, when it is incomplete, damaged or of an unknown class."""
    whole = Said.read(folder / CONFIG)
    whole.refuse_unread(frozenset({"trainer", "buffer"}), frozenset(), {})
    said = whole.part("trainer")
    name = said.text("dict_class", "")
    if name not in READERS:
        why = f": {OUT_OF_SCOPE}" if re.search("(cross|trans)coder", name.lower()) else ""
        raise ValueError(
            f"{folder}/{CONFIG}: dict_class {quoted(name)} cannot be read; these can: {', '.join(READERS)}{why}"
        )
    said.refuse_unread(READ, HARMLESS, {})
    parts, notes = READERS[name](load_torch(folder / WEIGHTS), said)
    dictionary, folded = assemble(parts, folder)
    found = {"activation_dim": dictionary.d_in, "dict_size": dictionary.d_sae}
    for key, value in found.items():
        if said.count(key, value) != value:
            raise ValueError(f"{said.file}: {key} is {said.fields[key]}, the weights have {value}")
    return Published(
        dictionary=dictionary, format="dictionary_learning", architecture=name, trained=dict(said.fields),
        stated=trained_on(said, whole.part("buffer"), name), rescaled=forgotten_factor(said, name),
        notes=(*notes, *folded),
    )  # fmt: skip


def trained_on(said: Said, buffer: Said, name: str) -> dict[str, Any]:
    """Return the settings that a source can contradict."""
    sparsity = "target_l0" if name == "JumpReluAutoEncoder" else "k" if "TopK" in name else ""
    said_of = {"model_name": said.fields.get("lm_name"), "hook_name": hook_name(said.fields) or None,
               "hook_layer": said.fields.get("layer"), "context_size": buffer.fields.get("ctx_len"),
               "l0": said.fields.get(sparsity)}  # fmt: skip
    return {key: value for key, value in said_of.items() if value is not None}


def forgotten_factor(said: Said, name: str) -> str:
    """Say why thresholds may lack the norm factor; empty when they cannot."""
    factor = said.fields.get("norm_factor")
    if factor is None or name not in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        return ""
    return (
        f"dictionary_learning once scaled the biases by the norm factor ({shown(factor)} here) when it saved, and not "
        "the threshold"
    )


def hook_name(trainer: Mapping[str, Any]) -> str:
    """The site in TransformerLens's words, where the habit of naming submodules allows it."""
    named, layer = str(trainer.get("submodule_name") or ""), trainer.get("layer")
    if re.fullmatch(r"blocks\.\d+\.hook_\w+", named):
        return named
    for prefix, pattern in SITES.items():
        if named.startswith(prefix) and isinstance(layer, int):
            return pattern.format(layer)
    return ""


def tensors_of(dictionary: Dictionary) -> tuple[str, str, dict[str, Tensor]]:
    """Class, trainer and state dict for a dictionary. Raises ValueError where the library has none that fits."""
    W_enc, b_enc, W_dec, b_dec = (getattr(dictionary, n).detach() for n in ("W_enc", "b_enc", "W_dec", "b_dec"))
    linear = {"encoder.weight": W_enc.T, "encoder.bias": b_enc, "decoder.weight": W_dec.T}
    kind = dictionary.activation.architecture() or {}
    match kind.get("architecture"):
        case "standard":
            return "AutoEncoder", "StandardTrainer", {"bias": b_dec, **linear}
        case "topk":
            counters = {"k": torch.tensor(kind["k"], dtype=torch.int32), "threshold": torch.tensor(-1.0)}
            return "AutoEncoderTopK", "TopKTrainer", {"b_dec": b_dec, **counters, **linear}
        case "jumprelu":
            # This class reads x, not x - b_dec.
            shifted = (b_enc.double() - b_dec.double() @ W_enc.double()).float()
            named = {"W_enc": W_enc, "b_enc": shifted, "W_dec": W_dec, "b_dec": b_dec}
            return "JumpReluAutoEncoder", "JumpReluTrainer", {**named, "threshold": dictionary.threshold.detach()}
    raise ValueError(
        f"dictionary_learning has no class for {type(dictionary.activation).__name__}; export it --to saelens"
    )


def write(dictionary: Dictionary, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write a folder. Raises ValueError for an activation that the library has no class for."""
    name, trainer, tensors = tensors_of(dictionary)
    whole = {key: value.clone().contiguous() for key, value in tensors.items()}
    config = {
        "dict_class": name, "trainer_class": trainer, "activation_dim": dictionary.d_in, "dict_size": dictionary.d_sae,
        "layer": metadata.get("hook_layer"), "lm_name": metadata.get("model_name"),
        "submodule_name": str(metadata.get("hook_name", "")), "exported_by": "unbraid",
    }  # fmt: skip
    if "k" in tensors:
        config["k"] = int(tensors["k"])
    write_atomically(folder / WEIGHTS, lambda temporary: save(whole, temporary))
    write_json(folder / CONFIG, {"trainer": config, "buffer": {}})


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    with path.open("wb") as file:  # opened here: given a path, torch says of a full disk only that writing failed
        torch.save(dict(tensors), file)
