"""The absorption fraction as SAEBench 0.3.2 defined it, with which its published numbers were computed.

    (all - main) / all within [0, 1]; 0 where main >= wanted or all <= 0

all, main: the projections on the probe that all latents, or the main ones, supply. wanted: that of the activations.
"""

import torch
from torch import Tensor


def fractions(every: Tensor, main: Tensor, wanted: Tensor) -> Tensor:
    """The fraction of each word."""
    counted = (main < wanted) & (every > 0)
    return torch.where(counted, ((every - main) / every).clamp(0, 1), torch.zeros_like(every))
