"""The methods a study compares, at given sparsities: standard SAEs, disentangling terms, controls, ceilings.

Penalty weights make their gradient on the atoms, averaged over steps, about a fifth of the reconstruction's on the
demo's world after a quarter of training (docs/log.md has the measurement); they are not tuned on any score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.gated import Gated
from unbraid.dictionary.activations.ista import IstaBatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.baselines import Centroids, RandomPairs
from unbraid.dictionary.from_truth import SupervisedProbes, TrueDirections
from unbraid.dictionary.initialisation import PrincipalComponents
from unbraid.dictionary.interchange_directions import InterchangeDirections
from unbraid.dictionary.linear_bases import IndependentComponents, Neurons, RandomBasis
from unbraid.experiment.study import Member, at_l0, with_terms
from unbraid.objective.objective import Objective, TargetL0, Term
from unbraid.terms.causal.effect import Effect
from unbraid.terms.causal.next_token_kl import NextTokenKl
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.dead_latents.pre_activation import PreActivation
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.geometry.weight_decay import WeightDecay
from unbraid.terms.reconstruction.gate_reconstruction import GateReconstruction
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.reconstruction.sampled_prefixes import SampledPrefixes
from unbraid.terms.sparsity.frequency import Frequency
from unbraid.terms.sparsity.gate_l1 import GateL1
from unbraid.terms.sparsity.l0 import L0
from unbraid.terms.sparsity.l1 import L1
from unbraid.terms.sparsity.lp import Lp
from unbraid.terms.sparsity.p_annealing import PAnnealing
from unbraid.terms.sparsity.quadratic_l0 import QuadraticL0
from unbraid.terms.sparsity.tanh import Tanh
from unbraid.terms.weak_supervision.temporal import Temporal

AUX = {"aux_k": AuxK()}
PLAIN = Objective(reconstruction=Reconstruction())
TRAINED = Objective(reconstruction=Reconstruction(), penalties=AUX)
K = 32
"""Active latents of the methods below until `at_l0` asks for others."""


def controlled(activation: Activation, penalties: Mapping[str, Term]) -> Member:
    """A method whose L0 is reached by moving the weight of its penalty called sparsity."""
    control = TargetL0(l0=float(K), penalty="sparsity")
    objective = Objective(reconstruction=Reconstruction(), penalties={**penalties, **AUX}, target_l0=control)
    return Member(objective=objective, activation=activation)


def reconstructing(activation: Activation, reconstruction: Term) -> Member:
    """A method whose activation sets its L0."""
    return Member(objective=Objective(reconstruction=reconstruction, penalties=AUX), activation=activation)


def as_bases(members: Mapping[str, Member]) -> dict[str, Member]:
    """Members that say of themselves that a term may be added to them, by name."""
    return {name: replace(member, base=name) for name, member in members.items()}


STANDARD = as_bases({
    "relu": controlled(ReLU(), {"sparsity": L1()}),
    "topk": reconstructing(TopK(K), Reconstruction()),
    "batchtopk": reconstructing(BatchTopK(K), Reconstruction()),
    "jumprelu": controlled(JumpReLU(), {"sparsity": L0()}),
    "matryoshka": reconstructing(BatchTopK(K), NestedReconstruction()),
})  # fmt: skip
"""Plain sparsity: ReLU + L1, TopK, BatchTopK, JumpReLU + L0, and Matryoshka."""

ARCHITECTURES = as_bases({
    "sqrt": controlled(ReLU(), {"sparsity": Lp(p=0.5)}),
    # p is done before the learning rate falls, so that the L0 target still has time.
    "p-annealing": controlled(ReLU(), {"sparsity": PAnnealing(end=0.8)}),
    "tanh": controlled(JumpReLU(), {"sparsity": Tanh(), "pre_activation": PreActivation()}),
    "gated": controlled(Gated(), {"sparsity": GateL1(), "gate": GateReconstruction()}),
    "matryoshka-sampled": reconstructing(BatchTopK(K), SampledPrefixes()),
    "pursuit": reconstructing(MatchingPursuit(K), Reconstruction()),
})  # fmt: skip
"""The other standard SAEs: square-root and annealed L_p, tanh on JumpReLU, Gated, Matryoshka at sampled widths,
matching pursuit."""

SORTED = NestedReconstruction(detached=True, order="frequency")
MATRYOSHKAS = as_bases({
    "matryoshka-detached": reconstructing(BatchTopK(K), NestedReconstruction(detached=True)),
    "matryoshka-sorted": reconstructing(BatchTopK(K), NestedReconstruction(order="frequency")),
    "matryoshka-2026": reconstructing(BatchTopK(K), SORTED),
    "matryoshka-annealed": reconstructing(BatchTopK(K, first_k=3.2), SORTED),
    # Widths, sum, weight and k as in the best entry on SynthSAEBench-16k, of which ISTA and tilting are left out.
    "matryoshka-six": reconstructing(
        BatchTopK(K, first_k=3.2),
        replace(SORTED, shares=(1 / 128, 1 / 32, 1 / 8, 1 / 4, 1 / 2, 1.0), levels="sum", inner_weight=0.5),
    ),
    "matryoshka-ista": reconstructing(IstaBatchTopK(K, step=0.25), SORTED),
    "ista": reconstructing(IstaBatchTopK(K, step=0.25), Reconstruction()),
})  # fmt: skip
"""The Matryoshka of 2026, part by part: inner levels detached, latents sorted by how often they fire, k falling, six
levels summed, one step of ISTA; and that step alone."""

CONTROLS = {
    "frozen-decoder": Member(objective=PLAIN, activation=BatchTopK(K), frozen=("W_dec",), control=True),
    "soft-frozen-decoder": Member(objective=TRAINED, activation=BatchTopK(K), min_cosine_to_init=0.8, control=True),
    # b_dec is frozen with the encoder, because it shifts what the encoder is given.
    "frozen-encoder": Member(
        objective=PLAIN, activation=BatchTopK(K), frozen=("W_enc", "b_enc", "b_dec"), control=True
    ),
    "untrained": Member(objective=PLAIN, activation=BatchTopK(K), trained=False, control=True),
    "random": Member(objective=PLAIN, activation=BatchTopK(K), init=RandomPairs(), trained=False, control=True),
    "pca": Member(objective=PLAIN, activation=TopK(K), init=PrincipalComponents(), trained=False, control=True),
}
"""Baselines no method should lose to: the decoder frozen, or held near its start, or the encoder frozen (Korznikov et
al. 2026); untrained; atoms and encoder random apart; principal components."""
BASES = {
    name: Member(objective=PLAIN, activation=TopK(K), init=init, trained=False, control=True)
    for name, init in {"ica": IndependentComponents(), "neurons": Neurons(), "random-basis": RandomBasis()}.items()
}
"""Other linear bases, next to `pca`: independent components, neurons, a rotation drawn at random."""
KMEANS = Member(objective=PLAIN, activation=TopK(1), init=Centroids(), trained=False, control=True)
"""k-means: one active latent, whatever the L0 of others."""


def standard(l0: int) -> dict[str, Member]:
    """Plain sparsity at an L0."""
    return at_l0(l0, STANDARD)


def fine_tuned(l0: int) -> dict[str, Member]:
    """BatchTopK whose last tenth of training is on the next token's KL, too, as large as the reconstruction: for
    language models."""
    term = {"next_token_kl": NextTokenKl()}
    return at_l0(l0, {"kl-tuned": with_terms(STANDARD["batchtopk"], "kl-tuned", term, strength=1.0)})


def contenders(l0: int) -> dict[str, Member]:
    """Other baselines of 2026 at an L0: aligned readers, the quadratic L0 and frequency penalties, weight decay."""
    aligned = replace(STANDARD["batchtopk"], aligned=True, base="batchtopk", term="aligned")
    quadratic = Objective(
        reconstruction=Reconstruction(),
        penalties={"sparsity": QuadraticL0(target=float(l0)), "frequency": Frequency(), **AUX},
    )
    scope = Member(objective=quadratic, activation=JumpReLU(initial_l0=l0), l0=float(l0))
    decay = with_terms(STANDARD["batchtopk"], "weight-decay", {"weight-decay": WeightDecay()}, strength=0.1)
    return at_l0(l0, {"aligned": aligned, "jumprelu-quadratic": scope, "weight-decay": decay})


def matryoshkas(l0: int) -> dict[str, Member]:
    """Matryoshkas of 2026 at an L0, and ISTA alone."""
    return at_l0(l0, MATRYOSHKAS)


def temporal(l0: int) -> dict[str, Member]:
    """T-SAE on two nested widths, as published, and with the narrow one detached, at an L0: the contrast is on the
    narrow width's latents."""
    nested = NestedReconstruction(shares=(0.2, 1.0))
    forms = {"temporal-nested": nested, "temporal-detached": replace(nested, detached=True)}
    return at_l0(l0, {
        name: with_terms(
            replace(reconstructing(BatchTopK(K), form), base="matryoshka-two-widths"), name, {"temporal": Temporal()},
            strength=0.1,
        )
        for name, form in forms.items()
    })  # fmt: skip


def architectures(l0: int) -> dict[str, Member]:
    """The other standard SAEs at an L0."""
    return at_l0(l0, ARCHITECTURES)


def disentangling(l0: int, *, orthogonality: float = 3.0, effect: float = 0.3) -> dict[str, Member]:
    """BatchTopK with decoder orthogonality, or with the effect reward on downstream layers, at an L0."""
    terms = {"orthogonality": Orthogonality(weight=orthogonality), "effect": Effect(weight=effect)}
    base = STANDARD["batchtopk"]
    return at_l0(l0, {name: with_terms(base, name, {name: term}, ramp=0.0) for name, term in terms.items()})


def controls(l0: int) -> dict[str, Member]:
    """Baselines no method should lose to, at an L0, and k-means."""
    return at_l0(l0, CONTROLS) | at_l0(1, {"kmeans": KMEANS})


def bases(l0: int) -> dict[str, Member]:
    """Linear bases, untrained, at an L0: of each axis the latents that are largest."""
    return at_l0(l0, {"pca": CONTROLS["pca"], **BASES})


def interchanged() -> dict[str, Member]:
    """Directions to interchange factors along, as DAS learns them: supervised, as `ceilings` are."""
    init = InterchangeDirections()
    return {"das": Member(objective=PLAIN, activation=JumpReLU(), init=init, trained=False, control=True)}


def ceilings() -> dict[str, Member]:
    """Dictionaries made from the truth: the true directions, and supervised probes of every factor."""
    inits = {"truth": TrueDirections(), "probes": SupervisedProbes()}
    return {
        name: Member(objective=PLAIN, activation=JumpReLU(), init=init, trained=False, control=True)
        for name, init in inits.items()
    }


def compared(sparsities: Sequence[int]) -> dict[str, Member]:
    """Everything, at every L0."""
    members: dict[str, Member] = {}
    for l0 in sparsities:
        members |= standard(l0) | disentangling(l0) | controls(l0)
    return members
