"""The next words by which a minimal pair is judged, and the distribution over them that the other text would give.

A model whose tokens are the language's words was trained on it, and is held to the exact distribution. Any other model
is held to its own on the other text (as RAVEL and MIB do), restricted to the first tokens of the words that the grammar
names there, and made to sum to 1: what a model of all English thinks else is no part of the language.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import wilcoxon
from torch import Tensor

from unbraid.sources.synthetic_language.lexicon import SPECIAL, WORDS
from unbraid.sources.synthetic_language.pairs import LEAST, Pair
from unbraid.sources.synthetic_language.spelling import first_tokens, spell

FOLLOWED = 0.5
"""Share of the distance to the exact distribution that reading the other text must remove for a variable to count."""
CHANCE = 0.01
"""Level at which reading the other text must be shown to raise the odds of the words that it makes likelier, for a
model that is held to its own distribution: by ranks, so that what is no more than rounding counts little."""


@lru_cache(maxsize=8)
def speaks(tokenizer: Any) -> bool:
    """Return whether a tokenizer's ids are the language's own: a model with it was trained on the language."""
    return tokenizer.convert_tokens_to_ids(list(WORDS)) == list(range(len(WORDS)))


@lru_cache(maxsize=8)
def token_of_word(tokenizer: Any) -> Int[Tensor, " word"]:
    """Return the first token of each word, by the word's id; -1 for special ones."""
    if speaks(tokenizer):
        return torch.arange(len(WORDS))
    first = first_tokens(tokenizer)
    return torch.tensor([-1 if word in SPECIAL else first[word] for word in WORDS])


def comparable(pair: Pair, tokenizer: Any) -> bool:
    """Return whether a pair can be read by a tokenizer: both texts have as many tokens in every word, and the first
    tokens of the next word still tell them apart."""
    if speaks(tokenizer):
        return True
    base, changed = spell(tokenizer, [pair.base, pair.changed])
    if not torch.equal(base.ends, changed.ends):
        return False
    before, after = (by_token(p, tokenizer) for p in (pair.before, pair.after))
    return float((before - after).abs().sum()) / 2 >= LEAST


def by_token(words: Float[Tensor, " word"], tokenizer: Any) -> Float[Tensor, " token"]:
    """Return a distribution over the language's words as one over their first tokens."""
    tokens = token_of_word(tokenizer)
    known = tokens >= 0
    return torch.zeros(int(tokens.max()) + 1, dtype=words.dtype).index_add(0, tokens[known], words[known])


@dataclass(frozen=True, eq=False)
class Readouts:
    """The next tokens by which pairs are judged."""

    exact: bool
    """True where the truth is the grammar's own distribution, False where it is the model's on the other text."""
    before: Float[Tensor, "seq vocabulary"]
    """The grammar's distribution after the text, over first tokens of words."""
    after: Float[Tensor, "seq vocabulary"]
    """And after the other text."""
    betraying: Sequence[Sequence[Int[Tensor, " _"]]]
    """For each pair and every other variable: tokens possible only had that one changed."""

    @property
    def allowed(self) -> Bool[Tensor, "seq vocabulary"]:
        """Mask of the tokens that either text allows."""
        return (self.before > 0) | (self.after > 0)

    def read(self, predicted: Float[Tensor, "seq vocabulary"]) -> Float[Tensor, "seq vocabulary"]:
        """Return predictions as they are compared: of the named tokens alone, where the truth is the model's own."""
        if self.exact:
            return predicted[:, : self.after.shape[1]]
        named = self.allowed
        for row, variables in enumerate(self.betraying):
            for tokens in variables:
                named[row, tokens] = True
        kept = predicted * named
        return kept / kept.sum(1, keepdim=True)

    def distance(
        self, predicted: Float[Tensor, "seq vocabulary"], other: Float[Tensor, "seq vocabulary"]
    ) -> Float[Tensor, " seq"]:
        """Return the total variation of predictions to the truth after the other text. `other`: those on it."""
        target = self.after if self.exact else self.read(other)
        return 0.5 * (self.read(predicted) - target).abs().sum(1)

    def followed(self, predicted: Float[Tensor, "seq vocabulary"], other: Float[Tensor, "seq vocabulary"]) -> bool:
        """Return whether a model follows the variable in which these pairs differ."""
        if self.exact:
            here, there = (self.distance(p, other).sum() for p in (predicted, other))
            return bool(here - there >= FOLLOWED * here)
        change = self.log_odds(other) - self.log_odds(predicted)
        change = change[change.isfinite() & (change != 0)].numpy()
        if not len(change):
            return False
        tested: Any = wilcoxon(change, alternative="greater")
        return float(tested.pvalue) <= CHANCE

    def log_odds(self, predicted: Float[Tensor, "seq vocabulary"]) -> Float[Tensor, " seq"]:
        """Return the log-odds of the tokens that the other text makes likelier against those that it makes less so."""
        rising, falling = self.after > self.before, self.after < self.before
        return ((predicted * rising).sum(1) / (predicted * falling).sum(1)).log()

    def leaks(
        self,
        before: Float[Tensor, "seq vocabulary"],
        other: Float[Tensor, "seq vocabulary"],
        found: Float[Tensor, "seq vocabulary"],
    ) -> list[float]:
        """Return the probability moved to words that would betray each other variable, pair by pair."""
        extra = self.read(found) - torch.maximum(self.read(before), self.read(other))
        return [
            float(extra[row, tokens].sum().clamp(min=0))
            for row, variables in enumerate(self.betraying)
            for tokens in variables
        ]

    def nonsense(
        self,
        before: Float[Tensor, "seq vocabulary"],
        other: Float[Tensor, "seq vocabulary"],
        found: Float[Tensor, "seq vocabulary"],
    ) -> float:
        """Return the probability moved to tokens that neither text allows, mean over pairs."""
        if self.exact:
            before, other, found = (self.read(p) for p in (before, other, found))
        extra = (found - torch.maximum(before, other)).masked_fill(self.allowed, 0.0).sum(1)
        return float(extra.clamp(min=0).mean())


def readouts_of(pairs: Iterable[Pair], tokenizer: Any, vocabulary: int) -> Readouts:
    """Return the readouts of pairs for a tokenizer, over as many tokens as the model has."""
    tokens, found = token_of_word(tokenizer), list(pairs)
    exact = speaks(tokenizer)
    size = len(WORDS) if exact else vocabulary
    before = torch.stack([widened(by_token(pair.before, tokenizer), size) for pair in found])
    after = torch.stack([widened(by_token(pair.after, tokenizer), size) for pair in found])
    betraying = [
        # A token that also begins a word possible after the other text betrays nothing.
        [own[after[row, own] == 0] for own in (tokens[sorted(words)].unique() for words in pair.betraying.values())]
        for row, pair in enumerate(found)
    ]
    return Readouts(exact, before, after, [[own for own in each if len(own)] for each in betraying])


def widened(values: Float[Tensor, " some"], size: int) -> Float[Tensor, " all"]:
    return torch.nn.functional.pad(values, (0, size - len(values)))
