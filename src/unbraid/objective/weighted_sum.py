"""The weighted sum of terms on one step: what training minimises, and who is to blame when it is not finite."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.objective import gradient_ratio
from unbraid.objective.objective import Objective, Step, Term
from unbraid.system.group import Group

WHOLE = "whole"
"""Name under which the step with the rows of all processes is shared."""


class NotFinite(ValueError):
    """A loss or a gradient is not finite, as all processes that train together see alike."""


class Weighted(NamedTuple):
    """The loss of one step and what to log."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Tensor]


def all_finite(numbers: Tensor) -> bool:
    """True when none is NaN or infinite; the host waits for the answer."""
    if numbers.numel() == 1:
        return math.isfinite(numbers.item())
    return bool(torch.isfinite(numbers).all())


def evaluate(
    objective: Objective,
    step: Step,
    index: int,
    *,
    scale: Mapping[str, float | Tensor],
    streams: Callable[[str], torch.Generator],
    memory: Mapping[str, dict[str, Tensor]],
    finite: Callable[[Tensor], bool] = all_finite,
) -> Weighted:
    """The weighted sum of all terms on `step`. `scale` multiplies weights by name (the controller's part). Of a batch
    that is shared out, it is this process's: the mean over the group is the sum that is meant, and what is to log.

    Raises NotFinite, naming term and step, when a loss is not `finite`.
    """
    total, metrics = step.x.new_zeros(()), {}
    reconstruction = total
    for name, term in objective.terms().items():
        own = name == "reconstruction"
        ramped = 1.0 if own else objective.ramped(step.progress, term)
        if not term.runs_at(index, step.progress) or (ramped == 0 and term.gradient_ratio == 0):
            continue
        share = scale.get(name, 1.0) * term.every * ramped
        rows = rows_of(step, term)
        seen = replace_keeping(rows, streams(name), memory[name])
        loss, extra = term(seen)
        if "x_hat" in seen.__dict__:
            rows.__dict__["x_hat"] = seen.x_hat  # decoded once for all terms
        logged = logged_of(name, loss, extra, step.group)
        if not finite(logged[f"losses/{name}"]):
            raise NotFinite(
                f"term {name!r} gave {float(logged[f'losses/{name}'])} at step {index} ({what_is_bad(rows, extra)}); "
                f"lower its weight{', its radius' if hasattr(term, 'radius') else ''} or the learning rate"
            )
        weight = term.weight
        if term.gradient_ratio > 0:
            elapsed = step.progress - term.start
            weight = gradient_ratio.weight(
                term.gradient_ratio,
                reconstruction,
                loss,
                step.dictionary,
                memory[name],
                elapsed=elapsed,
                group=step.group,
            )
            metrics[f"weights/{name}"] = torch.as_tensor(weight)
        total = total + weight * share * loss
        reconstruction = total if own else reconstruction
        metrics |= logged
    return Weighted(total, metrics)


def culprits(
    objective: Objective,
    step: Step,
    index: int,
    *,
    streams: Callable[[str], torch.Generator],
    memory: Mapping[str, dict[str, Tensor]],
) -> list[str]:
    """Terms whose own gradient on `step` is not finite."""
    found = []
    for name, term in objective.terms().items():
        if term.runs_at(index, step.progress):
            kept = {key: tensor.clone() for key, tensor in memory[name].items()}
            loss = term(replace_keeping(rows_of(step, term), streams(name), kept)).loss
            grads = gradient_ratio.gradients(loss, step.dictionary, step.group).values()
            found += [name] if step.dictionary.shards.any(not all(map(all_finite, grads))) else []
    return found


def what_is_bad(step: Step, metrics: Mapping[str, Tensor]) -> str:
    """Name the tensors of the step, or of the term's metrics, that are not finite."""
    seen = {"x": step.x, "z": step.z.values, **dict(step.dictionary.named_parameters()), **metrics}
    anywhere = step.group if step.dictionary.shards.alone else step.dictionary.shards
    bad = [name for name, tensor in seen.items() if anywhere.any(not all_finite(tensor.detach()))]
    return f"not finite: {', '.join(bad)}" if bad else "what it read is finite, so it is the term's own arithmetic"


def rows_of(step: Step, term: Term) -> Step:
    """The step with the rows that a term is evaluated on: this process's, or those of the whole group."""
    if term.splits or step.group.alone:
        return step
    if WHOLE not in step.shared:
        step.shared[WHOLE] = step.whole()
    return step.shared[WHOLE]


def logged_of(name: str, loss: Tensor, extra: Mapping[str, Tensor], group: Group) -> dict[str, Tensor]:
    """Return the numbers to log of a term, each the mean over the group, by name."""
    found = {f"losses/{name}": loss.detach()}
    found |= {f"metrics/{name}/{key}": value.detach() for key, value in extra.items()}
    if group.alone:
        return found
    means = group.mean(torch.stack([value.to(loss.device, torch.float64) for value in found.values()]))
    return {key: mean.to(value.dtype) for (key, value), mean in zip(found.items(), means, strict=True)}


def replace_keeping(step: Step, rng: torch.Generator, memory: dict[str, Tensor]) -> Step:
    """The step as one term sees it: its own random stream and memory, and x_hat if it was computed already."""
    own = replace(step, rng=rng, memory=memory)
    if "x_hat" in step.__dict__:
        own.__dict__["x_hat"] = step.__dict__["x_hat"]
    return own
