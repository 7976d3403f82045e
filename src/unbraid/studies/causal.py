"""Objectives that look through downstream layers: effects rewarded, added up, kept apart, read back; with plain SAEs.

Every term has a tenth of the reconstruction's gradient (`gradient_ratio`); nothing is tuned on any score.
Interactions and the head are never used without a reward for effects but in `interaction`, which shows what they do
alone. `effect` comes first, so that the head learns from what it has measured.
"""

from collections.abc import Mapping
from dataclasses import replace

from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Member, Study, at_l0, of_methods, with_terms
from unbraid.objective.objective import Objective, Term
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.world.world import World
from unbraid.studies.methods import CONTROLS, STANDARD, ceilings, controls, standard
from unbraid.terms.causal.causal_head import CausalHead
from unbraid.terms.causal.downstream_reconstruction import DownstreamReconstruction
from unbraid.terms.causal.effect import Effect
from unbraid.terms.causal.effect_sketch import EffectSketch
from unbraid.terms.causal.functional_orthogonality import FunctionalOrthogonality
from unbraid.terms.causal.interaction import Interaction
from unbraid.terms.causal.melbo import MelboReward
from unbraid.terms.causal.readback import Readback
from unbraid.terms.controls.random_gradient import RandomGradient
from unbraid.terms.geometry.orthogonality_hinge import OrthogonalityHinge
from unbraid.terms.geometry.repulsion import Repulsion
from unbraid.terms.reconstruction.reconstruction import Reconstruction

RATIO = 0.1
"""Gradient of each added term, as a share of the reconstruction's."""
BLOCK = 16
"""Atoms that the strict form keeps orthonormal."""

REWARDS: dict[str, Mapping[str, Term]] = {
    "melbo": {"melbo": MelboReward()},
    "melbo-hinge": {"melbo": MelboReward(), "hinge": OrthogonalityHinge()},
    "sketch": {"sketch": EffectSketch()},
    "effect": {"effect": Effect()},
}
ADDED: dict[str, Mapping[str, Term]] = {
    "interaction": {"interaction": Interaction()},
    "effect-interaction": {"effect": Effect(), "interaction": Interaction()},
    "effect-head": {"effect": Effect(), "head": CausalHead()},
}
APART: dict[str, Mapping[str, Term]] = {
    "effect-repulsion": {"effect": Effect(), "repulsion": Repulsion()},
    "effect-functional": {"effect": Effect(), "functional": FunctionalOrthogonality()},
}
READ: dict[str, Mapping[str, Term]] = {
    "readback": {"readback": Readback()},
    "end-to-end": {"downstream": DownstreamReconstruction()},
}


def with_each(terms: Mapping[str, Mapping[str, Term]], *, blocks: int = 0, control: bool = False) -> dict[str, Member]:
    """BatchTopK with each of these groups of terms in turn."""
    base = replace(STANDARD["batchtopk"], orthonormal_blocks=blocks, control=control)
    ramp = base.objective.ramp
    return {name: with_terms(base, name, added, strength=RATIO, ramp=ramp) for name, added in terms.items()}


def contenders(l0: int) -> dict[str, Member]:
    """Every causal method at an L0."""
    blocks = with_each({"effect-blocks": REWARDS["effect"]}, blocks=BLOCK)
    return at_l0(l0, with_each(REWARDS | ADDED | APART | READ) | blocks)


def baselines(l0: int) -> dict[str, Member]:
    """Standard SAEs and controls: a random push, and a frozen random decoder, whose encoder may look downstream too."""
    plain = of_methods(standard(l0), ("batchtopk", "matryoshka"))
    untaught = of_methods(controls(l0), ("frozen-decoder", "untrained", "pca"))
    looking = Objective(
        reconstruction=Reconstruction(), penalties={"downstream": DownstreamReconstruction(gradient_ratio=RATIO)}
    )
    own = {
        **with_each({"random-gradient": {"push": RandomGradient()}}, control=True),
        "frozen-end-to-end": replace(CONTROLS["frozen-decoder"], objective=looking),
    }
    return plain | untaught | at_l0(l0, own)


def causal() -> Study:
    """Every causal term at three sparsities on a world with downstream layers; the truth of its effects is known."""
    members = {name: m for l0 in (2, 4, 8) for name, m in (baselines(l0) | contenders(l0)).items()}
    return Study(
        source=World(factors=96, d_in=48, l0=4.0, roots=12),
        d_sae=384,
        training=Training(tokens=200_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members=members | ceilings(),
    )


def causal_language() -> Study:
    """Every causal term at one sparsity on the embedded model, through its downstream layers."""
    return Study(
        source=LanguageModel(text="language://6000", buffer_tokens=32_768),
        d_sae=1024,
        training=Training(tokens=200_000, batch_size=1024, lr=2e-3, dead_after=50_000),
        members=baselines(8) | contenders(8),
    )
