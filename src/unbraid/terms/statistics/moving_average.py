"""Moving averages that a term keeps in its memory from step to step."""

import torch
from torch import Tensor


def move(memory: dict[str, Tensor], name: str, now: Tensor, decay: float) -> Tensor:
    """Move the average kept as `name` towards `now`, where it starts, and return it. `decay`: the old one's share."""
    memory[name] = decay * memory.get(name, now) + (1 - decay) * now
    return memory[name]


def warm_decay(memory: dict[str, Tensor], decay: float) -> float:
    """The decay to use in this step, counted in `memory` as "seen": early averages weigh all steps alike, so that the
    first is no more than one of many."""
    seen = memory.get("seen", torch.zeros((), dtype=torch.long))
    memory["seen"] = seen + 1
    return min(decay, float(seen) / (float(seen) + 1))
