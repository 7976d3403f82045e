"""The words of the language, as data: nothing here is derived, everything is ordinary English.

A noun, and whatever a noun can follow "a" with, begins with a consonant, so that "a" is right everywhere. No form of a
noun is a word of any other kind: a noun form always says which noun it is.
"""

TAXONOMY: dict[str, dict[str, str]] = {
    "animal": {
        "bird": "crow robin heron hawk sparrow pigeon raven stork swan finch",
        "beast": "fox horse goat wolf lion tiger zebra camel rabbit donkey",
        "swimmer": "shark whale dolphin crab lobster turtle squid sardine minnow walrus",
        "bug": "bee wasp beetle moth butterfly cricket spider hornet termite ladybug",
        "reptile": "snake lizard frog toad crocodile gecko python viper tortoise newt",
        "pet": "dog cat kitten puppy hamster parrot poodle pony rat canary",
    },
    "person": {
        "worker": "baker weaver smith miller tailor doctor teacher farmer lawyer plumber",
        "noble": "duke prince baron knight king queen lord duchess princess monarch",
        "relative": "father mother brother sister cousin nephew niece grandmother grandfather daughter",
        "performer": "singer dancer poet clown drummer pianist magician writer juggler sculptor",
        "fighter": "soldier captain sergeant sailor pirate warrior colonel commander trooper gunner",
        "rogue": "thief burglar bandit liar gambler robber smuggler villain traitor crook",
    },
    "artefact": {
        "vehicle": "boat cart sled barge car truck wagon bicycle tractor canoe",
        "tool": "hammer shovel wrench chisel ladder rake needle screwdriver crowbar trowel",
        "weapon": "sword dagger spear cannon rifle pistol lance musket knife bullet",
        "instrument": "drum violin piano flute guitar trumpet harp cello banjo tuba",
        "furniture": "table chair sofa bed desk stool cabinet mattress bench wardrobe",
        "container": "bottle jar bucket basket barrel kettle box mug teapot vase",
    },
    "plant": {
        "tree": "pine birch cedar maple willow palm cypress poplar fir spruce",
        "flower": "rose lily daisy tulip daffodil poppy sunflower marigold peony lotus",
        "shrub": "bush hedge fern cactus thistle nettle bramble shrub vine reed",
        "sprig": "leaf twig root branch stem petal thorn seed bud log",
        "vegetable": "carrot potato tomato cabbage pumpkin radish turnip lettuce cucumber pepper",
        "fruit": "pear plum peach cherry grape lemon banana melon fig mango",
    },
    "food": {
        "bread": "loaf cake pie biscuit pretzel muffin pancake waffle doughnut bagel",
        "meal": "soup stew salad sandwich pizza curry sausage burger dumpling taco",
        "drink": "beer wine coffee juice cider milkshake lemonade cocoa whisky tea",
        "sweet": "candy cookie lollipop caramel truffle pudding sundae jelly brownie marshmallow",
        "snack": "cracker peanut raisin walnut chestnut cashew hazelnut pickle noodle nugget",
        "sauce": "sauce gravy syrup ketchup mustard custard chutney marmalade vinegar jam",
    },
    "garment": {
        "hat": "hat cap helmet bonnet turban beret hood crown sombrero tiara",
        "shoe": "shoe boot sandal slipper sneaker clog moccasin loafer stiletto skate",
        "coat": "coat jacket cloak robe sweater vest cape parka cardigan blazer",
        "cloth": "blanket towel curtain carpet rug quilt pillow sheet tablecloth napkin",
        "jewel": "ring necklace bracelet brooch pendant diamond ruby pearl medal locket",
        "dress": "dress skirt shirt blouse gown tunic kilt sari jersey corset",
    },
    "land": {
        "hill": "hill mountain cliff canyon ridge volcano dune peak glacier ravine",
        "water": "river lake pond stream brook waterfall lagoon puddle creek bay",
        "sky": "cloud star moon planet comet meteor rainbow sunbeam galaxy nebula",
        "weather": "storm blizzard hurricane tornado breeze gale thunderstorm shower raindrop snowflake",
        "rock": "rock stone pebble boulder crystal fossil slab brick tile cobble",
        "field": "field lawn garden pasture prairie paddock swamp marsh jungle grove",
    },
    "building": {
        "house": "house cottage cabin mansion hut villa bungalow shack tent palace",
        "shop": "shop bakery pharmacy restaurant cafe tavern brewery bookshop laundry salon",
        "temple": "temple church chapel mosque shrine cathedral monastery convent pagoda synagogue",
        "fort": "fort castle tower fortress bunker dungeon prison wall gate moat",
        "part": "door window roof chimney staircase balcony corridor ceiling floor fireplace",
        "road": "road street bridge tunnel path lane highway railway pavement boulevard",
    },
}  # fmt: skip
"""Kind, class, nouns; as many nouns in each class."""
IRREGULAR_PLURALS = {
    "wolf": "wolves", "thief": "thieves", "knife": "knives", "leaf": "leaves", "loaf": "loaves", "potato": "potatoes",
    "tomato": "tomatoes", "mango": "mangoes", "volcano": "volcanoes", "tornado": "tornadoes", "monarch": "monarchs",
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
    "teacher": "teach", "farmer": "plow", "lawyer": "argue", "plumber": "solder",
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
    Irene Jane Jenny Jessica Joan Julia Karen Kate Laura Linda Lisa Lucy Maria Martha Mary Molly Nancy Nina Nora Olivia
    Pamela Paula Rachel Rebecca Rita Ruth Sally Sarah Sofia Stella Susan Sylvia Tina Vera Wendy Zoe Amanda Monica
    Teresa Victoria
"""
MEN = """
    Adam Alan Albert Alex Andrew Anthony Arthur Ben Bill Bob Brian Carl Charles Chris Daniel David Dennis Edward Eric
    Felix Frank Fred Gary George Greg Harry Henry Hugo Ian Jack James Jason Jim Joe John Joseph Karl Keith Kevin Larry
    Leo Lewis Luke Mark Martin Matthew Michael Nathan Oscar Oliver Patrick Paul Peter Philip Ralph Richard Robert Roger
    Samuel Simon
"""
