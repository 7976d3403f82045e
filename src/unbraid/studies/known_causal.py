"""MELBO's and DCT's rewards as terms of a BatchTopK SAE on SmolLM2, judged on the language of known factors.

    unbraid cache known_model --to known-smollm2
    unbraid sweep known_smollm2_causal --source.folder known-smollm2 --out runs/known-causal

Activations come from the cache; effects are measured on the model that it was written from, six blocks further on.
"""

from collections.abc import Mapping
from dataclasses import replace

from unbraid.experiment.study import Member, Study, at_l0, of_methods, with_terms
from unbraid.objective.objective import Term
from unbraid.sources.cached import Cached
from unbraid.studies.causal import BLOCK
from unbraid.studies.known import L0, known_smollm2
from unbraid.studies.methods import STANDARD, standard
from unbraid.terms.causal.effect import Effect
from unbraid.terms.causal.effect_sketch import EffectSketch
from unbraid.terms.causal.interaction import Interaction
from unbraid.terms.causal.melbo import MelboReward
from unbraid.terms.controls.random_gradient import RandomGradient
from unbraid.terms.geometry.repulsion import Repulsion

DOWNSTREAM_LAYER = 16
RADIUS = 32.0
"""Size of a push at layer 10, in raw units: about what is calibrated for plain text there (31.7)."""
EVERY = 16
"""Steps between uses of a term that runs the model: a use with 16 latents takes as long as ten steps."""

SKETCH, EFFECT = {"sketch": EffectSketch()}, {"effect": Effect(every=EVERY, radius=RADIUS)}
METHODS: dict[str, tuple[float, Mapping[str, Term]]] = {
    "sketch-0.1": (0.1, SKETCH),
    "sketch-1": (1.0, SKETCH),
    "sketch-10": (10.0, SKETCH),
    "sketch-repulsion": (1.0, {**SKETCH, "repulsion": Repulsion()}),
    "melbo-1": (1.0, {"melbo": MelboReward(every=EVERY, radius=RADIUS)}),
    "effect-1": (1.0, EFFECT),
    "effect-10": (10.0, EFFECT),
    "effect-interaction": (1.0, {**EFFECT, "interaction": Interaction(every=EVERY, radius=RADIUS)}),
}
"""Terms, and the gradient ratio of each. At 10 what is reconstructed hardly counts: how far the term goes when it is
not held back."""


def added(name: str, strength: float, terms: Mapping[str, Term], *, blocks: int = 0, control: bool = False) -> Member:
    base = replace(STANDARD["batchtopk"], orthonormal_blocks=blocks, control=control)
    return with_terms(base, name, terms, strength=strength, ramp=base.objective.ramp)


def known_smollm2_causal() -> Study:
    """MELBO's and DCT's rewards as terms of BatchTopK on SmolLM2's cached activations of the language; three seeds."""
    members = {
        **{name: added(name, *terms) for name, terms in METHODS.items()},
        "sketch-blocks": added("sketch-blocks", 1.0, SKETCH, blocks=BLOCK),
        "random-gradient": added("random-gradient", 1.0, {"push": RandomGradient()}, control=True),
    }
    return replace(
        known_smollm2(),
        source=Cached(folder="known-smollm2", epochs=7, downstream_layer=DOWNSTREAM_LAYER),
        members=of_methods(standard(L0), ("batchtopk", "matryoshka")) | at_l0(L0, members),
    )
