"""Interchange: give a few latents their values from a minimal pair; does the model then act as on the other text?

    x' = x + sum_(i in top n) (z_i(other text) - z_i(text)) atom_i        wherever the texts may differ
    cause = (TV(p, p*) - TV(p', p*)) / (TV(p, p*) - TV(p_other, p*)),   isolation = 1 - extra mass on betraying words

p, p', p_other: the model's next-word distribution on the text, on the text with x', on the other text; p*: the exact
one after the other text. A model that was not trained on the language (its tokens are not the language's words) is held
to its own, p* = p_other, over the first tokens of the words that the grammar names at the place, and reads four
documents before each text (`readouts`, `pair_readings`). TV: total variation. Sums over pairs, then the mean over the
variables that the model itself follows. Like RAVEL (Huang et al. 2024) as SAEBench scores it, but the pairs are minimal
by the grammar, latents are ranked and not learned, and n is part of the score: the latents of a variable are those that
change most, on average, in other pairs that differ in it. error=kept leaves what the dictionary does not explain in
place; error=dropped replaces activations by reconstructions, so that fidelity counts as well.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import moved
from unbraid.evals.shared.evaluation import Score
from unbraid.evals.shared.pair_readings import SEED, Read, Table, followed, model_with_pairs
from unbraid.runs.results import ScoreKind
from unbraid.runs.run import Run
from unbraid.sources.base import Source
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.stream import held_out
from unbraid.sources.synthetic_language.pairs import VARIABLES

VERSION = 2
_WAYS = (
    "directions: what is swapped, n latents or principal directions; kind=chance: n random directions, kind=ceiling: "
    "the n in which the two texts differ most in other pairs"
)
DEFINITIONS = {
    "interchange_cause": "how far swapping n directions moves the next word towards the exact one of the other text "
    "(of a model not trained on the language: towards its own there, over the words that the grammar names), "
    f"as a share of how far the other text itself does; 1 is as far; {_WAYS}",
    "interchange_isolation": "1 - probability moved to words that would betray a change in another variable; at best 1",
    "interchange": "mean of cause and isolation, as RAVEL's disentanglement score; doing nothing scores 0.5",
    "interchange_nonsense": "probability moved to words that neither text allows",
    "interchange_cause_by_variable": "cause of one variable, 4 latents, error kept; absent where the model does not "
    "follow it",
    "followed": "share of the language's variables that the model itself follows: reading the other text brings it at "
    "least half of the way to the exact next word; of a model held to its own distribution: raises the odds of the "
    "words that it makes likelier (Wilcoxon's test over 16 pairs, at 1 %)",
}
COUNTS = (1, 4, 16, 64)
KINDS: dict[str, ScoreKind] = {"random": "chance", "principal": "reference", "supervised": "ceiling"}
"""The directions that a dictionary's latents are compared with."""
ROWS = 8192
"""Number of rows on which principal directions are fitted."""
AT_ONCE = 8
"""Swaps put into one forward pass."""


def interchange(run: Run) -> list[Score]:
    """Score a run at a site of a model that reads the synthetic language. Raises NotApplicable for all others."""
    model = model_with_pairs(run, "interchange")
    return interchange_scores(run.dictionary(), model, run.source)


@torch.no_grad()
def interchange_scores(dictionary: Dictionary, model: LanguageModel, source: Source | None = None) -> list[Score]:
    """Score a dictionary of raw activations. `source`: of the model's activations, where they are cached."""
    tables = followed(model)
    dictionary = moved(dictionary, next(iter(tables.values())).scored.base.device)
    scores = list(baselines(model, source or model))
    ways = [(count, drop) for count in COUNTS for drop in (False, True)]
    each = {v: score_swaps(t.scored, latent_swaps(dictionary, t, ways)) for v, t in tables.items()}
    for number, (count, drop) in enumerate(ways):
        found = {variable: swaps[number] for variable, swaps in each.items()}
        scores += rows(found, {"directions": "latents", "n": count, "error": "dropped" if drop else "kept"})
        if (count, drop) == (4, False):
            scores += [score("interchange_cause_by_variable", one.cause, {"variable": v}) for v, one in found.items()]
    return scores


# ---- swaps: the activations of scored pairs, with those of the other text in part

Swapped = Float[Tensor, "row d_in"]


def latent_swaps(dictionary: Dictionary, table: Table, ways: Sequence[tuple[int, bool]]) -> list[Swapped]:
    """Give the latents that change most between texts their values in the other text. `ways`: how many latents, and
    whether what the dictionary does not explain is dropped."""
    ranked, (base, other) = table.ranked, table.scored.rows
    change = dictionary.encode(ranked.other[ranked.swapped]) - dictionary.encode(ranked.base[ranked.swapped])
    size = change.abs().mean(0) * dictionary.norms()
    before, after = dictionary.encode(base), dictionary.encode(other)
    explained = before @ dictionary.W_dec + dictionary.b_dec
    found = []
    for count, drop in ways:
        top = size.topk(min(count, dictionary.d_sae)).indices
        swapped = base + ((after - before)[:, top] @ dictionary.W_dec[top])
        found.append(swapped - base + explained if drop else swapped)
    return found


def subspace_swap(scored: Read, directions: Float[Tensor, "n d_in"]) -> Swapped:
    """Take the part within a subspace, spanned by orthonormal rows, from the other text."""
    base, other = scored.rows
    return base + (other - base) @ directions.T @ directions


# ---- scoring


class SwapScores(NamedTuple):
    """The scores of one swap over the pairs of one variable."""

    cause: float
    isolation: float
    nonsense: float


def score_swaps(seen: Read, swaps: Sequence[Swapped]) -> list[SwapScores]:
    """Score the swaps of all pairs of a variable, several at once."""
    return [
        swap_scores(seen, predicted)
        for start in range(0, len(swaps), AT_ONCE)
        for predicted in after_swaps(seen, swaps[start : start + AT_ONCE])
    ]


def after_swaps(seen: Read, swaps: Sequence[Swapped]) -> Float[Tensor, "swap seq vocabulary"]:
    """Return the model's predictions at the ends of the texts when these activations are put there."""
    count = len(swaps)
    acts = seen.base.repeat(count, 1, 1, 1)
    acts[seen.swapped.repeat(count, 1, 1)] = torch.cat(list(swaps))
    logits = seen.reader.last(seen.windows.repeated(count), acts.flatten(0, 1))
    return logits.double().softmax(-1).cpu().unflatten(0, (count, len(seen.pairs)))


def swap_scores(seen: Read, found: Float[Tensor, "seq vocabulary"]) -> SwapScores:
    """Score what the model predicts after a swap."""
    before, other, readouts = seen.predicted, seen.predicted_other, seen.readouts
    here, there, moved = (float(readouts.distance(p, other).sum()) for p in (before, other, found))
    leaks = readouts.leaks(before, other, found)
    isolation = 1 - sum(leaks) / len(leaks) if leaks else float("nan")
    return SwapScores((here - moved) / (here - there), isolation, readouts.nonsense(before, other, found))


def rows(found: dict[str, SwapScores], params: dict[str, float | str], kind: ScoreKind = "measured") -> Iterator[Score]:
    """Yield the means over variables; isolation over those with a place where another variable could be betrayed."""
    cause = torch.tensor([one.cause for one in found.values()], dtype=torch.float64).mean()
    isolation = torch.tensor([one.isolation for one in found.values()], dtype=torch.float64).nanmean()
    yield score("interchange_cause", float(cause), params, kind)
    yield score("interchange_isolation", float(isolation), params, kind)
    yield score("interchange", float((cause + isolation) / 2), params, kind)
    nonsense = sum(one.nonsense for one in found.values()) / len(found)
    yield Score(metric="interchange_nonsense", value=nonsense, better="lower", params=params, kind=kind)


def score(metric: str, value: float, params: dict[str, float | str], kind: ScoreKind = "measured") -> Score:
    """Return a score for which higher is better."""
    return Score(metric=metric, value=value, better="higher", params=params, kind=kind)


# ---- baselines: the same for every run of a source


@lru_cache(maxsize=4)
def baselines(model: LanguageModel, source: Source) -> tuple[Score, ...]:
    """Score swaps within random, principal and supervised subspaces, and of everything (n = d_in)."""
    tables = followed(model)
    x = held_out(source, ROWS).x
    principal = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)))[1].flip(1).T
    random = torch.linalg.qr(torch.randn(model.d_in, model.d_in, generator=seeding.stream(SEED, "interchange/random")))[
        0
    ]
    scores = [score("followed", len(tables) / len(VARIABLES), {})]
    counts = (*(n for n in COUNTS if n < model.d_in), model.d_in)
    each = {}
    for variable, table in tables.items():
        own = {"random": random.to(x), "principal": principal, "supervised": supervised(table)}
        swaps = {(n, name): subspace_swap(table.scored, own[name][:n]) for n in counts for name in own}
        each[variable] = dict(zip(swaps, score_swaps(table.scored, list(swaps.values())), strict=True))
    for count in counts:
        for name, kind in KINDS.items():
            found = {variable: each[variable][count, name] for variable in tables}
            which = {"directions": name} if kind == "reference" else {}
            params: dict[str, float | str] = {**which, "n": float(count), "error": "kept"}
            scores += rows(found, params, kind)
    return tuple(scores)


def supervised(table: Table) -> Float[Tensor, "d_in d_in"]:
    """Return the directions in which the two texts of the ranking pairs differ most: the best linear swap."""
    ranked = table.ranked
    difference = ranked.other[ranked.swapped] - ranked.base[ranked.swapped]
    return torch.linalg.eigh(difference.T @ difference)[1].flip(1).T
