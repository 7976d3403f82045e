"""The controller that moves one penalty's weight until the mean L0 is the requested one (`objective.l0_control`)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unbraid.objective.l0_control import Control
from unbraid.objective.objective import Objective

NAME = "l0_control"


class L0Controller:
    """The state of the controller; for an objective without a `target_l0` it does nothing."""

    def __init__(self, objective: Objective, steps: int):
        self._objective, self._steps = objective, steps
        self._memory = torch.tensor([torch.nan, 0.0], dtype=torch.float64)
        """The two numbers of a `Control`."""

    def scale(self) -> dict[str, float]:
        """Return the factor of the weight of the penalty that is moved, by its name."""
        target = self._objective.target_l0
        if target is None:
            return {}
        signed = self._objective.penalties[target.penalty].signed
        return {target.penalty: Control.of(self._memory).factor(target, signed)}

    def update(self, l0: Tensor) -> None:
        """Take note of a step's mean L0."""
        target = self._objective.target_l0
        if target is not None:
            moved = Control.of(self._memory).moved(target, float(l0), self._steps)
            self._memory.copy_(torch.tensor(moved, dtype=torch.float64))

    def metrics(self, scale: Mapping[str, float]) -> dict[str, Tensor]:
        """Return what to log of a step: the target and the factors of weights."""
        target = self._objective.target_l0
        weights = {f"weights/{name}": torch.tensor(factor) for name, factor in scale.items()}
        return weights if target is None else {**weights, "metrics/l0_target": torch.tensor(target.l0)}

    def state(self) -> dict[str, Tensor]:
        return {NAME: self._memory}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self._memory.copy_(tensors[NAME])
