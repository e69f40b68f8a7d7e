"""Find the tokens that are structure: special ones, and others that a chat template writes.

Published tokenizers add some tokens of structure without calling them special, such as DeepSeek's roles and
Qwen's <tool_call>.
"""

from prefline.errors import InputError
from prefline.text import reasoning
from prefline.text.rendering import render

QUESTION, ANSWER = {"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}


def special(tokenizer):
    """Return {id: text} of the tokens that the tokenizer calls special."""
    named = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    added = tokenizer.added_tokens_decoder.items()
    return dict(named) | {token_id: token.content for token_id, token in added if token.special}


def in_template(tokenizer):
    """Return {id: text} of the other added tokens that the chat template has in its code."""
    return _others(tokenizer, str(tokenizer.chat_template or ""))


def around_turns(tokenizer):
    """Return {id: text} of the other added tokens that the chat template writes around turns.

    An answer may have the others as tokens: reasoning markers, and those of tool calls.
    """
    if not in_template(tokenizer):
        return {}
    marks = {text for pair in reasoning.markers_of(tokenizer) for text in pair}
    found = _others(tokenizer, rendered(tokenizer))
    return {token: text for token, text in found.items() if text not in marks}


def _others(tokenizer, text):
    """Return {id: text} of the added tokens in `text` that are not special, without words and blanks."""
    return {
        token_id: token.content
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if not token.special
        and token.content in text
        and any(not character.isalnum() and not character.isspace() for character in token.content)
    }


def rendered(tokenizer):
    """Return what the template writes for a short dialogue (str); "" if it renders none."""
    for messages in ([QUESTION, ANSWER, QUESTION], [QUESTION]):
        for parts in (False, True):
            try:
                return render(tokenizer, messages, True, parts)
            except InputError:
                continue
    return ""
