"""Find the text that a chat template writes around an answer, once per tokenizer, by rendering sentinels.

    prompt            <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n
    opener                <think>\\n\\n</think>\\n\\n           empty for most templates
    answer                    Hello!
    closer                        <|im_end|>                up to and including the first special token

Text that a template writes after that token is not trained on, since a policy stops there. If a template
writes no special token after the last answer, the token that begins the user's next turn ends it, as in
GLM-4.
"""

from typing import NamedTuple

from prefline.errors import InputError
from prefline.text import reasoning
from prefline.text.rendering import render

QUESTION, ANSWER = "SentinelQuestion", "SentinelAnswer"
BLANKS = (" ", "\n")


class Turn(NamedTuple):
    """The texts around an answer in the assistant's turn.

    opener: str, between the generation prompt and an answer; opened: str, the end of a generation prompt
    that begins reasoning, else ""; closer: str; strips_left, strips_right: the blanks (str) that the
    template strips from an answer's ends, None for all of them; follows: kind of the generation prompt's
    end, see encoding.Encoder.
    """

    opener: str
    opened: str
    closer: str
    strips_left: str | None
    strips_right: str | None
    follows: str

    def stripped(self, answer):
        """Return `answer` (str) without the blanks that the template strips."""
        return answer.lstrip(self.strips_left).rstrip(self.strips_right)

    def before(self, answer, markers):
        """Return the assistant's text after the generation prompt: opener and `answer` (str).

        markers: see reasoning.markers_of. Reasoning at the beginning of an answer replaces the opener's if it
        has the same markers and an end.
        """
        own = reasoning.opening_of(answer, markers)
        if own is None or own.closing not in answer.lstrip()[len(own.opening) :]:
            return self.opener + answer
        if not self.opened:
            return answer if any(marker in self.opener for marker in own) else self.opener + answer
        opening = self.opened.rstrip()
        if own.opening != opening:
            return self.opener + answer
        # The prompt has the opening, and the blanks after it.
        thought = answer.lstrip()
        return thought.removeprefix(self.opened if thought.startswith(self.opened) else opening)


def takes_parts(tokenizer):
    """Return whether the template takes contents as lists of parts, and drops strings."""
    ask, failure = [{"role": "user", "content": QUESTION}], None
    for parts in (False, True):
        try:
            if QUESTION in render(tokenizer, ask, True, parts):
                return parts
        except InputError as error:
            failure = failure or error
    raise failure or InputError(
        "the chat template drops the user's message; have it write message['content']"
    )


def dropped(tokenizer, roles, add_generation_prompt, parts):
    """Return the number (int) of the first message that the template drops from such dialogues, or None.

    roles: those of the messages. Each message is a word that no other text has. A template that refuses
    these words drops none.
    """
    words = [f"Sentinel{number}Message" for number in range(len(roles))]
    messages = [{"role": role, "content": word} for role, word in zip(roles, words, strict=True)]
    try:
        text = render(tokenizer, messages, add_generation_prompt, parts).lower()
    except InputError:
        return None
    return next((number for number, word in enumerate(words) if word.lower() not in text), None)


def turn_of(tokenizer, encoder, ends, markers, parts):
    """Return the Turn of a tokenizer's chat template; InputError if it has no clear beginning or end.

    encoder: encoding.Encoder; ends: pattern of the tokens that may end a turn; markers: see
    reasoning.markers_of; parts: see takes_parts.
    """
    prompt = render(tokenizer, [{"role": "user", "content": QUESTION}], True, parts)
    before, behind = around(tokenizer, parts, ANSWER)
    opened = reasoning.opened_by(prompt, markers)
    left = [blank for blank in BLANKS if around(tokenizer, parts, blank + ANSWER)[0] == before]
    right = [blank for blank in BLANKS if around(tokenizer, parts, ANSWER + blank)[1] == behind]
    return Turn(
        opener=_opener(prompt, before, opened),
        opened=prompt[prompt.rindex(opened.opening) :] if opened else "",
        closer=_closer(tokenizer, parts, behind, ends),
        strips_left=_taken(left),
        strips_right=_taken(right),
        follows="special" if any(map(prompt.endswith, encoder.ids)) else "text",
    )


def around(tokenizer, parts, answer):
    """Return (before, behind): the template's text around ANSWER, which is in `answer`."""
    around = render(tokenizer, _told(answer), False, parts).split(ANSWER)
    if len(around) != 2:
        raise InputError(
            f"the chat template writes an answer {len(around) - 1} times; have it write "
            "message['content'] once"
        )
    return around


def _taken(blanks):
    """Return the blanks (str) of BLANKS that are stripped; None for all white space."""
    taken = "".join(blanks)
    return None if taken == "".join(BLANKS) else taken


def _opener(prompt, before, opened):
    """Return the text between `prompt` and an answer; `before` is the dialogue's text up to the answer."""
    if opened:  # a dialogue may have the end of reasoning where the prompt has its beginning
        head = prompt[: prompt.rindex(opened.opening)]
        if before.startswith(head + opened.closing):
            return before[len(head) :]
    common = next(
        (place for place, pair in enumerate(zip(prompt, before, strict=False)) if len(set(pair)) > 1),
        min(len(prompt), len(before)),
    )
    asked, told = prompt[common:], before[common:]
    if not asked.strip():
        return told
    if told.strip():
        raise InputError(
            f"the chat template begins an answer with {asked!r:.80} in a prompt and with {told!r:.80} in a "
            "dialogue; the two must be the same"
        )
    # The prompt has text that dialogues lack; only open reasoning needs an end.
    return f"\n{opened.closing}\n\n" if opened else ""


def _closer(tokenizer, parts, behind, ends):
    """Return the text that ends an answer: from `behind`, after the last answer, or before a next turn."""
    end = ends.search(behind)
    if end is None:
        told = [*_told(ANSWER), {"role": "user", "content": QUESTION}]
        behind = render(tokenizer, told, False, parts).split(ANSWER)[1].split(QUESTION)[0]
        end = ends.search(behind)
    if end is None:
        raise InputError(
            "the chat template ends an answer without the tokenizer's end token or another special token, so "
            "that no policy could learn to stop; have the template write one after each answer"
        )
    return behind[: end.end()]


def _told(answer):
    return [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
