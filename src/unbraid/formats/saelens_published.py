"""SAELens folders that others wrote: every inference architecture that is an SAE (checked with sae-lens 6.54.12).

standard, jumprelu (BatchTopK and Matryoshka too), topk, abstopk, gated, matching_pursuit. What our form has no room
for is refused by name: transcoders, temporal SAEs, normalisation row by row, single and concatenated heads, and
settings that are not known.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unbraid.dictionary.activations.gated import gated_as_jumprelu
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.formats import saelens_before_6
from unbraid.formats.published import THRESHOLDED, Parts, Published, assemble, check_shapes, check_vectors, turned
from unbraid.formats.saelens import UNIT_NORM
from unbraid.formats.said import Said
from unbraid.formats.tensors import load_safetensors, quoted, shown, take, take_all

WEIGHTS = "sae_weights.safetensors"
SCALER = "activation_scaler.json"

BASE = frozenset({
    "architecture", "d_in", "d_sae", "apply_b_dec_to_input", "normalize_activations", "reshape_activations", "metadata",
})  # fmt: skip
RANKS = frozenset({"k", "rescale_acts_by_decoder_norm"})
OWN: dict[str, frozenset[str]] = {
    "topk": RANKS, "abstopk": RANKS,
    "matching_pursuit": frozenset({"max_iterations", "residual_threshold", "stop_on_duplicate_support"}),
}  # fmt: skip
"""What an architecture reads besides."""
TRAINING = frozenset({
    "decoder_init_norm", "l1_coefficient", "lp_norm", "l1_warm_up_steps", "l0_coefficient", "l0_warm_up_steps",
    "pre_act_loss_coefficient", "jumprelu_init_threshold", "jumprelu_bandwidth", "jumprelu_sparsity_loss_mode",
    "jumprelu_tanh_scale", "jumprelu_ste_to_input", "target_l0", "aux_loss_coefficient", "use_sparse_activations",
})  # fmt: skip
"""What checkpoints say besides, of how they are trained."""
HARMLESS = TRAINING | saelens_before_6.TRAINING | {*saelens_before_6.SITE, "dtype", "device"} - {"hook_head_index"}
"""What older files say at the top level too; SAELens 6 reads none of it there."""
OFF = {
    "finetuning_scaling_factor": "it scales its latents after training, which SAELens 6 does not do any more",
    "activation_fn_kwargs": "SAELens 6 reads none, so that its meaning is unknown",
    "hook_head_index": "it reads one head of many, which no site here gives",
    "use_error_term": "it adds to its output what it does not explain; set it to false",
}
REMOVED = ("batchtopk", "matryoshka_batchtopk")
"""Architectures of training, saved as jumprelu."""

Reader = Callable[[Mapping[str, Tensor], Said], tuple[Parts, list[str]]]


def linear(tensors: Mapping[str, Tensor], said: Said, *more: str) -> Parts:
    W_enc, b_enc, W_dec, b_dec, *_ = take_all(tensors, ("W_enc", "b_enc", "W_dec", "b_dec", *more), said.file.parent)
    return Parts(W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, activation=ReLU())


def standard(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    return linear(tensors, said), []


def jumprelu(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    (threshold,) = take(tensors, ("threshold",), said.file.parent)
    return replace(linear(tensors, said, "threshold"), activation=THRESHOLDED, threshold=threshold), []


def topk(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    by_norm = said.flag("rescale_acts_by_decoder_norm", False)
    return replace(linear(tensors, said), activation=TopK(said.count("k")), ranks_by_norm=by_norm), []


def abstopk(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    """A latent of either sign is two of ours: of pre and -pre, TopK takes the larger, which is |pre|."""
    one, _ = topk(tensors, said)
    half, _ = check_shapes(one, said.file.parent)
    if said.count("k") > half:
        raise ValueError(f"{said.file}: k is {said.count('k')}, and there are {half} latents")
    both = replace(
        one,
        W_enc=torch.cat([one.W_enc, -one.W_enc], 1),
        b_enc=torch.cat([one.b_enc, -one.b_enc]),
        W_dec=torch.cat([one.W_dec, -one.W_dec]),
    )
    return both, [f"latents of either sign are split in two: {half} became {2 * half}, the latter half the negative"]


def gated(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    """Read a gated SAE, as the JumpReLU with equal codes."""
    names = ("W_enc", "b_gate", "r_mag", "b_mag", "W_dec", "b_dec")
    W_enc, b_gate, r_mag, b_mag, W_dec, b_dec = take_all(tensors, names, said.file.parent)
    check_vectors(W_enc, (b_gate, r_mag, b_mag), said.file.parent)
    as_jumprelu = gated_as_jumprelu(W_enc, b_gate, r_mag, b_mag)
    parts = Parts(**as_jumprelu._asdict(), W_dec=W_dec, b_dec=b_dec, activation=THRESHOLDED)
    return parts, ["its gate and magnitudes are one JumpReLU, with equal codes"]


def matching_pursuit(tensors: Mapping[str, Tensor], said: Said) -> tuple[Parts, list[str]]:
    """Read an SAE with matching pursuit."""
    W_dec, b_dec = take_all(tensors, ("W_dec", "b_dec"), said.file.parent)
    missing = sorted(OWN["matching_pursuit"] - said.fields.keys())
    if missing:
        raise ValueError(f"{said.file} says no {' and no '.join(missing)}; add what it was trained with")
    b_enc = torch.zeros(len(W_dec) if W_dec.ndim else 0)
    pursuit = MatchingPursuit(rounds(said, len(b_enc), b_dec.numel()), said.number("residual_threshold"),
                              said.flag("stop_on_duplicate_support"))  # fmt: skip
    if not said.flag("apply_b_dec_to_input", True):
        b_dec = torch.zeros_like(b_dec)  # which it then neither subtracts nor adds
    return Parts(W_enc=turned(W_dec), b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, activation=pursuit), []


def rounds(said: Said, d_sae: int, d_in: int) -> int:
    """Rounds at most; SAELens's null means d_in."""
    stated = said.count("max_iterations", max(1, d_in))
    if said.flag("stop_on_duplicate_support"):
        return max(1, min(stated, d_sae + 1))  # more would repeat an atom, and stop
    if stated > MOST_ROUNDS * max(1, d_sae):
        raise ValueError(f"{said.file}: max_iterations is {stated}, for {d_sae} latents; set what it was trained with")
    return stated


MOST_ROUNDS = 16
"""A latent: pursuits of more rounds have long converged."""
READERS: dict[str, Reader] = {
    "standard": standard, "jumprelu": jumprelu, "topk": topk, "abstopk": abstopk, "gated": gated,
    "matching_pursuit": matching_pursuit,
}  # fmt: skip


def read(folder: Path) -> Published:
    """Read a folder. Raises ValueError, with the remedy, when it is incomplete, damaged or not supported."""
    stored = Said.read(folder / "cfg.json")
    old = saelens_before_6.is_old(stored)
    said = saelens_before_6.upgrade_config(stored) if old else stored
    name = said.text("architecture", "")
    check(name, said, folder)
    check_site(said)
    parts, notes = READERS[name](load_safetensors(folder / WEIGHTS), said)
    if name != "matching_pursuit":
        parts = replace(parts, reads_centred=said.flag("apply_b_dec_to_input", True))
    if said.text("normalize_activations", "none") == "expected_average_only_in":
        factor = scaling_factor(folder)
        parts = unscaled(parts, factor)
        notes.append(f"it reads activations times {factor:.4g} (expected_average_only_in); folded into the weights")
    if old:
        saelens_before_6.check_architecture(stored)
    else:
        check_complete(said)
    check_counts(name, said, parts)
    dictionary, folded = assemble(parts, folder)
    metadata = said.part("metadata").fields
    return Published(
        dictionary=dictionary, format="SAELens", architecture=name, trained=dict(metadata),
        stated=trained_on(name, said), rescaled=forgotten_factor(name, said, parts),
        notes=(*notes, *doubtful_inputs(metadata), *folded),
    )  # fmt: skip


def check(name: str, said: Said, folder: Path) -> None:
    """Raise ValueError for what cannot be read, and say why."""
    if "transcoder" in name or "crosscoder" in name:
        raise ValueError(
            f"{folder} is a {'transcoder' if 'transcoder' in name else 'crosscoder'} ({shown(name)}): it maps one site "
            "to another, and every score here is of a dictionary that explains the activations it reads; transcoders "
            "and crosscoders are out of scope (SAELens and circuit-tracer use them): import an SAE"
        )
    if name not in READERS:
        why = " (it reads neighbouring tokens, a dictionary one row)" if name == "temporal" else ""
        hint = "; written before SAELens 6? Load and save it there once" if not name else ""
        if name in REMOVED:
            hint = (
                "; it is a checkpoint of training, and the final folder, which SAELens saves as jumprelu, can be read"
            )
        raise ValueError(
            f"{folder}: architecture {quoted(name)} cannot be read{why}; these can: {', '.join(READERS)}{hint}"
        )
    if said.part("metadata").fields.get(UNIT_NORM) is False:
        raise ValueError(
            f"{folder} was trained on whitened activations, and its {name} chooses other latents once atoms have norm "
            "1, as those of an imported SAE have: score the run folder that it was exported from, which needs no import"
        )
    normalised = said.text("normalize_activations", "none")
    if normalised not in ("none", "expected_average_only_in"):
        raise ValueError(
            f"{folder}: normalize_activations is {quoted(normalised)}, which cannot be folded into weights; SAELens "
            "folds covariance_whitening when training ends (import the final folder), and has no way to fold the others"
        )
    if said.text("reshape_activations", "none") != "none":
        raise ValueError(
            f"{folder} reads the heads of hook_z side by side, which no site here gives; sites are resid_post, "
            "resid_pre, mlp_out and attn_out"
        )
    agreed = {key for key in ("activation_fn", "activation_fn_str") if said.fields.get(key) in ("relu", name)}
    said.refuse_unread(BASE | OWN.get(name, frozenset()), HARMLESS | agreed, OFF)


def check_complete(said: Said) -> None:
    for key in ("apply_b_dec_to_input", "normalize_activations"):
        if key not in said.fields:
            raise ValueError(f"{said.file} says no {key}, which SAELens always writes; add what it was trained with")


def check_site(said: Said) -> None:
    head = said.part("metadata").fields.get("hook_head_index")
    if head is not None:
        raise ValueError(f"{said.file}: hook_head_index is {shown(head)}; {OFF['hook_head_index']}")


def check_counts(name: str, said: Said, parts: Parts) -> None:
    half = 2 if name == "abstopk" else 1
    found = (parts.b_dec.numel(), parts.b_enc.numel() // half)
    stated = (said.count("d_in"), said.count("d_sae"))
    if found != stated:
        raise ValueError(f"{said.file.parent}: cfg.json states d_in, d_sae = {stated}, the weights have {found}")


def trained_on(name: str, said: Said) -> dict[str, Any]:
    """Return the settings that a source or a measurement can contradict."""
    metadata = said.part("metadata").fields
    details = metadata.get("training_architecture_details")
    details = details if isinstance(details, dict) else {}
    l0 = said.fields.get("k") if "topk" in name else None
    for key in ("l0", "average_l0", "average_L0", "target_l0"):
        l0 = metadata.get(key) if l0 is None else l0
    if l0 is None and name == "jumprelu":
        key = "k" if metadata.get("training_architecture") in REMOVED else "target_l0"
        l0 = details.get(key, said.fields.get("target_l0"))
    return {key: value for key, value in {**metadata, "l0": l0}.items() if value is not None}


def forgotten_factor(name: str, said: Said, parts: Parts) -> str:
    """Why thresholds may lack a factor (SAELens #763): folding the norm did not rescale BatchTopK's."""
    metadata = said.part("metadata").fields
    trained_as, threshold = metadata.get("training_architecture"), parts.threshold
    one = threshold is not None and bool((threshold == threshold[0]).all())
    version = str(metadata.get("sae_lens_training_version") or metadata.get("sae_lens_version") or "")
    if name != "jumprelu" or not (trained_as in REMOVED or (trained_as is None and one)) or not before(version, MENDED):
        return ""
    return (
        f"SAELens before {'.'.join(map(str, MENDED))} did not divide BatchTopK's threshold by the norm factor it "
        "folded (its issue 763)"
    )


MENDED = (6, 54, 9)


def before(version: str, mended: tuple[int, ...]) -> bool:
    """True if a version is older, or unknown."""
    numbers = tuple(int(word) for word in re.findall(r"\d{1,9}", version)[:3])
    return not numbers or numbers < mended


def doubtful_inputs(metadata: Mapping[str, Any]) -> list[str]:
    """Warn of settings of the activations that no source here reproduces."""
    found = []
    processed = metadata.get("model_from_pretrained_kwargs")
    if isinstance(processed, dict):
        on = [key for key in ("fold_ln", "center_writing_weights", "center_unembed") if processed.get(key)]
        if on:
            found.append(
                f"it was trained on a model whose weights TransformerLens had changed ({', '.join(on)}), so that "
                "activations differ from those here"
            )
    positions = metadata.get("seqpos_slice")
    if isinstance(positions, list) and any(at is not None for at in positions):
        found.append(f"it was trained on positions {shown(positions)} of each context alone")
    return found


def scaling_factor(folder: Path) -> float:
    """Read the factor by which activations are scaled. Raises ValueError when it is missing or not above 0."""
    path = folder / SCALER
    if not path.is_file():
        raise ValueError(
            f"{folder} expects activations scaled by a factor that it does not hold (expected_average_only_in, and no "
            f"{SCALER}): call fold_activation_norm_scaling_factor(factor) in SAELens, and save again"
        )
    factor = Said.read(path).number("scaling_factor")
    if not factor > 0:
        raise ValueError(f"{path}: scaling_factor is {factor!r}; expected a number above 0")
    return factor


def unscaled(parts: Parts, factor: float) -> Parts:
    """Return the equivalent SAE for activations that are not multiplied by `factor`; directions stay."""
    return replace(
        parts,
        b_enc=parts.b_enc / factor,
        b_dec=parts.b_dec / factor,
        threshold=None if parts.threshold is None else parts.threshold / factor,
        activation=parts.activation.scaled(1 / factor),
    )
