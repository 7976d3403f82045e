"""Effects of single atoms that one term of a step has measured, for another to use: the passes are what costs."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from unbraid.objective.objective import Step


class Singles(NamedTuple):
    latents: Int[Tensor, " k"]
    effects: Float[Tensor, "k d_out"]
    """Pooled Delta° of each atom, differentiable."""
    radius: float


def share_singles(step: Step, measured: Singles) -> None:
    """Keep effects measured in this step for later terms; the last ones replace earlier ones."""
    step.shared["singles"] = measured


def singles(step: Step, radius: float) -> Singles | None:
    """The effects measured at this radius in this step; None when there are none."""
    found: Singles | None = step.shared.get("singles")
    return found if found is not None and found.radius == radius else None
