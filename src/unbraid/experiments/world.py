"""On worlds whose factors, hierarchy and downstream map are known: seconds to minutes on a laptop."""

from unbraid.activation import BatchTopK
from unbraid.dictionary import DictionaryConfig
from unbraid.experiment import Experiment, Training
from unbraid.experiments.methods import compared
from unbraid.objective import Objective
from unbraid.sources.world import World
from unbraid.sweep import Study
from unbraid.terms.aux_k import AuxK
from unbraid.terms.reconstruction import Reconstruction

SMALL = World(factors=96, d_in=32, l0=5.0, roots=12, depth=2)
"""96 factors in 32 dimensions: a forest of 84 and 12 on their own, 5 active at a time."""


def world() -> Experiment:
    """One BatchTopK SAE on a world of 256 factors in 64 dimensions: the place to try a term."""
    return Experiment(
        name="world-batchtopk-l0_8",
        source=World(),
        objective=Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK()}),
        dictionary=DictionaryConfig(d_sae=256, activation=BatchTopK(8)),
        training=Training(tokens=1_000_000, batch_size=512, lr=3e-3, dead_after=50_000),
    )


def demo() -> Study:
    """What `unbraid demo` runs: every method at the true L0 and at twice it, three seeds, controls, a small world."""
    return Study(
        source=SMALL,
        d_sae=SMALL.factors,
        training=Training(tokens=400_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members=compared((5, 10)),
    )
