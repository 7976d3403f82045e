"""Description length, selected and trained: a grid of widths (--d-sae) and sparsities on a world of 48 factors."""

import math

from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Member, Study, at_l0, of_methods
from unbraid.objective.objective import Objective
from unbraid.sources.world.world import World
from unbraid.studies.methods import ceilings, controlled, standard
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.description_length import DescriptionLength

SPARSITIES = (2, 4, 8)
"""Half, once and twice the factors that are active at a time."""
WEIGHTS = (0.1, 0.3, 0.9)
"""Squared error (of activations with unit mean square) that a bit is worth."""


def trained(weight: float, *, tree: bool = False) -> Member:
    """JumpReLU whose only sparsity is its description length, rounded as is best at that price of a bit."""
    bits = DescriptionLength(weight=weight, step=math.sqrt(6 * weight / math.log(2)), tree=tree)
    objective = Objective(reconstruction=Reconstruction(), penalties={"bits": bits, "aux_k": AuxK()})
    return Member(objective=objective, activation=JumpReLU())


def shortest(l0: int) -> dict[str, Member]:
    """JumpReLU whose only sparsity is its description length, at an L0: the price of a bit is what gives that L0."""
    return at_l0(l0, {"mdl": controlled(JumpReLU(), {"sparsity": DescriptionLength()})})


def selected() -> dict[str, Member]:
    """Standard SAEs to select from."""
    members = {name: member for l0 in SPARSITIES for name, member in standard(l0).items()}
    return of_methods(members, ("batchtopk", "jumprelu"))


def mdl() -> Study:
    """Is the shortest description as wide as there are factors (--d-sae 24, 36, 48, 72, 144), and does training by it
    shorten it further?"""
    by_term = {f"mdl-{weight}": trained(weight) for weight in WEIGHTS} | {"mdl-tree-0.3": trained(0.3, tree=True)}
    return Study(
        source=World(factors=48, d_in=40, l0=4.0, roots=6),
        d_sae=48,
        training=Training(tokens=150_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members=selected() | by_term | {"truth": ceilings()["truth"]},
    )
