"""The metric in which a penalty measures angles between atoms.

Where activations are whitened before training, atoms at right angles there write along directions that are at none in
the raw activations: products of atoms d, e are d' e in one metric and d' W^-1 W^-1' e in the other, W the whitening.
Where they are not whitened the two are one.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from unbraid.objective.objective import Step

Metric = Literal["trained", "raw"]


def atoms_in(metric: Metric, step: Step) -> Float[Tensor, "d_sae d_in"]:
    """Return all atoms, of unit norm and differentiable: as they are trained, or the directions they write along in
    raw activations."""
    atoms = step.dictionary.W_dec
    return atoms if metric == "trained" else step.directions(atoms)
