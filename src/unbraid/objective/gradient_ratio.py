"""One knob for all penalties: the size of a penalty's gradient as a share of the reconstruction's.

    weight = ratio |grad reconstruction| / |grad penalty|     over the parameters that the penalty's gradient reaches

Norms are root mean squares, of one batch each, measured in the first `SETTLED` share of training in which the term
runs; then the weight is frozen, so that the loss is again a fixed sum. Gradients shrink fast at first, so a measurement
counts by the cube of the training since the term's start: most at the end of the window, and as much for a term that is
due on every eighth step as for one that always is. What unit norm undoes, the part of an atom's gradient along the
atom, does not count.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.system.devices import queued
from unbraid.system.group import ALONE, Group

SETTLED = 0.05
"""Share of training after which a weight is frozen."""
RECENCY = 3
"""Power of the training since the start that a measurement counts by."""
KEYS = ("weighting.reconstruction", "weighting.penalty")


def weight(
    ratio: float,
    reconstruction: Float[Tensor, ""],
    penalty: Float[Tensor, ""],
    dictionary: Dictionary,
    memory: dict[str, Tensor],
    *,
    elapsed: float,
    group: Group = ALONE,
) -> float | Tensor:
    """Return the weight to use now, 0 while the penalty has had no gradient; a tensor on devices that the host should
    not wait for. `elapsed`: share of training since the term's start; within the window the weight is measured on these
    two losses, and `memory` is updated. `group`: the processes whose mean these losses are to be."""
    if elapsed < SETTLED or KEYS[0] not in memory:
        measure(reconstruction, penalty, dictionary, memory, max(elapsed, 1e-6) ** RECENCY, group)
    squares = [memory.get(key, torch.zeros((), dtype=torch.float64)) for key in KEYS]
    if queued(squares[0].device):
        return torch.where(squares[1] > 0, ratio * (squares[0] / squares[1]).sqrt(), 0.0).to(penalty.dtype)
    wanted, had = map(float, squares)
    return ratio * (wanted / had) ** 0.5 if had > 0 else 0.0


def measure(
    reconstruction: Float[Tensor, ""],
    penalty: Float[Tensor, ""],
    dictionary: Dictionary,
    memory: dict[str, Tensor],
    counts: float,
    group: Group = ALONE,
) -> None:
    """Add squared norms to `memory`; `counts`: how much. Only their ratio will matter."""
    of_penalty = gradients(penalty, dictionary, group)
    shared = [name for name, grad in of_penalty.items() if bool(grad.any())]
    if not shared:
        return
    of_reconstruction = gradients(reconstruction, dictionary, group)
    for key, found in zip(KEYS, (of_reconstruction, of_penalty), strict=True):
        square = torch.stack([found[n].square().sum() for n in shared if n in found] or [penalty.new_zeros(())]).sum()
        memory[key] = memory.get(key, 0.0) + counts * square.double()


def gradients(loss: Float[Tensor, ""], dictionary: Dictionary, group: Group = ALONE) -> Mapping[str, Tensor]:
    """Gradients of the trained parameters that the loss reaches, by name, or of all, averaged over a group; atoms'
    without the part along the atom."""
    named = {name: p for name, p in dictionary.named_parameters() if p.requires_grad}
    if not loss.requires_grad and group.alone:
        return {}
    found: Sequence[Tensor | None] = [None] * len(named)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    if not group.alone:  # some of it may reach only what others encode
        found = [
            group.mean(p.new_zeros(p.shape) if g is None else g) for p, g in zip(named.values(), found, strict=True)
        ]
    by_name = {name: grad for name, grad in zip(named, found, strict=True) if grad is not None}
    if "W_dec" in by_name:
        atoms, grad = dictionary.W_dec.detach(), by_name["W_dec"]
        by_name["W_dec"] = grad - (grad * atoms).sum(1, keepdim=True) * atoms
    return by_name
