"""Disentanglement objectives from the literature with standard SAEs and controls, at matched sparsity.

Every term has a tenth of the reconstruction's gradient (`gradient_ratio`); nothing is tuned on any score. Terms that
demand nothing that disentanglement would are controls.
"""

from collections.abc import Mapping
from dataclasses import replace

from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Member, Study, at_l0, of_methods, with_terms
from unbraid.objective.objective import Term
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.world import presets
from unbraid.sources.world.world import World
from unbraid.studies.methods import STANDARD, ceilings, controls, standard, temporal
from unbraid.terms.causal.effect import Effect
from unbraid.terms.causal.functional_orthogonality import FunctionalOrthogonality
from unbraid.terms.causal.hessian import Hessian
from unbraid.terms.causal.jacobian_l1 import JacobianL1
from unbraid.terms.causal.orthogonal_jacobian import OrthogonalJacobian
from unbraid.terms.controls.masked import Masked
from unbraid.terms.controls.random_gradient import RandomGradient
from unbraid.terms.geometry.c2r import C2R
from unbraid.terms.geometry.fourth_power import FourthPower
from unbraid.terms.geometry.frame_potential import FramePotential
from unbraid.terms.geometry.local_ima import LocalIma
from unbraid.terms.geometry.meta_sae import MetaSAE
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.geometry.orthogonality_hinge import OrthogonalityHinge
from unbraid.terms.geometry.weight_decay import WeightDecay
from unbraid.terms.independence.correlation import Correlation
from unbraid.terms.independence.factor_vae import FactorVae
from unbraid.terms.independence.factorised_support import Support
from unbraid.terms.independence.hsic import Hsic
from unbraid.terms.independence.total_correlation import TotalCorrelation
from unbraid.terms.reconstruction.quantised import Quantised
from unbraid.terms.sparsity.gate_kl import GateKl
from unbraid.terms.sparsity.log_cosh import LogCosh
from unbraid.terms.weak_supervision.invariance import Invariance
from unbraid.terms.weak_supervision.redundancy import Redundancy
from unbraid.terms.weak_supervision.slowness import Slowness
from unbraid.terms.weak_supervision.temporal import Temporal

RATIO = 0.1
SPARSITIES = (2, 4, 8)
"""Half, once and twice the factors that are active at a time."""
BLOCK = 16
"""Atoms that the strict form keeps orthonormal."""

GEOMETRY: dict[str, Term] = {
    "orthogonality": Orthogonality(),
    "orthogonality-hinge": OrthogonalityHinge(),
    "fourth-power": FourthPower(),
    "frame-potential": FramePotential(),
    "c2r-sum": C2R(form="sum"),
    "c2r-coactivation": C2R(form="coactivation"),
    "meta-sae": MetaSAE(),
    "local-ima": LocalIma(),
    "weight-decay": WeightDecay(),
}
INDEPENDENCE: dict[str, Term] = {
    "correlation": Correlation(),
    "hsic": Hsic(),
    "total-correlation": TotalCorrelation(),
    "support": Support(),
    "factor-vae": FactorVae(),
    "gate-kl": GateKl(),
    "quantised": Quantised(),
}
MECHANISM: dict[str, Term] = {
    "functional": FunctionalOrthogonality(),
    "functional-apart": FunctionalOrthogonality(neighbours=False),
    "hessian": Hessian(),
    "jacobian": OrthogonalJacobian(),
    "jacobian-l1": JacobianL1(),
    "effect": Effect(),
}
PAIRS: dict[str, Term] = {"invariance-ada": Invariance(form="ada"), "invariance-l1": Invariance(form="l1")}
TIME: dict[str, Term] = {
    "temporal": Temporal(),
    "slowness": Slowness(),
    "barlow": Redundancy(form="barlow"),
    "vicreg": Redundancy(form="vicreg"),
}
NOT_CONTENDERS: dict[str, Term] = {
    "random-gradient": RandomGradient(),
    "masked": Masked(),
    "log-cosh": LogCosh(),
}


def with_each(terms: Mapping[str, Term], l0: int, *, control: bool = False) -> dict[str, Member]:
    """BatchTopK with each of these terms in turn, at an L0."""
    base = replace(STANDARD["batchtopk"], control=control)
    return at_l0(l0, {name: with_terms(base, name, {name: term}, strength=RATIO) for name, term in terms.items()})


def at(l0: int) -> dict[str, Member]:
    """Every method that a world allows, at an L0."""
    baselines = of_methods(standard(l0), ("topk", "batchtopk", "matryoshka"))
    strict = {"blocks": replace(STANDARD["batchtopk"], orthonormal_blocks=BLOCK, base="batchtopk", term="blocks")}
    terms = with_each(GEOMETRY | INDEPENDENCE | MECHANISM | PAIRS, l0)
    return baselines | terms | at_l0(l0, strict) | with_each(NOT_CONTENDERS, l0, control=True) | some_controls(l0)


def some_controls(l0: int) -> dict[str, Member]:
    return of_methods(controls(l0), ("frozen-decoder", "untrained", "pca"))


def objectives() -> Study:
    """Every disentangling term at three sparsities, on a world of 96 factors or (--source.independent) on its twin."""
    members = {name: member for l0 in SPARSITIES for name, member in at(l0).items()}
    return Study(
        source=World(factors=96, d_in=48, l0=4.0, roots=12),
        d_sae=384,
        training=Training(tokens=200_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members=members | ceilings(),
    )


def objectives_memorisation() -> Study:
    """Every disentangling term on eight fair bits: how many latents represent products, with --d-sae 16, 64, 256."""
    members = {name: member for l0 in (2, 4) for name, member in at(l0).items()}
    return Study(
        source=presets.memorisation(),
        d_sae=64,
        training=Training(tokens=200_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members=members,
    )


def objectives_language() -> Study:
    """Terms that need documents or minimal pairs of text, on the embedded model."""
    l0 = 8
    baselines = of_methods(standard(l0), ("batchtopk", "matryoshka"))
    terms = (
        TIME
        | PAIRS
        | {name: GEOMETRY[name] for name in ("orthogonality",)}
        | {"correlation": INDEPENDENCE["correlation"]}
    )
    return Study(
        source=LanguageModel(text="language://6000", buffer_tokens=32_768),
        d_sae=1024,
        training=Training(tokens=200_000, batch_size=1024, lr=2e-3, dead_after=50_000),
        members=baselines
        | with_each(terms, l0)
        | of_methods(temporal(l0), ("temporal-nested",))
        | with_each({"masked": Masked()}, l0, control=True)
        | some_controls(l0),
    )
