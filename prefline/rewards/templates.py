"""Check that a reward model's chat template shows the answer, and ends after it.

An end token is not required, since a reward model has no turn to end.
"""

from prefline.errors import InputError
from prefline.text import chat, rendering, turns

# Words that templates do not write, and tokenizers do not change.
ASKED, ANSWERED, NEXT = "Which bird is blue?", "A jay is blue.", "Which bird is green?"


def check(tokenizer, model):
    """Raise InputError for a template that refuses or drops an answer, or begins the next turn."""
    opening, end, following = parts(tokenizer, model)
    if following is None:
        return
    pairs = enumerate(zip(end, following, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), len(following))
    header = end[same:].strip()
    if header and header in opening:
        raise InputError(
            f"{model}: the chat template always begins another turn of the assistant after the answer "
            f"({header[-60:]!r}), and the score would be that turn's; set another template with "
            "models.NAME.chat_template"
        )


def ending(tokenizer, model):
    """Return a chat template (str) like that of `tokenizer` whose dialogues end with their last end token.

    If the template writes white space after it, a reward model would be read there. Other templates stay
    unchanged. model: names the template in errors; see `check`.
    """
    check(tokenizer, model)
    template = tokenizer.chat_template
    _, end, _ = parts(tokenizer, model)
    if not end.strip() or end == end.rstrip():
        return template
    # jinja drops the line feed after a tag, and the last one of a template.
    body = ("\n" if template.startswith("\n") else "") + template.removesuffix("\n")
    return f"{{%- set dialogue %}}{body}{{% endset %}}" + (
        "{{- dialogue if add_generation_prompt else dialogue.rstrip() }}"
    )


def parts(tokenizer, model):
    """Return the template's text (str) before an answer, after the last one, and after an earlier one.

    The third is None for a template that takes one turn only. Raises InputError if the template refuses or
    drops the question or the answer.
    """
    asked = {"role": "user", "content": ASKED}
    answered = {"role": "assistant", "content": ANSWERED}
    short, long = [asked, answered], [asked, answered, {"role": "user", "content": NEXT}, answered]
    try:
        chat.dialogue_ids(tokenizer, short)
    except InputError as error:
        raise InputError(f"{model}: as a reward model: {error}") from None
    in_parts = turns.takes_parts(tokenizer)
    before, end = rendering.render(tokenizer, short, False, in_parts).split(ANSWERED)
    try:
        following = rendering.render(tokenizer, long, False, in_parts).split(ANSWERED)[1].split(NEXT)[0]
    except InputError:  # of one turn only
        following = None
    return before.split(ASKED)[-1], end, following
