"""The methods a study compares, at given sparsities: standard SAEs, disentangling terms, controls, ceilings.

Penalty weights make their gradient on the atoms, averaged over steps, about a fifth of the reconstruction's on the
demo's world after a quarter of training (docs/log.md has the measurement); they are not tuned on any score.
"""

from collections.abc import Sequence

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.gated import Gated
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.baselines import Centroids, RandomPairs
from unbraid.dictionary.from_truth import SupervisedProbes, TrueDirections
from unbraid.dictionary.initialisation import PrincipalComponents
from unbraid.experiment.study import Member, at_l0
from unbraid.objective.objective import Objective, TargetL0, Term
from unbraid.terms.causal.effect import Effect
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.dead_latents.pre_activation import PreActivation
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.reconstruction.gate_reconstruction import GateReconstruction
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.reconstruction.sampled_prefixes import SampledPrefixes
from unbraid.terms.sparsity.gate_l1 import GateL1
from unbraid.terms.sparsity.l0 import L0
from unbraid.terms.sparsity.l1 import L1
from unbraid.terms.sparsity.lp import Lp
from unbraid.terms.sparsity.p_annealing import PAnnealing
from unbraid.terms.sparsity.tanh import Tanh


def standard(l0: int) -> dict[str, Member]:
    """Plain sparsity: ReLU + L1, TopK, BatchTopK, JumpReLU + L0, and Matryoshka, at an L0."""
    plain, aux = Reconstruction(), {"aux_k": AuxK()}
    control = TargetL0(l0=float(l0), penalty="sparsity")
    members = {
        "relu": Member(
            objective=Objective(reconstruction=plain, penalties={"sparsity": L1(), **aux}, target_l0=control),
            activation=ReLU(),
        ),
        "topk": Member(objective=Objective(reconstruction=plain, penalties=aux), activation=TopK(l0)),
        "batchtopk": Member(objective=Objective(reconstruction=plain, penalties=aux), activation=BatchTopK(l0)),
        "jumprelu": Member(
            objective=Objective(reconstruction=plain, penalties={"sparsity": L0(), **aux}, target_l0=control),
            activation=JumpReLU(),
        ),
        "matryoshka": Member(
            objective=Objective(reconstruction=NestedReconstruction(), penalties=aux), activation=BatchTopK(l0)
        ),
    }
    return at_l0(l0, members)


def architectures(l0: int) -> dict[str, Member]:
    """The other standard SAEs: square-root and annealed L_p, tanh on JumpReLU, Gated, Matryoshka at sampled widths,
    matching pursuit, at an L0."""
    plain, control = Reconstruction(), TargetL0(l0=float(l0), penalty="sparsity")
    aux: dict[str, Term] = {"aux_k": AuxK()}
    controlled = {
        "sqrt": (ReLU(), {"sparsity": Lp(p=0.5), **aux}),
        # p is done before the learning rate falls, so that the L0 target still has time.
        "p-annealing": (ReLU(), {"sparsity": PAnnealing(end=0.8), **aux}),
        "tanh": (JumpReLU(), {"sparsity": Tanh(), "pre_activation": PreActivation(), **aux}),
        "gated": (Gated(), {"sparsity": GateL1(), "gate": GateReconstruction(), **aux}),
    }
    free = {
        "matryoshka-sampled": (BatchTopK(l0), SampledPrefixes()),
        "pursuit": (MatchingPursuit(l0), plain),
    }
    members = {
        name: Member(
            objective=Objective(reconstruction=plain, penalties=penalties, target_l0=control), activation=activation
        )
        for name, (activation, penalties) in controlled.items()
    }
    members |= {
        name: Member(objective=Objective(reconstruction=term, penalties=aux), activation=activation)
        for name, (activation, term) in free.items()
    }
    return at_l0(l0, members)


def disentangling(l0: int, *, orthogonality: float = 3.0, effect: float = 0.3) -> dict[str, Member]:
    """BatchTopK with decoder orthogonality, or with the effect reward on the layers after, at an L0."""
    plain, aux = Reconstruction(), {"aux_k": AuxK()}
    terms = {
        "orthogonality": {"orthogonality": Orthogonality(weight=orthogonality)},
        "effect": {"effect": Effect(weight=effect)},
    }
    members = {
        name: Member(
            objective=Objective(reconstruction=plain, penalties={**penalties, **aux}, ramp=0.0),
            activation=BatchTopK(l0),
        )
        for name, penalties in terms.items()
    }
    return at_l0(l0, members)


def controls(l0: int) -> dict[str, Member]:
    """Baselines no method should lose to, at an L0: the decoder frozen, or held near its start, or the encoder frozen
    (Korznikov et al. 2026); untrained; atoms and encoder random apart; principal components; k-means."""
    plain = Objective(reconstruction=Reconstruction())
    trained = Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK()})
    kept = BatchTopK(l0)
    # b_dec is frozen with the encoder, because it shifts what the encoder is given.
    encoder = ("W_enc", "b_enc", "b_dec")
    members = {
        "frozen-decoder": Member(objective=plain, activation=kept, frozen=("W_dec",), control=True),
        "soft-frozen-decoder": Member(objective=trained, activation=kept, leash=0.8, control=True),
        "frozen-encoder": Member(objective=plain, activation=kept, frozen=encoder, control=True),
        "untrained": Member(objective=plain, activation=kept, trained=False, control=True),
        "random": Member(objective=plain, activation=kept, init=RandomPairs(), trained=False, control=True),
        "pca": Member(objective=plain, activation=TopK(l0), init=PrincipalComponents(), trained=False, control=True),
    }
    kmeans = Member(objective=plain, activation=TopK(1), init=Centroids(), trained=False, control=True)
    return at_l0(l0, members) | at_l0(1, {"kmeans": kmeans})


def ceilings() -> dict[str, Member]:
    """What is told the truth, on sources that know it: the true directions, and supervised probes of every factor."""
    plain = Objective(reconstruction=Reconstruction())
    inits = {"truth": TrueDirections(), "probes": SupervisedProbes()}
    return {
        name: Member(objective=plain, activation=JumpReLU(), init=init, trained=False, control=True)
        for name, init in inits.items()
    }


def compared(sparsities: Sequence[int]) -> dict[str, Member]:
    """Everything, at every L0."""
    members: dict[str, Member] = {}
    for l0 in sparsities:
        members |= standard(l0) | disentangling(l0) | controls(l0)
    return members
