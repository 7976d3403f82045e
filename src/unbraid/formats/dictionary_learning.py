"""dictionary_learning's folder: ae.pt + config.json (checked with dictionary-learning 0.1.0).

ae.pt is a pickle; only the tensors in it are read (`weights_only`), and only from a folder that the user names.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from unbraid.activation import JumpReLU, ReLU, TopK
from unbraid.dictionary import Dictionary
from unbraid.files import read_json, write_atomically, write_json
from unbraid.formats.published import THRESHOLDED, Parts, Published, as_thresholds, assemble, take
from unbraid.gated import thresholded

WEIGHTS = "ae.pt"
CONFIG = "config.json"
SITES = {
    "resid_post": "blocks.{}.hook_resid_post", "resid_pre": "blocks.{}.hook_resid_pre",
    "mlp_out": "blocks.{}.hook_mlp_out", "attn_out": "blocks.{}.hook_attn_out",
}  # fmt: skip
"""What submodule_name begins with, by habit."""

Reader = Callable[[Mapping[str, Tensor], Mapping[str, Any], Path], tuple[Parts, list[str]]]


def relu(tensors: Mapping[str, Tensor], trainer: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    bias, W_enc, b_enc, W_dec = take(tensors, ("bias", "encoder.weight", "encoder.bias", "decoder.weight"), where)
    return Parts(W_enc=W_enc.T, b_enc=b_enc, W_dec=W_dec.T, b_dec=bias, activation=ReLU()), []


def relu_uncentred(tensors: Mapping[str, Tensor], trainer: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    names = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
    W_enc, b_enc, W_dec, b_dec = take(tensors, names, where)
    return Parts(W_enc=W_enc.T, b_enc=b_enc, W_dec=W_dec.T, b_dec=b_dec, activation=ReLU(), reads_centred=False), []


def gated(tensors: Mapping[str, Tensor], trainer: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    names = ("encoder.weight", "gate_bias", "r_mag", "mag_bias", "decoder.weight", "decoder_bias")
    W_enc, b_gate, r_mag, b_mag, W_dec, b_dec = take(tensors, names, where)
    as_jumprelu = thresholded(W_enc.T, b_gate, r_mag, b_mag)
    parts = Parts(**as_jumprelu._asdict(), W_dec=W_dec.T, b_dec=b_dec, activation=THRESHOLDED)
    return parts, ["its gate and magnitudes are one JumpReLU, with equal codes"]


def jumprelu(tensors: Mapping[str, Tensor], trainer: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    W_enc, b_enc, W_dec, b_dec, threshold = take(tensors, ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"), where)
    return Parts(
        W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, activation=THRESHOLDED, threshold=threshold,
        reads_centred=False,
    ), []  # fmt: skip


def topk(tensors: Mapping[str, Tensor], trainer: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    W_enc, b_enc, W_dec, b_dec = take(tensors, ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec"), where)
    k = int(tensors["k"]) if "k" in tensors else trainer.get("k")
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"{where}: neither ae.pt nor config.json says k; add it to config.json under trainer")
    return Parts(W_enc=W_enc.T, b_enc=b_enc, W_dec=W_dec.T, b_dec=b_dec, activation=TopK(k)), []


def batchtopk(tensors: Mapping[str, Tensor], trainer: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    W_enc, b_enc, W_dec, b_dec = take(tensors, ("encoder.weight", "encoder.bias", "decoder.weight", "b_dec"), where)
    plain = Parts(W_enc=W_enc.T, b_enc=b_enc, W_dec=W_dec.T, b_dec=b_dec, activation=THRESHOLDED)
    return one_threshold(plain, tensors, where)


def matryoshka(tensors: Mapping[str, Tensor], trainer: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    W_enc, b_enc, W_dec, b_dec = take(tensors, ("W_enc", "b_enc", "W_dec", "b_dec"), where)
    plain = Parts(W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, activation=THRESHOLDED)
    return one_threshold(plain, tensors, where)


def one_threshold(parts: Parts, tensors: Mapping[str, Tensor], where: Path) -> tuple[Parts, list[str]]:
    (threshold,) = take(tensors, ("threshold",), where)
    notes = ["its threshold was never fitted (-1): it is a ReLU SAE, as it is in its own library"] * bool(threshold < 0)
    return replace(parts, threshold=as_thresholds(threshold.clamp_min(0), parts.b_enc.numel())), notes


READERS: dict[str, Reader] = {
    "AutoEncoder": relu, "AutoEncoderNew": relu_uncentred, "GatedAutoEncoder": gated, "JumpReluAutoEncoder": jumprelu,
    "AutoEncoderTopK": topk, "BatchTopKSAE": batchtopk, "MatryoshkaBatchTopKSAE": matryoshka,
}  # fmt: skip


def read(folder: Path) -> Published:
    """Raises ValueError, with the remedy, for what is missing, damaged or of a class we do not know."""
    trainer = read_json(folder / CONFIG).get("trainer", {})
    name = str(trainer.get("dict_class", ""))
    if name not in READERS:
        raise ValueError(f"{folder}/{CONFIG}: dict_class {name!r} cannot be read; these can: {', '.join(READERS)}")
    parts, notes = READERS[name](load(folder / WEIGHTS), trainer, folder)
    dictionary, folded = assemble(parts, folder)
    return Published(
        dictionary=dictionary, format="dictionary_learning", architecture=name, trained=dict(trainer),
        hook_name=hook_name(trainer), notes=(*notes, *folded),
    )  # fmt: skip


def load(path: Path) -> dict[str, Tensor]:
    """The tensors in ae.pt, in float32, and no code: what else a pickle may hold is refused."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as tensors alone ({first}); fetch it again, or save a state dict"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict; save one with torch.save(ae.state_dict(), …)")
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def hook_name(trainer: Mapping[str, Any]) -> str:
    """The site in TransformerLens's words, where the habit of naming submodules allows it."""
    named, layer = str(trainer.get("submodule_name") or ""), trainer.get("layer")
    for prefix, pattern in SITES.items():
        if named.startswith(prefix) and isinstance(layer, int):
            return pattern.format(layer)
    return ""


def tensors_of(dictionary: Dictionary) -> tuple[str, str, dict[str, Tensor]]:
    """Class, trainer and state dict for a dictionary. Raises ValueError where the library has none that fits."""
    W_enc, b_enc, W_dec, b_dec = (getattr(dictionary, n).detach() for n in ("W_enc", "b_enc", "W_dec", "b_dec"))
    linear = {"encoder.weight": W_enc.T, "encoder.bias": b_enc, "decoder.weight": W_dec.T}
    match dictionary.activation:
        case ReLU():
            return "AutoEncoder", "StandardTrainer", {"bias": b_dec, **linear}
        case TopK(k=k):
            counters = {"k": torch.tensor(k, dtype=torch.int32), "threshold": torch.tensor(-1.0)}
            return "AutoEncoderTopK", "TopKTrainer", {"b_dec": b_dec, **counters, **linear}
        case JumpReLU():
            # This class reads x, not x - b_dec.
            shifted = (b_enc.double() - b_dec.double() @ W_enc.double()).float()
            named = {"W_enc": W_enc, "b_enc": shifted, "W_dec": W_dec, "b_dec": b_dec}
            return "JumpReluAutoEncoder", "JumpReluTrainer", {**named, "threshold": dictionary.threshold.detach()}
    raise ValueError(
        f"dictionary_learning has no class for {type(dictionary.activation).__name__}; export it --to saelens"
    )


def write(dictionary: Dictionary, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Raises ValueError for an activation that the library has no class for."""
    name, trainer, tensors = tensors_of(dictionary)
    whole = {key: value.clone().contiguous() for key, value in tensors.items()}
    config = {
        "dict_class": name, "trainer_class": trainer, "activation_dim": dictionary.d_in, "dict_size": dictionary.d_sae,
        "layer": metadata.get("hook_layer"), "lm_name": metadata.get("model_name"),
        "submodule_name": str(metadata.get("hook_name", "")), "exported_by": "unbraid",
    }  # fmt: skip
    if isinstance(dictionary.activation, TopK):
        config["k"] = dictionary.activation.k
    write_atomically(folder / WEIGHTS, lambda temporary: torch.save(whole, temporary))
    write_json(folder / CONFIG, {"trainer": config, "buffer": {}})
