"""Whole documents through a language model: with their words, and minimal pairs at their last tokens."""

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.sources.base import Counterfactuals, Split, passes
from unbraid.sources.language_model.pairs_file import pair_documents
from unbraid.sources.synthetic_language.documents import LONGEST
from unbraid.sources.synthetic_language.truth import LanguageTruth, Reading
from unbraid.sources.truth import NoTruth

if TYPE_CHECKING:
    from unbraid.sources.language_model.language_model import LanguageModel


@lru_cache(maxsize=4)
def minimal_pairs(source: "LanguageModel", split: Split) -> Counterfactuals:
    """Return all minimal pairs, at their last tokens: the user's, for both splits, or the language's."""
    documents = pair_documents(source.pairs, source.text, source.loaded_tokenizer.tokenize, split)
    return Counterfactuals(*(at_ends(source, side) for side in zip(*documents, strict=True)))


def at_ends(source: "LanguageModel", documents: Sequence[Sequence[str]]) -> Float[Tensor, "document d_in"]:
    """Return the activations at the last tokens of whole documents."""
    windows = source.whole(documents)
    acts = torch.cat([source.activations(part) for part in windows.parts(source.batch)])
    return acts[torch.arange(len(documents)), windows.attention.sum(1) - 1]


@lru_cache(maxsize=2)
def reading(source: "LanguageModel", count: int, split: Split, seed: int) -> Reading:
    """Return whole documents of the language, with at least `count` words or all there are.

    They are kept, because every eval of every run of a source reads the same.
    """
    number = int(source.sequences(split))
    mean = max(1.0, source.available(split) / passes(source.epochs, split) / max(1, number))
    windows = source.windows(max(1, min(number, math.ceil(1.1 * count / mean) + 8)), split=split, seed=seed)
    acts = torch.cat([source.activations(part) for part in windows.parts(source.batch)])
    names = source.loaded_tokenizer.convert_ids_to_tokens
    words = [names(ids[keep].tolist()) for ids, keep in zip(windows.ids, windows.keep, strict=True)]
    return Reading(words, acts, windows.keep)


@lru_cache(maxsize=4)
def language_truth(source: "LanguageModel") -> LanguageTruth:
    """Return the truth of a source: one object, so that what is found out about it is found once.

    Raises NoTruth where windows may be parts of documents.
    """
    if source.context <= LONGEST:
        raise NoTruth(
            f"a context of {source.context} tokens cuts documents of the language, which have up to {LONGEST} words, "
            f"and the factors of a part are not known; raise --source.context to {LONGEST + 1} or more"
        )
    return LanguageTruth(partial(reading, source))
