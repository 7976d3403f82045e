"""MELBO and DCT as methods of their own: directions fitted to downstream layers, with random, principal and true ones.

Nothing is trained: atoms are the fitted directions, strongest first, read by their transpose. The two-stage members go
on to train an encoder for them, decoder frozen.
"""

from dataclasses import replace

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.topk import TopK
from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Member, Study, at_l0
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.world.world import World
from unbraid.steering.base import SliceFit
from unbraid.steering.exponential_dct import ExponentialDct
from unbraid.steering.linear_dct import LinearDct
from unbraid.steering.melbo import Melbo
from unbraid.steering.quadratic_dct import QuadraticDct
from unbraid.studies.methods import CONTROLS, PLAIN, ceilings


def fits(each: int, steps: int) -> dict[str, SliceFit]:
    """Every method. `each`: MELBO's steps for one direction after another (the authors: 300). `steps`: of what moves
    all directions at once."""
    return {
        "melbo": Melbo(steps=each),
        "melbo-joint": Melbo(orthogonality="joint", steps=steps),
        "melbo-repelled": Melbo(orthogonality="repelled", steps=steps),
        "linear-dct": LinearDct(),
        "projected-dct": LinearDct(form="projected"),
        "power-iteration": LinearDct(form="power"),
        "quadratic-dct": QuadraticDct(),
        "exponential-dct": ExponentialDct(steps=steps),
        "exponential-dct-ogi": ExponentialDct(solver="ogi"),
        "exponential-dct-sogi": ExponentialDct(solver="sogi"),
    }


def fitted(l0: int, *, each: int = 300, steps: int = 300, contexts: int = 8) -> dict[str, Member]:
    """Every method, and its controls; codes keep the l0 largest projections."""
    kept = TopK(l0)
    found = {name: replace(fit, contexts=contexts) for name, fit in fits(each, steps).items()}
    members = {name: Member(objective=PLAIN, activation=kept, init=fit, trained=False) for name, fit in found.items()}
    two_stage = Member(objective=PLAIN, activation=BatchTopK(l0), init=found["exponential-dct"], frozen=("W_dec",))
    controls = {
        "random-directions": Member(objective=PLAIN, activation=kept, trained=False, control=True),
        **{name: CONTROLS[name] for name in ("pca", "frozen-decoder")},
    }
    return at_l0(l0, members | {"two-stage": two_stage} | controls)


def budgeted(nats: float, steps: int) -> dict[str, Member]:
    """MELBO and the kernel DCT at the calibrated radius and, called -budget, at a next-token KL for every direction;
    the Jacobian's directions, random and principal ones."""
    fits: dict[str, SliceFit] = {
        "melbo": Melbo(orthogonality="joint", steps=steps),
        "exponential-dct": ExponentialDct(steps=steps),
    }
    within = {f"{name}-budget": replace(fit, budget_kl=nats) for name, fit in fits.items()}
    found = {**fits, **within, "linear-dct": LinearDct(form="power")}
    members = {
        name: Member(objective=PLAIN, activation=TopK(1), init=fit, trained=False) for name, fit in found.items()
    }
    random = Member(objective=PLAIN, activation=TopK(1), trained=False, control=True)
    return at_l0(1, members | {"random-directions": random, "pca": CONTROLS["pca"]})


def directions_chat() -> Study:
    """MELBO and DCT on a few chats with a model, from one up, by a fixed radius and by what the model can stand; each
    latent is then a push to steer with. Name the chats with --source.text."""
    return Study(
        source=LanguageModel(model="smollm2", layer=8, downstream_layer=16, text="chats.jsonl", eval_share=0.0),
        d_sae=8,
        training=Training(tokens=100_000),
        seeds=(0,),
        members=budgeted(0.5, 50),
    )


def directions() -> Study:
    """MELBO and every DCT on a world whose factors act downstream, three seeds: are its directions found?"""
    source = World(factors=32, d_in=32, l0=3.0, roots=4, interactions=8)
    return Study(
        source=source,
        d_sae=32,
        training=Training(tokens=200_000, batch_size=512, lr=3e-3, dead_after=50_000),
        members=fitted(3) | ceilings(),
    )


def directions_language() -> Study:
    """MELBO and every DCT on the embedded model: which of its language's variables do the directions move?"""
    return Study(
        source=LanguageModel(text="language://6000", buffer_tokens=32_768),
        d_sae=16,
        training=Training(tokens=200_000, batch_size=1024, lr=2e-3, dead_after=50_000),
        members=fitted(8, each=50, steps=100, contexts=2),
    )


def directions_lm() -> Study:
    """MELBO and every DCT on a language model of your own: --source.model, --source.layer, --source.text, --d-sae."""
    return Study(
        source=LanguageModel(model="EleutherAI/pythia-70m-deduped", layer=2, text="hf://monology/pile-uncopyrighted"),
        d_sae=32,
        training=Training(tokens=2_000_000),
        members=fitted(16, each=50, steps=100),
    )
