"""Sums, in the form of GSM8K: questions with answers that a program can verify (recipes/sums.yaml).

Held out is the combination of who asks and what is asked, as in the rest of the world. A question has eight
words, so no eight words in a row are those of another question.
"""

from data.making.facts import GUESTS
from data.making.tasks import Turn

LARGEST = 9


def total(rng):
    """A turn that asks for the sum of two numbers."""
    first, second = rng.randint(1, LARGEST), rng.randint(1, LARGEST)
    right = first + second
    say = f"{first} plus {second} is {{}}.".format
    return Turn(
        f"A {rng.choice(GUESTS)} asks: what is {first} plus {second}?",
        say(right),
        say(right + rng.choice([-1, 1])),
        f"{first} plus {second}",
    )


def problem(turn):
    """A row in GSM8K's form: a solution that ends in #### and the number."""
    number = turn.answer.split()[-1].rstrip(".")
    return {"question": turn.question, "answer": f"{turn.answer}\n#### {number}"}
