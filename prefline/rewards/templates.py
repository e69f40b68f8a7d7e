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

    If the template writes white space after it, a reward model would be read there. A BOS that the tokenizer
    adds is written by the template, so that apply_chat_template has it, too. Other templates stay unchanged.
    model: names the template in errors; see `check`.
    """
    check(tokenizer, model)
    template = tokenizer.chat_template
    first = "{{- bos_token }}" if adds_bos(tokenizer) else ""
    _, end, _ = parts(tokenizer, model)
    if not end.strip() or end == end.rstrip():
        return first + template
    # jinja drops the line feed after a tag, and the last one of a template.
    body = ("\n" if template.startswith("\n") else "") + template.removesuffix("\n")
    return (
        first
        + f"{{%- set dialogue %}}{body}{{% endset %}}"
        + ("{{- dialogue if add_generation_prompt else dialogue.rstrip() }}")
    )


def adds_bos(tokenizer):
    """Return whether the tokenizer begins dialogues with a BOS that its chat template does not write.

    Then two usual snippets disagree: apply_chat_template makes ids without it, and the tokenizer, given the
    rendered text, ids with it. Prefline's have it.
    """
    dialogue = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}]
    text = rendering.render(tokenizer, dialogue, False, turns.takes_parts(tokenizer))
    bos = tokenizer.bos_token
    begun = bos is not None and chat.dialogue_ids(tokenizer, dialogue)[0] == tokenizer.bos_token_id
    return begun and not text.startswith(bos)


def note(tokenizer):
    """Return the line (str) that names what Prefline does where two usual snippets disagree, or None."""
    try:
        if not adds_bos(tokenizer):
            return None
    except InputError:  # of a template that a row's error will describe
        return None
    return (
        f"dialogues begin with {tokenizer.bos_token}, which the tokenizer adds and the chat template does "
        "not write; scores are those of tokenizer(text), not of apply_chat_template(tokenize=True), which "
        "has no such token (docs/ranking.md)"
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
