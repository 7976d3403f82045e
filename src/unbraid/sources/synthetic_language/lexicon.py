"""The lexicon: a taxonomy of things, verbs for each kind and class of them, places, and named people.

Nouns belong to classes, classes to kinds; what a thing does depends on both. Named people are all combinations of a
home, a job and a gender, so that changing one attribute of a person always gives another person.
"""

from itertools import product

from unbraid.sources.synthetic_language import vocabulary
from unbraid.sources.synthetic_language.inflection import Verb, plural, verb


def split(table: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return a table of words with each cell split at its spaces."""
    return {name: tuple(cell.split()) for name, cell in table.items()}


def verbs(table: dict[str, str]) -> dict[str, tuple[Verb, ...]]:
    """Return a table of verbs with all of their forms."""
    return {name: tuple(map(verb, cell)) for name, cell in split(table).items()}


TAXONOMY = {kind: split(classes) for kind, classes in vocabulary.TAXONOMY.items()}
"""Kind, class, nouns."""
NOUNS = tuple(noun for classes in TAXONOMY.values() for nouns in classes.values() for noun in nouns)
CLASSES = tuple(name for classes in TAXONOMY.values() for name in classes)
KINDS = tuple(TAXONOMY)
OF_CLASS = len(NOUNS) // len(CLASSES)
"""Nouns in a class."""
CLASS_OF = tuple(i // OF_CLASS for i, _ in enumerate(NOUNS))
"""Class of each noun."""
KIND_OF = tuple(KINDS.index(k) for k in KINDS for _ in TAXONOMY[k])
"""Kind of each class."""
RANKS = tuple(rank**-0.5 for rank in range(1, OF_CLASS + 1))
WITHIN_CLASS = tuple(weight / sum(RANKS) for weight in RANKS)
"""Probabilities of the nouns of a class: falling with the root of the rank, so that the last is rare but not unseen."""

CLASS_VERBS = verbs(vocabulary.CLASS_VERBS)
KIND_VERBS = verbs(vocabulary.KIND_VERBS)
TRANSITIVE = {
    kind: {verb(base): kinds for base, kinds in split(table).items()} for kind, table in vocabulary.TRANSITIVE.items()
}
"""Kind of the subject, verb, kinds of the object."""
JOBS = TAXONOMY["person"]["worker"]
JOB_VERBS = {job: verb(base) for job, base in vocabulary.JOB_VERBS.items()}
LIVE, WORK = verb("live"), verb("work")

TENSES = split(vocabulary.TENSES)
SETTINGS = split(vocabulary.SETTINGS)
PLACES = split(vocabulary.PLACES)
FAVOURED = 0.12
"""Probability of each class that a place favours; the others share the rest."""
REGISTERS = {name: split(table) for name, table in vocabulary.REGISTERS.items()}
QUALITIES = split(vocabulary.QUALITIES)
ADJECTIVES = tuple(word for group in QUALITIES.values() for word in group)
QUALITIES_OF = split(vocabulary.QUALITIES_OF)
FITTING = 0.8
"""Probability that a thing is said to have one of the qualities that fit its kind."""
CONVERSE = vocabulary.CONVERSE
RELATIONS = tuple(CONVERSE)
DETERMINERS = {"the": -1, "a": 0, "some": 1, "this": 0, "these": 1}
"""The number each shows: 0 singular, 1 plural, -1 either."""

HOMES = tuple(vocabulary.HOMES.split())
GENDERS = {"she": "female", "he": "male"}
NAMES = tuple(name for pair in zip(vocabulary.WOMEN.split(), vocabulary.MEN.split(), strict=True) for name in pair)
"""Women and men by turns."""
COMBINATIONS = tuple(product(range(len(HOMES)), range(len(JOBS))))
# 17 and 48 have no common divisor: every home and job once for women and once for men, in an order that the alphabet
# does not follow.
PEOPLE = tuple((*COMBINATIONS[i // 2 * 17 % len(COMBINATIONS)], i % 2) for i, _ in enumerate(NAMES))
"""Home, job and gender of each name: all combinations."""

SPECIAL = ("<unk>", "<s>", "</s>")


def words() -> tuple[str, ...]:
    """Return the vocabulary, in order of id: special tokens, then every word once."""
    every = [v for table in (CLASS_VERBS, KIND_VERBS) for found in table.values() for v in found]
    every += [v for table in TRANSITIVE.values() for v in table]
    every += [*JOB_VERBS.values(), LIVE, WORK]
    found = [
        *SPECIAL, ",", ".", "so", "in", "near", "as", "from", "will", "be", "is", "are", "was", "were", "it", "they",
        *GENDERS, *DETERMINERS, *(word for group in TENSES.values() for word in group), *SETTINGS, *PLACES, *ADJECTIVES,
        *RELATIONS, *HOMES, *(word for register in REGISTERS.values() for group in register.values() for word in group),
        *NOUNS, *map(plural, NOUNS), *(form for forms in every for form in forms), *NAMES,
    ]  # fmt: skip
    return tuple(dict.fromkeys(found))


WORDS = words()
IDS = {word: i for i, word in enumerate(WORDS)}
BOS, EOS = IDS["<s>"], IDS["</s>"]
EOS_WORD = "</s>"
