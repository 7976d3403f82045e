"""The controller that moves one penalty's weight until the mean L0 is the requested one (`objective.l0_control`)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.objective.l0_control import Control
from unbraid.objective.objective import Objective
from unbraid.system.devices import queued

NAME = "l0_control"


class L0Controller:
    """The state of the controller; for an objective without a `target_l0` it does nothing."""

    def __init__(self, objective: Objective, steps: int, device: str):
        """`device`: of training. On one that works off a queue the control is computed there, without the host."""
        self._objective, self._steps, self._queued = objective, steps, queued(device)
        where = device if self._queued else "cpu"
        self._memory = torch.tensor([torch.nan, 0.0], dtype=torch.float64, device=where)
        """The two numbers of a `Control`."""

    def scale(self) -> dict[str, float | Tensor]:
        """Return the factor of the weight of the penalty that is moved, by its name."""
        target = self._objective.target_l0
        if target is None:
            return {}
        signed = self._objective.penalties[target.penalty].signed
        factor = self._control().factor(target, signed)
        return {target.penalty: factor.float() if isinstance(factor, Tensor) else factor}

    def _control(self) -> Control:
        return Control(*(self._memory if self._queued else self._memory.tolist()))

    def update(self, l0: Tensor) -> None:
        """Take note of a step's mean L0."""
        target = self._objective.target_l0
        if target is not None:
            moved = self._control().moved(target, l0.double() if self._queued else float(l0), self._steps)
            self._memory.copy_(stacked(moved))

    def metrics(self, scale: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
        """Return what to log of a step: the target and the factors of weights."""
        target = self._objective.target_l0
        weights = {f"weights/{name}": torch.as_tensor(factor) for name, factor in scale.items()}
        return weights if target is None else {**weights, "metrics/l0_target": torch.tensor(target.l0)}

    def state(self) -> dict[str, Tensor]:
        return {NAME: self._memory}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._memory.copy_(tensors[NAME])


def stacked(control: Control) -> Float[Tensor, " 2"]:
    """Return the two numbers as one tensor, on the device they are on."""
    return torch.stack([torch.as_tensor(number, dtype=torch.float64) for number in control])
