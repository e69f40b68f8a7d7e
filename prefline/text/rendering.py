"""Render messages to text by a tokenizer's chat template, without the machine's clock."""

import json

from prefline import unicode
from prefline.errors import InputError
from prefline.text import limits

# The role of a first message whose content (JSON) is the schemas of the dialogue's tools.
SCHEMAS = "tools"
# Exceptions of a template's code, beside jinja's.
FAILURES = (
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError, MemoryError),
    *(AssertionError, SyntaxError),  # Python's own compiler, of what jinja makes
)


def render(tokenizer, messages, add_generation_prompt, parts=False):
    """Return the text (str) of `messages`; raise InputError if the chat template cannot render them.

    parts: whether to pass contents as lists of parts, which multimodal templates need.
    """
    import jinja2

    tools = None
    if messages[0]["role"] == SCHEMAS:
        tools, messages = json.loads(messages[0]["content"]), messages[1:]
    if parts:
        messages = [
            {**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages
        ]
    try:
        with limits.limited():
            text = tokenizer.apply_chat_template(
                messages,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                strftime_now=_no_clock,
            )
    except limits.TooLong:
        raise InputError(
            f"the chat template computes for more than {limits.SECONDS} s; correct it, and name it as "
            "models.NAME.chat_template"
        ) from None
    except jinja2.TemplateError as error:
        raise InputError(
            f"the chat template refuses the messages: {error}{system_advice(messages[0])}"
        ) from None
    except FAILURES as error:
        raise InputError(
            f"the chat template fails ({type(error).__name__}: {error!s:.200}){system_advice(messages[0])}"
        ) from None
    if not unicode.is_valid(text):
        raise InputError(f"the chat template {unicode.FAULT}; correct it")
    return text


def system_advice(message):
    """Return advice for a template that cannot render a system `message`; "" for other roles."""
    if message["role"] != "system":
        return ""
    return "; for a template without system messages, set models.NAME.system_message: first_user"


def _no_clock(_format):
    import jinja2

    raise jinja2.TemplateError("it writes today's date; fetch the model with a `date` in the config")
