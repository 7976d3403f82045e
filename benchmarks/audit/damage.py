"""Dictionaries damaged on purpose: a known share of the latents of one made from the truth is spoiled in a known way.

How good such a dictionary is follows from how it was made, not from any score. The latents that a share spoils are
among those that a larger share spoils.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.from_truth import ROWS, ProbeFit, mean_logits
from unbraid.metrics.linear_probes import logistic
from unbraid.sources.base import Source
from unbraid.sources.truth import Labelled

SAMPLE = 8192
"""Held-out rows by which firing rates and sizes of codes are known."""

Damage = Callable[[Dictionary, Tensor, Source, torch.Generator], Dictionary]
"""Spoil latents, by their indices, of a dictionary of a source."""


def damaged(made: Dictionary, name: str, share: float, source: Source, seed: int) -> Dictionary:
    """Return a copy in which a share of the latents (of `absorbed`: of the parents) is spoiled."""
    rng = seeding.stream(seed, f"audit/{name}")
    pool = parents_of(source) if name == "absorbed" else torch.arange(made.d_sae)
    order = pool[torch.randperm(len(pool), generator=rng)]
    chosen = order[: math.ceil(share * len(order))]
    with torch.no_grad():
        return DAMAGES[name](copy.deepcopy(made), chosen, source, rng)


def lost(made: Dictionary, chosen: Tensor, source: Source, rng: torch.Generator) -> Dictionary:
    """Silence latents: their factors are found by nobody."""
    made.W_enc[:, chosen] = 0
    made.b_enc[chosen] = 0
    return made


def random(made: Dictionary, chosen: Tensor, source: Source, rng: torch.Generator) -> Dictionary:
    """Turn latents to random directions, at the firing rates and mean codes that they had."""
    x = source.held_out_sample(SAMPLE)
    rate, size = rates(made, x)
    readers = torch.randn(len(chosen), made.d_in, generator=rng)
    atoms = torch.randn(len(chosen), made.d_in, generator=rng)
    read = (x - made.b_dec) @ readers.T
    for column, latent in enumerate(chosen.tolist()):
        above = torch.quantile(read[:, column], 1 - float(rate[latent].clamp(1e-3, 1)))
        excess = (read[:, column] - above).clamp_min(0)
        gain = (size[latent] - made.threshold[latent]).clamp_min(0) / excess[excess > 0].mean().clamp_min(1e-6)
        made.W_enc[:, latent] = gain * readers[column]
        made.b_enc[latent] = made.threshold[latent] - gain * above
    made.W_dec[chosen] = atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)
    return made


def mixed(made: Dictionary, chosen: Tensor, source: Source, rng: torch.Generator) -> Dictionary:
    """Let latents read and write two factors each: their own and that of the next one chosen."""
    other = chosen.roll(1)
    made.W_enc[:, chosen] = made.W_enc[:, chosen] + made.W_enc[:, other]
    made.b_enc[chosen] = made.b_enc[chosen] + made.b_enc[other]
    atoms = made.W_dec[chosen] + made.W_dec[other]
    made.W_dec[chosen] = atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)
    return made


def crossed(made: Dictionary, chosen: Tensor, source: Source, rng: torch.Generator) -> Dictionary:
    """Let latents write the factor of the next one chosen: they detect one and change another."""
    made.W_dec[chosen] = made.W_dec[chosen.roll(1)]
    return made


def absorbed(made: Dictionary, chosen: Tensor, source: Source, rng: torch.Generator) -> Dictionary:
    """Let children write parents, whose own latents are read by probes of the parent without a child."""
    labelled, parents = source.truth().labelled(ROWS, split="train"), source.truth().parents
    active = labelled.dense() > 0
    size = rates(made, labelled.x)[1]
    whole = made.W_dec * size.unsqueeze(1)
    for parent in sorted(chosen.tolist()):  # parents come before their children
        for child in (parents == parent).nonzero().squeeze(1).tolist():
            whole[child] += whole[parent]
    lengths = torch.linalg.vector_norm(whole, dim=1)
    longer = torch.where(size > 0, lengths / size.clamp_min(1e-6), 1.0)
    made.W_dec.copy_(torch.where((size > 0).unsqueeze(1), whole / lengths.clamp_min(1e-6).unsqueeze(1), made.W_dec))
    made.W_enc.mul_(longer)
    made.b_enc.mul_(longer)
    made.threshold.mul_(longer)
    alone = torch.stack([active[:, p] & ~active[:, parents == p].any(1) for p in chosen.tolist()], 1)
    reread(made, chosen, labelled.x, alone)
    return made


def reread(made: Dictionary, chosen: Tensor, x: Tensor, present: Tensor) -> None:
    """Let latents read, by logistic probes, what is present, at the mean code that they have."""
    size = (rates(made, x)[1])[chosen]
    scale = (x - x.mean(0)).square().mean().sqrt()
    rows, columns = present.nonzero(as_tuple=True)
    unit = Labelled(x / scale, rows, columns, torch.ones(len(rows)), len(chosen))
    probes = logistic(unit, l2=1.0)
    off, on = mean_logits(ProbeFit(unit, probes))
    gain = size / (on - off)
    threshold = (-off * gain).clamp_min(0)
    known = torch.isfinite(gain)
    kept = chosen[known]
    made.W_enc[:, kept] = (probes.weights / scale * gain.unsqueeze(1))[known].T
    made.threshold[kept] = threshold[known]
    made.b_enc[kept] = (probes.bias * gain + threshold)[known] + made.b_dec @ made.W_enc[:, kept]


def doubled(made: Dictionary, chosen: Tensor, source: Source, rng: torch.Generator) -> Dictionary:
    """Add a copy of latents, each of the two with half of the code."""
    wider = Dictionary(made.d_in, made.d_sae + len(chosen), made.activation)
    made.W_enc[:, chosen] *= 0.5
    made.b_enc[chosen] *= 0.5
    made.threshold[chosen] *= 0.5
    wider.W_enc.copy_(torch.cat([made.W_enc, made.W_enc[:, chosen]], 1))
    for name in ("b_enc", "threshold", "W_dec"):
        part = getattr(made, name)
        getattr(wider, name).copy_(torch.cat([part, part[chosen]]))
    wider.b_dec.copy_(made.b_dec)
    return wider.requires_grad_(False)


def rates(made: Dictionary, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of rows in which each latent fires, and its mean code where it does (0 for one that never)."""
    z = made.encode(x)
    fires = z > 0
    return fires.float().mean(0), z.sum(0) / fires.sum(0).clamp_min(1)


def parents_of(source: Source) -> Tensor:
    """Return the factors that have children."""
    parents = source.truth().parents
    return parents[parents >= 0].unique()


DAMAGES: dict[str, Damage] = {
    "lost": lost, "random": random, "mixed": mixed, "crossed": crossed, "absorbed": absorbed, "doubled": doubled,
}  # fmt: skip
