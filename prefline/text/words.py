"""Notice words of messages that a chat template does not write."""

import json

from prefline.errors import InputError
from prefline.text import reasoning
from prefline.text.encoding import show
from prefline.text.rendering import SCHEMAS, system_advice

# Keys of schemas whose texts a template must write.
TOLD = ("name", "description")


def check(text, messages, shown, markers):
    """Raise InputError if a word of `messages` is not in the rendered `text`.

    shown: see encoding.Encoder.hide; markers: see reasoning.markers_of. Reasoning may be missing.
    """
    for number, message in enumerate(messages):
        content = message["content"]
        if message["role"] == SCHEMAS:
            for told in _told(json.loads(content)):
                if (lost := missing(told, text, escaped=True)) is not None:
                    raise dropped(number, message, show(lost, shown))
            continue
        if message["role"] == "assistant" and content.strip() not in text:
            content = reasoning.split(content, markers)[1] or ""
        if (lost := missing(content, text, escaped=message["role"] == "tool")) is not None:
            raise dropped(number, message, show(lost, shown))


def dropped(number, message, word):
    """Return the InputError of message `number`, of which the template drops `word` (str)."""
    return InputError(
        f"the chat template drops text of message {number + 1} (role {message['role']}), such as "
        f"{word!r:.40}" + system_advice(message)
    )


def missing(content, text, escaped=False):
    """Return the first word of `content` (str) that the rendered `text` lacks; None if it has all.

    escaped: whether the template may write the content as a JSON string.
    """
    forms = [str, _as_json] if escaped else [str]
    if any(form(content).strip() in text for form in forms):
        return None
    return next((word for word in content.split() if all(form(word) not in text for form in forms)), None)


def _as_json(content):
    return json.dumps(content, ensure_ascii=False)[1:-1]


def _told(value):
    """Yield the names and descriptions (str) of a schema and of its parameters."""
    if isinstance(value, list):
        for inner in value:
            yield from _told(inner)
    elif isinstance(value, dict):
        yield from (value[key] for key in TOLD if isinstance(value.get(key), str))
        for key, inner in value.items():
            if key == "properties" and isinstance(inner, dict):
                yield from inner
                for parameter in inner.values():
                    yield from _told(parameter)
            elif isinstance(inner, (dict, list)):
                yield from _told(inner)
