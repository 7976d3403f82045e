"""Gemma Scope's folders: JumpReLU SAEs whose encoder reads x, with names for where they are from.

    1   gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71/params.npz          W_enc W_dec b_enc b_dec threshold
    2   resid_post/layer_12_width_16k_l0_medium/params.safetensors + config.json   the same names, in small letters

What is known of the first is in its path alone; the second says it (as sae-lens 6.54.12 reads both). Transcoders and
crosscoders are out of scope, and so are SAEs of attention's heads side by side: no site here gives those.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unbraid.formats.published import THRESHOLDED, Parts, Published, assemble
from unbraid.formats.said import Said
from unbraid.formats.tensors import load_npz, load_safetensors, quoted, shown, take_all

FIRST, SECOND = "params.npz", "params.safetensors"
CONFIG = "config.json"
NAMES = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")
READ = frozenset({"architecture", "type", "width", "l0", "model_name", "hf_hook_point_in"})
HARMLESS = frozenset({"hf_hook_point_out"})
OFF = {"affine_connection": "it adds a linear map past its latents, as transcoders do; import an SAE"}
SITES = {"res": "blocks.{}.hook_resid_post", "mlp": "blocks.{}.hook_mlp_out"}
"""By the end of the first release's repositories; `att` reads heads."""
SITES_BY_HOOK = {"output": "blocks.{}.hook_resid_post", "post_feedforward_layernorm.output": "blocks.{}.hook_mlp_out"}
TOKENS = {"prepend_bos": True, "context_size": 1024}
"""Of all of them (SAELens's loaders; arXiv 2408.05147)."""


def read_first(folder: Path) -> Published:
    """Read a folder of the first release.

    Raises ValueError, with the remedy, when it is incomplete, damaged or no SAE of whole activations.
    """
    words = folder.absolute().parts
    stated = said_by_path(words)
    check_kind(" ".join(words[-6:]), folder)
    return assembled(load_npz(folder / FIRST), folder, stated, {"path": "/".join(words[-4:])})


def read_second(folder: Path) -> Published:
    """Read a folder of the second release. Raises as `read_first`."""
    said = Said.read(folder / CONFIG)
    check_kind(" ".join((*folder.absolute().parts[-2:], said.text("type", "sae"))), folder)
    if said.text("architecture") != "jump_relu":
        raise ValueError(
            f"{said.file}: architecture {quoted(said.fields['architecture'])} cannot be read, only 'jump_relu'"
        )
    said.refuse_unread(READ, HARMLESS, OFF)
    stated = {"model_name": said.text("model_name", "").replace("-v3", "-3") or None, "l0": said.fields.get("l0"),
              "hook_name": site_of(said.text("hf_hook_point_in"), said), **TOKENS}  # fmt: skip
    published = assembled(load_safetensors(folder / SECOND), folder, stated, dict(said.fields))
    if said.count("width", published.dictionary.d_sae) != published.dictionary.d_sae:
        raise ValueError(f"{said.file}: width is {said.fields['width']}, the weights have {published.dictionary.d_sae}")
    return published


def assembled(
    tensors: Mapping[str, Tensor], folder: Path, stated: Mapping[str, Any], trained: Mapping[str, Any]
) -> Published:
    """Bring the tensors of either release into our form."""
    low = {name.lower(): tensor for name, tensor in tensors.items()}
    if "affine_skip_connection" in low:
        raise ValueError(f"{folder}: {OFF['affine_connection']}")
    W_enc, W_dec, b_enc, b_dec, threshold = take_all(low, NAMES, folder)
    parts = Parts(
        W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, threshold=threshold, activation=THRESHOLDED,
        reads_centred=False,
    )  # fmt: skip
    dictionary, notes = assemble(parts, folder)
    known = {key: value for key, value in stated.items() if value is not None}
    width = known.pop("width", None)
    if width and round(dictionary.d_sae / 1000 / width, 1) != 1.0:
        notes.append(f"its path says {width:g} thousand latents, and the weights have {dictionary.d_sae:,}")
    return Published(
        dictionary=dictionary, format="Gemma Scope", architecture="jumprelu", trained=trained, stated=known,
        notes=tuple(notes),
    )  # fmt: skip


def check_kind(names: str, folder: Path) -> None:
    """Raise ValueError for what is no SAE of whole activations, as its names tell."""
    other = re.search(r"transcoder|crosscoder|\bclt\b", names.lower())
    if other:
        raise ValueError(
            f"{folder} is a {other[0]}: it maps one site, or several, to another, and every score here is of a "
            "dictionary that explains the activations it reads; transcoders and crosscoders are out of scope (SAELens "
            "and circuit-tracer use them): import an SAE"
        )
    if re.search(r"gemma-scope-\w+-\w+-att\b|\battn_out", names):
        raise ValueError(
            f"{folder} reads the heads of attention side by side, which no site here gives; sites are resid_post, "
            "resid_pre, mlp_out and attn_out"
        )


def said_by_path(words: tuple[str, ...]) -> dict[str, Any]:
    """Return model, site, width and L0 as far as the folders' names state them."""
    path = "/".join(words)
    found: dict[str, Any] = dict(TOKENS)
    if repo := re.search(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp)\b", path):
        found["model_name"] = f"google/gemma-2-{repo[1]}" + ("-it" if repo[2] == "it" else "")
    if layer := re.search(r"/layer_(\d{1,4})(?:/|$)", path):
        found["hook_layer"] = int(layer[1])
        if repo:
            found["hook_name"] = SITES[repo[3]].format(int(layer[1]))
    if width := re.search(r"/width_(\d{1,4})(k|m)(?:/|$)", path):
        found["width"] = int(width[1]) * (1 if width[2] == "k" else 1000)
    if l0 := re.search(r"/average_l0_(\d{1,6})(?:/|$)", path):
        found["l0"] = int(l0[1])
    return found


def site_of(hook: str, said: Said) -> str | None:
    """Our name of a module's output: model.layers.12.output."""
    found = re.fullmatch(r"model\.(?:language_model\.)?layers\.(\d{1,4})\.([\w.]+)", hook)
    if found and found[2] in SITES_BY_HOOK:
        return SITES_BY_HOOK[found[2]].format(int(found[1]))
    raise ValueError(
        f"{said.file}: hf_hook_point_in is {shown(hook)}, which no site here gives; sites are resid_post, resid_pre, "
        "mlp_out and attn_out"
    )
