"""AdamW on the parameters of one dictionary: gradients clipped, learning rate by schedule, thresholds faster."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.experiment.experiment import Training
from unbraid.objective.weighted_sum import NotFinite, all_finite
from unbraid.training.resampling import forget
from unbraid.training.schedule import schedule, steps

PREFIX = "adam/"


class BadGradient(NotFinite):
    """A gradient is not finite; the parameters are as before the step."""


class Optimiser:
    """AdamW with the settings of a `Training`. Its state is the moments of every trained parameter."""

    def __init__(self, dictionary: Dictionary, training: Training):
        self._training, self._steps, self._shards = training, steps(training), dictionary.shards
        self._parameters = {n: p for n, p in dictionary.named_parameters() if p.requires_grad}
        # W_enc is a transposed view, of which the fused optimiser would copy the gradient every step: it is given the
        # same memory in the order it has.
        self.stored = {name: as_stored(parameter) for name, parameter in self._parameters.items()}
        thresholds = [p for name, p in self.stored.items() if name == "threshold"]
        others = [p for name, p in self.stored.items() if name != "threshold"]
        groups = [
            {"params": others, "peak": training.lr},
            {"params": thresholds, "peak": training.lr * training.threshold_lr},
        ]
        self.adam = torch.optim.AdamW(
            groups, lr=training.lr, betas=training.betas, weight_decay=training.weight_decay, fused=True
        )

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return self.adam.param_groups[0]["lr"]

    def take_gradients(self, finite: Callable[[Tensor], bool]) -> None:
        """Take the gradients over from the parameters. Raises BadGradient where their norm is not `finite`."""
        for name, parameter in self._parameters.items():
            self.stored[name].grad = None if parameter.grad is None else as_stored(parameter.grad)
            parameter.grad = None
        self._norm = self._gradient_norm(finite)

    def step(self, index: int, bad: Tensor | None) -> None:
        """Update the parameters by the gradients taken, which are used up. `bad`: a number on the device that is not 0
        when nothing is to be changed."""
        # The fused optimiser divides gradients by `grad_scale` as it reads them: clipping without a pass of its own.
        scale = (self._norm / self._training.clip).clamp_min(1.0)
        share = schedule(index, self._steps, self._training)
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * share
            self._fused_step(group, scale, bad)

    @torch.no_grad()
    def _fused_step(self, group: Mapping[str, Any], scale: Tensor, bad: Tensor | None) -> None:
        """The kernel that `AdamW.step` calls for parameters with gradients, and its count of steps. What that does
        around it, for optimisers of any kind, takes a tenth of a small step."""
        given = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not given:
            return
        states = [self._state(parameter) for parameter in given]
        counts = [state["step"] for state in states]
        torch._foreach_add_(counts, 1)  # pyright: ignore[reportPrivateImportUsage]
        torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
            given, [parameter.grad for parameter in given], [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states], [], counts, lr=group["lr"], beta1=group["betas"][0],
            beta2=group["betas"][1], weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False,
            maximize=False, grad_scale=scale, found_inf=bad,
        )  # fmt: skip
        if bad is not None:
            torch._foreach_sub_(counts, [bad] * len(counts))  # pyright: ignore[reportPrivateImportUsage]
        for parameter in given:
            parameter.grad = None

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The moments of a parameter, and the number of its steps, from its first step on."""
        state = self.adam.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state

    def _gradient_norm(self, finite: Callable[[Tensor], bool]) -> Tensor:
        grads = {name: p.grad for name, p in self.stored.items() if p.grad is not None}
        # Of processes with some latents each, all have b_dec's gradient, which counts once.
        own = {name: grad if name != "b_dec" or self._shards.leads else grad[:0] for name, grad in grads.items()}
        norms = torch.stack([torch.linalg.vector_norm(grad) for grad in own.values()])
        norm = torch.linalg.vector_norm(self._shards.joined(norms))
        if not finite(norm):
            bad = [name for name, grad in grads.items() if self._shards.any(not all_finite(grad))]
            raise BadGradient(f"the gradient of {', '.join(bad) or 'all parameters together'} is not finite")
        return norm

    def forget(self, latents: Int[Tensor, " restarted"]) -> None:
        """Zero the moments of these latents."""
        for name, stored in self.stored.items():
            if name != "b_dec":  # the one parameter without a row per latent
                forget(self.adam.state.get(stored, {}), latents)

    def state(self) -> dict[str, Tensor]:
        """Moments by name; empty before the first step."""
        return {
            f"{PREFIX}{name}/{key}": value
            for name, stored in self.stored.items()
            for key, value in self.adam.state.get(stored, {}).items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, stored in self.stored.items():
            prefix = f"{PREFIX}{name}/"
            saved = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            self.adam.state[stored] = {key: value.to(self._training.device) for key, value in saved.items()}


def as_stored(matrix: Tensor) -> Tensor:
    """Return the same memory, detached, in the order it has: the transpose of a transposed matrix."""
    return matrix.detach() if matrix.is_contiguous() else matrix.detach().t()
