"""Whole documents through a language model: with the words that their tokens end, and minimal pairs at their ends."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.sources.base import Batch, Counterfactuals, Split
from unbraid.sources.language_model.bos import bos_of
from unbraid.sources.language_model.pairs_file import pair_documents
from unbraid.sources.synthetic_language.documents import LONGEST
from unbraid.sources.synthetic_language.spelling import prove
from unbraid.sources.synthetic_language.truth import LanguageTruth, Told
from unbraid.sources.text.documents import from_language
from unbraid.sources.text.tokens import encode
from unbraid.sources.truth import NoTruth

if TYPE_CHECKING:
    from unbraid.sources.language_model.language_model import LanguageModel


@lru_cache(maxsize=4)
def minimal_pairs(source: "LanguageModel", split: Split) -> Counterfactuals:
    """Return all minimal pairs, at their last tokens: the user's, for both splits, or the language's."""
    documents = pair_documents(source.pairs, source.text, source.loaded_tokenizer, split)
    return Counterfactuals(*(at_ends(source, side) for side in zip(*documents, strict=True)))


def at_ends(source: "LanguageModel", documents: Sequence[Sequence[int]]) -> Float[Tensor, "document d_in"]:
    """Return the activations at the last tokens of whole documents."""
    windows = source.whole(documents)
    acts = torch.cat([source.activations(part) for part in windows.parts(source.batch)])
    return acts[torch.arange(len(documents)), windows.attention.sum(1) - 1]


@lru_cache(maxsize=2)
def whole_documents(source: "LanguageModel", told: Told, count: int, split: Split, seed: int) -> Batch:
    """Return the rows of documents of the language, with at least `count` words or all there are.

    They are kept, because every eval of every run of a source reads the same.
    """
    mean = told.words / len(told.texts)
    number = min(int(source.sequences(split)), math.ceil(1.1 * count / mean) + 8)
    windows = source.windows(max(1, number), split=split, seed=seed)
    keep = windows.keep
    acts = torch.cat([source.activations(part)[part.keep] for part in windows.parts(source.batch)])
    positions = torch.arange(keep.shape[1], device=keep.device).expand_as(keep)
    documents = windows.documents[:, None].expand_as(keep)
    return Batch(acts, windows.ids[keep], documents[keep], positions[keep])


@lru_cache(maxsize=4)
def language_truth(source: "LanguageModel") -> LanguageTruth:
    """Return the truth of a source: one object, so that what is found out about it is found once.

    Raises NoTruth where windows may be parts of documents, and for a tokenizer whose tokens do not end where words do.
    """
    tokenizer, before = source.loaded_tokenizer, int(bos_of(source.loaded_tokenizer, source.bos) is not None)
    if source.context <= LONGEST:
        raise NoTruth(
            f"a context of {source.context} tokens cuts documents of the language, which have up to {LONGEST} words, "
            f"and the factors of a part are not known; raise --source.context to {LONGEST + 1} or more"
        )
    single = prove(tokenizer)
    told = Told(from_language(source.text), tokenizer, before)
    longest = LONGEST if single else int(encode(tokenizer, told.texts).lengths.max())
    if longest + before > source.context:
        raise NoTruth(
            f"a context of {source.context} tokens cuts documents of the language, of which the longest has {longest} "
            f"in this tokenizer, and the factors of a part are not known; raise --source.context to {longest + before} "
            "or more"
        )

    def rows(count: int, split: Split, seed: int) -> Iterator[Batch]:
        yield whole_documents(source, told, count, split, seed)

    return LanguageTruth(told, rows, everywhere=single)
