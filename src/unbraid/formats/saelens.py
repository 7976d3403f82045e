"""SAELens's folder, which is our run folder: cfg.json + sae_weights.safetensors (checked with sae-lens 6.54.12).

ReLU is saved as `standard`, thresholded codes (JumpReLU, calibrated BatchTopK, Gated) as `jumprelu`, TopK as `topk`,
matching pursuit as `matching_pursuit`; an activation of a user's that SAELens lacks under its class, which SAELens
refuses to load. Folders that others wrote are read by `saelens_published`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unbraid.config.serialise import OWN_PACKAGES, from_json, to_json, type_name
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.system.files import JSON_BYTES, check_plain, read_json, write_json, write_tensors
from unbraid.system.sealing import REMEDY, check_all, seals_of

UNIT_NORM_TOLERANCE = 1e-5  # SAEBench's, for float32
# Without this stamp SAELens takes the folder for one older than 6.0 and drops its metadata without a word.
SAE_LENS_VERSION = "6.54.12"
CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
UNIT_NORM = "unit_norm_atoms"
"""Field of the metadata, false where atoms have the norms that whitening gave them and latents are compared: with
others, other latents would be chosen."""
OWN = "activation"
"""Field of cfg.json with an activation that SAELens has no equivalent of."""
SAVED = ("standard", "jumprelu", "topk", "matching_pursuit")
LARGEST = 2**31 - 1
"""Width that a dictionary can have."""


def architecture(activation: Activation) -> Mapping[str, Any]:
    """SAELens's name and settings for an activation; for one that it has no equivalent of, which SAELens then refuses
    to load, the class and its settings. Raises ValueError for an activation that another is saved for."""
    if (known := activation.architecture()) is not None:
        return known
    if activation.for_training_only:
        raise ValueError(
            f"{type(activation).__name__} is for training: save what the dictionary's for_inference(sample) returns"
        )
    return {"architecture": type_name(type(activation)), OWN: to_json(activation)}


def names(activation: Activation) -> tuple[str, ...]:
    """The parameters a folder holds."""
    if activation.tied:
        return ("W_dec", "b_dec", *activation.extra_parameters)
    thresholds = ("threshold",) if activation.learns_threshold else ()
    return ("W_enc", "b_enc", "W_dec", "b_dec", *thresholds, *activation.extra_parameters)


def write(dictionary: Dictionary, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write a raw-activation dictionary as an SAELens folder. Raises ValueError when atoms are not unit norm, unless
    `metadata` says that they need not be."""
    if metadata.get(UNIT_NORM, True) is True and (worst := off_unit_norm(dictionary.W_dec)) > UNIT_NORM_TOLERANCE:
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


def read(folder: Path, packages: tuple[str, ...] = OWN_PACKAGES) -> Dictionary:
    """The dictionary in an SAELens folder, its activation of one of these packages. Raises ValueError for
    architectures, settings, shapes or numbers that are not what `write` writes, and in a run folder for files that are
    not those that were saved with it."""
    check_all(folder, seals_of(folder))
    check_plain(folder / CFG, REMEDY, most=JSON_BYTES)
    cfg = read_json(folder / CFG)
    activation = activation_of(cfg, folder / CFG, packages)
    d_in, d_sae = (whole(cfg, name, folder / CFG) for name in ("d_in", "d_sae"))
    if cfg.get("normalize_activations", "none") != "none" or cfg.get("apply_b_dec_to_input", True) is not True:
        raise ValueError(f"{folder}: only normalize_activations 'none' and apply_b_dec_to_input true are understood")
    about = cfg.get("metadata")
    free = isinstance(about, dict) and about.get(UNIT_NORM) is False and not activation.homogeneous
    tensors = read_weights(folder / WEIGHTS, shapes(activation, d_in, d_sae), unit_norm=not free)
    dictionary = Dictionary(d_in, d_sae, activation)
    with torch.no_grad():
        for n, tensor in tensors.items():
            getattr(dictionary, n).copy_(tensor)
    dictionary.tie()
    return dictionary.requires_grad_(False)


def check_known(folder: Path) -> None:
    """Raise ValueError when a run's activation is one that no other library has."""
    if OWN in (cfg := read_json(folder / CFG)):
        raise ValueError(
            f"{folder} has the activation {cfg.get('architecture')}, of which no library has an equivalent; only "
            "Unbraid reads it, from the run folder itself"
        )


def activation_of(cfg: Mapping[str, Any], path: Path, packages: tuple[str, ...] = OWN_PACKAGES) -> Activation:
    """The activation that cfg.json names. Raises ValueError for one that cannot be read."""
    name = cfg.get("architecture")
    if OWN in cfg:
        return own_activation(cfg[OWN], path, packages)
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


def own_activation(stored: Any, path: Path, packages: tuple[str, ...]) -> Activation:
    """An activation stored as its class and settings. Raises ValueError when it is none, or of no package named."""
    try:
        activation = from_json(stored, packages=packages)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(activation, Activation) or activation.for_training_only:
        raise ValueError(f"{path}: {stored!r:.80} is no activation of a trained dictionary; export or train it again")
    return activation


def whole(cfg: Mapping[str, Any], name: str, path: Path, *, most: int = LARGEST) -> int:
    """A setting that counts something."""
    value = cfg.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise ValueError(f"{path}: {name} is {value!r}; expected a whole number from 1 to {most:,}")
    return value


def shapes(activation: Activation, d_in: int, d_sae: int) -> dict[str, list[int]]:
    """Return the shapes of the tensors that a folder holds."""
    every = {"W_enc": [d_in, d_sae], "b_enc": [d_sae], "W_dec": [d_sae, d_in], "b_dec": [d_in], "threshold": [d_sae]}
    return {name: every.get(name, [d_sae]) for name in names(activation)}


def read_weights(path: Path, expected: Mapping[str, list[int]], *, unit_norm: bool = True) -> dict[str, Tensor]:
    """Tensors of these shapes in float32, finite, atoms of unit norm where `unit_norm`: what `write` writes. Raises
    ValueError for others."""
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
    if unit_norm and (worst := off_unit_norm(tensors["W_dec"])) > UNIT_NORM_TOLERANCE:
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
