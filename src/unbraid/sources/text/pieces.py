"""The text of single tokens, such that tokens of one window laid end to end read as the text does.

Decoded alone, a token loses the space in front of it (SentencePiece) or is a part of a character (bytes of CJK, emoji).
So each is decoded after the one before it, and a character that several tokens make is the text of the last of them;
the others have none.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

from unbraid.sources.base import Batch

HALF = "\ufffd"
"""What a decoder gives for bytes that are no whole character."""
MOST_BYTES = 4
"""Bytes, and so tokens, of one character at most."""


def row_texts(tokenizer: Any, rows: Batch) -> list[str]:
    """Return the text of each row's token. `rows`: in the order of their windows."""
    starts = [*rows.window_starts().nonzero()[:, 0].tolist(), len(rows)]
    ids = rows.tokens.tolist()
    windows = [ids[a:b] for a, b in pairwise(starts)]
    return [text for window in pieces(tokenizer, windows) for text in window]


def pieces(tokenizer: Any, windows: Sequence[Sequence[int]]) -> Iterator[list[str]]:
    """Yield the texts of each window's tokens."""
    decode = partial(tokenizer.decode, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    after = lru_cache(maxsize=2**16)(partial(text_after, decode))
    return (list(window_pieces(after, ids)) for ids in windows)


def window_pieces(after: Callable[[tuple[int, ...], tuple[int, ...]], str], ids: Sequence[int]) -> Iterator[str]:
    """Yield the text of each token of one window."""
    before, waiting = (), ()
    for number, token in enumerate(ids, 1):
        waiting = (*waiting, token)
        text = after(before, waiting)
        if text.endswith(HALF) and len(waiting) < MOST_BYTES and number < len(ids):
            yield ""
        else:
            yield text
            before, waiting = waiting, ()


def text_after(decode: Callable[[list[int]], str], before: tuple[int, ...], tokens: tuple[int, ...]) -> str:
    """Return what tokens add to the text of those before them."""
    alone, both = decode([*before]) if before else "", decode([*before, *tokens])
    return both[len(alone) :] if both.startswith(alone) else decode([*tokens])
