"""cfg.json as SAELens wrote it before version 6, which most published SAEs have: told in today's words.

The site stood at the top level, top-k was an activation function of the standard architecture, normalisation a yes or
no. SAELens reads such files the same way, without saying so.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

RENAMED = {"hook_point": "hook_name", "hook_point_layer": "hook_layer", "activation_fn_str": "activation_fn"}
SITE = (
    "model_name", "hook_name", "hook_layer", "hook_head_index", "context_size", "prepend_bos", "dataset_path",
    "sae_lens_training_version", "neuronpedia_id",
)  # fmt: skip
"""What is said of the site and the training."""


def is_old(cfg: Mapping[str, Any]) -> bool:
    version = cfg.get("sae_lens_version") or (cfg.get("metadata") or {}).get("sae_lens_version")
    major = str(version or "0").partition(".")[0]
    return not major.isdigit() or int(major) < 6


def in_todays_words(cfg: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Raises ValueError for what version 6 has no words for."""
    old = {RENAMED.get(key, key): value for key, value in cfg.items()}
    if old.get("finetuning_scaling_factor"):
        raise ValueError(
            f"{folder} scales its latents after training (finetuning_scaling_factor), which SAELens 6 does not do any "
            "more; fold the factor into W_dec, set it to false and save again"
        )
    settings, function = old.get("activation_fn_kwargs") or {}, old.get("activation_fn") or "relu"
    name = old.get("architecture") or "standard"
    if function == "topk":
        name, old["k"] = "topk", settings.get("k")
    elif function != "relu":
        raise ValueError(f"{folder}: activation function {function!r} cannot be read, only 'relu' and 'topk'")
    normalised = old.get("normalize_activations") or "none"
    reshaped = "hook_z" if "hook_z" in str(old.get("hook_name", "")) else "none"
    return {
        **{key: value for key, value in old.items() if key not in SITE},
        "architecture": name,
        "normalize_activations": "expected_average_only_in" if normalised is True else normalised,
        "reshape_activations": old.get("reshape_activations") or reshaped,
        "metadata": old.get("metadata") or {key: old[key] for key in SITE if key in old},
    }
