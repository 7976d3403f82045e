"""The smallest real experiments the tests train: a world of a few factors, a few steps."""

from dataclasses import replace

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.experiment.experiment import Experiment, Training
from unbraid.objective.objective import Objective, Term
from unbraid.sources.world.world import World
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.reconstruction.reconstruction import Reconstruction

THREE = BatchTopK(3)
WORLD = World(factors=48, d_in=16, l0=3.0, roots=8, branching=2, depth=1, block_rows=1024)


def experiment(
    name: str = "small", *, activation: Activation = THREE, tokens: int = 6400, **penalties: Term
) -> Experiment:
    """40 steps of 160 tokens; blocks of 1,024 rows do not divide by the batch, so rows carry over. All seeds share a
    stream."""
    return Experiment(
        name=name,
        source=WORLD,
        objective=Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK(), **penalties}),
        dictionary=DictionaryConfig(d_sae=64, activation=activation),
        training=Training(tokens=tokens, batch_size=160, dead_after=1600, data_seed=0),
    )


def seeded(base: Experiment, seed: int) -> Experiment:
    return replace(base, seed=seed)
