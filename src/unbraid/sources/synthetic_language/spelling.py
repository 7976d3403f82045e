"""The tokens at which words of the language end, for a tokenizer that may write a word as several.

The factors of a word stand at its last token: only there has a reader seen all of it. So no token may hold characters
of two words, and every word must end where a token does. Offsets of the tokenizer say whether that is so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from unbraid.sources.synthetic_language.lexicon import SPECIAL, WORDS
from unbraid.sources.truth import NoTruth

SPACE = -1
"""The number, in place of a word's, of the characters between words."""
ORDINARY = WORDS[len(SPECIAL) :]
"""The words that texts are made of: all but the special ones."""


@dataclass(frozen=True, eq=False)
class Spelled:
    """A text of the language as a tokenizer writes it."""

    ids: Sequence[int]
    ends: Int[Tensor, " word"]
    """The place of each word's last token."""

    @property
    def lengths(self) -> Int[Tensor, " word"]:
        """The number of tokens up to each word's last, from after the word before it."""
        return torch.diff(self.ends, prepend=torch.tensor([-1]))


def spell(tokenizer: Any, texts: Sequence[Sequence[str]]) -> list[Spelled]:
    """Return texts, each given as its words, as tokens.

    Raises NoTruth, with an example, for a tokenizer whose tokens do not end where words do.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise NoTruth(
            f"{type(tokenizer).__name__} does not say of which characters a token is, so where the words of the "
            "language end is not known; use a tokenizer with a tokenizer.json"
        )
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    found = backend.encode_batch([" ".join(words) for words in texts], add_special_tokens=False)
    unknown = tokenizer.unk_token_id
    return [spelled(words, one.ids, one.offsets, unknown) for words, one in zip(texts, found, strict=True)]


def spelled(
    words: Sequence[str], ids: Sequence[int], offsets: Sequence[tuple[int, int]], unknown: int | None
) -> Spelled:
    """Return a text as tokens, proven by their offsets: the characters of the text that each token is made of."""
    text, places = " ".join(words), list(word_of_character(words))
    ends, reached = [-1] * len(words), 0
    for place, (start, end) in enumerate(offsets):
        piece = text[start:end]
        start, end = start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())
        if start >= end:
            continue  # a space by itself
        word, last = places[start], places[end - 1]
        if word != last:
            raise NoTruth(
                f"the tokenizer writes parts of two words as one token, {piece!r} in {words[word]!r} {words[last]!r}, "
                "so no token is the last of the first; read the language with a tokenizer that keeps words apart"
            )
        if ids[place] == unknown:
            raise NoTruth(
                f"the tokenizer does not know the word {words[word]!r}; read the language with one that knows English"
            )
        if any(place != SPACE for place in places[reached:start]):
            break
        ends[word], reached = place, end
    if reached < len(text):
        word = next(number for number in places[reached:] if number != SPACE)
        raise NoTruth(
            f"the tokenizer leaves out a part of {words[word]!r}, so where it ends is not known; read the language "
            "with a tokenizer that gives texts back as they are"
        )
    return Spelled(ids, torch.tensor(ends, dtype=torch.long))


def word_of_character(words: Sequence[str]) -> Iterator[int]:
    """Yield the number of the word that each character of a text belongs to."""
    for number, word in enumerate(words):
        if number:
            yield SPACE
        yield from (number for _ in word)


@lru_cache(maxsize=8)
def prove(tokenizer: Any) -> bool:
    """Return whether each word of the language, inside a text, is one token.

    Raises NoTruth for a tokenizer whose tokens do not end where words do.
    """
    (whole,) = spell(tokenizer, [ORDINARY])
    return bool((whole.lengths == 1).all())


@lru_cache(maxsize=8)
def first_tokens(tokenizer: Any) -> dict[str, int]:
    """Return the first token of each word inside a text.

    Raises NoTruth where many words begin with the same token, as where a space is one by itself.
    """
    (whole,) = spell(tokenizer, [("the", *ORDINARY)])
    found = {word: whole.ids[end + 1] for word, (end, _) in zip(ORDINARY, pairwise(whole.ends.tolist()), strict=True)}
    if 2 * len(set(found.values())) < len(found):
        raise NoTruth(
            f"the tokenizer begins {len(found):,} words with {len(set(found.values())):,} tokens, so a next token "
            "hardly tells which word comes; read the language with a tokenizer that has words, or most of them, whole"
        )
    return found
