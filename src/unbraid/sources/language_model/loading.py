"""Models, tokenizers and configurations from a folder or the hub, with the remedy where there are none."""

import hashlib
import json
from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unbraid.sources.in_process import is_reference
from unbraid.sources.language_model import gguf_files
from unbraid.sources.language_model.smollm import NOTE, SMOLLM2, smollm2_file
from unbraid.system.each import PASSED_ON
from unbraid.system.files import sha256

EMBEDDED = "embedded-2"
"""The name of the model that comes with Unbraid: another model gets another name, since runs store it."""
FORMER = ("embedded",)
"""Names of models that came with it once."""
NAMED = (EMBEDDED, SMOLLM2)
"""Names of models that are neither a folder nor on the hub."""
ALIKE = 0.75
"""How alike a name is to one of those, from 0 to 1, that is refused as a misspelling of it."""


@lru_cache(maxsize=2)
def load_model(model: str, revision: str, dtype: str, device: str, trust_remote_code: bool = False) -> nn.Module:
    """Return the model, for inference. It is shared by all sources that name it the same way."""
    from transformers import AutoModelForCausalLM

    kind = getattr(torch, dtype)
    # No pickle is read, not even by torch's cautious unpickler.
    load = partial(AutoModelForCausalLM.from_pretrained, revision=revision, dtype=kind, use_safetensors=True)
    return from_hub(load, model, revision, "weights", trust_remote_code).to(device).eval().requires_grad_(False)


def load_tokenizer(model: str, revision: str = "main", *, trust_remote_code: bool = False) -> Any:
    """Return the tokenizer of a model's folder, or of its name on the hub. Raises ValueError when there is none."""
    from transformers import AutoTokenizer

    load = partial(AutoTokenizer.from_pretrained, revision=revision)
    return from_hub(load, model, revision, "tokenizer", trust_remote_code)


def write_chat(tokenizer: Any, chat: list[dict[str, Any]]) -> str:
    """Return a chat as the tokenizer's template writes it. Raises ValueError when it has none.

    One that ends with the user's turn ends with the opening of an answer, so that what follows is the answer's first
    token.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            "the tokenizer has no chat template; choose a column of text with --source.text-column, or the model "
            "that was tuned to chat"
        )
    asks = bool(chat) and chat[-1].get("role") == "user"
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=asks)


def located(model: str, revision: str = "main") -> str:
    """Return the folder of a model that has one here by name or as a GGUF file, else the name as it is.

    Raises ValueError for one that is gone, or cannot be had.
    """
    if model in FORMER:
        raise ValueError(
            f"the model {model!r} read a smaller language and is no longer part of Unbraid; runs that were trained on "
            f"it keep their weights, scores and reports, and new ones take {EMBEDDED!r}"
        )
    if model == EMBEDDED:
        return str(Path(__file__).parents[1] / "synthetic_language" / "model")
    found = converted(model, revision)
    return model if found is None else str(found.folder)


def converted(model: str, revision: str) -> gguf_files.ConvertedFolder | None:
    """Return what a model's GGUF file was converted into; None for a model without one. Raises as `located`."""
    if model == SMOLLM2:
        return gguf_files.converted(smollm2_file())
    return gguf_files.converted(gguf_files.file_of(model, revision)) if gguf_files.names_gguf(model) else None


def weights_facts(model: str, revision: str) -> dict[str, str]:
    """Return what is to be said of a model's weights and stored with a run; empty where the name says it all."""
    if is_reference(model) or (found := converted(model, revision)) is None:
        return {}
    note = f"{NOTE}; {found.in_words}" if model == SMOLLM2 else found.in_words
    return {"model_sha256": found.sha256, "model_note": note}


def tokenizer_sha256(model: str, revision: str, tokenizer: Any) -> str:
    """Return the hash of the tokenizer's file; of its vocabulary, where there is no such file."""
    from transformers.utils.hub import cached_file

    path = cached_file(
        located(model, revision), "tokenizer.json", revision=revision, _raise_exceptions_for_missing_entries=False
    )
    if path is not None:
        return sha256(Path(path))
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def from_hub(load: Callable[..., Any], model: str, revision: str, what: str, trust_remote_code: bool) -> Any:
    """Return what `load(model)` loads.

    Raises ValueError, with the remedy, when there is no such folder or hub model, when it needs code that is not
    trusted, and when trusted code fails.
    """
    model = located(model, revision)
    if not Path(model).is_dir() and (model.count("/") > 1 or model.startswith((".", "/", "~"))):
        raise ValueError(f"there is no model folder at {model!r}; check --source.model")
    if (
        not Path(model).is_dir() and "/" not in model and (near := get_close_matches(model, NAMED, 1, ALIKE))
    ):  # The hub would be tried for half a minute first.
        raise ValueError(f"there is no model {model!r}; did you mean {near[0]!r}?")
    try:
        # Said in every call: unsaid, transformers asks on the standard input.
        return load(model, trust_remote_code=trust_remote_code)
    except (*PASSED_ON, MemoryError):
        raise
    except BaseException as error:  # panics of tokenizers, written in Rust, are no Exception
        raise ValueError(f"cannot load the {what} of model {model!r}: {_fault(error, trust_remote_code)}") from error


def _fault(error: BaseException, trust_remote_code: bool) -> str:
    """Return why loading failed, and the remedy."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, OSError) and "safetensors" in reason:
        return f"{reason}; pickled weights are not read: load it once with transformers and save_pretrained() it"
    if isinstance(error, OSError):
        return f"{reason}; check --source.model, or download it where there is a network"
    if isinstance(error, ValueError) and "trust_remote_code" in str(error) and not trust_remote_code:
        return (
            "it brings its own code, which is not run without permission; read it and, if you trust it, allow it with "
            "--trust-remote-code (in Python: trust_remote_code=True)"
        )
    if trust_remote_code:
        return f"the code that it brings fails with {type(error).__name__}: {reason}"
    return (
        f"{type(error).__name__}: {reason}; its files are damaged, or of a kind that transformers "
        f"{transformers_version()} does not know: fetch them again, or install the transformers that wrote them"
    )


def transformers_version() -> str:
    from transformers import __version__

    return __version__
