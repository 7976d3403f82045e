"""Claims of a folder about its SAE, compared with the source and with measurements: model, site, tokens, text, L0.

A difference need not be a fault (a model in a folder has another name than on a hub), but each may explain why an SAE
misfits. So each is reported, with both sides.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.formats.published import Published
from unbraid.formats.tensors import shown

TOLERANCE = 0.2
"""Relative difference of L0 from which it is reported (SAELens #763 moved it by factors)."""
ENTRIES = 2**24
"""Largest number of pre-activations used to find a threshold."""
WORDS = {
    "model_name": "model", "hook_name": "site", "hook_layer": "layer", "prepend_bos": "prepend_bos",
    "context_size": "context_size", "tokenizer_sha256": "tokenizer (SHA-256)", "dataset_path": "text",
    "world": "world", "synth": "synthetic model",
}  # fmt: skip
"""The settings that are compared, with their names in messages."""
ALIASES = {"gpt2-small": "gpt2"}
"""TransformerLens's names for models of the hub."""


def contradictions(stated: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each setting on which both sides differ."""
    found = []
    for key, word in WORDS.items():
        theirs, ours = stated.get(key), known.get(key)
        both = theirs not in (None, "") and ours not in (None, "")
        if (
            not both
            or alike(key, theirs, ours)
            or (key == "hook_layer" and "hook_name" in stated.keys() & known.keys())
        ):
            continue
        if key == "hook_name":
            found.append(f"it was trained at {shown(theirs)}, and is scored at {shown(ours)}")
        else:
            found.append(f"{word}: it was trained with {shown(theirs)}, the source has {shown(ours)}")
    return found + contradicting_itself(stated)


def contradicting_itself(stated: Mapping[str, Any]) -> list[str]:
    """Return a sentence if the folder's site and layer contradict each other."""
    hook, layer = stated.get("hook_name"), stated.get("hook_layer")
    number = re.match(r"blocks\.(\d{1,5})\.", hook) if isinstance(hook, str) else None
    if number is None or not isinstance(layer, int) or layer == int(number[1]):
        return []
    return [f"its folder contradicts itself: hook_name {shown(hook)}, hook_layer {shown(layer)}"]


def alike(key: str, theirs: Any, ours: Any) -> bool:
    """True if two values of a setting mean the same."""
    if key == "model_name":
        return model(str(theirs)) == model(str(ours))
    if key == "dataset_path":
        return last(str(theirs)) == last(str(ours))
    return theirs == ours


def model(name: str) -> str:
    """A model's own name, without owner or folder, and without what differs between hubs."""
    bare = re.sub(r"[_.]", "-", last(name))
    return ALIASES.get(bare, bare)


def last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2].lower()


def sparsity(published: Published, l0: float, x: Float[Tensor, "batch d_in"]) -> list[str]:
    """Return a sentence if the L0 on rows of the source differs from the folder's."""
    stated = published.stated.get("l0")
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 < stated < published.dictionary.d_sae:
        return []
    if abs(l0 - stated) <= TOLERANCE * stated:
        return []
    finding = f"L0 is {l0:.4g} on this source, and the folder says {stated:.4g}"
    factor = mending_factor(published.dictionary, float(stated), x)
    if factor is None:
        return [f"{finding}: is it the right model, layer, site and scale?"]
    cause = f"; {published.rescaled}" if published.rescaled else "; is it the right model, layer, site and scale?"
    return [f"{finding}: thresholds times {factor:.4g} would give that{cause}"]


@torch.no_grad()
def mending_factor(dictionary: Dictionary, l0: float, x: Float[Tensor, "batch d_in"]) -> float | None:
    """Return the factor on thresholds that gives this L0 on x; None without thresholds, or if no factor does.

    A latent fires where pre / threshold exceeds the factor, so it is one of the ordered ratios.
    """
    thresholds = dictionary.threshold
    if not dictionary.activation.learns_threshold or not bool((thresholds > 0).any()):
        return None
    rows = x[: max(16, ENTRIES // dictionary.d_sae)]
    pre = dictionary.pre_activations(rows)
    ratios = (pre / thresholds)[:, thresholds > 0].flatten()
    unmoved = int((pre[:, thresholds <= 0] > 0).sum())
    wanted = round(l0 * len(rows)) + 1 - unmoved
    if not 0 < wanted <= ratios.numel():
        return None
    factor = float(ratios.topk(wanted, sorted=False).values.min())
    return factor if factor > 0 else None
