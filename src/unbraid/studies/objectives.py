"""Disentanglement objectives from the literature beside standard SAEs and controls, at matched sparsity.

Every term has a tenth of the reconstruction's gradient (`gradient_ratio`); nothing is tuned on any score. Terms that
demand nothing that disentanglement would are controls.
"""

from collections.abc import Mapping
from dataclasses import replace

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Member, Study, at_l0, of_methods
from unbraid.objective.objective import Objective, Term
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.world import presets
from unbraid.sources.world.world import World
from unbraid.studies.methods import ceilings, controls, standard
from unbraid.terms.causal.effect import Effect
from unbraid.terms.causal.functional_orthogonality import FunctionalOrthogonality
from unbraid.terms.causal.hessian import Hessian
from unbraid.terms.causal.orthogonal_jacobian import OrthogonalJacobian
from unbraid.terms.controls.masked import Masked
from unbraid.terms.controls.random_gradient import RandomGradient
from unbraid.terms.controls.weight_decay import WeightDecay
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.geometry.c2r import C2R
from unbraid.terms.geometry.fourth_power import FourthPower
from unbraid.terms.geometry.frame_potential import FramePotential
from unbraid.terms.geometry.local_ima import LocalIma
from unbraid.terms.geometry.meta_sae import MetaSAE
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.geometry.orthogonality_hinge import OrthogonalityHinge
from unbraid.terms.independence.correlation import Correlation
from unbraid.terms.independence.factor_vae import FactorVae
from unbraid.terms.independence.factorised_support import Support
from unbraid.terms.independence.hsic import Hsic
from unbraid.terms.independence.total_correlation import TotalCorrelation
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.terms.reconstruction.quantised import Quantised
from unbraid.terms.reconstruction.reconstruction import Reconstruction
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
    "weight-decay": WeightDecay(),
    "log-cosh": LogCosh(),
}


def member(term: Term, l0: int, *, control: bool = False) -> Member:
    """BatchTopK with AuxK and one term more. Terms of the decoder alone act from the first step."""
    penalties = {"asked": replace(term, gradient_ratio=RATIO), "aux_k": AuxK()}
    ramp = 0.0 if term.reads == ("decoder",) else 0.05
    objective = Objective(reconstruction=Reconstruction(), penalties=penalties, ramp=ramp)
    return Member(objective=objective, activation=BatchTopK(l0), control=control)


def asked(terms: Mapping[str, Term], l0: int, *, control: bool = False) -> dict[str, Member]:
    return at_l0(l0, {name: member(term, l0, control=control) for name, term in terms.items()})


def at(l0: int) -> dict[str, Member]:
    """Everything that a world can be asked, at an L0."""
    terms = GEOMETRY | INDEPENDENCE | MECHANISM | PAIRS
    plain = Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK()})
    baselines = of_methods(standard(l0), ("topk", "batchtopk", "matryoshka"))
    strict = {"blocks": Member(objective=plain, activation=BatchTopK(l0), orthonormal_blocks=BLOCK)}
    return (
        baselines | asked(terms, l0) | at_l0(l0, strict) | asked(NOT_CONTENDERS, l0, control=True) | some_controls(l0)
    )


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
    """The same terms on eight fair bits: how many latents stand for products of factors, with --d-sae 16, 64, 256."""
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
    nested = {
        "temporal-nested": replace(
            member(Temporal(), l0),
            objective=Objective(
                reconstruction=NestedReconstruction(shares=(0.2, 1.0)),
                penalties={"asked": Temporal(gradient_ratio=RATIO), "aux_k": AuxK()},
            ),
        )
    }
    baselines = of_methods(standard(l0), ("batchtopk", "matryoshka"))
    terms = (
        TIME
        | PAIRS
        | {name: GEOMETRY[name] for name in ("orthogonality",)}
        | {"correlation": INDEPENDENCE["correlation"]}
    )
    return Study(
        source=LanguageModel(text="language://6000", buffer_tokens=32_768),
        d_sae=512,
        training=Training(tokens=200_000, batch_size=1024, lr=2e-3, dead_after=50_000),
        members=baselines
        | asked(terms, l0)
        | at_l0(l0, nested)
        | asked({"masked": Masked()}, l0, control=True)
        | some_controls(l0),
    )
