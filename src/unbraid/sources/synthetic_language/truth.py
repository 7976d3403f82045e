"""Factors of the language, together with the activations of a model that reads it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from unbraid.sources.base import Batch
from unbraid.sources.synthetic_language.documents import read
from unbraid.sources.synthetic_language.factors import FACTORS, active
from unbraid.sources.synthetic_language.spelling import spell
from unbraid.sources.truth import Labelled, Truth

Split = Literal["train", "eval"]


@dataclass(frozen=True, eq=False)
class Told:
    """Documents of the language, by their number in a corpus, as a tokenizer writes them."""

    texts: Sequence[str]
    tokenizer: Any
    before: int
    """Tokens in front of every document: 1 where there is a BOS."""

    @cached_property
    def words(self) -> int:
        """The number of words in all documents."""
        return sum(text.count(" ") + 1 for text in self.texts)


@dataclass(frozen=True, eq=False)
class LanguageTruth(Truth):
    """Truth about activations at the last tokens of words. Directions are not known: a model need not make any."""

    told: Told
    rows: Callable[[int, Split, int], Iterator[Batch]]
    """Yields rows of whole documents, until they hold at least this many words or there are no more, of a split, by a
    seed."""
    everywhere: bool = True
    """False where a word may be several tokens, so that there are rows without labels."""

    @property
    def names(self) -> Sequence[str]:
        return [factor.name for factor in FACTORS]

    @property
    def parents(self) -> Int[Tensor, " factors"]:
        return torch.tensor([factor.parent for factor in FACTORS])

    @property
    def directions(self) -> None:
        return None

    @property
    def of_all_rows(self) -> bool:
        return self.everywhere

    def labelled(self, count: int, *, split: Split, seed: int = 0) -> Labelled:
        return _labelled(self, count, split, seed)


@lru_cache(maxsize=3)
def _labelled(truth: LanguageTruth, count: int, split: Split, seed: int) -> Labelled:
    x: list[Tensor] = []
    found: list[frozenset[int]] = []
    rows = 0
    for batch in truth.rows(count, split, seed):
        chosen, factors = ends_of_words(batch, truth.told)
        x.append(batch.x[chosen].cpu())
        found += factors
        rows += len(batch)
        if len(found) >= count:
            break
    if not found:
        raise ValueError(
            f"none of {rows:,} activations of the {split} split is of a word's last token; give more documents, as in "
            "--source.text language://4000, or a larger --source.eval-share"
        )
    active_factors = [sorted(factors) for factors in found[:count]]
    at = torch.tensor([row for row, factors in enumerate(active_factors) for _ in factors], dtype=torch.long)
    factors = torch.tensor([factor for factors in active_factors for factor in factors], dtype=torch.long)
    return Labelled(torch.cat(x)[:count], at, factors, torch.ones(len(at)), len(FACTORS))


def ends_of_words(batch: Batch, told: Told) -> tuple[Int[Tensor, " word"], list[frozenset[int]]]:
    """Return the rows that are the last tokens of words, and the factors active at each.

    `batch`: rows of whole documents, in the order of their windows. Raises ValueError for rows of other documents.
    """
    starts = [*batch.window_starts().nonzero()[:, 0].tolist(), len(batch)]
    numbers, tokens, positions = (part.cpu() for part in (batch.documents, batch.tokens, batch.positions))
    texts = [words_of(told, int(numbers[start])) for start in starts[:-1]]
    chosen, factors = [], []
    for (start, stop), words, one in zip(pairwise(starts), texts, spell(told.tokenizer, texts), strict=True):
        places = positions[start:stop] - told.before
        ids = torch.tensor([*one.ids, -1])  # the last is that of what stands in front
        if bool((places >= len(one.ids)).any()) or bool((ids[places] != tokens[start:stop])[places >= 0].any()):
            raise ValueError(
                f"activations said to be of document {int(numbers[start])} of the language are not: its tokens are "
                "others; they were read from another text or by another tokenizer, so write the cache again"
            )
        word_at = torch.full((len(ids),), -1).index_copy(0, one.ends, torch.arange(len(words)))
        own = word_at[places.clamp(min=-1)]
        chosen.append(start + (own >= 0).nonzero()[:, 0])
        known = [active(word) for word in read(words)]
        factors += [known[i] for i in own[own >= 0].tolist()]
    return (torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.long)), factors


def words_of(told: Told, number: int) -> list[str]:
    """Return the words of a document. Raises ValueError when there is none of this number."""
    if not 0 <= number < len(told.texts):
        raise ValueError(
            f"activations of document {number} cannot be of {len(told.texts):,} documents of the language; they were "
            "read from another text, so write the cache again"
        )
    return told.texts[number].split(" ")
