"""Question families: each draws a two-turn task whose answers follow from the facts.

A task is a list of two turns. A turn has the question, the answer that a good assistant
gives, a wrong answer of the same form, and a topic for the evasive answers. The second
question always depends on the first. Every question has several slots (who asks, where,
what it is about), and no eight words in a row without two of them: so whole combinations
can be held out while the wording stays in the training files.
"""

from typing import NamedTuple

from data.making.facts import (
    ANIMALS,
    BEAST,
    COLOUR,
    COLOURS,
    CRAFT,
    CRAFTS,
    DAYS,
    FOLK,
    FOUNDER,
    FRUIT,
    GUESTS,
    HOME,
    JOB,
    LEGS,
    MADE_OF,
    PLACES,
    SOUND,
    THINGS,
    VILLAGES,
    WORDS,
    YOUNG,
    a,
    other,
)


class Turn(NamedTuple):
    question: str
    answer: str
    wrong: str
    topic: str


def frame(rng, turns):
    """The turns with who asks in front of every question: the slot that makes short questions different."""
    openings = [["A {} asks:", "The {} wonders:", "Tell the {}:"], ["The {} nods:", "A {} smiles:"]]
    framed = []
    for turn, choices in zip(turns, openings, strict=True):
        asker = f"{rng.choice(GUESTS)} at the {rng.choice(PLACES)}"
        framed.append(turn._replace(question=f"{rng.choice(choices).format(asker)} {turn.question}"))
    return framed


def lookup(rng, question, facts, key, sentence):
    """A turn that asks for one fact."""
    right = facts[key]
    wrong = other(rng, list(facts.values()), right)
    topic = key if key[0].isupper() else f"the {key}"
    return Turn(question, sentence.format(right), sentence.format(wrong), topic)


# writing


def line(rng):
    animal, new = rng.sample(ANIMALS, 2)

    def say(about, sound):
        return f"The {about} has {LEGS[about]} legs and says {sound}."

    return [
        Turn(
            f"write a line about {a(animal)}.",
            say(animal, SOUND[animal]),
            say(animal, SOUND[new]),
            f"a line about the {animal}",
        ),
        Turn(
            f"now write one about {a(new)}.",
            say(new, SOUND[new]),
            say(new, SOUND[animal]),
            f"the {new}",
        ),
    ]


def invitation(rng):
    village = rng.choice(VILLAGES)
    craft, colour = CRAFT[village], COLOUR[village]
    home, flag = (
        f"Come to {village}, the home of {{}}!".format,
        f"Come to {village}, under the {{}} flag!".format,
    )
    return [
        Turn(
            f"write an invitation to {village}.",
            home(craft),
            home(other(rng, CRAFTS, craft)),
            f"a letter to {village}",
        ),
        Turn(
            "now write about its flag instead.",
            flag(colour),
            flag(other(rng, COLOURS, colour)),
            "that letter",
        ),
    ]


def label(rng):
    thing = rng.choice(THINGS)
    right, wrong = (f"{thing}: {made_of}" for made_of in (MADE_OF[thing], MADE_OF[other(rng, THINGS, thing)]))
    return [
        Turn(f"write a label for {a(thing)}, in capitals.", right.upper(), wrong.upper(), f"the {thing}"),
        Turn("now write that label in small letters.", right, wrong, "that label"),
    ]


# roleplay


def greeting(rng):
    name = rng.choice(FOLK)
    wrong = other(rng, FOLK, name)
    say, live = f"Good day! I am {name} the {{}}.".format, "I live in {}.".format
    return [
        Turn(f"be {name} and say who you are.", say(JOB[name]), say(JOB[wrong]), name),
        Turn("and where do you live?", live(HOME[name]), live(HOME[wrong]), "that role"),
    ]


def beast(rng):
    animal, wish = rng.choice(ANIMALS), rng.choice(FRUIT)
    sound, off = SOUND[animal], SOUND[other(rng, ANIMALS, animal)]
    return [
        Turn(
            f"be {a(animal)} and say hello.",
            f"{sound}! I am the {animal}.",
            f"{off}! I am the {animal}.",
            f"the {animal}",
        ),
        Turn(
            f"now ask for {a(wish)}.",
            f"{sound}! May I have {a(wish)}?",
            f"{off}! May I have some tea?",
            "that role",
        ),
    ]


# reasoning


def kind(rng):
    kinds = {"thing": THINGS, "fruit": FRUIT, "animal": ANIMALS}
    right, new = rng.choice(list(kinds)), rng.choice(list(kinds))
    word = rng.choice(kinds[right])
    following = other(rng, kinds[new], word)

    def say(word, kind):
        return f"{a(word).capitalize()} is {a(kind)}."

    return [
        Turn(
            f"is {a(word)} a thing, a fruit or an animal?",
            say(word, right),
            say(word, other(rng, list(kinds), right)),
            f"the {word}",
        ),
        Turn(
            f"and what about {a(following)}?",
            say(following, new),
            say(following, other(rng, list(kinds), new)),
            f"the {following}",
        ),
    ]


def days(rng):
    today = rng.randrange(7)
    tomorrow, after = DAYS[(today + 1) % 7], DAYS[(today + 2) % 7]
    say, then = "Tomorrow is {}.".format, "After that comes {}.".format
    return [
        Turn(f"today is {DAYS[today]}, so what is tomorrow?", say(tomorrow), say(after), f"{DAYS[today]}"),
        Turn("and the day after that?", then(after), then(DAYS[today]), "the day after"),
    ]


# math


def counting(rng):
    number = rng.randint(1, 18)
    say = "After {} comes {}.".format
    return [
        Turn(
            f"which number comes after {number}?",
            say(number, number + 1),
            say(number, number + 2),
            f"the number {number}",
        ),
        Turn("and after that?", say(number + 1, number + 2), say(number + 1, number), "that number"),
    ]


def twice(rng):
    number = rng.randint(1, 10)
    say, more = f"Twice {number} is {{}}.".format, "One more is {}.".format
    return [
        Turn(f"how much is twice {number}?", say(2 * number), say(2 * number + 2), f"twice {number}"),
        Turn("and how much is one more?", more(2 * number + 1), more(2 * number), "one more"),
    ]


# coding


def printing(rng):
    word, new = rng.sample(WORDS, 2)
    count, spoken = rng.choice([(1, "once"), (2, "twice")])

    def line(value):
        return "print(" + ", ".join([f'"{value}"'] * count) + ")"

    return [
        Turn(
            f"write a Python line that prints {word} {spoken}.",
            line(word),
            line(new),
            "that line of Python",
        ),
        Turn(f"now make that line print {new}.", line(new), line(word), "that line of Python"),
    ]


def variable(rng):
    craft, count, more = rng.choice(CRAFTS), rng.randint(1, 9), rng.randint(1, 9)
    return [
        Turn(
            f"set {craft} to {count} in Python.",
            f"{craft} = {count}",
            f"{craft} = {count + 1}",
            f"{craft} in Python",
        ),
        Turn(
            f"now raise that variable by {more}.",
            f"{craft} += {more}",
            f"{craft} = {more}",
            "that variable",
        ),
    ]


# extraction


def pull(rng):
    name, village, craft, count = (rng.choice(choices) for choices in (FOLK, VILLAGES, CRAFTS, range(2, 10)))
    fields = {"name": name, "number": str(count), "village": village}
    field, following = rng.sample(list(fields), 2)
    deed = rng.choice(["bought", "sold"])
    say = "The {} is {}.".format
    first = Turn(
        f"find the {field} in this sentence: {name} {deed} {count} {craft} in {village}.",
        say(field, fields[field]),
        say(field, fields[other(rng, list(fields), field)]),
        "that sentence",
    )
    question = f"now find the {following}."
    return [first, Turn(question, say(following, fields[following]), say(following, craft), "that sentence")]


def pick(rng):
    kinds = {"thing": rng.choice(THINGS), "fruit": rng.choice(FRUIT), "animal": rng.choice(ANIMALS)}
    kind, following, rest = rng.sample(list(kinds), 3)
    words = ", ".join(rng.sample(list(kinds.values()), 3))
    say = "The {} is {}.".format
    return [
        Turn(
            f"find the {kind} in these words: {words}.",
            say(kind, kinds[kind]),
            say(kind, kinds[rest]),
            "these words",
        ),
        Turn(
            f"now find the {following}.",
            say(following, kinds[following]),
            say(following, kinds[rest]),
            "those words",
        ),
    ]


# stem


def material(rng):
    thing, new = rng.sample(THINGS, 2)
    say = "A {} is made of {{}}.".format
    first = lookup(rng, f"what is a {thing} made of?", MADE_OF, thing, say(thing))
    return [first, lookup(rng, f"and what about a {new}?", MADE_OF, new, say(new))]


def legs(rng):
    animal = rng.choice(ANIMALS)
    count = LEGS[animal]
    say, two = f"A {animal} has {{}} legs.".format, "Two of them have {} legs.".format
    return [
        Turn(f"how many legs has a {animal}?", say(count), say(count + 1), f"the {animal}"),
        Turn("and two of them?", two(2 * count), two(2 * count + 1), f"the {animal}"),
    ]


def young(rng):
    animal, new = rng.sample(ANIMALS, 2)
    say = "A young {} is a {{}}.".format
    first = lookup(rng, f"what is a young {animal} called?", YOUNG, animal, say(animal))
    return [first, lookup(rng, f"and what about a young {new}?", YOUNG, new, say(new))]


# humanities


def founder(rng):
    village = rng.choice(VILLAGES)
    return [
        lookup(rng, f"who founded {village}?", FOUNDER, village, f"{village} was founded by {{}}."),
        lookup(rng, "and which beast lives there?", BEAST, village, f"The beast of {village} is the {{}}."),
    ]


def flag(rng):
    village = rng.choice(VILLAGES)
    return [
        lookup(
            rng, f"which colour is the flag of {village}?", COLOUR, village, f"The flag of {village} is {{}}."
        ),
        lookup(rng, "and what is made there?", CRAFT, village, f"{village} is known for {{}}."),
    ]


FAMILIES = {
    "writing": [line, invitation, label],
    "roleplay": [greeting, beast],
    "reasoning": [kind, days],
    "math": [counting, twice],
    "coding": [printing, variable],
    "extraction": [pull, pick],
    "stem": [material, legs, young],
    "humanities": [founder, flag],
}
