"""SAELens's folder, which is our run folder: cfg.json + sae_weights.safetensors (checked with sae-lens 6.54.12).

ReLU is saved as `standard`, thresholded codes (JumpReLU, calibrated BatchTopK, Gated) as `jumprelu`, TopK as `topk`,
matching pursuit as `matching_pursuit`. Folders that others wrote are read by `saelens_published`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unbraid.dictionary.activation import Activation, JumpReLU, ReLU, TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.matching_pursuit import MatchingPursuit
from unbraid.system.files import JSON_BYTES, check_plain, read_json, write_json, write_tensors
from unbraid.system.sealing import REMEDY, check_all, seals_of

UNIT_NORM_TOLERANCE = 1e-5  # SAEBench's, for float32
# Without this stamp SAELens takes the folder for one older than 6.0 and drops its metadata without a word.
SAE_LENS_VERSION = "6.54.12"
CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SAVED = ("standard", "jumprelu", "topk", "matching_pursuit")
LARGEST = 2**31 - 1
"""Width that a dictionary can have."""


def architecture(activation: Activation) -> dict[str, Any]:
    """SAELens's name and settings for an activation. Raises ValueError when it has no equivalent at inference."""
    match activation:
        case ReLU():
            return {"architecture": "standard"}
        case JumpReLU():
            return {"architecture": "jumprelu"}
        case TopK(k=k):
            return {"architecture": "topk", "k": k, "rescale_acts_by_decoder_norm": False}
        case MatchingPursuit(k=k, residual=residual, stop_on_repeat=stop):
            own = {"max_iterations": k, "residual_threshold": residual, "stop_on_duplicate_support": stop}
            return {"architecture": "matching_pursuit", **own}
    raise ValueError(
        f"SAELens has no inference architecture for {type(activation).__name__}; calibrate it to a threshold"
    )


def names(activation: Activation) -> tuple[str, ...]:
    """The parameters a folder holds."""
    if activation.tied:
        return ("W_dec", "b_dec")
    return ("W_enc", "b_enc", "W_dec", "b_dec", *(("threshold",) if isinstance(activation, JumpReLU) else ()))


def write(dictionary: Dictionary, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write a raw-activation dictionary as an SAELens folder. Raises ValueError when atoms are not unit norm."""
    if (worst := off_unit_norm(dictionary.W_dec)) > UNIT_NORM_TOLERANCE:
        raise ValueError(
            f"an atom's norm is off 1 by {worst:.1e}; SAEBench refuses more than {UNIT_NORM_TOLERANCE:.0e}"
        )
    kind = architecture(dictionary.activation)
    tensors = {name: getattr(dictionary, name) for name in names(dictionary.activation)}
    write_tensors(folder / "sae_weights.safetensors", {n: t.detach().float() for n, t in tensors.items()})
    write_json(
        folder / "cfg.json",
        {
            **kind,
            "d_in": dictionary.d_in,
            "d_sae": dictionary.d_sae,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {
                "sae_lens_version": SAE_LENS_VERSION,
                "sae_lens_training_version": SAE_LENS_VERSION,
                **metadata,
            },
        },
    )


def read(folder: Path) -> Dictionary:
    """The dictionary in an SAELens folder. Raises ValueError for architectures, settings, shapes or numbers that are
    not what `write` writes, and in a run folder for files that are not those that were saved with it."""
    check_all(folder, seals_of(folder))
    check_plain(folder / CFG, REMEDY, most=JSON_BYTES)
    cfg = read_json(folder / CFG)
    activation = activation_of(cfg, folder / CFG)
    d_in, d_sae = (whole(cfg, name, folder / CFG) for name in ("d_in", "d_sae"))
    if cfg.get("normalize_activations", "none") != "none" or cfg.get("apply_b_dec_to_input", True) is not True:
        raise ValueError(f"{folder}: only normalize_activations 'none' and apply_b_dec_to_input true are understood")
    tensors = read_weights(folder / WEIGHTS, shapes(activation, d_in, d_sae))
    dictionary = Dictionary(d_in, d_sae, activation)
    with torch.no_grad():
        for n, tensor in tensors.items():
            getattr(dictionary, n).copy_(tensor)
    dictionary.tie()
    return dictionary.requires_grad_(False)


def activation_of(cfg: Mapping[str, Any], path: Path) -> Activation:
    name = cfg.get("architecture")
    if name == "standard":
        return ReLU()
    if name == "jumprelu":
        return JumpReLU(bandwidth=0.0)
    if name == "topk":
        return TopK(whole(cfg, "k", path, most=whole(cfg, "d_sae", path)))
    if name == "matching_pursuit":
        residual, stop = cfg.get("residual_threshold", 0.01), cfg.get("stop_on_duplicate_support", True)
        if isinstance(residual, bool) or not isinstance(residual, int | float) or not 0 <= residual < math.inf:
            raise ValueError(f"{path}: residual_threshold is {residual!r}; expected a number of at least 0")
        if not isinstance(stop, bool):
            raise ValueError(f"{path}: stop_on_duplicate_support is {stop!r}; expected true or false")
        steps = "max_iterations" if cfg.get("max_iterations") is not None else "d_in"
        return MatchingPursuit(whole(cfg, steps, path), float(residual), stop)
    raise ValueError(f"{path}: cannot read architecture {name!r}, only {sorted(SAVED)}")


def whole(cfg: Mapping[str, Any], name: str, path: Path, *, most: int = LARGEST) -> int:
    """A setting that counts something."""
    value = cfg.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise ValueError(f"{path}: {name} is {value!r}; expected a whole number from 1 to {most:,}")
    return value


def shapes(activation: Activation, d_in: int, d_sae: int) -> dict[str, list[int]]:
    """Of the tensors that a folder holds."""
    every = {"W_enc": [d_in, d_sae], "b_enc": [d_sae], "W_dec": [d_sae, d_in], "b_dec": [d_in], "threshold": [d_sae]}
    return {name: every[name] for name in names(activation)}


def read_weights(path: Path, expected: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Tensors of these shapes in float32, finite, atoms of unit norm: what `write` writes. Raises ValueError for
    others."""
    check_plain(path, "export or train it again")
    try:
        with safe_open(path, framework="pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: part.get_shape() for name, part in parts.items()}
            kinds = {name: part.get_dtype() for name, part in parts.items()}
            if found != expected:
                raise ValueError(f"{path}: expected tensors {dict(expected)}, found {found}")
            if set(kinds.values()) != {"F32"}:
                raise ValueError(f"{path}: expected tensors in float32 (F32), found {kinds}; convert and export again")
            tensors = {name: file.get_tensor(name) for name in parts}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read ({error}): missing or truncated; export or train it again") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path}: {name} holds NaN or infinity; export or train it again")
    if (worst := off_unit_norm(tensors["W_dec"])) > UNIT_NORM_TOLERANCE:
        raise ValueError(
            f"{path}: an atom's norm is off 1 by {worst:.1e}, above {UNIT_NORM_TOLERANCE:.0e}; unbraid import makes a "
            "run of it, with the norms folded in"
        )
    return tensors


def off_unit_norm(atoms: Tensor) -> float:
    """The largest distance of an atom's norm from 1; infinite where one is NaN."""
    norms = torch.linalg.vector_norm(atoms.detach(), dim=1)
    worst = float((norms - 1).abs().max())
    return worst if math.isfinite(worst) else math.inf
