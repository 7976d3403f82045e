"""The radius of one training step, given or calibrated once, and pushes of that size."""

from jaxtyping import Float
from torch import Tensor

from unbraid.effects.curvature import Pushed, random_pushes
from unbraid.effects.radius import random_units, remembered_radius
from unbraid.objective.objective import Step


def step_radius(step: Step, given: float) -> float:
    """Return the radius, given or calibrated at the term's first step: on the same contexts it is the same for all
    terms, so what they measure at it they can share."""
    return remembered_radius(step.contexts(), given=given, memory=step.memory)


def probe_pushes(step: Step, count: int, radius: float, *, first: bool) -> Float[Tensor, "probe d_in"]:
    """Return pushes of this size in random directions, by which a term knows what an effect is worth; eight times as
    many the `first` time, for a moving average to start from."""
    directions = random_units(8 * count if first else count, step.dictionary.d_in, step.rng)
    return radius * directions.to(step.dictionary.W_dec)


def step_pushes(step: Step, columns: int, samples: int, radius: float) -> Pushed | None:
    """Random pushes along `columns` living atoms, `samples` of them; None where fewer than two atoms live."""
    atoms = step.directions(step.sampled_atoms(columns))
    if len(atoms) < 2:
        return None
    return random_pushes(step.contexts(), atoms, samples, radius=radius, memory=step.memory, rng=step.rng)
