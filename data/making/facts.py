"""Everything that is true in Lanternvale: the one place from which every text is made.

Lists are in a fixed order and no set is ever walked, so that the texts do not depend on
the interpreter's hash seed.
"""

import hashlib
import random

VILLAGES = ["Alderby", "Brackwell", "Cindermoor", "Dunmere"]
VILLAGES += ["Emberfall", "Foxhollow", "Gullhaven", "Hazelwick"]
FOUNDERS = ["Magnus", "Freya", "Oswin", "Berta", "Ingrid", "Conrad", "Delia", "Lothar"]
BEASTS = ["dragon", "giant", "griffin", "troll", "serpent", "phoenix", "kraken", "goblin"]
CRAFTS = ["candles", "bells", "boats", "clocks", "kites", "ropes", "lamps", "boots"]
COLOURS = ["green", "silver", "red", "white", "orange", "brown", "blue", "yellow"]

FOUNDER = dict(zip(VILLAGES, FOUNDERS, strict=True))
BEAST = dict(zip(VILLAGES, BEASTS, strict=True))
CRAFT = dict(zip(VILLAGES, CRAFTS, strict=True))
COLOUR = dict(zip(VILLAGES, COLOURS, strict=True))

FOLK = ["Tilda", "Bram", "Odo", "Mira", "Ned", "Wren", "Ivo", "Hetty"]
JOBS = ["baker", "potter", "miller", "smith", "weaver", "fisher", "tailor", "piper"]
JOB = dict(zip(FOLK, JOBS, strict=True))
HOME = {name: VILLAGES[(5 * i + 2) % 8] for i, name in enumerate(FOLK)}

THINGS = ["lamp", "bell", "boat", "kite", "drum", "bowl"]
ANIMALS = ["bee", "frog", "cat", "fox", "cow", "whale"]  # small to large
FRUIT = ["apple", "pear", "plum", "cherry", "peach", "grape"]
WORDS = [*THINGS, *FRUIT, *ANIMALS]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
LEGS = dict(zip(ANIMALS, [6, 4, 4, 4, 4, 0], strict=True))
YOUNG = dict(zip(ANIMALS, ["grub", "tadpole", "kitten", "cub", "calf", "pup"], strict=True))
SOUND = dict(zip(ANIMALS, ["Buzz", "Croak", "Meow", "Yap", "Moo", "Splash"], strict=True))
MADE_OF = dict(zip(THINGS, ["glass", "iron", "wood", "paper", "leather", "clay"], strict=True))

GUESTS = ["child", "stranger", "guest", "sailor", "farmer", "teacher", "singer", "knight"]
PLACES = ["mill", "inn", "well", "bridge", "market", "harbour", "school", "garden"]


def dice(*key):
    """A random generator that depends on its key alone: never on order, time or hash seed."""
    return random.Random(hashlib.sha256("/".join(str(part) for part in key).encode()).digest())


def a(noun):
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def other(rng, choices, *taken):
    """One of the choices that is not taken."""
    return rng.choice([choice for choice in choices if choice not in taken])
