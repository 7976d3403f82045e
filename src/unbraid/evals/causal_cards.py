"""Causal cards: what pushing each latent does at a common budget, stored as a table for `unbraid browse`.

    results/causal_cards.latents.parquet    a row a latent that was pushed

A latent's atom, with the sign of its codes, is added at every token, as far as changes the outcomes (next tokens of a
language model, readouts of a world's factors) by BUDGET nats: `unbraid.evals.shared.outcomes`. A latent that has to be
pushed far has little effect: `length` is in median norms of the activations, `dose` in its own high values. With D_i
the mean change of the outcomes by latent i at the budget:

    selectivity = sum of the MANY largest |D_io| / sum_o |D_io|,   MANY: 10 next tokens, 1 readout
    interaction = |D_ij - D_i - D_j| / (|D_i| + |D_j|),   j: its nearest atoms and those that fire with it

kind=chance: random directions. It is run only when it is named: each card takes a dozen passes over a short text.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.dictionary import Dictionary
from unbraid.effects.budget import LIMIT, Spending, spend
from unbraid.effects.independence import interactions
from unbraid.effects.radius import random_units
from unbraid.evals.shared.evaluation import Score
from unbraid.evals.shared.example_tables import packed
from unbraid.evals.shared.observe import held_out_codes
from unbraid.evals.shared.outcomes import Changes, Outcomes, outcomes_of
from unbraid.metrics.detection import FEWEST
from unbraid.metrics.neighbours import firing_together, nearest_atoms
from unbraid.runs.results import ScoreKind
from unbraid.runs.run import Run
from unbraid.sources.base import Source
from unbraid.sources.behind import behind
from unbraid.sources.world.world import World
from unbraid.system.sharing import shared

VERSION = 1
BY_DEFAULT = False
DEFINITIONS = {
    "cards": "latents that have a causal card",
    "budget": "KL in nats by which each of them changes what is expected downstream",
    "reached": "share of these latents that spend the budget within ten median norms of the activations",
    "length": "length of the push that spends the budget, in median norms of the activations, median over latents",
    "own_effect": "KL in nats of a push by the 95th percentile of a latent's own codes, median over latents",
    "selectivity": "share of the change at the budget that is in its ten most changed next tokens, or its most changed "
    "readout; median over latents",
    "steadiness": "|mean change| / mean |change| at the budget, 1 when it is the same in every place; median over "
    "latents",
    "interaction": "|D_ij - D_i - D_j| / (|D_i| + |D_j|) with nearest atoms and latents that fire together, median",
}
BUDGET = 0.1
"""In nats. At 0.5, pushes on the embedded language model are two thirds of the activations' norm, and what they do is
much the same for every latent and for random directions."""
WORK = 2**17
"""Latents that get a card, times the width of the activations: passes cost more on a wider model."""
READING = 2**30
"""And times the number of outcomes too. A card of SmolLM2, which expects one of 49,152 tokens, takes five seconds of
one core."""
FEWEST_CARDS = 32
"""However large the model is."""
NEIGHBOURS = 2
"""Nearest atoms, and as many that fire together, with which a latent is pushed."""
SHOWN = 8
"""Outcomes named of those that a latent raises most, and of those that it lowers most."""
NEGLIGIBLE = 0.01
"""Share of the largest change by a push below which another is not named."""
RANDOM = 32
SEED = 0
Better = Literal["higher", "lower", "neither"]
NUMBERS, INDEXES, TEXTS = pa.list_(pa.float32()), pa.list_(pa.int32()), pa.list_(pa.string())
SCHEMA = pa.schema(
    {
        "latent": pa.int32(), "high": pa.float32(), "own_effect": pa.float32(), "length": pa.float32(),
        "dose": pa.float32(), "cost": pa.float32(), "reached": pa.bool_(),
        "selectivity": pa.float32(), "steadiness": pa.float32(),
        "raised": TEXTS, "raised_from": NUMBERS, "raised_to": NUMBERS,
        "lowered": TEXTS, "lowered_from": NUMBERS, "lowered_to": NUMBERS,
        "with": INDEXES, "interaction": NUMBERS,
    }
)  # fmt: skip


def causal_cards(run: Run) -> list[Score]:
    """Score what the cards of a run say together."""
    table = pa.Table.from_batches([cards_of(run.dictionary(), run.source)])
    scale = outcomes_of(run.source).norm
    median = lambda name: float(np.nanmedian(column)) if len(column := table[name].to_numpy()) else float("nan")

    def row(metric: str, value: float, better: Better = "neither", kind: ScoreKind = "measured") -> Score:
        return Score(metric=metric, value=value, better=better, kind=kind)

    together = np.array([value for values in table["interaction"].to_pylist() for value in values], float)
    reached = table["reached"].to_numpy()
    random, changes = random_pushes(run.source)
    return [
        row("cards", float(table.num_rows)),
        row("budget", BUDGET),
        row("reached", float(reached.mean()) if len(reached) else float("nan")),
        row("length", median("length")),
        row("length", float(random.length.median()) / scale, kind="chance"),
        row("own_effect", median("own_effect")),
        row("selectivity", median("selectivity"), "higher"),
        row("selectivity", float(selectivity(changes, run.source).nanmedian()), "higher", "chance"),
        row("steadiness", median("steadiness"), "higher"),
        row("steadiness", float(changes.steadiness.nanmedian()), "higher", "chance"),
        row("interaction", float(np.nanmedian(together)) if len(together) else float("nan"), "lower"),
    ]


def files(run: Run) -> Mapping[str, bytes]:
    """Return the table of a run's cards, as Parquet."""
    return {"latents.parquet": packed(pa.Table.from_batches([cards_of(run.dictionary(), run.source)]))}


@shared
@torch.no_grad()
def random_pushes(source: Source) -> tuple[Spending, Changes]:
    """Return pushes along random directions at the budget, and what they change."""
    outcomes = outcomes_of(source)
    units = random_units(RANDOM, source.d_in, seeding.stream(SEED, "causal_cards/random"))
    spent = spend(outcomes.cost, units, BUDGET, longest=LIMIT * outcomes.norm)
    return spent, outcomes.changes(spent.pushes(units))


@shared
@torch.no_grad()
def cards_of(dictionary: Dictionary, source: Source) -> pa.RecordBatch:
    """Make the cards of a dictionary of raw activations. Raises NotApplicable where a push changes nothing."""
    outcomes = outcomes_of(source)
    codes = held_out_codes(dictionary, source)
    latents, high = chosen(codes, most_cards(source.d_in, len(outcomes.usual)))
    atoms = dictionary.unit_atoms().detach().float().cpu()
    units = atoms[latents] * high.sign().unsqueeze(1)
    spent = spend(outcomes.cost, units, BUDGET, longest=LIMIT * outcomes.norm)
    changes = outcomes.changes(spent.pushes(units))
    usual = random_pushes(source)[1].mean.mean(0)
    columns: dict[str, object] = {
        "latent": latents.int().numpy(), "high": high.numpy(),
        "length": (spent.length / outcomes.norm).numpy(), "dose": (spent.length / high.abs()).numpy(),
        "own_effect": outcomes.cost(units * high.abs().unsqueeze(1)).numpy(), "cost": spent.cost.numpy(),
        "reached": spent.reached.numpy(), "selectivity": selectivity(changes, source).numpy(),
        "steadiness": changes.steadiness.numpy(),
        **together(outcomes, spent.pushes(units), changes, latents, partners(codes, atoms, latents)),
        **named(outcomes, changes, usual, "raised", 1), **named(outcomes, changes, usual, "lowered", -1),
    }  # fmt: skip
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def most_cards(d_in: int, outcomes: int) -> int:
    """Return how many latents get a card, by the width of the activations and the number of outcomes."""
    return max(FEWEST_CARDS, min(WORK // d_in, READING // (d_in * outcomes)))


def chosen(codes: csr_array, most: int) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Choose latents that fire often enough, all or some evenly spread over their rates; and a high value of each, the
    95th percentile of |code| with the sign of its codes."""
    columns = codes.tocsc()
    counts = np.diff(columns.indptr)
    order = np.argsort(-counts, kind="stable")
    living = order[: int((counts >= FEWEST).sum())]
    some = np.sort(living[np.linspace(0, len(living) - 1, min(most, len(living))).round().astype(int)])
    high = []
    for latent in some.tolist():
        values = columns.data[columns.indptr[latent] : columns.indptr[latent + 1]]
        high.append(np.quantile(np.abs(values), 0.95) * (1 if np.median(values) >= 0 else -1))
    return torch.from_numpy(some), torch.tensor(high, dtype=torch.float32)


def selectivity(changes: Changes, source: Source) -> Float[Tensor, " k"]:
    """Return the share of the change that is in the few outcomes that change most; NaN where nothing does."""
    size = changes.mean.abs()
    few = 1 if isinstance(behind(source), World) else min(10, size.shape[1])
    return size.topk(few, dim=1).values.sum(1) / size.sum(1)


def named(
    outcomes: Outcomes, changes: Changes, usual: Float[Tensor, " outcome"], word: str, sign: int
) -> dict[str, object]:
    """Return the outcomes that each push raises (or lowers: sign -1), with their mean before and after, in the order of
    how far beyond `usual`: the mean change by random directions, which on a language model much the same words head."""
    which = (sign * (changes.mean - usual)).topk(min(SHOWN, changes.mean.shape[1]), dim=1).indices
    by, before = sign * changes.mean.gather(1, which), outcomes.usual[which]
    moved = ((by > 0) & (by >= NEGLIGIBLE * changes.mean.abs().amax(1, keepdim=True))).tolist()
    texts = {i: outcomes.names([i])[0] for i in which.unique().tolist()}
    kept = lambda rows: [
        [value for value, yes in zip(*pair, strict=True) if yes] for pair in zip(rows, moved, strict=True)
    ]
    return {
        word: kept([[texts[i] for i in row] for row in which.tolist()]),
        f"{word}_from": kept(before.tolist()),
        f"{word}_to": kept((before + sign * by).tolist()),
    }


def partners(codes: csr_array, atoms: Float[Tensor, "d_sae d_in"], latents: Int[Tensor, " k"]) -> list[list[int]]:
    """Return for each of the latents, as places among them, its nearest atoms and those that fire with it."""
    place = {latent: at for at, latent in enumerate(latents.tolist())}
    near, fires = nearest_atoms(atoms, 8).latents, firing_together(codes, 8).latents
    found = []
    for latent in latents.tolist():
        some = [[place[i] for i in row[latent].tolist() if i in place][:NEIGHBOURS] for row in (near, fires)]
        found.append([*dict.fromkeys([*some[0], *some[1]])])
    return found


def together(
    outcomes: Outcomes,
    pushes: Float[Tensor, "k d_in"],
    changes: Changes,
    latents: Int[Tensor, " k"],
    near: list[list[int]],
) -> dict[str, object]:
    """Return with which latents each was pushed too, and the interaction, the strongest first. `near`: their places."""
    one = torch.tensor([i for i, row in enumerate(near) for _ in row], dtype=torch.long)
    other = torch.tensor([j for row in near for j in row], dtype=torch.long)
    pairs, back = torch.stack([torch.minimum(one, other), torch.maximum(one, other)], 1).unique(
        dim=0, return_inverse=True
    )
    if not len(pairs):
        return {"with": [[] for _ in near], "interaction": [[] for _ in near]}
    both = outcomes.changes(pushes[pairs].sum(1)).mean
    beyond = interactions(both, *changes.mean[pairs].unbind(1))[back].tolist()
    strength: list[list[tuple[int, float]]] = [[] for _ in near]
    for i, j, value in zip(one.tolist(), other.tolist(), beyond, strict=True):
        strength[i].append((int(latents[j]), value))
    ordered = [sorted(row, key=lambda pair: -pair[1]) for row in strength]
    return {"with": [[j for j, _ in row] for row in ordered], "interaction": [[v for _, v in row] for row in ordered]}
