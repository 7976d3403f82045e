"""Total correlation of small blocks of latents: beta-TCVAE (Chen et al. 2018), less what shuffled latents give.

    mean over blocks of E log q(z) - E log q(shuffled z),   q(z) = 1/b sum_b' N(z; z_b', noise^2)

Minibatch-weighted sampling: log q is that of the batch's own codes with Gaussian noise. Within a block the shuffled
columns have the same marginals, so those cancel, and so does most of the estimator's error, which is far above any
total correlation in more than a few dimensions (14 nats for 16 independent Gaussians): hence blocks of up to four. A
block is a latent and those that fire with it most beyond chance, chosen on one half of the rows and measured on the
other, or the chance that put them together would be taken for dependence. Rows in which none of a block fires are one
weighted point. Latents are in units of their rms when active.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.config.settings import PositiveFloat, PositiveInt, ShareBelowOne, TwoOrMore
from unbraid.dictionary.codes import starts, unrolled
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.system.devices import sent
from unbraid.terms.statistics.firing_averages import averaged
from unbraid.terms.statistics.pair_sums import SparseColumns, split_in_halves

GROUP = 8
"""Blocks whose densities are worked out together."""


@dataclass(frozen=True, kw_only=True)
class TotalCorrelation(Term):
    start: float = 0.1
    every: int = 2
    rows: TwoOrMore = 1024
    """Half of them choose blocks, half measure them."""
    blocks: PositiveInt = 64
    """Latents around which blocks are made."""
    size: TwoOrMore = 4
    """Latents in a block, at most."""
    noise: PositiveFloat = 0.3
    """Deviation of q around each code, in units of a latent's rms when active."""
    excess: float = 2.0
    """Standard deviations beyond chance by which latents fire together in a block."""
    rarest: ShareBelowOne = 1e-3
    """Firing rate of latents in blocks, at least."""
    decay: ShareBelowOne = 0.99
    """Of the moving averages that latents are scaled by."""
    family: ClassVar[Family] = "independence"

    def __call__(self, step: Step) -> TermOutput:
        average, _ = averaged(step.z, step.memory, self.decay)
        rms = average.rms().clamp_min(1e-12)
        scaled = lambda z, latents: z / rms[latents].unsqueeze(1)
        kept = average.living(self.rarest)
        choosing, measuring = split_in_halves(step.z, self.rows, kept, step.rng)
        blocks = fire_together(choosing, self.blocks, self.size, self.excess, step.rng)
        metrics = {"blocks": step.x.new_tensor(len(blocks))}
        if not len(blocks):
            return step.no_loss(metrics)
        return TermOutput(excess(measuring.mapped(scaled), blocks, self.noise, step.rng).mean(), metrics)


@torch.no_grad()
def fire_together(
    columns: SparseColumns, count: int, size: int, deviations: float, rng: torch.Generator
) -> Int[Tensor, "blocks size"]:
    """Random latents, each with those that fire with it most beyond chance; -1 where there are fewer."""
    firings = columns.firings().to(columns.values.dtype)
    often = (firings >= 2).nonzero().squeeze(1)
    seeds = often[sent(torch.randperm(len(often), generator=rng)[:count], often.device)]
    fires = firings.new_zeros(len(columns.kept), columns.batch)
    fires[columns.places, columns.rows] = 1
    chance = firings[seeds].unsqueeze(1) * firings / max(1, columns.batch)
    # One more under the root: a single coincidence of two rare latents is no evidence.
    beyond = (fires[seeds] @ fires.T - chance) / (chance + 1).sqrt()
    beyond[torch.arange(len(seeds), device=seeds.device), seeds] = -torch.inf
    found = beyond.topk(min(size - 1, beyond.shape[1]), dim=1)
    partners = found.indices.masked_fill(found.values <= deviations, -1)
    return torch.cat([seeds.unsqueeze(1), partners], 1)[(partners >= 0).any(1)]


def excess(
    columns: SparseColumns, blocks: Int[Tensor, "blocks size"], noise: float, rng: torch.Generator
) -> Float[Tensor, " blocks"]:
    """Total correlation of each block, in nats, less what it is once rows are shuffled for each latent."""
    size, rows = blocks.shape[1], columns.batch
    # A random turn of each column, by a different part of the rows: as good as a permutation of rows in random order.
    part = rows / size
    turns = (torch.arange(size) * part + torch.rand(blocks.shape, generator=rng) * part).long()
    turns = sent(turns, blocks.device)
    together, apart = (
        mean_log_density(*active_rows(columns, blocks, turned), rows, noise, rng)
        for turned in (torch.zeros_like(turns), turns)
    )
    return together - apart


def active_rows(
    columns: SparseColumns, blocks: Int[Tensor, "blocks size"], turns: Int[Tensor, "blocks size"]
) -> tuple[Float[Tensor, "blocks most size"], Bool[Tensor, "blocks most"]]:
    """Values of each block in the rows where any of it fires, after turning each column; and which rows there are."""
    size, counts = blocks.shape[1], columns.firings()
    by_place = columns.places.argsort(stable=True)
    member = (blocks >= 0).flatten().nonzero().squeeze(1)
    place, repeats = blocks.flatten()[member], counts[blocks.flatten()[member]]
    owner, within = unrolled(repeats)
    entry = by_place[starts(counts)[place[owner]] + within]
    rows = (columns.rows[entry] + turns.flatten()[member[owner]]) % columns.batch
    block = member[owner].div(size, rounding_mode="floor")
    keys, point = (block * columns.batch + rows).unique(return_inverse=True)
    block = keys.div(columns.batch, rounding_mode="floor")
    in_block = torch.bincount(block, minlength=len(blocks))
    _, rank = unrolled(in_block)
    most = int(in_block.max())
    at = (block * most + rank)[point] * size + member[owner] % size
    values = columns.values.new_zeros(len(blocks) * most * size).index_put((at,), columns.values[entry, 0])
    return values.view(len(blocks), most, size), torch.arange(most, device=keys.device) < in_block.unsqueeze(1)


def mean_log_density(
    points: Float[Tensor, "blocks most size"], there: Bool[Tensor, "blocks most"], rows: int, noise: float,
    rng: torch.Generator, draws: int = 8,
) -> Float[Tensor, " blocks"]:  # fmt: skip
    """E log q at codes with noise, q the mean over all rows of Gaussians around them; up to a constant. Rows that are
    not among `points` are all zero: one centre, and `draws` noisy points, for all of them."""
    blocks, most, size = points.shape
    drawn = torch.randn(blocks, most + draws, size, generator=rng, dtype=points.dtype)
    errors = noise * sent(drawn, points.device)
    # Costs grow with the square of a block's rows, and the largest block has several times as many as most: blocks of
    # about as many rows are taken together, without the places that only larger ones need.
    counts, order = there.sum(1).sort(descending=True)
    parts = []
    for group, widths in zip(order.split(GROUP), counts.split(GROUP), strict=True):
        most_here = int(widths[0])
        near = torch.cat([errors[group, :most_here], errors[group, most:]], 1)
        parts.append(log_density(points[group, :most_here], there[group, :most_here], rows, noise, near))
    return torch.cat(parts)[order.argsort()]


def log_density(
    points: Float[Tensor, "blocks most size"], there: Bool[Tensor, "blocks most"], rows: int, noise: float,
    errors: Float[Tensor, "blocks near size"],
) -> Float[Tensor, " blocks"]:  # fmt: skip
    """Do what `mean_log_density` says for blocks that are as large as one another, `errors` being the noise."""
    blocks, most, size = points.shape
    draws = errors.shape[1] - most
    silent = (rows - there.sum(1, keepdim=True)).to(points)
    log_weight = torch.cat([there.to(points), silent], 1).log()
    weight = torch.cat([there.to(points), silent.expand(-1, draws) / draws], 1) / rows
    centres = torch.cat([points, points.new_zeros(blocks, 1, size)], 1)
    near = torch.cat([points, points.new_zeros(blocks, draws, size)], 1) + errors
    # Less the distance to its own centre: the same on average whatever the codes, and most of the noise.
    beside = (near.square() - errors.square()).sum(2) / (2 * noise**2)
    of_centre = log_weight - centres.square().sum(2) / (2 * noise**2)
    exponents = torch.baddbmm(of_centre.unsqueeze(1), near / noise**2, centres.transpose(1, 2))
    return (weight * (exponents.logsumexp(2) - beside)).sum(1) - math.log(rows)
