"""Selectivity: push along one latent as far as a budget goes, and measure what becomes of every named concept.

    E_ic = mean over contexts of |change of concept c|,   at KL(push i) = BUDGET for every i
    selectivity_i = E_i,own / sum_(c != own) E_ic,        own: the concept changed most in other contexts

Concepts. World: each factor's readout downstream, in units of its standard deviation over rows. Known language: for
each variable of the grammar, the log-odds of the words that would be likelier had it another value, in units of the
change that reading the other text makes. Cost. Language model: next-token KL, in nats (`unbraid.effects.budget`).
World, which predicts no tokens: KL of two normal distributions around what the downstream layers give, of the spread
of what they give over rows, a dimension at a time. At equal cost a strong direction has no advantage over a weak one.

kind=measured: living latents; chance: random directions; reference: neurons, principal directions, and probes (the
difference of means of each factor); ceiling: true directions. Cf. arXiv 2512.15134, 2605.03160, 2606.08365.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.dictionary import Dictionary
from unbraid.effects.budget import LIMIT, Cost, spend
from unbraid.effects.next_token_kl import next_token_kl
from unbraid.effects.radius import random_units
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.evals.shared.observe import held_out_codes, labelled_rows
from unbraid.evals.shared.readouts import speaks
from unbraid.metrics.detection import FEWEST
from unbraid.runs.results import ScoreKind
from unbraid.runs.run import Run
from unbraid.sources.base import Predictions, Source
from unbraid.sources.behind import behind
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.predicting import POSITIONS, one_pass
from unbraid.sources.stream import held_out
from unbraid.sources.synthetic_language.pairs import VARIABLES, pairs
from unbraid.sources.text.documents import is_language
from unbraid.sources.truth import NoTruth, Truth
from unbraid.sources.world.world import World

VERSION = 1
BY_DEFAULT = False  # on a language model, some hundred thousand tokens
DEFINITIONS = {
    "selectivity": "change of the concept that a push changes most (chosen in other contexts) over the sum of all "
    "others' changes, at equal cost; median over directions",
    "target_share": "that change as a share of all concepts' changes, mean over directions; 1 over their number for a "
    "push that changes all alike",
    "target_kept": "share of directions that change the same concept most in two halves of the contexts",
    "stability": "cosine of the mean changes of all concepts between two halves of the contexts, mean over directions",
    "together_r2": "share of the concepts' mean changes by n directions pushed together that the sum of their single "
    "changes explains; below 0 where the sum is worse than nothing",
    "reached": "share of directions that spend the budget within ten median norms; the others do nothing, and count in "
    "no other score",
    "push": "median length of these pushes, in median norms of the activations",
}
BUDGET = 0.2
"""Cost of every push, in nats a token or row."""
LATENTS = 32
"""Largest number of directions of a kind."""
SETS = (2, 3, 5)
"""How many are pushed together."""
ROWS = 8192
"""Held-out rows on which living latents, principal directions and probes are found."""
WORLD_ROWS = 256
"""Rows of a world in which readouts are measured."""
PAIRS = 6
"""Texts a variable."""
SEED = 0

Directions = Float[Tensor, "k d_in"]
Changes = Float[Tensor, "k context concept"]
"""NaN where a concept cannot be seen in a context."""


class Concepts(NamedTuple):
    """Named concepts of a source, what a push does to them, and what it costs."""

    names: Sequence[str]
    changes: Callable[[Directions], Changes]
    """Signed, in units that compare between concepts."""
    cost: Cost
    norm: float
    """Median norm of the activations."""


def selectivity(run: Run) -> list[Score]:
    """Score the selectivity of a run's latents. Raises NotApplicable for a source without named concepts."""
    return selectivity_scores(run.dictionary(), run.source)


@torch.no_grad()
def selectivity_scores(dictionary: Dictionary, source: Source) -> list[Score]:
    """Score a dictionary of raw activations."""
    concepts = concepts_of(source)
    scores = direction_scores(concepts, living(dictionary, source), "measured", "latents")
    return [*scores, *reference_scores(source)]


@lru_cache(maxsize=4)
def concepts_of(source: Source) -> Concepts:
    """Return the named concepts of a source. Raises NotApplicable when there are none."""
    source = behind(source)
    if isinstance(source, World):
        return world_concepts(source)
    if isinstance(source, LanguageModel) and is_language(source.text):
        return language_concepts(source)
    raise NotApplicable(
        "selectivity needs named concepts with a readout, which World and --source.text language://… have"
    )


def world_concepts(world: World) -> Concepts:
    """Return the readouts of a world's factors. Raises NotApplicable where fewer than two have one."""
    x = world.labelled(WORLD_ROWS, split="eval", seed=SEED).x
    readable = torch.linalg.vector_norm(world.effects, dim=1) > 0
    before = world.readouts(x)[:, readable]
    spread = before.std(0) if bool(readable.any()) else before.sum(0)
    seen = spread > 0
    if int(seen.sum()) < 2:
        raise NotApplicable("fewer than two factors of this world have a readout downstream that varies")
    out = world.downstream(x)
    variance = out.var(0).mean()

    def changes(pushes: Directions) -> Changes:
        after = torch.stack([world.readouts(x + push)[:, readable] for push in pushes])
        return ((after - before) / spread)[..., seen]

    def cost(pushes: Directions) -> Float[Tensor, " k"]:
        moved = torch.stack([(world.downstream(x + push) - out).square().mean() for push in pushes])
        return moved / (2 * variance)

    names = [name for name, there in zip(world.names, readable.tolist(), strict=True) if there]
    names = [name for name, there in zip(names, seen.tolist(), strict=True) if there]
    return Concepts(names, changes, cost, float(x.norm(dim=1).median()))


class TextsOfVariables(NamedTuple):
    """Texts that are read together, with the words that would be likelier after their counterparts."""

    text: Predictions
    likelier: Float[Tensor, "seq vocabulary"]
    variable: Int[Tensor, " seq"]
    unit: Float[Tensor, " seq"]
    """Change of their log-odds that reading the other text makes."""


def language_concepts(model: LanguageModel) -> Concepts:
    """Return the variables of the known language that a model follows, in at least half of some texts."""
    if not speaks(model.loaded_tokenizer):
        raise NotApplicable(
            f"selectivity on the language needs a model whose tokens are its words, and {model.model} splits them; "
            "interchange reads it with any tokenizer"
        )
    found = [(i, pair) for i, name in enumerate(VARIABLES) for pair in pairs(name, PAIRS, seed=SEED)]
    base, other = (model.whole([getattr(pair, side) for _, pair in found]) for side in ("base", "changed"))
    last = base.attention & (base.attention.cumsum(1) == base.attention.sum(1, keepdim=True))
    vocabulary = len(found[0][1].before)
    rises = torch.stack([(pair.after > pair.before).float() for _, pair in found])
    variable = torch.tensor([i for i, _ in found])
    parts: list[TextsOfVariables] = []
    for which, part in base.by_length(POSITIONS):
        text = one_pass(model, part, last[which][:, : part.ids.shape[1]])
        theirs = one_pass(model, other[which].shortened(part.ids.shape[1]), last[which][:, : part.ids.shape[1]]).clean
        chosen = rises[which.cpu()].to(theirs)
        unit = log_odds(theirs[:, :vocabulary], chosen) - log_odds(text.clean[:, :vocabulary], chosen)
        parts.append(TextsOfVariables(text, chosen, variable[which.cpu()], unit))
    units = {i: torch.cat([part.unit[part.variable == i] for part in parts]).mean() for i in range(len(VARIABLES))}
    followed = [i for i, unit in units.items() if float(unit) > 0]
    if len(followed) < 2:
        raise NotApplicable(f"{model.model} follows fewer than two variables of the language; use one trained on it")

    def changes(pushes: Directions) -> Changes:
        rows = []
        for part in parts:
            after = torch.cat([part.text.pushed_logits(push.unsqueeze(0)) for push in pushes])
            moved = log_odds(after[..., :vocabulary], part.likelier) - log_odds(
                part.text.clean[:, :vocabulary], part.likelier
            )
            row = torch.full((*moved.shape, len(followed)), torch.nan)
            for column, i in enumerate(followed):
                mine = part.variable == i
                row[:, mine, column] = (moved[:, mine.to(moved.device)] / units[i]).cpu()
            rows.append(row)
        return torch.cat(rows, 1)

    texts = [part.text for part in parts]
    norm = float(torch.cat([text.acts[text.mask] for text in texts]).norm(dim=1).median())
    cost = lambda pushes: next_token_kl(texts, pushes.to(texts[0].acts)).cpu()
    return Concepts([list(VARIABLES)[i] for i in followed], changes, cost, norm)


def log_odds(
    logits: Float[Tensor, "*k seq vocabulary"], chosen: Float[Tensor, "seq vocabulary"]
) -> Float[Tensor, "*k seq"]:
    """Return the log-odds of each text's own set of words."""
    within = lambda mask: logits.masked_fill(mask == 0, -math.inf).logsumexp(-1)
    return within(chosen) - within(1 - chosen)


# ---- directions


def living(dictionary: Dictionary, source: Source) -> Directions:
    """Return the atoms of latents that fire often enough, a random choice of them, in the sign of their codes."""
    columns = held_out_codes(dictionary, source, ROWS).tocsc()
    alive = torch.from_numpy(np.flatnonzero(np.diff(columns.indptr) >= FEWEST))
    if not len(alive):
        raise NotApplicable(f"no latent fires in {FEWEST} of {ROWS} held-out rows, so none can be pushed")
    chosen = alive[torch.randperm(len(alive), generator=stream("latents"))[:LATENTS]]
    signs = [float(np.sign(np.median(columns.data[columns.indptr[i] : columns.indptr[i + 1]]))) for i in chosen]
    return dictionary.unit_atoms().cpu()[chosen] * torch.tensor(signs).unsqueeze(1)


def stream(name: str) -> torch.Generator:
    """Return this eval's random stream of that name."""
    return seeding.stream(SEED, f"selectivity/{name}")


def some(rows: Float[Tensor, "all d_in"], name: str) -> Directions:
    """Return a random choice of directions."""
    return rows[torch.randperm(len(rows), generator=stream(name))[:LATENTS]]


def references(source: Source) -> dict[tuple[ScoreKind, str], Directions]:
    """Return directions that latents are compared with, by kind and name."""
    x = held_out(source, ROWS).x.cpu().double()
    principal = torch.linalg.eigh(torch.cov(x.T))[1].flip(1).T[:LATENTS].float()
    found: dict[tuple[ScoreKind, str], Directions] = {
        ("chance", "random"): random_units(LATENTS, source.d_in, stream("random")),
        ("reference", "neurons"): some(torch.eye(source.d_in), "neurons"),
        ("reference", "principal"): principal.contiguous(),
    }
    try:
        truth = source.truth()
    except NoTruth:
        return found
    found["reference", "probe"] = some(probes(truth), "probes")
    if truth.directions is not None:
        found["ceiling", "true"] = some(truth.directions.cpu().float(), "true")
    return found


def probes(truth: Truth) -> Directions:
    """Return the difference of means of each factor that is active, and inactive, in rows enough."""
    rows = labelled_rows(truth, ROWS)
    active = (rows.dense() > 0).float()
    counts = active.sum(0)
    known = (counts >= FEWEST) & (len(active) - counts >= FEWEST)
    x, active, counts = rows.x.cpu().float(), active[:, known], counts[known].unsqueeze(1)
    on, off = active.T @ x / counts, (1 - active).T @ x / (len(active) - counts)
    return torch.nn.functional.normalize(on - off, dim=1)


@lru_cache(maxsize=4)
def reference_scores(source: Source) -> tuple[Score, ...]:
    """Return the scores that are the same for every run of a source."""
    concepts = concepts_of(source)
    return tuple(
        score
        for (kind, name), directions in references(source).items()
        for score in direction_scores(concepts, directions, kind, name)
    )


# ---- scores


def direction_scores(concepts: Concepts, directions: Directions, kind: ScoreKind, name: str) -> list[Score]:
    """Score directions at equal cost."""
    found = spend(concepts.cost, directions, BUDGET, longest=LIMIT * concepts.norm)
    pushes = found.pushes(directions)[found.reached]
    values: dict[str, float] = {"reached": float(found.reached.double().mean())}
    values["push"] = float(found.length[found.reached].median()) / concepts.norm if len(pushes) else math.nan
    joint: dict[int, float] = {}
    if len(pushes):
        moved = concepts.changes(pushes).double()
        values |= single_values(moved)
        singles = moved.nanmean(1)
        joint = {n: explained(concepts, pushes, singles, n) for n in SETS if n < len(pushes)}
    row = lambda metric, value, **more: Score(
        metric=metric, value=value, better="neither" if metric in ("push", "reached") else "higher", kind=kind,
        params={"directions": name, **more},
    )  # fmt: skip
    return [
        *(row(metric, value) for metric, value in values.items()),
        *(row("together_r2", value, n=n) for n, value in joint.items()),
    ]


def single_values(moved: Float[Tensor, "k context concept"]) -> dict[str, float]:
    """Return the scores of single pushes: own concepts are chosen in every other context, and scored in the rest."""
    halves = [moved[:, first::2] for first in (0, 1)]
    sizes = [half.abs().nanmean(1).nan_to_num() for half in halves]
    means = [half.nanmean(1).nan_to_num() for half in halves]
    shares, ratios = [], []
    for chosen, scored in (sizes, sizes[::-1]):
        own = scored.gather(1, chosen.argmax(1, keepdim=True)).squeeze(1)
        shares.append(own / scored.sum(1))
        ratios.append(own / (scored.sum(1) - own))
    return {
        "selectivity": float(torch.stack(ratios).mean(0).nanmedian()),
        "target_share": float(torch.stack(shares).nanmean()),
        "target_kept": float((sizes[0].argmax(1) == sizes[1].argmax(1)).double().mean()),
        "stability": float(torch.nn.functional.cosine_similarity(*means, dim=1).mean()),
    }


def explained(concepts: Concepts, pushes: Directions, singles: Float[Tensor, "k concept"], count: int) -> float:
    """Return the r2 of the sum of single changes as a prediction of the change by `count` pushes together."""
    places = torch.arange(len(pushes))
    sets = ((places - places.unsqueeze(1)) % len(pushes) < count).float()
    together = concepts.changes(sets @ pushes).double().nanmean(1)
    missed = (together - sets.double() @ singles).square().sum()
    return float(1 - missed / together.square().sum())
