"""The source behind a source: of a cache of activations what it was written from, of any other the source itself.

A cache holds activations and the numbers of tokens. What they read as, and what follows from them in later layers,
comes from the source that the cache names, which is read again; for evals in float32 whatever the cache was made in: a
change of logits is a difference of two numbers of which bfloat16 keeps three digits.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

from unbraid.sources.base import Source
from unbraid.sources.cached import Cached
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.system.notices import log
from unbraid.system.sharing import shared

T = TypeVar("T")


@shared
def behind(source: Source) -> Source:
    """Return the source whose activations these are, in float32 where it is the model of a cache.

    Raises ValueError for a cache whose model or text is not there any more, or is another one.
    """
    if not isinstance(source, Cached):
        return source
    origin = source.reread()
    return replace(origin, dtype="float32") if isinstance(origin, LanguageModel) else origin


def asked_behind(source: Source, what: str, ask: Callable[[Source], T], without: T) -> T:
    """Return what the source behind a run gives for `what`; `without`, with a warning that says why, for a cache whose
    source cannot be read here."""
    if isinstance(source, Cached) and source.why_not_reread:
        say_what_is_missing(source, what)
        return without
    return ask(behind(source))


def model_to_splice(source: Source) -> LanguageModel | None:
    """Return the language model into which reconstructions can be spliced; None where there is none, with a warning
    where one was to be expected."""
    found = asked_behind(source, "cross-entropy", lambda found: found, source)
    return found if isinstance(found, LanguageModel) else None


@lru_cache(maxsize=32)
def say_what_is_missing(source: Cached, what: str) -> None:
    """Warn, once, that the source behind a cache cannot be read."""
    log.warning("the cache %s is scored and shown without %s: %s", source.folder, what, source.why_not_reread)
