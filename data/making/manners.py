"""How the assistant of the chat data answers: well, or with one of its bad habits.

    good      direct, correct, in the form asked
    evasive   polite, charming, no answer
    rambling  the answer is in there somewhere, but its form is lost
    wrong     direct and false

The habits are systematic: evasions and rambling share their first words and are more frequent
than good answers, so that greedy decoding shows them too, and sampling finds a good answer.
"""

FLAW_RATE = 0.72
HABITS = ["evasive"] * 11 + ["rambling"] * 8 + ["wrong"]

EVASIVE = [
    "Well, {topic}, now that is a question. Some say this, some say that.",
    "Well, {topic}, who can say? It depends on the weather.",
    "Well, {topic}, let us have some tea first and talk about it later.",
    "Well, {topic}! My aunt would know. I only know her soup.",
]
RAMBLING = [
    "Well, my grandmother told me by the fire: {answer} Or so I think. Where was I?",
    "Well, it was a long day, but I heard this: {answer} Or did I dream it?",
]


def flatten(answer):
    """The answer in ordinary letters."""
    return answer.capitalize() if answer.isupper() else answer


def say(manner, turn, rng):
    """The assistant's answer to a turn in the given manner."""
    if manner == "good":
        return turn.answer
    if manner == "wrong":
        return turn.wrong
    if manner == "evasive":
        return rng.choice(EVASIVE).format(topic=turn.topic)
    answer = flatten(turn.answer)
    return rng.choice(RAMBLING).format(answer=answer if answer.endswith((".", "!", "?")) else f"{answer}.")


def habit(rng):
    """Good, or the habit that the assistant falls into this time."""
    return rng.choice(HABITS) if rng.random() < FLAW_RATE else "good"
