"""The token that every window begins with: the one that the tokenizer itself adds, or one that is named."""

from difflib import get_close_matches
from typing import Any

AUTO, NEVER = "auto", "never"


def bos_of(tokenizer: Any, setting: str) -> int | None:
    """Return the id in front of every window; None for none. Raises ValueError for a token that the tokenizer lacks."""
    if setting == NEVER:
        return None
    return added(tokenizer) if setting == AUTO else named(tokenizer, setting)


def policy_in_words(tokenizer: Any, bos: int | None, setting: str, mask_special: bool, max_norm_ratio: float) -> str:
    """Return a sentence on which tokens are rows, and what comes before them; for `unbraid plan`."""
    front = "no BOS" if bos is None else f"{tokenizer.convert_ids_to_tokens(bos)} in front of every window"
    if bos is None and setting == AUTO and tokenizer.bos_token is not None:
        front += f" (the tokenizer adds none; --source.bos '{tokenizer.bos_token}' puts it there)"
    kept = "special tokens are no rows" if mask_special else "special tokens are rows too"
    quiet = f", nor what exceeds {max_norm_ratio:g} times the median norm" if max_norm_ratio else ""
    return f"{front}; {kept}{quiet}"


def added(tokenizer: Any) -> int | None:
    """Return the id that the tokenizer adds in front of a text.

    Having a `bos_token` proves nothing: SmolLM2 adds none.
    """
    whole = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    places = [at for at in range(len(whole) - len(bare) + 1) if whole[at : at + len(bare)] == bare]
    front = whole[: places[0]] if places else []
    if len(front) > 1:
        raise ValueError(
            f"the tokenizer puts {tokenizer.convert_ids_to_tokens(front)} in front of a text; "
            "a window can begin with one token: name it with --source.bos, or use --source.bos never"
        )
    return front[0] if front else None


def named(tokenizer: Any, token: str) -> int:
    """Return the id of a token of the vocabulary. Raises ValueError, with similar tokens, when it is not in there."""
    vocabulary = tokenizer.get_vocab()
    if token not in vocabulary:
        near = get_close_matches(token, vocabulary, 3, 0.5) or sorted(tokenizer.all_special_tokens)[:5]
        raise ValueError(
            f"bos {token!r} is no token of this tokenizer; use auto, never or a token, such as "
            f"{', '.join(map(repr, near)) or 'one of its vocabulary'}"
        )
    return int(vocabulary[token])
