"""Interchange: give a few latents their values from a minimal pair; does the model then act as on the other text?

    x' = x + sum_(i in top n) (z_i(other text) - z_i(text)) atom_i        wherever the texts may differ
    cause = (TV(p, p*) - TV(p', p*)) / (TV(p, p*) - TV(p_other, p*)),   isolation = 1 - extra mass on betraying words

p, p', p_other: the model's next-word distribution on the text, on the text with x', on the other text; p*: the exact
one after the other text. TV: total variation. Sums over pairs, then the mean over the variables that the model itself
follows. Like RAVEL (Huang et al. 2024) as SAEBench scores it, but the counterfactual is exact, latents are ranked and
not learned, and n is part of the score: the latents of a variable are those that change most, on average, in other
pairs that differ in it. error=kept leaves what the dictionary does not explain in place; error=dropped replaces
activations by reconstructions, so that fidelity counts as well.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import moved
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.runs.results import ScoreKind
from unbraid.runs.run import Run
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import EMBEDDED
from unbraid.sources.stream import held_out
from unbraid.sources.synthetic_language.pairs import VARIABLES, Pair, pairs
from unbraid.sources.text.documents import is_language
from unbraid.sources.text.windows import Windows

VERSION = 2
_WAYS = (
    "directions: what is swapped, n latents or principal directions; kind=chance: n random directions, kind=ceiling: "
    "the n in which the two texts differ most in other pairs"
)
DEFINITIONS = {
    "interchange_cause": "how far swapping n directions moves the next word towards the exact one of the other text, "
    f"as a share of how far the other text itself does; 1 is as far; {_WAYS}",
    "interchange_isolation": "1 - probability moved to words that would betray a change in another variable; at best 1",
    "interchange": "mean of cause and isolation, as RAVEL's disentanglement score; doing nothing scores 0.5",
    "interchange_nonsense": "probability moved to words that neither text allows",
    "interchange_cause_by_variable": "cause of one variable, 4 latents, error kept; absent where the model does not "
    "follow it",
    "followed": "share of the language's variables that the model itself follows: reading the other text brings it at "
    "least half of the way to the exact next word",
}
COUNTS = (1, 4, 16, 64)
KINDS: dict[str, ScoreKind] = {"random": "chance", "principal": "reference", "supervised": "ceiling"}
"""The directions that a dictionary's latents are compared with."""
SCORED, RANKED = 16, 32
"""Number of pairs of each variable that are scored, and of other pairs on which latents are ranked."""
SEED = 0
ROWS = 8192
"""Number of rows on which principal directions are fitted."""
AT_ONCE = 8
"""Swaps put into one forward pass."""
FOLLOWED = 0.5
"""Share of the distance that reading the other text must remove for a variable to be scored."""


def interchange(run: Run) -> list[Score]:
    """Score a run at a site of a model that reads the synthetic language. Raises NotApplicable for all others."""
    model = run.source
    if not isinstance(model, LanguageModel) or not is_language(model.text):
        raise NotApplicable("interchange needs minimal pairs, which only --source.text language://… has")
    return interchange_scores(run.dictionary(), model)


@torch.no_grad()
def interchange_scores(dictionary: Dictionary, model: LanguageModel) -> list[Score]:
    """Score a dictionary of raw activations."""
    tables = followed(model)
    dictionary = moved(dictionary, next(iter(tables.values())).scored.base.device)
    scores = list(baselines(model))
    ways = [(count, drop) for count in COUNTS for drop in (False, True)]
    each = {v: score_swaps(model, t.scored, latent_swaps(dictionary, t, ways)) for v, t in tables.items()}
    for number, (count, drop) in enumerate(ways):
        found = {variable: swaps[number] for variable, swaps in each.items()}
        scores += rows(found, {"directions": "latents", "n": count, "error": "dropped" if drop else "kept"})
        if (count, drop) == (4, False):
            scores += [score("interchange_cause_by_variable", one.cause, {"variable": v}) for v, one in found.items()]
    return scores


# ---- pairs as a model reads them


@dataclass(frozen=True, eq=False)
class Read:
    """The activations of both texts of some pairs, and the model's predictions at their ends."""

    pairs: Sequence[Pair]
    windows: Windows
    base: Float[Tensor, "seq pos d_in"]
    other: Float[Tensor, "seq pos d_in"]
    swapped: Bool[Tensor, "seq pos"]
    """True from the first word that differs to the end."""
    last: Int[Tensor, " seq"]
    predicted: Float[Tensor, "seq vocabulary"]
    predicted_other: Float[Tensor, "seq vocabulary"]

    @property
    def rows(self) -> tuple[Float[Tensor, "row d_in"], Float[Tensor, "row d_in"]]:
        """The activations to be swapped, of both texts."""
        return self.base[self.swapped], self.other[self.swapped]


class Table(NamedTuple):
    """The pairs of one variable: those to rank latents on, and those to score."""

    ranked: Read
    scored: Read


def followed(model: LanguageModel) -> dict[str, Table]:
    """Return the pairs of every variable that the model itself follows. Raises ValueError when there is none."""
    tables = {variable: prepared(model, variable) for variable in VARIABLES}
    found = {variable: table for variable, table in tables.items() if follows(table.scored)}
    if not found:
        raise ValueError(
            f"{model.model} follows no variable of the language; use a model trained on it, such as {EMBEDDED}"
        )
    return found


def follows(seen: Read) -> bool:
    """True if reading the other text brings the model at least half of the way to the exact next word."""
    here, there = (distance(p, seen.pairs).sum() for p in (seen.predicted, seen.predicted_other))
    return bool(here - there >= FOLLOWED * here)


def distance(predicted: Float[Tensor, "seq vocabulary"], found: Sequence[Pair]) -> Float[Tensor, " seq"]:
    """Return the total variation to the exact distribution after the other text."""
    target = torch.stack([pair.after for pair in found])
    return 0.5 * (predicted.cpu()[:, : target.shape[1]] - target).abs().sum(1)


@lru_cache(maxsize=64)
def prepared(model: LanguageModel, variable: str) -> Table:
    """Draw and read the pairs of a variable."""
    found = pairs(variable, RANKED + SCORED, seed=SEED)
    return Table(read(model, found[:RANKED]), read(model, found[RANKED:]))


def read(model: LanguageModel, found: Sequence[Pair]) -> Read:
    """Run the model on both texts of some pairs."""
    windows = model.whole([pair.base for pair in found])
    others = model.whole([pair.changed for pair in found])
    shift = windows.ids.shape[1] - max(len(pair.base) for pair in found)  # 1 where there is a start token
    last = windows.attention.sum(1) - 1
    places = torch.arange(windows.ids.shape[1], device=last.device)
    first = torch.tensor([pair.start + shift for pair in found], device=last.device)
    swapped = (places >= first[:, None]) & (places <= last[:, None])
    base, other = model.activations(windows), model.activations(others)
    ends = torch.arange(len(found)), last
    predicted = model.logits(windows)[ends].double().softmax(-1)
    return Read(found, windows, base, other, swapped, last, predicted, model.logits(others)[ends].double().softmax(-1))


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


def score_swaps(model: LanguageModel, seen: Read, swaps: Sequence[Swapped]) -> list[SwapScores]:
    """Score the swaps of all pairs of a variable, several in one forward pass."""
    return [
        swap_scores(seen, predicted)
        for start in range(0, len(swaps), AT_ONCE)
        for predicted in after_swaps(model, seen, swaps[start : start + AT_ONCE])
    ]


def after_swaps(model: LanguageModel, seen: Read, swaps: Sequence[Swapped]) -> Float[Tensor, "swap seq vocabulary"]:
    """Return the model's predictions at the ends of the texts when these activations are put there."""
    count, found = len(swaps), []
    acts = seen.base.repeat(count, 1, 1, 1)
    acts[seen.swapped.repeat(count, 1, 1)] = torch.cat(list(swaps))
    groups = list(seen.windows.by_length(0))
    for which, part in groups:
        length = part.ids.shape[1]
        logits = model.logits_from(part.repeated(count), acts[:, which, :length].flatten(0, 1))
        places = torch.arange(len(logits), device=logits.device), seen.last[which].repeat(count)
        found.append(logits[places].double().softmax(-1).cpu().unflatten(0, (count, len(which))))
    order = torch.cat([which for which, _ in groups]).argsort().cpu()
    return torch.cat(found, 1)[:, order]


def swap_scores(seen: Read, found: Float[Tensor, "seq vocabulary"]) -> SwapScores:
    """Score what the model predicts after a swap."""
    before, other = seen.predicted.cpu(), seen.predicted_other.cpu()
    here, there, moved = (distance(p, seen.pairs).sum() for p in (before, other, found))
    leaks, nonsense = [], []
    for i, pair in enumerate(seen.pairs):
        impossible = (pair.before == 0) & (pair.after == 0)
        extra = found[i, : len(impossible)] - torch.maximum(before[i], other[i])[: len(impossible)]
        leaks += [float(extra[list(words)].sum().clamp(min=0)) for words in pair.betraying.values()]
        nonsense.append(float(extra[impossible].sum().clamp(min=0)))
    isolation = 1 - sum(leaks) / len(leaks) if leaks else float("nan")
    return SwapScores(float((here - moved) / (here - there)), isolation, sum(nonsense) / len(nonsense))


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
def baselines(model: LanguageModel) -> tuple[Score, ...]:
    """Score swaps within random, principal and supervised subspaces, and of everything (n = d_in)."""
    tables = followed(model)
    x = held_out(model, ROWS).x
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
        each[variable] = dict(zip(swaps, score_swaps(model, table.scored, list(swaps.values())), strict=True))
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
