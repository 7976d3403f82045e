"""Factors of the language, together with the activations of a model that reads it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.sources.synthetic_language.documents import read
from unbraid.sources.synthetic_language.factors import FACTORS, active
from unbraid.sources.truth import Labelled, Truth


@dataclass(frozen=True, eq=False)
class Reading:
    """Whole documents of the language as a model reads them."""

    words: Sequence[Sequence[str]]
    """Words of each document, special tokens left out."""
    acts: Float[Tensor, "seq pos d_in"]
    keep: Bool[Tensor, "seq pos"]
    """True on the words a dictionary is trained on, in order."""


@dataclass(frozen=True, eq=False)
class LanguageTruth(Truth):
    """Truth about the activations that `reading` gives. Directions are not known: a model need not make any."""

    reading: Callable[[int, Literal["train", "eval"], int], Reading]
    """Documents that hold at least this many words, of a split, by a seed."""

    @property
    def names(self) -> Sequence[str]:
        return [factor.name for factor in FACTORS]

    @property
    def parents(self) -> Int[Tensor, " factors"]:
        return torch.tensor([factor.parent for factor in FACTORS])

    @property
    def directions(self) -> None:
        return None

    def labelled(self, count: int, *, split: Literal["train", "eval"], seed: int = 0) -> Labelled:
        return _labelled(self.reading(count, split, seed), count)


@lru_cache(maxsize=2)
def _labelled(found: Reading, count: int) -> Labelled:
    active_factors = [sorted(active(word)) for document in found.words for word in read(document)]
    kept = found.acts[found.keep][:count].cpu()
    if len(active_factors) < len(kept):
        raise ValueError(
            f"{len(active_factors)} words of the language were read for {len(kept)} activations; every document "
            "must be read whole, by a tokenizer that has one token for each word: set --source.context 128"
        )
    active_factors = active_factors[: len(kept)]
    rows = torch.tensor([row for row, factors in enumerate(active_factors) for _ in factors], dtype=torch.long)
    factors = torch.tensor([factor for factors in active_factors for factor in factors], dtype=torch.long)
    return Labelled(kept, rows, factors, torch.ones(len(rows)), len(FACTORS))
