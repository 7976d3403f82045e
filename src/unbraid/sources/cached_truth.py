"""The factors behind cached activations of the synthetic language, found by the document and place of each row."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING

from unbraid.sources.base import Batch, Split
from unbraid.sources.synthetic_language.truth import LanguageTruth
from unbraid.sources.text.documents import is_language
from unbraid.sources.truth import NoTruth

if TYPE_CHECKING:
    from unbraid.sources.cached import Cached


@lru_cache(maxsize=4)
def cached_truth(source: "Cached") -> LanguageTruth:
    """Return the truth of a cache: one object, so that what is found out about it is found once.

    Raises NoTruth for a cache of anything but the language.
    """
    found = source.live().truth() if is_language(str(source.origin().get("text", ""))) else None
    if not isinstance(found, LanguageTruth):
        raise NoTruth(
            f"the factors behind the rows of the cache {source.folder} are not known: it holds no text by which to "
            "find them; train on the source itself, or on a cache of --source.text language://…"
        )

    once = replace(source, epochs=1)

    def rows(_: int, split: Split, seed: int) -> Iterator[Batch]:
        for index in count():
            block = once.block(index, split=split, seed=seed)
            if block is None:
                return
            yield block.rows

    return replace(found, rows=rows)
