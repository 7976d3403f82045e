"""On worlds whose factors, hierarchy and downstream map are known: seconds to minutes on a laptop."""

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.experiment.experiment import Experiment, Training
from unbraid.experiment.study import Member, Study, of_methods
from unbraid.objective.objective import Objective
from unbraid.sources.world import presets
from unbraid.sources.world.world import World
from unbraid.studies.methods import architectures, ceilings, controls, disentangling, standard
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.reconstruction.reconstruction import Reconstruction


def world() -> Experiment:
    """One BatchTopK SAE on a world of 256 factors in 64 dimensions: the place to try a term."""
    return Experiment(
        name="world-batchtopk",
        source=World(),
        objective=Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK()}),
        dictionary=DictionaryConfig(d_sae=256, activation=BatchTopK(8)),
        training=Training(tokens=1_000_000, batch_size=512, lr=3e-3, dead_after=50_000),
    )


DEMONSTRATED = (
    "relu", "batchtopk", "jumprelu", "matryoshka", "orthogonality", "effect",
    "frozen-decoder", "soft-frozen-decoder", "untrained", "pca",
)  # fmt: skip
"""Methods and controls of the demo."""


def demo_world() -> Study:
    """Half of `unbraid demo`: every method, controls and ceilings at the true L0 of a world of 96 factors."""
    source, chosen = presets.seconds(), standard(5) | disentangling(5) | controls(5)
    return Study(
        source=source,
        d_sae=source.factors,
        training=Training(tokens=300_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members=of_methods(chosen, DEMONSTRATED) | ceilings(),
    )


def facts() -> Study:
    """The field's known facts, to be found again: absorption, what Matryoshka does about it, F1 against --d-sae."""
    members: dict[str, Member] = standard(6) | ceilings()
    return Study(
        source=World(factors=128, d_in=64, l0=6.0, roots=16),
        d_sae=128,
        training=Training(tokens=400_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members={name: member for name, member in members.items() if member.method != "jumprelu"},
    )


def standard_saes() -> Study:
    """Every standard SAE there is on the demo's world, with controls and ceilings: which baseline is best?"""
    source = presets.seconds()
    return Study(
        source=source,
        d_sae=source.factors,
        training=Training(tokens=300_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members=standard(5) | architectures(5) | controls(5) | ceilings(),
    )


def realistic() -> Study:
    """Standard SAEs, controls and ceilings on a world with every dial on: hard, with room below the truth."""
    source = presets.realistic()
    return Study(
        source=source,
        d_sae=2 * source.factors,
        # At a batch of 512 as many tokens are too few steps where the spectrum is not flat (docs/worlds.md).
        training=Training(tokens=400_000, batch_size=128, lr=3e-3, dead_after=50_000),
        members=standard(8) | controls(8) | ceilings(),
    )
