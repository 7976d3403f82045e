"""The words of the language, as data: nothing here is derived, everything is ordinary English.

A noun, and whatever a noun can follow "a" with, begins with a consonant, so that "a" is right everywhere. No form of a
noun is a word of any other kind: a noun form always says which noun it is.
"""

TAXONOMY: dict[str, dict[str, str]] = {
    "animal": {
        "bird": "crow robin heron hawk sparrow pigeon raven stork",
        "beast": "fox horse goat wolf lion tiger zebra camel",
        "swimmer": "shark whale dolphin crab lobster turtle squid sardine",
        "bug": "bee wasp beetle moth butterfly cricket spider hornet",
        "reptile": "snake lizard frog toad crocodile gecko python viper",
        "pet": "dog cat kitten puppy hamster parrot poodle pony",
    },
    "person": {
        "worker": "baker weaver smith miller tailor doctor teacher farmer",
        "noble": "duke prince baron knight king queen lord duchess",
        "relative": "father mother brother sister cousin nephew niece grandmother",
        "performer": "singer dancer poet clown drummer pianist magician writer",
        "fighter": "soldier captain sergeant sailor pirate warrior colonel commander",
        "rogue": "thief burglar bandit liar gambler robber smuggler villain",
    },
    "artefact": {
        "vehicle": "boat cart sled barge car truck wagon bicycle",
        "tool": "hammer shovel wrench chisel ladder rake needle screwdriver",
        "weapon": "sword dagger spear cannon rifle pistol lance musket",
        "instrument": "drum violin piano flute guitar trumpet harp cello",
        "furniture": "table chair sofa bed desk stool cabinet mattress",
        "container": "bottle jar bucket basket barrel kettle box mug",
    },
    "plant": {
        "tree": "pine birch cedar maple willow palm cypress poplar",
        "flower": "rose lily daisy tulip daffodil poppy sunflower marigold",
        "shrub": "bush hedge fern cactus thistle nettle bramble shrub",
        "sprig": "leaf twig root branch stem petal thorn seed",
        "vegetable": "carrot potato tomato cabbage pumpkin radish turnip lettuce",
        "fruit": "pear plum peach cherry grape lemon banana melon",
    },
    "food": {
        "bread": "loaf cake pie biscuit pretzel muffin pancake waffle",
        "meal": "soup stew salad sandwich pizza curry sausage burger",
        "drink": "beer wine coffee juice cider milkshake lemonade cocoa",
        "sweet": "candy cookie lollipop caramel truffle pudding sundae jelly",
        "snack": "cracker peanut raisin walnut chestnut cashew hazelnut pickle",
        "sauce": "sauce gravy syrup ketchup mustard custard chutney marmalade",
    },
    "garment": {
        "hat": "hat cap helmet bonnet turban beret hood crown",
        "shoe": "shoe boot sandal slipper sneaker clog moccasin loafer",
        "coat": "coat jacket cloak robe sweater vest cape parka",
        "cloth": "blanket towel curtain carpet rug quilt pillow sheet",
        "jewel": "ring necklace bracelet brooch pendant diamond ruby pearl",
        "dress": "dress skirt shirt blouse gown tunic kilt sari",
    },
    "land": {
        "hill": "hill mountain cliff canyon ridge volcano dune peak",
        "water": "river lake pond stream brook waterfall lagoon puddle",
        "sky": "cloud star moon planet comet meteor rainbow sunbeam",
        "weather": "storm blizzard hurricane tornado breeze gale thunderstorm shower",
        "rock": "rock stone pebble boulder crystal fossil slab brick",
        "field": "field lawn garden pasture prairie paddock swamp marsh",
    },
    "building": {
        "house": "house cottage cabin mansion hut villa bungalow shack",
        "shop": "shop bakery pharmacy restaurant cafe tavern brewery bookshop",
        "temple": "temple church chapel mosque shrine cathedral monastery convent",
        "fort": "fort castle tower fortress bunker dungeon prison wall",
        "part": "door window roof chimney staircase balcony corridor ceiling",
        "road": "road street bridge tunnel path lane highway railway",
    },
}  # fmt: skip
"""Kind, class, nouns; as many nouns in each class."""
IRREGULAR_PLURALS = {
    "wolf": "wolves", "thief": "thieves", "leaf": "leaves", "loaf": "loaves", "potato": "potatoes",
    "tomato": "tomatoes", "volcano": "volcanoes", "tornado": "tornadoes",
}  # fmt: skip

CLASS_VERBS = {
    "bird": "fly nest", "beast": "run graze", "swimmer": "swim dive", "bug": "buzz sting", "reptile": "hiss slither",
    "pet": "purr fetch", "worker": "toil haggle", "noble": "rule feast", "relative": "visit worry",
    "performer": "rehearse bow", "fighter": "march salute", "rogue": "cheat steal", "vehicle": "roll creak",
    "tool": "rattle break", "weapon": "clash gleam", "instrument": "hum echo", "furniture": "wobble squeak",
    "container": "leak tip", "tree": "sway rustle", "flower": "bloom fade", "shrub": "prickle tangle",
    "sprig": "curl snap", "vegetable": "sprout swell", "fruit": "ripen dangle", "bread": "crumble toast",
    "meal": "simmer sizzle", "drink": "foam spill", "sweet": "melt stick", "snack": "crunch scatter",
    "sauce": "thicken drip", "hat": "tilt flop", "shoe": "pinch stomp", "coat": "flap unravel", "cloth": "crease fray",
    "jewel": "sparkle glitter", "dress": "twirl shimmer", "hill": "loom erode", "water": "flow ripple",
    "sky": "glow drift", "weather": "rage howl", "rock": "crack tumble", "field": "flourish stretch",
    "house": "burn sag", "shop": "open close", "temple": "stand chime", "fort": "endure collapse",
    "part": "slam shudder", "road": "bend widen",
}  # fmt: skip
"""What things of a class do, the more frequent verb first."""
KIND_VERBS = {
    "animal": "sleep hide", "person": "sing laugh", "artefact": "rust vanish", "plant": "grow wither",
    "food": "rot cool", "garment": "shrink crumple", "land": "freeze darken", "building": "shake age",
}  # fmt: skip
TRANSITIVE = {
    "animal": {"chase": "animal person", "fear": "person artefact land", "eat": "plant food"},
    "person": {"own": "artefact garment building", "paint": "plant building", "praise": "person land"},
    "artefact": {"block": "person animal building", "crush": "plant food", "scratch": "garment artefact"},
    "plant": {"shade": "animal person", "cover": "building land", "feed": "animal"},
    "food": {"attract": "animal person", "stain": "garment", "fill": "artefact"},
    "garment": {"warm": "person animal", "decorate": "person building", "wrap": "artefact food"},
    "land": {"surround": "building land", "nourish": "plant animal", "shelter": "animal building"},
    "building": {"contain": "food garment artefact", "dominate": "land", "protect": "person plant"},
}
"""Kind of the subject, verb, kinds of the object."""
JOB_VERBS = {
    "baker": "bake", "weaver": "weave", "smith": "forge", "miller": "grind", "tailor": "sew", "doctor": "heal",
    "teacher": "teach", "farmer": "plow",
}  # fmt: skip
"""What named people do by their job."""
IRREGULAR_PASTS = {
    "fly": "flew", "run": "ran", "swim": "swam", "sting": "stung", "steal": "stole", "break": "broke",
    "stick": "stuck", "stand": "stood", "bend": "bent", "sleep": "slept", "hide": "hid", "sing": "sang", "grow": "grew",
    "shrink": "shrank", "freeze": "froze", "shake": "shook", "eat": "ate", "feed": "fed", "weave": "wove",
    "grind": "ground", "teach": "taught",
}  # fmt: skip
DOUBLED = ("hum", "tip", "snap", "drip", "flop", "flap", "sag", "slam", "rot", "wrap")
"""Verbs that double their last letter in the past."""

TENSES = {
    "past": "yesterday earlier once", "present": "today now currently", "future": "tomorrow soon later",
}  # fmt: skip
SETTINGS = {
    "outdoors": "harbour forest meadow valley desert island",
    "indoors": "hall kitchen cellar attic library studio",
    "downtown": "market station square park plaza theatre",
    "inland": "farm village orchard ranch quarry vineyard",
}
PLACES = {
    "harbour": "swimmer vehicle fighter water container worker", "forest": "bird beast tree shrub sprig bug",
    "meadow": "flower bug beast field sky relative", "valley": "hill water road field house sky",
    "desert": "reptile rock hill weather weapon vehicle", "island": "swimmer fruit bird rogue weather fort",
    "hall": "noble furniture instrument dress performer part", "kitchen": "bread meal container sauce worker vegetable",
    "cellar": "drink container tool bug part rogue", "attic": "cloth hat jewel pet furniture shoe",
    "library": "furniture relative cloth coat noble part", "studio": "instrument performer cloth dress jewel hat",
    "market": "fruit vegetable snack coat shoe rogue", "station": "vehicle road fighter coat snack shop",
    "square": "temple shop bird performer road noble", "park": "flower tree pet sweet sky relative",
    "plaza": "shop sweet drink jewel hat temple", "theatre": "performer dress instrument sweet relative shoe",
    "farm": "beast pet vegetable tool worker field", "village": "house temple bread tool shop meal",
    "orchard": "fruit tree bug sprig reptile drink", "ranch": "beast shoe hat weapon sauce vehicle",
    "quarry": "rock tool fort rogue weapon hill", "vineyard": "shrub drink snack sprig water house",
}  # fmt: skip
"""The classes that each place favours; as many for each."""
REGISTERS: dict[str, dict[str, str]] = {
    "formal": {"open": "sir madam", "link": "moreover however therefore", "join": "while", "close": "regards"},
    "plain": {"open": "hey hello", "link": "also but so", "join": "and", "close": "bye"},
    "poetic": {"open": "oh behold", "link": "alas yet thus", "join": "whilst", "close": "farewell"},
    "brisk": {"open": "listen look", "link": "anyway then still", "join": "plus", "close": "done"},
}
QUALITIES = {
    "size": "big small large tiny huge short tall wide", "colour": "red white blue green yellow brown grey pink",
    "condition": "new fresh clean dirty wet soft hard rough", "mood": "happy sad calm proud shy brave lazy gentle",
}  # fmt: skip
"""Adjectives, as many of each quality."""
QUALITIES_OF = {
    "animal": "size mood", "person": "mood size", "artefact": "condition colour", "plant": "colour size",
    "food": "condition colour", "garment": "colour condition", "land": "size condition", "building": "size condition",
}  # fmt: skip
"""The qualities that are said most of each kind, as many for each."""
CONVERSE = {
    "above": "below", "below": "above", "before": "behind", "behind": "before", "inside": "around", "around": "inside",
    "over": "under", "under": "over", "atop": "beneath", "beneath": "atop",
}  # fmt: skip

HOMES = "London Paris Rome Boston Berlin Dublin"
WOMEN = """
    Alice Anna Amy Beth Betty Carla Carol Cathy Clara Diana Donna Elena Ella Emily Emma Eva Fiona Grace Hannah Helen
    Irene Jane Jenny Jessica Joan Julia Karen Kate Laura Linda Lisa Lucy Maria Martha Mary Molly Nancy Nina Nora
    Olivia Pamela Paula Rachel Rebecca Rita Ruth Sally Sarah
"""
MEN = """
    Adam Alan Albert Alex Andrew Anthony Arthur Ben Bill Bob Brian Carl Charles Chris Daniel David Dennis Edward
    Eric Felix Frank Fred Gary George Greg Harry Henry Hugo Ian Jack James Jason Jim Joe John Joseph Karl Keith
    Kevin Larry Leo Lewis Luke Mark Martin Matthew Michael Nathan
"""
