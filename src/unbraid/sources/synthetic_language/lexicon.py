"""Words of the language: a taxonomy of things, verbs for each kind and class of them, places, and named people.

Everything is made to be read: nouns belong to classes, classes to kinds; what a thing does depends on both. Named
people are all combinations of a home, a job and a gender, so that changing one attribute of a person always gives
another person.
"""

from itertools import product

TAXONOMY: dict[str, dict[str, tuple[str, ...]]] = {
    "animal": {
        "bird": ("crow", "robin", "heron", "hawk"),
        "beast": ("fox", "dog", "horse", "goat"),
        "fish": ("trout", "carp", "pike", "salmon"),
    },
    "person": {
        "worker": ("baker", "weaver", "smith", "miller"),
        "noble": ("duke", "prince", "baron", "knight"),
    },
    "artefact": {
        "vehicle": ("boat", "cart", "sled", "barge"),
        "tool": ("hammer", "lamp", "drum", "clock"),
    },
    "plant": {
        "tree": ("pine", "birch", "cedar", "maple"),
        "flower": ("rose", "lily", "daisy", "tulip"),
    },
}
"""Kind, class, noun."""
NOUNS = tuple(noun for classes in TAXONOMY.values() for nouns in classes.values() for noun in nouns)
CLASSES = tuple(name for classes in TAXONOMY.values() for name in classes)
KINDS = tuple(TAXONOMY)
CLASS_OF = tuple(CLASSES.index(c) for k in KINDS for c, nouns in TAXONOMY[k].items() for _ in nouns)
"""Class of each noun."""
KIND_OF = tuple(KINDS.index(k) for k in KINDS for _ in TAXONOMY[k])
"""Kind of each class."""
IRREGULAR_PLURALS = {"fox": "foxes", "lily": "lilies", "daisy": "daisies", "birch": "birches"}
WITHIN_CLASS = (0.4, 0.3, 0.2, 0.1)
"""Probabilities of the nouns of a class."""

# Base, third person singular, past.
CLASS_VERBS = {
    "bird": (("fly", "flies", "flew"), ("nest", "nests", "nested")),
    "beast": (("run", "runs", "ran"), ("graze", "grazes", "grazed")),
    "fish": (("swim", "swims", "swam"), ("dive", "dives", "dived")),
    "worker": (("toil", "toils", "toiled"), ("haggle", "haggles", "haggled")),
    "noble": (("rule", "rules", "ruled"), ("feast", "feasts", "feasted")),
    "vehicle": (("roll", "rolls", "rolled"), ("creak", "creaks", "creaked")),
    "tool": (("rattle", "rattles", "rattled"), ("break", "breaks", "broke")),
    "tree": (("sway", "sways", "swayed"), ("tower", "towers", "towered")),
    "flower": (("bloom", "blooms", "bloomed"), ("fade", "fades", "faded")),
}
KIND_VERBS = {
    "animal": (("sleep", "sleeps", "slept"), ("hide", "hides", "hid")),
    "person": (("sing", "sings", "sang"), ("laugh", "laughs", "laughed")),
    "artefact": (("rust", "rusts", "rusted"), ("vanish", "vanishes", "vanished")),
    "plant": (("grow", "grows", "grew"), ("wither", "withers", "withered")),
}
TRANSITIVE = {
    "animal": {
        ("chase", "chases", "chased"): ("animal",),
        ("fear", "fears", "feared"): ("person", "artefact"),
    },
    "person": {
        ("own", "owns", "owned"): ("artefact", "animal"),
        ("paint", "paints", "painted"): ("plant", "artefact"),
        ("praise", "praises", "praised"): ("person",),
    },
    "artefact": {
        ("block", "blocks", "blocked"): ("person", "animal"),
        ("crush", "crushes", "crushed"): ("plant",),
    },
    "plant": {
        ("shade", "shades", "shaded"): ("animal", "person"),
        ("cover", "covers", "covered"): ("artefact",),
    },
}
"""Kind of the subject, verb, kinds of the object."""
JOBS = TAXONOMY["person"]["worker"]
JOB_VERBS = {
    "baker": ("bake", "bakes", "baked"),
    "weaver": ("weave", "weaves", "wove"),
    "smith": ("forge", "forges", "forged"),
    "miller": ("grind", "grinds", "ground"),
}
LIVE, WORK = ("live", "lives", "lived"), ("work", "works", "worked")

TENSES = {"past": "yesterday", "present": "today", "future": "tomorrow"}
PLACES = {
    "harbour": ("fish", "vehicle", "worker"),
    "forest": ("bird", "beast", "tree"),
    "meadow": ("flower", "beast", "bird"),
    "hall": ("noble", "tool", "worker"),
    "kitchen": ("worker", "tool", "fish"),
    "cellar": ("tool", "vehicle", "noble"),
}
"""The classes each place favours."""
SETTINGS = {"outdoors": ("harbour", "forest", "meadow"), "indoors": ("hall", "kitchen", "cellar")}
FAVOURED = 0.22
"""Probability of each favoured class; the others share the rest."""
REGISTERS = {
    "formal": {"open": ("sir", "madam"), "link": ("moreover", "however", "therefore"), "close": ("regards",)},
    "plain": {"open": ("hey", "hello"), "link": ("also", "but", "so"), "close": ("bye",)},
}
ADJECTIVES = ("big", "small", "red", "white", "old", "young")
CONVERSE = {
    "above": "below", "below": "above", "before": "behind", "behind": "before", "inside": "around", "around": "inside",
}  # fmt: skip
RELATIONS = tuple(CONVERSE)
DETERMINERS = {"the": -1, "a": 0, "some": 1, "this": 0, "these": 1}
"""The number each shows: 0 singular, 1 plural, -1 either."""

HOMES = ("Norwick", "Selby", "Marden", "Tolworth")
GENDERS = {"she": "female", "he": "male"}
NAMES = (
    "Ada", "Bram", "Cleo", "Dov", "Edda", "Finn", "Gita", "Hugo", "Ines", "Jory", "Kaya", "Liam", "Mira", "Nils",
    "Orla", "Pim", "Quin", "Rosa", "Sven", "Tara", "Udo", "Vera", "Wim", "Xena", "Yann", "Zita", "Aldo", "Bea",
    "Carl", "Dina", "Egon", "Fay",
)  # fmt: skip
# 11 and 32 have no common divisor: every combination once, in an order that neighbours in the list do not share.
PEOPLE = tuple(list(product(range(4), range(4), range(2)))[i * 11 % 32] for i in range(len(NAMES)))
"""Home, job and gender of each name: all 32 combinations."""

SPECIAL = ("<unk>", "<s>", "</s>")


def plural(noun: str) -> str:
    return IRREGULAR_PLURALS.get(noun, noun + "s")


def words() -> tuple[str, ...]:
    """Return the vocabulary, in order of id: special tokens, then every word once."""
    verbs = [v for table in (CLASS_VERBS, KIND_VERBS) for verbs in table.values() for v in verbs]
    verbs += [v for table in TRANSITIVE.values() for v in table]
    verbs += [*JOB_VERBS.values(), LIVE, WORK]
    found = [
        *SPECIAL, ",", ".", "and", "so", "in", "near", "as", "from", "will", "be", "is", "are", "was", "were",
        "it", "they", "she", "he", *DETERMINERS, *TENSES.values(), *SETTINGS, *PLACES, *ADJECTIVES, *RELATIONS, *HOMES,
        *(word for register in REGISTERS.values() for group in register.values() for word in group),
        *NOUNS, *map(plural, NOUNS), *(form for verb in verbs for form in verb), *NAMES,
    ]  # fmt: skip
    return tuple(dict.fromkeys(found))


WORDS = words()
IDS = {word: i for i, word in enumerate(WORDS)}
BOS, EOS = IDS["<s>"], IDS["</s>"]
EOS_WORD = "</s>"
