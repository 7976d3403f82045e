"""Models, tokenizers and configurations from a folder or the hub, with the remedy where there are none."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

EMBEDDED = "embedded"


@lru_cache(maxsize=2)
def load_model(model: str, revision: str, dtype: str, device: str, trust_remote_code: bool = False) -> nn.Module:
    """The model, for inference. Shared by all sources that name it the same way."""
    from transformers import AutoModelForCausalLM

    load = partial(AutoModelForCausalLM.from_pretrained, revision=revision, dtype=getattr(torch, dtype))
    return from_hub(load, model, "weights", trust_remote_code).to(device).eval().requires_grad_(False)


def located(model: str) -> str:
    """The folder of the embedded model, or the name as it is."""
    return str(Path(__file__).parent.parent / "language" / "model") if model == EMBEDDED else model


def from_hub(load: Callable[..., Any], model: str, what: str, trust_remote_code: bool) -> Any:
    """`load(model)`. Raises ValueError, with the remedy, when there is no such folder or hub model, when it needs code
    of its own that is not trusted, and when trusted code fails."""
    model = located(model)
    if not Path(model).is_dir() and (model.count("/") > 1 or model.startswith((".", "/", "~"))):
        raise ValueError(f"there is no model folder at {model!r}; check --source.model")
    try:
        # Said in every call: unsaid, transformers asks on the standard input.
        return load(model, trust_remote_code=trust_remote_code)
    except Exception as error:
        fault = _fault(error, trust_remote_code)
        if not fault:
            raise
        raise ValueError(f"cannot load the {what} of model {model!r}: {fault}") from error


def _fault(error: Exception, trust_remote_code: bool) -> str:
    """Why loading failed, and the remedy; empty for what is no user's doing."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, OSError):
        return f"{reason}; check --source.model, or download it where there is a network"
    if isinstance(error, ValueError) and "trust_remote_code" in str(error) and not trust_remote_code:
        return (
            "it brings code of its own, which is not run unasked; read it and, if you trust it, allow it with "
            "--trust-remote-code (in Python: trust_remote_code=True)"
        )
    return f"the code that it brings fails with {type(error).__name__}: {reason}" if trust_remote_code else ""
