"""The product's own step: `Learner.step`, as `unbraid train` calls it."""

import torch
from torch import Tensor

from benchmarks.contender import BANDWIDTH, LEARNING_RATE, SHARES, Contender, Setting
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.experiment.experiment import Experiment, Training
from unbraid.objective.objective import Objective, Term
from unbraid.objective.step_data import ExtraInputs
from unbraid.sources.base import Batch
from unbraid.sources.world.world import World
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.l0 import L0
from unbraid.terms.sparsity.l1 import L1
from unbraid.training.learner import Learner

STEPS = 100_000


def build(setting: Setting, *, bfloat16: bool = False) -> Contender:
    learner = Learner(experiment(setting, bfloat16=bfloat16), sample(setting))
    dictionary = learner.dictionary
    if setting.bench in ("relu", "jumprelu"):
        with torch.no_grad():
            dictionary.W_dec.copy_(setting.atoms())
            dictionary.W_enc.copy_(dictionary.W_dec.T)
            dictionary.b_dec.zero_()
            if setting.bench == "relu":
                dictionary.b_enc.fill_(-setting.threshold)
            else:
                dictionary.threshold.fill_(setting.threshold)

    def step(index: int, x: Tensor) -> None:
        if setting.dead:
            learner.dead_latents.since_fired[: setting.dead_latents] = 10**9
        nowhere = torch.full((len(x),), -1)
        learner.step(Batch(x, nowhere, nowhere, nowhere), index, ExtraInputs(learner.experiment.source, 0, index))

    active = lambda x: dictionary.codes(x, "dense").dense()
    return Contender(step, list(dictionary.parameters()), learner.optimiser.adam, active)


def build_bfloat16(setting: Setting) -> Contender:
    """The same with the encoder product in bfloat16 (`--training.matmul bfloat16`)."""
    return build(setting, bfloat16=True)


def sample(setting: Setting) -> Tensor:
    return torch.randn(2 * setting.d_in, setting.d_in, generator=torch.Generator().manual_seed(1))


def experiment(setting: Setting, *, bfloat16: bool = False) -> Experiment:
    activations: dict[str, Activation] = {
        "topk": TopK(setting.k),
        "batchtopk": BatchTopK(setting.k),
        "matryoshka": BatchTopK(setting.k),
        "jumprelu": JumpReLU(bandwidth=BANDWIDTH),
        "relu": ReLU(),
    }
    # The others' TopK family also runs its auxiliary loss, which costs them nothing while no latent is dead.
    penalties: dict[str, Term] = {"jumprelu": {"sparsity": L0()}, "relu": {"sparsity": L1()}}.get(
        setting.bench, {"aux_k": AuxK()}
    )
    cumulated = tuple(sum(SHARES[: level + 1]) for level in range(len(SHARES)))
    nested = NestedReconstruction(shares=cumulated)
    return Experiment(
        name=setting.bench,
        source=World(d_in=setting.d_in),
        objective=Objective(
            reconstruction=nested if setting.bench == "matryoshka" else Reconstruction(), penalties=penalties, ramp=0.0
        ),
        dictionary=DictionaryConfig(d_sae=setting.d_sae, activation=activations[setting.bench]),
        training=Training(
            tokens=STEPS * setting.batch,
            batch_size=setting.batch,
            lr=LEARNING_RATE,
            warmup=0.0,
            normalise="none",  # the normaliser still runs, with mean 0 and scale 1: the data come standardised
            matmul="bfloat16" if bfloat16 else "float32",
        ),
    )
