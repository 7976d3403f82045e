"""Hedging: do atoms mix correlated factors that a wider dictionary separates? Measured when a dictionary is widened.

    rate = (p - b) / (1 - b),   p = mean over old atoms of |projection of (wider - narrower) on the span of new atoms|,
    b = the same projection expected on the span of as many random vectors

A narrow dictionary mixes correlated factors it has no latents for into those it has; given latents for them, it takes
the mixture out again, along the new atoms (Chanin et al. 2025, arXiv 2505.11756). Atoms are unit vectors, so p and b
are shares of an atom. Unlike in their code, b is exact and a negative rate stays negative.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import gammaln
from torch import Tensor

from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.formats.widen import Extension
from unbraid.runs.run import Run
from unbraid.runs.widths import other_widths, width

VERSION = 1
DEFINITIONS = {
    "hedging": "share of an old atom that leaves along the new atoms when the dictionary is widened, beyond what as "
    "many random atoms would span; against=start: compared with the dictionary that was widened; against=control: with "
    "that one trained as long without new latents, if there is such a run in the same folder; 0 by chance, NaN when "
    "the new atoms span all dimensions",
}


def hedging(run: Run, controls: Sequence[Run]) -> list[Score]:
    """Score a widened run. Raises NotApplicable for all others."""
    start = started_from(run)
    wider, narrower = run.dictionary().unit_atoms(), start.start().unit_atoms()
    if len(narrower) == len(wider):
        raise NotApplicable("this run adds no latents to the dictionary it started from: it is the control")
    old, added = wider[: len(narrower)], wider[len(narrower) :]
    compared = [("start", narrower), *(("control", control.dictionary().unit_atoms()) for control in controls)]
    return [
        Score(metric="hedging", value=rate(old - atoms, added), better="lower", params={"against": against})
        for against, atoms in compared
    ]


def peers(run: Run) -> list[Run]:
    """Return the run that started from the same dictionary and added no latents, if there is one."""
    if not isinstance(run.experiment.dictionary.init, Extension):
        return []
    known = started_from(run).start().d_sae
    return [other for other in other_widths(run) if width(other) == known][:1]


def started_from(run: Run) -> Extension:
    """Return the initialisation of a widened run. Raises NotApplicable for all others."""
    init = run.experiment.dictionary.init
    if not isinstance(init, Extension):
        raise NotApplicable("hedging is measured on runs that widen a trained dictionary (init: Extension)")
    return init


def rate(change: Float[Tensor, "old d_in"], added: Float[Tensor, "new d_in"]) -> float:
    """Return the hedging rate of a change of unit atoms when others are added."""
    lengths = torch.linalg.vector_norm(change.double(), dim=1)
    _, sizes, directions = torch.linalg.svd(added.double(), full_matrices=False)
    span = directions[sizes > 1e-6 * sizes.max()]
    dimensions, d_in = span.shape
    if dimensions == d_in:
        return float("nan")
    along = torch.linalg.vector_norm(change.double() @ span.T, dim=1).mean()
    expected = lengths.mean() * expected_projection(dimensions, d_in)
    return float((along - expected) / (1 - expected))


def expected_projection(dimensions: int, d_in: int) -> float:
    """Return the mean length of a unit vector's projection on a random subspace: the root of Beta(k/2, (d - k)/2)."""
    k, d = dimensions / 2, d_in / 2
    return float(np.exp(gammaln(k + 0.5) - gammaln(k) + gammaln(d) - gammaln(d + 0.5)))
