"""SAEs made by SAELens itself, with arbitrary weights: what its users have on disk."""

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch

from unbraid.seeding import stream

D_IN, D_SAE = 12, 40

SETTINGS: dict[str, dict[str, Any]] = {
    "standard": {}, "jumprelu": {}, "topk": {"k": 5}, "abstopk": {"k": 5}, "gated": {},
    "matching_pursuit": {"max_iterations": 6, "residual_threshold": 0.4},
}  # fmt: skip
"""Every inference architecture that is an SAE of single rows, and what it needs."""


def classes(architecture: str) -> tuple[Any, Any]:
    """Its SAE and configuration."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("sae_lens.registry")
        importlib.import_module("sae_lens")
    return module.get_sae_class(architecture)


@torch.no_grad()
def made(architecture: str, *, unit: bool | None = None, seed: int = 0, **settings: Any) -> Any:
    """An SAE with random weights. `unit`: whether atoms have norm 1; where norms can be folded they have not."""
    sae_class, config_class = classes(architecture)
    settings = {**SETTINGS[architecture], **settings}
    sae = sae_class(config_class(d_in=D_IN, d_sae=D_SAE, **settings))
    rng = stream(seed, f"published/{architecture}")
    for name, parameter in sae.named_parameters():
        drawn = torch.randn(parameter.shape, generator=rng)
        parameter.copy_(drawn.abs() if name == "threshold" else 0.3 * drawn if name == "r_mag" else drawn)
    if unit if unit is not None else architecture in ("topk", "abstopk", "matching_pursuit"):
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    sae.cfg.metadata.hook_name = "blocks.2.hook_resid_post"
    sae.cfg.metadata.model_name = "somebody/model"
    return sae


def saved(architecture: str, folder: Path, **settings: Any) -> Any:
    """The same, written to `folder` by SAELens."""
    sae = made(architecture, **settings)
    sae.save_model(folder)
    return sae


def rows(count: int = 400, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, D_IN, generator=stream(seed, "published/rows"))
