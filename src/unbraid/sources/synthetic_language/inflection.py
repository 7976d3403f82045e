"""Plurals of nouns and forms of verbs, by the rules of English and a list of exceptions."""

from typing import NamedTuple

from unbraid.sources.synthetic_language.vocabulary import DOUBLED, IRREGULAR_PASTS, IRREGULAR_PLURALS

VOWELS = "aeiou"


class Verb(NamedTuple):
    """The forms of a verb: base, third person singular, past."""

    base: str
    third: str
    past: str


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    return IRREGULAR_PLURALS.get(noun) or with_s(noun)


def verb(base: str) -> Verb:
    """Return the forms of a verb."""
    return Verb(base, with_s(base, "o"), IRREGULAR_PASTS.get(base) or regular_past(base))


def with_s(word: str, *more: str) -> str:
    """Return a word with the s of plurals and of the third person.

    more: endings that take -es, in addition to those that always do.
    """
    if word.endswith(("s", "x", "z", "ch", "sh", *more)):
        return word + "es"
    return word[:-1] + "ies" if ends_in_consonant_and_y(word) else word + "s"


def regular_past(base: str) -> str:
    """Return the past of a regular verb."""
    if base.endswith("e"):
        return base + "d"
    if ends_in_consonant_and_y(base):
        return base[:-1] + "ied"
    return base + (base[-1] if base in DOUBLED else "") + "ed"


def ends_in_consonant_and_y(word: str) -> bool:
    """Return whether a word ends in y after a consonant."""
    return word[-1] == "y" and word[-2] not in VOWELS
