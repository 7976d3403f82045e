"""Models and tokenizers given as loaded objects.

A source stores what they were, with a SHA-256 over all weights: name, type, shape and bytes of every tensor of the
state (0.6 core-seconds a GB on an x86 server). It is exact for the weights; the model's code and configuration are not
in it.

A loaded model is read as it is. It stays on its device and in its precision, and is not changed.
"""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import NoneType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unbraid.config.settings import shown
from unbraid.sources.in_process import Reference, Registry, is_reference
from unbraid.sources.language_model.blocks import block_at
from unbraid.sources.language_model.downstream import LAYOUTS
from unbraid.sources.language_model.hooks import forward
from unbraid.sources.language_model.probe import FAILURES, in_one_line, random_tokens
from unbraid.sources.language_model.sites import PROVEN
from unbraid.sources.language_model.skipping import KNOWN
from unbraid.system.notices import Pace

MODELS: Registry[nn.Module] = Registry(kept=2)
TOKENIZERS: Registry[Any] = Registry(kept=4)
PLAIN = (str, bytes, bool, int, float, NoneType, torch.dtype)
"""Types of entries of a state, other than tensors, that are identified by their text."""
THREADS = 8
"""Tensors hashed at once, at most."""
HASHED: WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], str]] = WeakKeyDictionary()
"""The version counters of each model's tensors when it was hashed, and the SHA-256 found."""


# ---- models ------------------------------------------------------------------------------------------------


def add_model(model: Any, device: Any, dtype: Any) -> dict[str, str]:
    """Register a loaded model, and return the settings `model`, `device` and `dtype` that it has.

    Raises ValueError for what is no loaded model, or not where the settings say.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model is a {type(model).__name__} ({shown(model)}); expected a loaded model (a torch.nn.Module), or the "
            "name or folder of one"
        )
    if off := [name for name, tensor in model.named_parameters() if tensor.is_meta]:
        raise ValueError(f"{len(off):,} weights of the model, such as {off[0]}, are not in memory; load it whole")
    if not any(True for _ in model.parameters()):
        raise ValueError(f"the {type(model).__name__} given has no parameters; give the language model itself")
    own_device, own_dtype = checked_place(model, device, dtype)
    return {"model": str(reference_of(model)), "device": own_device, "dtype": own_dtype}


def reference_of(model: nn.Module) -> Reference:
    """Hash a model, keep it, and return what it was and the SHA-256 of its weights."""
    before = HASHED.get(model)
    sha256 = hashed(model)
    if before is not None and before[1] != sha256:  # what was learned of it may hold no more
        PROVEN.pop(model, None)
        LAYOUTS.pop(model, None)
        KNOWN.pop(model, None)
    config = getattr(model, "config", None)
    facts = {
        "name": str(getattr(config, "_name_or_path", None) or ""),
        "revision": str(getattr(config, "_commit_hash", None) or ""),
        "parameters": str(sum(parameter.numel() for parameter in model.parameters())),
    }
    MODELS.add(sha256, model)
    return Reference(type(model).__name__, {name: fact for name, fact in facts.items() if fact}, sha256)


def find_model(text: str, load: Callable[[str, str], nn.Module]) -> nn.Module:
    """Return the model that a reference leads to.

    Where this process does not have it, `load(name, revision)` gives it, if its weights are the same. Raises
    ValueError, with the remedy, when there is none or its weights have changed.
    """
    reference = Reference.parse(text)
    found = MODELS.find(reference.sha256)
    if found is None:
        return reloaded(reference, load)
    versions, sha256 = HASHED[found]
    if versions != counters(found):  # written to, perhaps with the same values
        sha256 = hashed(found)
    if sha256 != reference.sha256:
        raise ValueError(
            f"the weights of the {reference.kind} have changed since this source was made; make the source again: "
            "unbraid.LanguageModel(model=model, tokenizer=tokenizer, …)"
        )
    return found


def reloaded(reference: Reference, load: Callable[[str, str], nn.Module]) -> nn.Module:
    """Return the model that the name of a reference gives, if its weights are the same. Raises ValueError if not."""
    reason = ""
    if name := reference.facts.get("name"):
        try:
            found = load(name, reference.facts.get("revision", "main"))
        except ValueError as error:
            reason = f" ({error})"
        else:
            if hashed(found) == reference.sha256:
                MODELS.add(reference.sha256, found)
                return found
            reason = f" ({name} has other weights)"
    raise ValueError(
        f"this source reads a loaded model that was given to another process: {reference.in_words}{reason}; load it "
        "and give it again: unbraid.LanguageModel(model=model, tokenizer=tokenizer, …)"
    )


def counters(model: nn.Module) -> tuple[int, ...]:
    """Return how often each tensor was written to in place, as autograd counts it."""
    tensors = [*model.parameters(), *model.buffers()]
    return tuple(-1 if tensor.is_inference() else tensor._version for tensor in tensors)


def hashed(model: nn.Module) -> str:
    """Return the SHA-256 of all weights as they are now, and note when it was taken."""
    sha256 = weights_sha256(model)
    HASHED[model] = counters(model), sha256
    return sha256


def weights_sha256(model: nn.Module) -> str:
    """Return the SHA-256 over name, type, shape and bytes of every tensor in the model's state."""
    state = sorted(model.state_dict().items())
    distinct = {identity(value): value for _, value in state}  # tied weights once
    pace, done = Pace("hashing the model's weights", len(distinct)), 0
    digests: dict[Any, str] = {}
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for key, digest in zip(distinct, pool.map(value_sha256, distinct.values()), strict=True):
            digests[key], done = digest, done + 1
            pace.at(done)
    whole = hashlib.sha256(json.dumps([[name, digests[identity(value)]] for name, value in state]).encode())
    return whole.hexdigest()


def identity(value: Any) -> Any:
    """Return a key that two entries of a state share only when they are the same memory, read in the same way."""
    if type(value) is not Tensor or not value.data_ptr():
        return id(value)
    return value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride()


def value_sha256(value: Any) -> str:
    """Return the SHA-256 of one entry of a state, which in quantised models may hold several tensors, or none.

    Raises ValueError for an object whose content does not show.
    """
    if isinstance(value, tuple | list):
        return hashlib.sha256(json.dumps([value_sha256(item) for item in value]).encode()).hexdigest()
    if isinstance(value, PLAIN):
        return hashlib.sha256(f"{type(value).__name__} {value!r}".encode()).hexdigest()
    if not isinstance(value, Tensor):
        raise ValueError(
            f"the state of the model holds a {type(value).__name__}, whose content does not show, so that the model "
            "cannot be identified; give it by name or folder"
        )
    head = f"{value.dtype} {list(value.shape)}"
    if (flatten := getattr(value, "__tensor_flatten__", None)) is not None:
        names, _ = flatten()
        inner = [[name, value_sha256(getattr(value, name))] for name in names]
        return hashlib.sha256(f"{head} {json.dumps(inner)}".encode()).hexdigest()
    plain = value.int_repr() if value.is_quantized else value
    data = plain.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return hashlib.sha256(head.encode() + hashlib.sha256(data).digest()).hexdigest()


def place_of(model: nn.Module) -> tuple[str, str]:
    """Return the device that token ids go to, and the precision of the embedding, as settings name them."""
    tables = (module.weight for module in model.modules() if isinstance(module, nn.Embedding))
    first = next(tables, None)
    weight = next(model.parameters()) if first is None else first
    return str(weight.device), str(weight.dtype).removeprefix("torch.")


def checked_place(model: nn.Module, device: Any, dtype: Any) -> tuple[str, str]:
    """Return the device and precision of a loaded model. Raises ValueError where the settings name others."""
    own_device, own_dtype = place_of(model)
    if device not in ("cpu", own_device, own_device.partition(":")[0]):
        raise ValueError(
            f"LanguageModel.device is {shown(device)}, and the model given is on {own_device}; move it there first "
            f"(model.to({device!r})), or leave device out"
        )
    if dtype not in ("float32", own_dtype):
        raise ValueError(
            f"LanguageModel.dtype is {shown(dtype)}, and the model given computes in {own_dtype}; convert it first, or "
            "leave dtype out"
        )
    return own_device, own_dtype


def check_given(model: str, tokenizer: str, *layers: int) -> None:
    """Raise ValueError for a model that was given as an object without a tokenizer, or without one of these blocks."""
    if not is_reference(model):
        return
    if not tokenizer:
        raise ValueError(
            "a loaded model needs its tokenizer, to read text with; give it: unbraid.LanguageModel(model=model, "
            "tokenizer=transformers.AutoTokenizer.from_pretrained(name), …)"
        )
    if (found := MODELS.find(Reference.parse(model).sha256)) is not None:
        for layer in layers:
            block_at(found, max(0, layer))


def check_context(model: nn.Module, context: int) -> None:
    """Raise ValueError when a model without a configuration cannot read as many tokens."""
    try:
        with torch.no_grad():
            forward(model, *random_tokens(model, 1, context))
    except FAILURES as error:
        raise ValueError(
            f"{type(model).__name__} cannot read {context} tokens ({in_one_line(error)}); lower context, or see that "
            "its forward takes token ids [sequence, position] first and gives logits"
        ) from error


# ---- tokenizers --------------------------------------------------------------------------------------------


def add_tokenizer(tokenizer: Any) -> str:
    """Register a loaded tokenizer, and return the reference to store. Raises ValueError for what is none."""
    if hasattr(tokenizer, "tokenizer"):
        raise ValueError(f"tokenizer is a {type(tokenizer).__name__}; give its tokenizer: processor.tokenizer")
    if not hasattr(tokenizer, "convert_tokens_to_ids"):
        raise ValueError(
            f"tokenizer is a {type(tokenizer).__name__} ({shown(tokenizer)}); expected one of transformers, as "
            "AutoTokenizer.from_pretrained(…) loads, or PreTrainedTokenizerFast(tokenizer_object=…) makes of one of "
            "tokenizers"
        )
    sha256 = vocabulary_sha256(tokenizer)
    TOKENIZERS.add(sha256, tokenizer)
    facts = {"name": str(getattr(tokenizer, "name_or_path", None) or ""), "tokens": str(len(tokenizer))}
    return str(Reference(type(tokenizer).__name__, {name: fact for name, fact in facts.items() if fact}, sha256))


def find_tokenizer(text: str, load: Callable[[str], Any]) -> Any:
    """Return the tokenizer that a reference leads to, or the one that `load(name)` gives where it is the same.

    Raises ValueError, with the remedy, when there is none.
    """
    reference = Reference.parse(text)
    found = TOKENIZERS.find(reference.sha256)
    if found is not None:
        return found
    reason = ""
    if name := reference.facts.get("name"):
        try:
            found = load(name)
        except ValueError as error:
            reason = f" ({error})"
        else:
            if vocabulary_sha256(found) == reference.sha256:
                return found
            reason = f" (that of {name} is another)"
    raise ValueError(
        f"this source reads with a tokenizer that was given to another process: {reference.in_words}{reason}; load it "
        "and give it again: unbraid.LanguageModel(model=model, tokenizer=tokenizer, …)"
    )


def vocabulary_sha256(tokenizer: Any) -> str:
    """Return the SHA-256 of everything in a tokenizer that decides the ids of a text.

    It covers the whole tokenizer where it is a fast one, else its class, vocabulary and special tokens.
    """
    if getattr(tokenizer, "is_fast", False):
        whole = json.loads(tokenizer.backend_tokenizer.to_str())
        whole |= {"truncation": None, "padding": None}  # set by every call
    else:
        whole = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    whole["special"] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
