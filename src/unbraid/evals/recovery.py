"""Recovery of a world's factors: are they atoms, one each, and do latents fire when they do?

    mcc = max over one-to-one matchings m of mean |cos(atom_i, direction_m(i))|   (Hungarian, min(d_sae, factors) pairs)

mcc comes twice: params {"kind": "measured"}, and {"kind": "chance"} for random unit atoms of the same shape. Detection
is averaged over the factors that occur in the sample; one without a latent, or whose latent never fires, scores 0.
After SynthSAEBench (Chanin 2026), which matches latents to their nearest factor instead and averages over latents.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary import Dictionary
from unbraid.evaluation import NotApplicable, Score
from unbraid.run import Run
from unbraid.sources.world import World, block_stream

VERSION = 1
DEFINITIONS = {
    "mcc": "mean |cosine| of atoms and the factors matched to them one to one; kind=chance: random atoms, same shape",
    "precision": "share of a matched latent's firings in which its factor is active, mean over factors",
    "recall": "share of a factor's activations in which its matched latent fires, mean over factors",
    "f1": "harmonic mean of precision and recall, factor by factor, then averaged over factors",
    "uniqueness": "distinct factors nearest to any atom, over min(latents, factors)",
    "recovered": "share of factors with some atom at |cosine| above 0.9",
}
SEED = 0
"""Of held-out samples and chance atoms: the same for every run."""
ROWS = 32_768
"""Held-out samples."""
CHUNK_ENTRIES = 2**24
"""Rows times factors held at once: 64 MB."""
CLOSE = 0.9
"""|cos| above which a factor counts as recovered."""


def recovery(run: Run) -> list[Score]:
    """Scores of a dictionary trained on a world. Raises NotApplicable when the truth is not known."""
    world = run.source
    if not isinstance(world, World):
        raise NotApplicable("recovery compares with true factors, which only a World has")
    return recovery_scores(run.dictionary(), world)


@torch.no_grad()
def recovery_scores(dictionary: Dictionary, world: World) -> list[Score]:
    """`dictionary`: for raw activations."""
    cosines = similarities(dictionary.W_dec, world)
    matched = match(cosines)
    random_atoms = torch.randn(dictionary.W_dec.shape, generator=seeding.stream(SEED, "recovery/chance"))
    random = similarities(random_atoms, world)
    found = detection(dictionary, matched, world)
    scores = [
        ("mcc", agreement(cosines, matched), {"kind": "measured"}),
        ("mcc", agreement(random, match(random)), {"kind": "chance"}),
        ("precision", mean_over_present(found.precision, found), {}),
        ("recall", mean_over_present(found.recall, found), {}),
        ("f1", mean_over_present(found.f1, found), {}),
        ("uniqueness", cosines.argmax(1).unique().numel() / min(cosines.shape), {}),
        ("recovered", float((cosines.amax(0) > CLOSE).double().mean()), {"above": CLOSE}),
    ]
    return [Score(metric=metric, value=value, better="higher", params=params) for metric, value, params in scores]


def similarities(atoms: Float[Tensor, "d_sae d_in"], world: World) -> Float[Tensor, "d_sae factors"]:
    """|cos| of every atom with every factor."""
    units = atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True).clamp_min(1e-12)
    return (units.cpu() @ world.directions.to(atoms.dtype).T).abs()


def match(cosines: Float[Tensor, "d_sae factors"]) -> Int[Tensor, " d_sae"]:
    """The factor matched to each latent; -1 for latents left over."""
    latents, factors = linear_sum_assignment(cosines.numpy(), maximize=True)
    matched = torch.full((cosines.shape[0],), -1)
    matched[torch.from_numpy(latents)] = torch.from_numpy(factors)
    return matched


def agreement(cosines: Float[Tensor, "d_sae factors"], matched: Int[Tensor, " d_sae"]) -> float:
    """Mean |cos| of matched pairs."""
    latents = (matched >= 0).nonzero().squeeze(1)
    return float(cosines[latents, matched[latents]].double().mean())


class Detection(NamedTuple):
    """Counts of each factor and of its matched latent, over the held-out samples."""

    present: Float[Tensor, " factors"]
    fired: Float[Tensor, " factors"]
    both: Float[Tensor, " factors"]

    @property
    def precision(self) -> Float[Tensor, " factors"]:
        return self.both / self.fired.clamp_min(1)

    @property
    def recall(self) -> Float[Tensor, " factors"]:
        return self.both / self.present.clamp_min(1)

    @property
    def f1(self) -> Float[Tensor, " factors"]:
        return 2 * self.both / (self.fired + self.present).clamp_min(1)


def mean_over_present(values: Float[Tensor, " factors"], found: Detection) -> float:
    return float(values[found.present > 0].mean())


def detection(dictionary: Dictionary, matched: Int[Tensor, " d_sae"], world: World) -> Detection:
    """How often each factor, its matched latent, and both are active. A latent fires where its code is not zero."""
    totals = Detection(*(torch.zeros(world.factors, dtype=torch.float64) for _ in range(3)))
    rows = min(ROWS, max(1, CHUNK_ENTRIES // world.factors))
    device = dictionary.W_dec.device
    for index in range(-(-ROWS // rows)):
        sample = world.sample(rows, seed=SEED, name=block_stream("eval", index))
        _, row, latent = dictionary.encode(sample.x.to(device)).entries()
        factor = matched[latent.cpu()]
        row, factor = row.cpu()[factor >= 0], factor[factor >= 0]
        active = sample.z > 0
        totals.present.add_(active.sum(0))
        totals.fired.add_(torch.bincount(factor, minlength=world.factors))
        totals.both.add_(torch.bincount(factor[active[row, factor]], minlength=world.factors))
    return totals
