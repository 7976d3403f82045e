"""Objectives that look through the layers after: effects rewarded, added up, kept apart, read back; beside plain SAEs.

Every term has a tenth of the reconstruction's gradient (`gradient_ratio`); nothing is tuned on any score.
Interactions and the head are never used without a reward for effects but in `interaction`, which shows what they do
alone. `effect` comes first, so that the head learns from what it has measured.
"""

from collections.abc import Mapping

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Member, Study, at_l0, of_methods
from unbraid.objective.objective import Objective, Term
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.world.world import World
from unbraid.studies.methods import ceilings, controls, standard
from unbraid.terms.causal.causal_head import CausalHead
from unbraid.terms.causal.downstream_reconstruction import DownstreamReconstruction
from unbraid.terms.causal.effect import Effect
from unbraid.terms.causal.effect_sketch import EffectSketch
from unbraid.terms.causal.functional_orthogonality import FunctionalOrthogonality
from unbraid.terms.causal.interaction import Interaction
from unbraid.terms.causal.melbo import MelboReward
from unbraid.terms.causal.readback import Readback
from unbraid.terms.controls.random_gradient import RandomGradient
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.geometry.orthogonality_hinge import OrthogonalityHinge
from unbraid.terms.geometry.repulsion import Repulsion
from unbraid.terms.reconstruction.reconstruction import Reconstruction

RATIO = 0.1
BLOCK = 16
"""Atoms that the strict form keeps orthonormal."""

REWARDS: dict[str, Mapping[str, Term]] = {
    "melbo": {"melbo": MelboReward(gradient_ratio=RATIO)},
    "melbo-hinge": {
        "melbo": MelboReward(gradient_ratio=RATIO),
        "hinge": OrthogonalityHinge(gradient_ratio=RATIO),
    },
    "sketch": {"sketch": EffectSketch(gradient_ratio=RATIO)},
    "effect": {"effect": Effect(gradient_ratio=RATIO)},
}
ADDED: dict[str, Mapping[str, Term]] = {
    "interaction": {"interaction": Interaction(gradient_ratio=RATIO)},
    "effect-interaction": {
        "effect": Effect(gradient_ratio=RATIO),
        "interaction": Interaction(gradient_ratio=RATIO),
    },
    "effect-head": {"effect": Effect(gradient_ratio=RATIO), "head": CausalHead(gradient_ratio=RATIO)},
}
APART: dict[str, Mapping[str, Term]] = {
    "effect-repulsion": {
        "effect": Effect(gradient_ratio=RATIO),
        "repulsion": Repulsion(gradient_ratio=RATIO),
    },
    "effect-functional": {
        "effect": Effect(gradient_ratio=RATIO),
        "functional": FunctionalOrthogonality(gradient_ratio=RATIO),
    },
}
READ: dict[str, Mapping[str, Term]] = {
    "readback": {"readback": Readback(gradient_ratio=RATIO)},
    "end-to-end": {"downstream": DownstreamReconstruction(gradient_ratio=RATIO)},
}


def member(terms: Mapping[str, Term], l0: int, *, blocks: int = 0, control: bool = False) -> Member:
    """BatchTopK with AuxK and these terms."""
    objective = Objective(reconstruction=Reconstruction(), penalties={**terms, "aux_k": AuxK()})
    return Member(objective=objective, activation=BatchTopK(l0), orthonormal_blocks=blocks, control=control)


def asked(l0: int) -> dict[str, Member]:
    """Every contender at an L0."""
    found = {name: member(terms, l0) for name, terms in (REWARDS | ADDED | APART | READ).items()}
    return at_l0(l0, found | {"effect-blocks": member(REWARDS["effect"], l0, blocks=BLOCK)})


def beside(l0: int) -> dict[str, Member]:
    """Standard SAEs and controls: a random push, and a frozen random decoder, whose encoder may look downstream too."""
    baselines = of_methods(standard(l0), ("batchtopk", "matryoshka"))
    plain = of_methods(controls(l0), ("frozen-decoder", "untrained", "pca"))
    looking = Objective(reconstruction=Reconstruction(), penalties=READ["end-to-end"])
    own = {
        "random-gradient": member({"push": RandomGradient(gradient_ratio=RATIO)}, l0, control=True),
        "frozen-end-to-end": Member(objective=looking, activation=BatchTopK(l0), frozen=("W_dec",), control=True),
    }
    return baselines | plain | at_l0(l0, own)


def causal() -> Study:
    """Every causal term at three sparsities on a world with layers after it; the truth of its effects is known."""
    members = {name: m for l0 in (2, 4, 8) for name, m in (beside(l0) | asked(l0)).items()}
    return Study(
        source=World(factors=96, d_in=48, l0=4.0, roots=12),
        d_sae=384,
        training=Training(tokens=200_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members=members | ceilings(),
    )


def causal_language() -> Study:
    """The same on the embedded model, through the layers that follow."""
    return Study(
        source=LanguageModel(text="language://6000", buffer_tokens=32_768),
        d_sae=512,
        training=Training(tokens=200_000, batch_size=1024, lr=2e-3, dead_after=50_000),
        members=beside(8) | asked(8),
    )
