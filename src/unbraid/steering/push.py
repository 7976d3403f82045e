"""A push along the atoms of one latent, or of several together, and its length: set by hand or by a budget.

    push = sum_i scale_i unit_i atom_i                        by hand
    push = s v,   v the same sum at norm 1,   KL(s v) = budget   by a budget of next-token KL (`unbraid.effects.budget`)

unit: the radius R of the fit for runs of MELBO and DCT, else the 95th percentile of the latent's own codes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unbraid import seeding
from unbraid.config.settings import PositiveFloat, checked
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import code_matrix
from unbraid.effects.budget import LIMIT, Spending, require_reached, spend
from unbraid.effects.next_token_kl import next_token_kl
from unbraid.effects.radius import calibrate_radius
from unbraid.evals.shared.observe import ROWS
from unbraid.runs.run import Run
from unbraid.sources.base import NoHeldOut, Predictions, Source
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.stream import held_out

Unit = Literal["auto", "own", "radius"]
CONTEXTS = 8
"""Number of contexts on which a radius is calibrated for runs without a fit."""


@dataclass(frozen=True, eq=False)
class Push:
    """A vector that is added to activations, and how it came about."""

    vector: Float[Tensor, " d_in"]
    """In raw units."""
    unit: str
    """What scale 1 is, in words; or the budget that was spent."""
    note: str = ""
    """A note on the text that units are measured on, if it is not held-out text."""


class ScaledLatents(NamedTuple):
    """Several latents with the scale of each."""

    latents: list[int]
    scales: list[float]


def scaled_latents(
    latents: int | Sequence[int], scale: float | Sequence[float], dictionary: Dictionary
) -> ScaledLatents:
    """Return latents with their scales, one for all or one each. Raises ValueError for a latent that there is not, or
    is named twice, and for scales that are not finite or as many."""
    chosen = [latents] if isinstance(latents, int) else list(latents)
    scales = [scale] if isinstance(scale, int | float) else list(scale)
    for latent in chosen:
        if not 0 <= checked("latent", latent, int) < dictionary.d_sae:
            raise ValueError(
                f"latent {latent} does not exist: this run has {dictionary.d_sae}, 0 to {dictionary.d_sae - 1}"
            )
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"latents are {chosen}; name at least one, and each once")
    if len(scales) not in (1, len(chosen)):
        raise ValueError(f"there are {len(scales)} scales for {len(chosen)} latents; give one for all, or one each")
    for one in scales:
        if not math.isfinite(one):
            raise ValueError(f"scale is {one}; give a finite number, negative to push the other way")
    return ScaledLatents(chosen, [float(one) for one in (scales if len(scales) > 1 else scales * len(chosen))])


def push_by_hand(run: Run, source: LanguageModel, which: ScaledLatents, unit: Unit) -> Push:
    """Return the push of these scales. Raises ValueError for a latent that never fires where its codes are the unit."""
    lengths, name, note = units_of(run, source, which.latents, unit)
    sizes = torch.tensor(which.scales) * torch.tensor(lengths)
    return Push(sizes @ run.dictionary().unit_atoms()[which.latents].cpu().detach(), name, note)


def push_by_budget(
    run: Run, source: LanguageModel, which: ScaledLatents, unit: Unit, texts: Sequence[Predictions], kl: float
) -> Push:
    """Return the push that costs `kl` nats a token on these texts; scales say how much of it is along which latent.

    Raises ValueError for a budget beyond reach, and latents that cancel out.
    """
    direction, note = direction_of(run, source, which, unit)
    found = lengths_by_budget(texts, direction.unsqueeze(0), kl)
    names = "the latents together" if len(which.latents) > 1 else f"latent {which.latents[0]}"
    require_reached(found, kl, [names], longest=f"{LIMIT:g} times the activations' median norm")
    return Push(float(found.length) * direction, f"a budget of {kl:g} nats a token", note)


def direction_of(
    run: Run, source: LanguageModel, which: ScaledLatents, unit: Unit
) -> tuple[Float[Tensor, " d_in"], str]:
    """Return the direction of a push at norm 1, and the note of its units. One latent needs no unit."""
    if len(which.latents) > 1:
        push = push_by_hand(run, source, which, unit)
        vector, note = push.vector, push.note
    else:
        vector, note = which.scales[0] * run.dictionary().unit_atoms()[which.latents[0]].cpu().detach(), ""
    if not float(vector.norm()) > 0:
        raise ValueError(f"pushes along latents {which.latents} at scales {which.scales} add up to nothing")
    return vector / vector.norm(), note


def lengths_by_budget(texts: Sequence[Predictions], directions: Float[Tensor, "k d_in"], kl: float) -> Spending:
    """Return the length at which each unit vector costs `kl` nats a token on these texts."""
    checked("kl", kl, PositiveFloat)
    longest = LIMIT * median_norm(texts)
    return spend(lambda pushes: next_token_kl(texts, pushes), directions.to(texts[0].acts), kl, longest=longest)


def median_norm(texts: Sequence[Predictions]) -> float:
    """Return the median norm of the activations that are pushed. Raises ValueError when there are none."""
    rows = torch.cat([text.acts[text.mask] for text in texts])
    if not len(rows):
        raise ValueError(
            "no token of this text is pushed: all are special tokens, or as large as attention sinks; give more text"
        )
    return float(rows.norm(dim=1).median())


# ---- units


def units_of(run: Run, source: LanguageModel, latents: Sequence[int], unit: Unit) -> tuple[list[float], str, str]:
    """Return the length of a push of scale 1 along each latent, in raw units, its name, and a note on the text it is
    measured on."""
    checked("unit", unit, Unit)
    fit = run.fit()
    if unit == "radius" or (unit == "auto" and fit):
        if fit:
            if "lengths" in fit and len(fit["lengths"].unique()) > 1:
                return fit["lengths"][list(latents)].tolist(), "the length at which it spends the fit's budget", ""
            return [float(fit["radius"])] * len(latents), "the radius of the fit", ""
        count = int(min(CONTEXTS, source.sequences("train")))
        contexts = source.contexts(count, split="train", seed=0)
        radius = calibrate_radius(contexts, rng=seeding.stream(0, "steering/radius"))
        return [radius] * len(latents), "the radius at which random directions leave the linear regime", ""
    rows, note = usual_rows(source)
    columns = code_matrix(run.dictionary(), rows).tocsc()
    found = []
    for latent in latents:
        column = columns[:, [latent]].data
        if not len(column):
            raise ValueError(
                f"latent {latent} fires in none of {len(rows):,} tokens, so it has no usual size; use --unit radius"
            )
        found.append(float(np.quantile(np.abs(column), 0.95)))
    return found, f"the 95th percentile of {'the' if len(latents) == 1 else 'each'} latent's codes", note


def usual_rows(source: Source) -> tuple[Float[Tensor, "row d_in"], str]:
    """Return activations that show the usual size, and a note if they are those trained on.

    A fit on a few prompts has no others.
    """
    try:
        return held_out(source, ROWS).x, ""
    except NoHeldOut:
        block = source.block(0, split="train", seed=0)
        assert block is not None, "a run was made of it"
        return block.rows.x[:ROWS], "the text has no held-out split: sizes are of the text the run was made from"
