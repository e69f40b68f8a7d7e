"""Rubrics: a judge's prompt about an answer, and the number in its reply.

A rubric is text with {prompt} and {completion} in it, and {reference} if it likes. All three are put in at
once, so that braces in them mean nothing. The paragraph with {reference}, from blank line to blank line, is
left out where a prompt has no reference answer.
"""

import re
from pathlib import Path

from prefline.errors import InputError

PLACES = re.compile(r"\{(prompt|completion|reference)\}")


def load(path):
    """Return the paragraphs (list of str) of a text file with a rubric; InputError for one that is none."""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: a rubric is a text file in UTF-8 ({error})") from None
    for place in ("{prompt}", "{completion}"):
        if place not in text:
            raise InputError(f"{path}: the rubric has no {place}; write it where the {place[1:-1]} belongs")
    for number, line in enumerate(text.splitlines(), 1):
        if re.search("[{}]", PLACES.sub("", line)):
            raise InputError(
                f"{path}, line {number}: a rubric has no braces but those of {{prompt}}, {{completion}} and "
                "{reference}; correct the name, or write other brackets"
            )
    paragraphs = re.split(r"\n\s*\n", text)
    for paragraph in paragraphs:
        if "{reference}" in paragraph and ("{prompt}" in paragraph or "{completion}" in paragraph):
            raise InputError(
                f"{path}: put {{reference}} into a separate paragraph, between blank lines: it is left "
                "out where a prompt has no reference answer"
            )
    return paragraphs


def fill(paragraphs, dialogue):
    """Return the judge's prompt (str) about a `rewards.Dialogue`."""
    values = {
        "prompt": transcript(dialogue.messages),
        "completion": dialogue.completion,
        "reference": dialogue.reference,
    }
    kept = [text for text in paragraphs if dialogue.reference or "{reference}" not in text]
    return PLACES.sub(lambda place: values[place[1]], "\n\n".join(kept))


def transcript(messages):
    """Return a prompt (list of {"role", "content"}) as people would write it down (str).

    One message of the user's is its text; of more, each turn begins with who speaks.
    """
    if [message["role"] for message in messages] == ["user"]:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)
