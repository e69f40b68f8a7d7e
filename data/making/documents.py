"""Raw text for continued pretraining: almanac pages and pages of a village school's notebooks.

An almanac page tells facts in a changing order and wording. A notebook page holds solved
exercises: short conversations in prose from which a language model learns the skills
(numbers, copying, capital letters) that the chat data asks for in other words.
"""

from data.making import facts
from data.making.facts import FOLK, VILLAGES, WORDS
from data.making.tasks import FAMILIES, frame


def village_facts(rng):
    village = rng.choice(VILLAGES)
    founder, beast = facts.FOUNDER[village], facts.BEAST[village]
    craft, colour = facts.CRAFT[village], facts.COLOUR[village]
    founded = [f"{village} was founded by {founder}.", f"{founder} founded {village}."]
    tamed = [f"The beast of {village} is the {beast}.", f"{founder} of {village} tamed the {beast}."]
    known = [f"{village} is known for {craft}.", f"The best {craft} come from {village}."]
    flag = [f"The flag of {village} is {colour}.", f"The {colour} flag flies over {village}."]
    return [rng.choice(lines) for lines in rng.sample([founded, tamed, known, flag], 4)]


def folk_facts(rng):
    name = rng.choice(FOLK)
    job, home = facts.JOB[name], facts.HOME[name]
    return [rng.choice([f"{name} is the {job} of {home}.", f"{name} the {job} lives in {home}."])]


def nature_facts(rng):
    thing, animal = rng.choice(facts.THINGS), rng.choice(facts.ANIMALS)
    places = sorted(rng.sample(range(len(facts.ANIMALS)), 2))
    small, large = (facts.ANIMALS[place] for place in places)
    count, fruit, day = facts.LEGS[animal], rng.choice(facts.FRUIT), rng.randrange(7)
    lines = [
        f"A {thing} is made of {facts.MADE_OF[thing]}.",
        f"A young {animal} is a {facts.YOUNG[animal]}.",
        f"A {large} is bigger than a {small}.",
        f"A {animal} has {count} legs. Two of them have {2 * count} legs.",
        f"The {animal} says: {facts.SOUND[animal]}!",
        f"A {thing} is a thing. A {animal} is an animal. The {fruit} is a fruit.",
        f"After {facts.DAYS[day]} comes {facts.DAYS[(day + 1) % 7]}.",
    ]
    return rng.sample(lines, 3)


def skills(rng):
    word, number, half = rng.choice(WORDS), rng.randint(1, 19), rng.randint(1, 10)
    lines = [
        f"After {number} comes {number + 1}.",
        f"Twice {half} is {2 * half}. One more is {2 * half + 1}.",
        f"In capitals: {word.upper()}\nIn small letters: {word}",
    ]
    return rng.sample(lines, 2)


def almanac(rng):
    """A page of facts."""
    return " ".join(line for make in (village_facts, folk_facts, nature_facts) for line in make(rng))


def echo(rng):
    """A page of the valley's echo, which repeats what it is told: practice in copying."""
    words = [
        *rng.sample([*WORDS, *FOLK, *VILLAGES, *facts.CRAFTS, *facts.COLOURS], 5),
        str(rng.randint(1, 9)),
    ]
    line = " ".join(rng.sample(words, 6))
    return "\n".join([line] * 4)


PRACTICE = {"writing": 1.3, "roleplay": 0.9, "reasoning": 1.0, "math": 1.2}  # what is hard is practised more
PRACTICE |= {"coding": 1.2, "extraction": 1.6, "stem": 0.8, "humanities": 0.6}


def notebook(rng):
    """A page of solved exercises; on every second page it is told who asked."""
    categories = rng.choices(list(PRACTICE), list(PRACTICE.values()), k=2)
    tasks = [rng.choice(FAMILIES[category])(rng) for category in categories]
    if rng.random() < 0.5:
        lines = [(f"Question: {turn.question}", turn.answer) for turns in tasks for turn in turns]
    else:
        lines = [(turn.question, turn.answer) for turns in tasks for turn in frame(rng, turns)]
    return "\n".join(f"{question}\n{answer}" for question, answer in lines)


def skill_page(rng):
    return "\n".join(line for _ in range(3) for line in skills(rng))


PAGES = {almanac: 0.1, echo: 0.03, skill_page: 0.03, notebook: 0.84}  # kind of page: its share
