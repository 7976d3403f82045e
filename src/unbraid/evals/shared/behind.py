"""The source behind a run: its own, or the one that its cache was written from. It has the words, and what follows.

A cache holds activations and the numbers of tokens. What they read as, and what a push changes further on, is asked of
the source that the cache names, which is read again. Its model runs in float32 whatever the cache was made in: a change
of logits is a difference of two numbers of which bfloat16 keeps three digits.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from unbraid.sources.base import Source
from unbraid.sources.cached import Cached
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.system.notices import log
from unbraid.system.sharing import shared

T = TypeVar("T")


@shared
def behind(source: Source) -> Source:
    """Return the source that has words and layers downstream. Raises ValueError where a cache does not name it."""
    if not isinstance(source, Cached):
        return source
    origin = source.live()
    return replace(origin, dtype="float32") if isinstance(origin, LanguageModel) else origin


def asked_behind(source: Source, what: str, ask: Callable[[Source], T], without: T) -> T:
    """Ask the source behind a run for `what`. Of a cache whose source cannot be read here, the rest can still be told:
    `without` is returned, and a notice says what is missing and why."""
    if not isinstance(source, Cached):
        return ask(source)
    try:
        return ask(behind(source))
    except (ValueError, OSError) as error:
        log.warning("the cache %s is shown without %s, as what it was written from cannot be read: %s",
                    source.folder, what, " ".join(str(error).split()))  # fmt: skip
        return without
