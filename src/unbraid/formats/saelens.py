"""SAELens's folder, which is our run folder: cfg.json + sae_weights.safetensors (checked with sae-lens 6.54.12).

ReLU is saved as `standard`, thresholded codes (JumpReLU, calibrated BatchTopK, Gated) as `jumprelu`, TopK as `topk`,
matching pursuit as `matching_pursuit`. Folders that others wrote are read by `saelens_published`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from unbraid.activation import Activation, JumpReLU, ReLU, TopK
from unbraid.dictionary import Dictionary
from unbraid.files import read_json, write_json, write_tensors
from unbraid.matching_pursuit import MatchingPursuit

UNIT_NORM_TOLERANCE = 1e-5  # SAEBench's, for float32
# Without this stamp SAELens takes the folder for one older than 6.0 and drops its metadata without a word.
SAE_LENS_VERSION = "6.54.12"


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
    norms = torch.linalg.vector_norm(dictionary.W_dec.detach(), dim=1)
    worst = float((norms - 1).abs().max())
    if not worst <= UNIT_NORM_TOLERANCE:
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
    """The dictionary in an SAELens folder. Raises ValueError for architectures, settings or shapes not understood."""
    cfg = read_json(folder / "cfg.json")
    activations: dict[str, Activation] = {
        "standard": ReLU(),
        "jumprelu": JumpReLU(bandwidth=0.0),
        "topk": TopK(int(cfg.get("k", 1))),
        "matching_pursuit": MatchingPursuit(
            int(cfg.get("max_iterations") or cfg["d_in"]),
            float(cfg.get("residual_threshold", 0.01)),
            bool(cfg.get("stop_on_duplicate_support", True)),
        ),
    }
    name = cfg.get("architecture")
    if name not in activations:
        raise ValueError(f"{folder}: cannot read architecture {name!r}, only {sorted(activations)}")
    if cfg.get("normalize_activations", "none") != "none" or not cfg.get("apply_b_dec_to_input", True):
        raise ValueError(f"{folder}: only normalize_activations 'none' and apply_b_dec_to_input true are understood")
    weights = folder / "sae_weights.safetensors"
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{weights} cannot be read ({error}): missing or truncated; export or train it again"
        ) from error
    dictionary = Dictionary(cfg["d_in"], cfg["d_sae"], activations[name])
    expected = {n: list(getattr(dictionary, n).shape) for n in names(activations[name])}
    found = {n: list(t.shape) for n, t in tensors.items()}
    if found != expected:
        raise ValueError(f"{weights}: expected tensors {expected}, found {found}")
    with torch.no_grad():
        for n, tensor in tensors.items():
            getattr(dictionary, n).copy_(tensor)
    dictionary.tie()
    return dictionary.requires_grad_(False)
