"""SAELens folders that others wrote: every inference architecture that is an SAE (checked with sae-lens 6.54.12).

standard, jumprelu (BatchTopK and Matryoshka too), topk, abstopk, gated, matching_pursuit. What our form has no room
for is refused by name: transcoders, temporal SAEs, normalisation row by row, concatenated heads.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unbraid.activation import ReLU, TopK
from unbraid.files import read_json
from unbraid.formats import saelens_before_6
from unbraid.formats.published import THRESHOLDED, Parts, Published, assemble, load_safetensors, take
from unbraid.gated import thresholded
from unbraid.matching_pursuit import MatchingPursuit

WEIGHTS = "sae_weights.safetensors"
SCALER = "activation_scaler.json"

Reader = Callable[[Mapping[str, Tensor], Mapping[str, Any], Path], tuple[Parts, list[str]]]


def linear(tensors: Mapping[str, Tensor], cfg: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    W_enc, b_enc, W_dec, b_dec = take(tensors, ("W_enc", "b_enc", "W_dec", "b_dec"), where)
    return Parts(W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, activation=ReLU()), []


def jumprelu(tensors: Mapping[str, Tensor], cfg: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    (threshold,) = take(tensors, ("threshold",), where)
    return replace(linear(tensors, cfg, where)[0], activation=THRESHOLDED, threshold=threshold), []


def topk(tensors: Mapping[str, Tensor], cfg: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    by_norm = bool(cfg.get("rescale_acts_by_decoder_norm", False))
    return replace(linear(tensors, cfg, where)[0], activation=TopK(number(cfg, "k", where)), ranks_by_norm=by_norm), []


def abstopk(tensors: Mapping[str, Tensor], cfg: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    """A latent of either sign is two of ours: of pre and -pre, TopK takes the larger, which is |pre|."""
    one, _ = topk(tensors, cfg, where)
    both = replace(
        one,
        W_enc=torch.cat([one.W_enc, -one.W_enc], 1),
        b_enc=torch.cat([one.b_enc, -one.b_enc]),
        W_dec=torch.cat([one.W_dec, -one.W_dec]),
    )
    half = one.b_enc.numel()
    return both, [f"latents of either sign are split in two: {half} became {2 * half}, the latter half the negative"]


def gated(tensors: Mapping[str, Tensor], cfg: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    names = ("W_enc", "b_gate", "r_mag", "b_mag", "W_dec", "b_dec")
    W_enc, b_gate, r_mag, b_mag, W_dec, b_dec = take(tensors, names, where)
    as_jumprelu = thresholded(W_enc, b_gate, r_mag, b_mag)
    parts = Parts(**as_jumprelu._asdict(), W_dec=W_dec, b_dec=b_dec, activation=THRESHOLDED)
    return parts, ["its gate and magnitudes are one JumpReLU, with equal codes"]


def matching_pursuit(tensors: Mapping[str, Tensor], cfg: Mapping[str, Any], where: Path) -> tuple[Parts, list[str]]:
    W_dec, b_dec = take(tensors, ("W_dec", "b_dec"), where)
    rounds = cfg.get("max_iterations") or b_dec.numel()
    pursuit = MatchingPursuit(
        int(rounds), float(cfg.get("residual_threshold", 0.01)), bool(cfg.get("stop_on_duplicate_support", True))
    )
    if not cfg.get("apply_b_dec_to_input", True):
        b_dec = torch.zeros_like(b_dec)  # which it then neither subtracts nor adds
    b_enc = torch.zeros(len(W_dec))
    return Parts(W_enc=W_dec.T, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, activation=pursuit), []


READERS: dict[str, Reader] = {
    "standard": linear, "jumprelu": jumprelu, "topk": topk, "abstopk": abstopk, "gated": gated,
    "matching_pursuit": matching_pursuit,
}  # fmt: skip


def number(cfg: Mapping[str, Any], key: str, where: Path) -> int:
    value = cfg.get(key)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{where}/cfg.json: {key} is {value!r}; expected a whole number above 0")
    return value


def read(folder: Path) -> Published:
    """Raises ValueError, with the remedy, for what is missing, damaged or has no place in our form."""
    cfg = read_json(folder / "cfg.json")
    if saelens_before_6.is_old(cfg):
        cfg = saelens_before_6.in_todays_words(cfg, folder)
    name = str(cfg.get("architecture", ""))
    check(name, cfg, folder)
    tensors = load_safetensors(folder / WEIGHTS)
    parts, notes = READERS[name](tensors, cfg, folder)
    if name != "matching_pursuit":
        parts = replace(parts, reads_centred=bool(cfg.get("apply_b_dec_to_input", True)))
    if cfg.get("normalize_activations") == "expected_average_only_in":
        factor = scaling_factor(folder)
        parts = unscaled(parts, factor)
        notes.append(f"it reads activations times {factor:.4g} (expected_average_only_in); folded into the weights")
    check_counts(cfg, parts, folder)
    dictionary, folded = assemble(parts, folder)
    metadata = dict(cfg.get("metadata") or {})
    return Published(
        dictionary=dictionary, format="SAELens", architecture=name, trained=metadata,
        hook_name=str(metadata.get("hook_name") or ""), notes=(*notes, *folded),
    )  # fmt: skip


def check(name: str, cfg: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError for what cannot be read, and say why."""
    if "transcoder" in name:
        raise ValueError(
            f"{folder} is a transcoder ({name}): it maps one site to another, and every score here is of a dictionary "
            "that explains the activations it reads; import an SAE"
        )
    if name not in READERS:
        why = " (it reads neighbouring tokens, a dictionary one row)" if name == "temporal" else ""
        hint = "; written before SAELens 6? Load and save it there once" if not name else ""
        raise ValueError(f"{folder}: architecture {name!r} cannot be read{why}; these can: {', '.join(READERS)}{hint}")
    normalised = cfg.get("normalize_activations", "none")
    if normalised not in ("none", "expected_average_only_in"):
        raise ValueError(
            f"{folder}: normalize_activations is {normalised!r}, which cannot be folded into weights; SAELens folds "
            "covariance_whitening when training ends (import the final folder), and has no way to fold the others"
        )
    if cfg.get("reshape_activations", "none") != "none":
        raise ValueError(
            f"{folder} reads the heads of hook_z side by side, which no site here gives; sites are resid_post, "
            "resid_pre, mlp_out and attn_out"
        )


def check_counts(cfg: Mapping[str, Any], parts: Parts, folder: Path) -> None:
    half = 2 if cfg["architecture"] == "abstopk" else 1
    found = (parts.b_dec.numel(), parts.b_enc.numel() // half)
    stated = (cfg.get("d_in", found[0]), cfg.get("d_sae", found[1]))
    if found != stated:
        raise ValueError(f"{folder}: cfg.json states d_in, d_sae = {stated}, the weights have {found}")


def scaling_factor(folder: Path) -> float:
    path = folder / SCALER
    if not path.is_file():
        raise ValueError(
            f"{folder} expects activations scaled by a factor that it does not hold (expected_average_only_in, and no "
            f"{SCALER}): call fold_activation_norm_scaling_factor(factor) in SAELens, and save again"
        )
    factor = read_json(path).get("scaling_factor")
    if not isinstance(factor, int | float) or not factor > 0:
        raise ValueError(f"{path}: scaling_factor is {factor!r}; expected a number above 0")
    return float(factor)


def unscaled(parts: Parts, factor: float) -> Parts:
    """The same SAE for activations that are not multiplied by `factor`: all sizes shrink with them, directions stay."""
    return replace(
        parts,
        b_enc=parts.b_enc / factor,
        b_dec=parts.b_dec / factor,
        threshold=None if parts.threshold is None else parts.threshold / factor,
        activation=parts.activation.scaled(1 / factor),
    )
