"""The dictionaries of the audit: methods, sparsities, widths, shares of a training, controls, and damaged ceilings."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from benchmarks.audit.damage import DAMAGES
from benchmarks.audit.testbeds import Testbed
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.study import Study, at_l0, of_methods
from unbraid.sources.world.world import World
from unbraid.studies.methods import CONTROLS, STANDARD, ceilings

Kind = Literal["equal", "varied", "short", "control", "damaged", "redrawn"]
"""equal: trained at the testbed's own L0 and width; varied: at another; short: on a share of the tokens; control:
nothing was trained; damaged: a ceiling of which a share is spoiled; redrawn: equal, with other draws of the evals."""
TOKEN_SHARES = (0.01, 0.03, 0.1, 0.3)
"""Shares of a training's tokens. Each is a run of its own with its own warm-up and decay of the learning rate: a
checkpoint of the long run has not had its decay, and would look worse than anything that is published."""
SHORTENED = "batchtopk"
REDRAWN = ("batchtopk", "matryoshka")
DRAWS = 2
"""Other draws of the evals."""
SPOILED = 2
"""Sources on which ceilings are damaged, the first ones."""
FULL = 1.0


class Case(NamedTuple):
    """A dictionary to score: what its row is called."""

    kind: Kind
    name: str
    source: int
    seed: int
    share: float = FULL
    """Of the tokens, or of the latents that are damaged; of redrawn ones the number of the draw."""


@dataclass(frozen=True)
class Trained:
    """A case with its experiment."""

    case: Case
    experiment: Experiment


def trained(testbed: Testbed) -> Iterator[Trained]:
    """Yield the dictionaries that are trained, or initialised and left so."""
    known = STANDARD | CONTROLS
    equal = at_l0(testbed.l0, of_methods(known, testbed.methods))
    idle = at_l0(testbed.l0, of_methods(CONTROLS, ("untrained",)))
    ceiling = of_methods(ceilings(), (testbed.ceiling,))
    varied = {}
    for l0 in testbed.other_l0s:
        varied |= at_l0(l0, of_methods(STANDARD, ("batchtopk", "matryoshka")))
    for d_sae in testbed.other_widths:
        wide = at_l0(testbed.l0, of_methods(STANDARD, ("batchtopk", "matryoshka")))
        varied |= {f"{name}-w{d_sae}": replace(member, d_sae=d_sae) for name, member in wide.items()}
    for draw in testbed.draws:
        yield from cases_of(testbed, draw, "equal", equal)
        yield from cases_of(testbed, draw, "control", idle)
        for share in TOKEN_SHARES:
            yield from cases_of(testbed, draw, "short", at_l0(testbed.l0, of_methods(STANDARD, (SHORTENED,))), share)
    for draw in testbed.first_draws:
        if varied:
            yield from cases_of(testbed, draw, "varied", varied)
        yield from cases_of(testbed, draw, "control", ceiling)


def cases_of(
    testbed: Testbed, draw: tuple[int, int], kind: Kind, members: dict, share: float = FULL
) -> Iterator[Trained]:
    """Yield members at one draw, trained on a share of the tokens."""
    number, seed = draw
    training = replace(testbed.training, tokens=round(share * testbed.training.tokens))
    study = Study(source=testbed.source(number), d_sae=testbed.d_sae, training=training, seeds=(seed,), members=members)
    for name, experiment in zip(members, study.experiments(), strict=True):
        yield Trained(Case(kind, name, number, seed, share), experiment)


def damaged_cases(testbed: Testbed) -> Iterator[Case]:
    """Yield the damaged ceilings."""
    for number, seed in testbed.first_draws[:SPOILED]:
        for name in DAMAGES:
            for share in testbed.damaged_shares:
                yield Case("damaged", name, number, seed, share)


def redrawn_cases(testbed: Testbed) -> Iterator[Case]:
    """Yield the dictionaries that are scored again with other draws, where the source has others: a world."""
    number, seed = testbed.draws[0]
    if not isinstance(testbed.source(number), World):
        return
    for draw in range(1, DRAWS + 1):
        for name in at_l0(testbed.l0, of_methods(STANDARD, REDRAWN)):
            yield Case("redrawn", name, number, seed, float(draw))
