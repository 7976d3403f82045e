"""Factorial studies: bases x geometries x terms, tuned on seeds of their own, on worlds that each seed draws anew.

`unbraid study NAME --calibrate` trains and scores what settings are chosen from, `unbraid study NAME` the test.
"""

from collections.abc import Mapping
from dataclasses import replace

from unbraid.dictionary.activations.relu import ReLU
from unbraid.experiment.experiment import Training
from unbraid.experiment.factorial import Factorial, Geometry
from unbraid.experiment.study import Member
from unbraid.objective.objective import Objective, Term
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.synth import Synth
from unbraid.sources.world import presets
from unbraid.sources.world.world import World
from unbraid.studies.methods import AUX, CONTROLS, STANDARD, ceilings
from unbraid.studies.objectives import GEOMETRY, INDEPENDENCE, MECHANISM, PAIRS
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.l1 import L1

BASES = {name: STANDARD[name] for name in ("batchtopk", "matryoshka", "jumprelu")}
CONTROL = {"untrained": CONTROLS["untrained"], **ceilings()}
FAMILIES = (
    "orthogonality",
    "local-ima",
    "hsic",
    "total-correlation",
    "support",
    "functional",
    "effect",
    "invariance-ada",
)
"""Two terms or one of each family: atoms, codes, effects downstream, minimal pairs."""
BOTH: tuple[Geometry, ...] = ("raw", "whitened")
FEW = ("orthogonality", "total-correlation", "effect", "invariance-ada")
"""One term of each family."""


def terms(*names: str) -> dict[str, Mapping[str, Term]]:
    """Terms of the objectives' study, each added alone."""
    known = GEOMETRY | INDEPENDENCE | MECHANISM | PAIRS
    return {name: {name: known[name]} for name in names}


def forest() -> Factorial:
    """Three bases and eight terms in two geometries on worlds of 96 factors in a forest, a world a seed."""
    return Factorial(
        source=World(factors=96, d_in=48, l0=4.0, roots=12),
        d_sae=192,
        training=Training(tokens=2_000_000, batch_size=512, lr=3e-3, dead_after=50_000),  # 10,000 tokens a latent
        bases=BASES,
        terms=terms(*FAMILIES),
        geometries=BOTH,
        sparsities=(2, 4, 8),
        tuning_sparsities=(4,),
        controls=CONTROL,
    )


def twin() -> Factorial:
    """The forest's study where factors are independent: what co-occurrence has to do with its results."""
    study = forest()
    assert isinstance(study.source, World)
    return replace(study, source=study.source.twin())


def vectors() -> Factorial:
    """Two bases and three terms in two geometries at three sparsities on the same worlds: three hours on a core."""
    return replace(
        forest(),
        training=Training(tokens=2_000_000, batch_size=2048, lr=3e-3, dead_after=50_000),  # 10,000 tokens a latent
        bases={name: BASES[name] for name in ("batchtopk", "matryoshka")},
        terms=terms("orthogonality", "total-correlation", "invariance-ada"),
        geometries=BOTH,
    )


def synth_bases() -> Factorial:
    """Three bases in two geometries on SAELens's synthetic model, a thirty-second of SynthSAEBench's factors."""
    return Factorial(
        source=Synth(),
        d_sae=128,
        training=Training(tokens=1_000_000, batch_size=512, lr=3e-3, dead_after=50_000),
        bases=BASES,
        geometries=BOTH,
        sparsities=(4,),
        controls=CONTROL,
    )


def realistic_forest() -> Factorial:
    """The forest's study on worlds like activations of language models: anisotropic, dense, heavy-tailed, curved."""
    return replace(
        forest(), source=presets.realistic(), d_sae=512, sparsities=(4, 8, 16), tuning_sparsities=(8,),
    )  # fmt: skip


def small_world() -> Factorial:
    """Two bases and two terms at one sparsity on the demo's world: a factorial study in minutes."""
    return Factorial(
        source=presets.seconds(),
        d_sae=96,
        training=Training(tokens=100_000, batch_size=512, lr=3e-3, dead_after=50_000),
        bases={name: BASES[name] for name in ("batchtopk", "matryoshka")},
        terms=terms("orthogonality", "total-correlation"),
        sparsities=(5,),
        controls=CONTROL,
    )


def width() -> Factorial:
    """From as many latents as factors to 64 times as many: what becomes of bases and terms as dictionaries grow."""
    factors = 24  # few, so that 64 times as many latents still get 1,300 tokens each
    return Factorial(
        source=World(factors=factors, d_in=12, l0=2.0, roots=3, interactions=8),
        d_sae=4 * factors,
        widths=tuple(factors * 4**power for power in range(4)),
        training=Training(tokens=2_000_000, batch_size=512, lr=3e-3, dead_after=50_000),
        bases={name: kept_alive(STANDARD[name]) for name in ("batchtopk", "topk", "matryoshka", "relu")},
        terms=terms(*FEW),
        sparsities=(2,),
        controls=CONTROL,
    )


def kept_alive(base: Member) -> Member:
    """A base whose AuxK weighs 1: at 1/32 nine of ten latents die where there are 16 times as many as factors."""
    penalties = {**base.objective.penalties, "aux_k": AuxK(weight=1.0)}
    return replace(base, objective=replace(base.objective, penalties=penalties))


def without_sparsity() -> Factorial:
    """Disentanglement instead of sparsity: ReLU SAEs with one term of each family as the weight of L1 falls to 0."""
    # An L0 target of 4, what is active in these worlds, moves the weight to 1.9 on two of them (2.04, 1.74).
    objective = Objective(reconstruction=Reconstruction(), penalties={"sparsity": L1(weight=1.9), **AUX})
    return replace(
        forest(),
        geometries=("raw",),
        bases={"relu": Member(objective=objective, activation=ReLU())},
        terms=terms(
            "orthogonality", "correlation", "effect", "invariance-ada"
        ),  # total correlation is slow in dense codes
        sparsities=(),
        tuning_sparsities=(),
        sparsity_weights=(0.0, 0.1, 0.3, 1.0),
    )


def language() -> Factorial:
    """Three bases and eight terms in two geometries at three sparsities on the embedded language model."""
    return Factorial(
        source=LanguageModel(text="language://8000", buffer_tokens=32_768),
        d_sae=1024,
        training=Training(tokens=400_000, batch_size=1024, lr=2e-3, dead_after=50_000),
        bases=BASES,
        terms=terms(*FAMILIES),
        geometries=BOTH,
        sparsities=(4, 8, 16),
        tuning_sparsities=(8,),
        controls={"untrained": CONTROLS["untrained"], "probes": ceilings()["probes"]},
    )
