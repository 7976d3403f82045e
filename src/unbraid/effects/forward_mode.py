"""Forward-mode derivatives through a model's layers.

They are exact and cost about a pass, where finite differences would need a step that suits both a norm of 1000 and half
precision. Fused attention has no forward mode, hence the plain kernel, here only: everywhere else the layers run fused.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import silu
from torch.overrides import TorchFunctionMode


class _PlainSilu(TorchFunctionMode):
    """x sigmoid(x) for torch's fused SiLU, which has a first forward derivative and no second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is silu:
            return args[0] * torch.sigmoid(args[0])
        return func(*args, **(kwargs or {}))


@contextmanager
def forward_mode() -> Iterator[None]:
    """Make `torch.func.jvp` work through attention inside this context. Raises ValueError, with a remedy, where a
    model's own attention kernel has no forward mode."""
    with _PlainSilu(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # torch's own forward mode loads TorchScript, which torch deprecates.
        warnings.filterwarnings("ignore", message="`torch.jit.script", category=DeprecationWarning)
        try:
            yield
        except (NotImplementedError, RuntimeError) as error:
            if "forward" not in str(error).lower() or isinstance(error, RecursionError):
                raise
            reason = str(error).partition("\n")[0][:200]
            raise ValueError(
                f"this model's layers have no forward-mode derivative ({reason}); use its plain attention (set "
                '"attn_implementation": "eager" in its config.json), or set the radius by hand (calibrating takes one '
                "too) and choose what takes no other: melbo, effect, interaction, causal_head, the exponential dct "
                "started at random"
            ) from error
