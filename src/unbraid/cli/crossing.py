"""The values of --cross: a field and what to set it to, one after another."""

import ast
from collections.abc import Sequence
from typing import Any


def axis(text: str) -> tuple[str, list[Any]]:
    """ "training.lr=1e-4,3e-4" as a field and its values. A value that holds commas is quoted, or in brackets."""
    field, equals, values = text.partition("=")
    if not equals or not values.strip() or not field.strip():
        raise ValueError(f"--cross {text!r}: write FIELD=VALUE,VALUE, such as training.lr=1e-4,3e-4")
    found = [value(word) for word in separated(values, text)]
    twice = [one for index, one in enumerate(found) if one in found[:index]]
    if twice:
        raise ValueError(f"--cross {text!r} names {twice[0]!r} twice; name each value once")
    return field.strip(), found


def axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    """All fields that are crossed."""
    found = [axis(text) for text in texts]
    names = [field for field, _ in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--cross {twice[0]} is given twice; write all its values in one: {twice[0]}=VALUE,VALUE")
    return dict(found)


def value(word: str) -> Any:
    """The value that Python reads in a word, or the word itself."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return word


def separated(values: str, text: str) -> list[str]:
    """Words between commas that stand outside quotes and brackets."""
    words, depth, quote, start = [], 0, "", 0
    for place, character in enumerate(values):
        begins = place == start or depth > 0  # an apostrophe inside a word is none
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and begins:
            quote = character
        elif character in "([{" and begins:
            depth += 1
        elif character in ")]}" and depth:
            depth -= 1
        elif character == "," and not depth:
            words.append(values[start:place])
            start = place + 1
    words.append(values[start:])
    if quote or depth:
        raise ValueError(f"--cross {text!r}: a quote or bracket is not closed; close it, or leave it out")
    if not all(word.strip() for word in words):
        raise ValueError(f"--cross {text!r} has an empty value; write '' for empty text, or drop a comma")
    return [word.strip() for word in words]
