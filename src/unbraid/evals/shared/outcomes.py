"""The outcomes that a push changes: a language model's next tokens, or the readouts of a world's factors; and its cost.

    language model:  cost = mean over tokens of KL(clean || pushed)            change = mean over tokens of q - p
    world:           cost = mean over rows of |readouts' - readouts|^2 / 2     change = mean over rows of theirs

The second is the KL between normal distributions of variance 1 around the readouts: what a reader notices who knows
each readout to within 1. So a budget in nats means the same on both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.effects.budget import Cost
from unbraid.effects.next_token_kl import POSITIONS, next_token_kl
from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.sources.base import Predictions, Source
from unbraid.sources.behind import behind
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.predicting import predictions_of
from unbraid.sources.world.world import World
from unbraid.system.sharing import shared

WINDOWS, TOKENS = 8, 24
"""Windows of text that pushes are tried in, and how much of each: a card takes a dozen passes over them."""
ROWS = 256
"""Rows of a world that they are tried in."""
CHUNK_ENTRIES = 2**22
"""Readouts held at once: 16 MB."""
SEED = 0

Pushes = Float[Tensor, "k d_in"]


class Changes(NamedTuple):
    """The changes by some pushes: of every outcome in the mean, and how alike they are from place to place."""

    mean: Float[Tensor, "k outcome"]
    steadiness: Float[Tensor, " k"]
    """|mean change| / mean |change|, sums over outcomes: 1 where every place is changed alike; NaN where none is."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The outcomes of a source, and what pushes at its site do to them."""

    usual: Float[Tensor, " outcome"]
    """Their mean without a push."""
    cost: Cost
    """In nats."""
    changes: Callable[[Pushes], Changes]
    names: Callable[[list[int]], list[str]]
    """Returns the names of outcomes by number."""
    norm: float
    """Median norm of the activations that are pushed."""


@shared
@torch.no_grad()
def outcomes_of(source: Source) -> Outcomes:
    """Return what can change on a source; of a cache, on the source that it was written from. Raises NotApplicable when
    nothing follows its activations."""
    source = behind(source)
    if isinstance(source, LanguageModel):
        return next_tokens(source)
    if isinstance(source, World):
        return readouts(source)
    raise NotApplicable(f"a {type(source).__name__} has nothing downstream that a push could change")


# ---- next tokens --------------------------------------------------------------------------------------------


def next_tokens(model: LanguageModel) -> Outcomes:
    """Return the next tokens of a language model, after a few held-out stretches of text."""
    count = int(max(1, min(WINDOWS, model.sequences("eval"))))
    texts = predictions_of(model, model.windows(count, split="eval", seed=SEED).shortened(TOKENS))
    tokenizer = model.loaded_tokenizer
    kept = torch.cat([text.acts[text.mask].float() for text in texts])
    size = len(tokenizer)  # embeddings are often padded past the tokenizer's last id
    clean = torch.cat([text.clean for text in texts]).exp()[:, :size]
    return Outcomes(
        clean.mean(0), partial(next_token_kl, texts), partial(token_changes, texts, size),
        lambda some: [tokenizer.decode([i]) for i in some], float(kept.norm(dim=1).median()),
    )  # fmt: skip


def token_changes(texts: list[Predictions], size: int, pushes: Pushes) -> Changes:
    """Return the change of the probability of every next token."""
    total, length, count = pushes.new_zeros(len(pushes), size), pushes.new_zeros(len(pushes)), 0
    for text in texts:
        clean = text.clean.exp()[:, :size]
        count += len(clean)
        for part in torch.arange(len(pushes)).split(max(1, POSITIONS // text.mask.numel())):
            change = text.pushed_logits(pushes[part]).softmax(-1)[..., :size] - clean
            total[part] += change.sum(1)
            length[part] += change.abs().sum((1, 2))
    return Changes(total / count, total.abs().sum(1) / length)


# ---- readouts -----------------------------------------------------------------------------------------------


def readouts(world: World) -> Outcomes:
    """Return the readouts of a world's factors, of those that have one. Raises NotApplicable when none has."""
    there = torch.linalg.vector_norm(world.effects, dim=1) > 0
    if not bool(there.any()):
        raise NotApplicable("none of this world's factors has an effect downstream; give it some by --source.effect")
    x = world.labelled(ROWS, split="eval", seed=SEED).x
    before = world.readouts(x)[..., there]
    names = [name for name, known in zip(world.truth().names, there.tolist(), strict=True) if known]

    def parts(pushes: Pushes) -> Iterator[Float[Tensor, "some row outcome"]]:
        for part in pushes.split(max(1, CHUNK_ENTRIES // before.numel())):
            yield world.readouts(x + part.unsqueeze(1))[..., there] - before

    def cost(pushes: Pushes) -> Float[Tensor, " k"]:
        return torch.cat([change.square().sum(2).mean(1) / 2 for change in parts(pushes)])

    def changes(pushes: Pushes) -> Changes:
        means, length = zip(*((change.mean(1), change.abs().sum(2).mean(1)) for change in parts(pushes)), strict=True)
        return Changes(mean := torch.cat(means), mean.abs().sum(1) / torch.cat(length))

    return Outcomes(before.mean(0), cost, changes, lambda some: [names[i] for i in some], float(x.norm(dim=1).median()))
