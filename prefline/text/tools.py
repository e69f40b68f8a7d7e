"""Write an assistant's calls of tools as the text that the chat template writes.

A policy samples a call as text of its answer, so a call in data is text, too. A template whose calls are no
text of an answer, such as those with special tokens, takes no calls.
"""

import json

from prefline.errors import InputError
from prefline.text import reasoning, turns
from prefline.text.rendering import render
from prefline.text.words import missing


def calls_as_text(tokenizer, message, special, markers, parts):
    """Return the content (str) of an assistant's message whose calls are the text that the template writes.

    message: dict with "content" and "tool_calls", a list of {"name", "arguments"}; special: pattern of the
    special tokens; markers: see reasoning.markers_of; parts: see turns.takes_parts. Raises InputError if the
    template has no such text.
    """
    thought, answer = reasoning.split(message["content"], markers)
    if answer is None:
        raise InputError("the reasoning before the call of a tool never ends")
    asked = {"role": "user", "content": turns.QUESTION}
    before, behind = turns.around(tokenizer, parts, turns.ANSWER)
    failure = None
    # Templates write the arguments as they are, or as JSON; some need an object, others a text.
    for encode in (lambda arguments: arguments, lambda arguments: json.dumps(arguments, ensure_ascii=False)):
        calls = [
            {
                "type": "function",
                "id": f"call{number:05}",
                "function": {"name": call["name"], "arguments": encode(call["arguments"])},
            }
            for number, call in enumerate(message["tool_calls"])
        ]
        called = {"role": "assistant", "content": answer, "tool_calls": calls}
        try:
            text = render(tokenizer, [asked, called], False, parts)
        except InputError as error:
            failure = failure or error
            continue
        if text.startswith(before) and text.endswith(behind) and len(text) >= len(before) + len(behind):
            made = text[len(before) : len(text) - len(behind)]
            _check(made, answer, message, special)
            plain = {"role": "assistant", "content": made}
            if render(tokenizer, [asked, plain], False, parts) == text:
                return thought + made
        failure = failure or InputError(
            "the chat template writes calls of tools otherwise than as text of an answer"
        )
    raise failure


def _check(made, answer, message, special):
    """Raise InputError if `made` (str) lacks a word of the message, or has a special token besides."""
    own = json.dumps(message, ensure_ascii=False)
    control = next((token for token in special.findall(made) if token not in own), None)
    if control is not None:
        raise InputError(f"the chat template writes calls of tools with the special token {control}")
    for call in message["tool_calls"]:
        for text in (call["name"], *_texts(call["arguments"])):
            if (word := missing(text, made, escaped=True)) is not None:
                raise InputError(f"the chat template drops calls of tools, such as {word!r:.40}")
    if (word := missing(answer, made)) is not None:
        raise InputError(f"the chat template drops the text beside a call of a tool, such as {word!r:.40}")


def _texts(value):
    """Yield the keys and texts (str) of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
