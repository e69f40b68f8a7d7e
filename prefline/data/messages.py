"""Read a conversation in any known form as a list of {"role", "content"}.

Forms: a text (one user turn), messages, ShareGPT's `from` and `value`, contents in parts, one message, a
struct of lists. Also a conversation stored as JSON or Python text, and transcripts such as Anthropic's HH
("Human: … Assistant: …"). Text stays unchanged; calls of tools become text. Other values are Odd, with the
reason.
"""

import ast
import json
import re

from prefline import unicode
from prefline.data.counts import Odd
from prefline.errors import InputError

ROLES = {
    "user": ("user", "human", "prompter", "customer", "questioner"),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "model", "ai", "bard", "bing", "claude", "chatbot"),
    "system": ("system",),
    "developer": ("developer",),
    "tool": ("tool", "function", "observation", "ipython", "function_response"),
}
ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
# The keys of a message's role, its content, and calls of tools.
ROLE_KEYS = ("role", "from", "author", "speaker")
CONTENT_KEYS = ("content", "value", "text")
CALL_KEYS = ("tool_calls", "function_call")
CALL_ROLES = ("function_call", "tool_call")
# The role of the message with the schemas of a dialogue's tools, as JSON; as in prefline.text.rendering.
SCHEMAS = "tools"
# The keys of a struct's messages.
LIST_KEYS = ("messages", "conversations", "conversation")
# Keys of an assistant's reasoning beside the content: it is left out, and a form with LEFT_OUT counts that.
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
LEFT_OUT = "_without_reasoning"
TEXT_PARTS = ("text", "input_text", "output_text", None)
# A text that may store a conversation begins like this, and has a key of a role, perhaps with a known role.
BEGINNING = re.compile(r"""\s*(array\(\s*)?["'\[{]""")
ROLE_KEY = rf"""\\*["']({"|".join(ROLE_KEYS)})\\*["']\s*:"""
STORED = re.compile(ROLE_KEY)
KNOWN = re.compile(rf"""{ROLE_KEY}\s*\\*["']({"|".join(ROLE_OF)})\\*["']""", re.IGNORECASE)
ARRAY = re.compile(r"array\((.*?)(,\s*dtype=object)?,?\s*\)", re.DOTALL)
# The beginnings of messages in a transcript.
HH = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
MARKED = re.compile(r"(?:\A|\n|(?<=\S))\s*###\s*(Human|Assistant):")
TRANSCRIPTS = {HH: "transcript", MARKED: "marked_transcript"}


def read(value, write=None):
    """Return (messages, form) of a conversation; form: str, for the log: "text", "messages", "sharegpt", ….

    write: function of an assistant's message with "tool_calls" that returns its content with the calls as
    text, or None where calls are not taken. An empty system message counts as none. Raises Odd.
    """
    if value is None:
        raise Odd("blank", "has no text")
    if isinstance(value, str):
        return _of_text(value, write)
    if isinstance(value, dict):
        return _of_dict(value, write)
    if not isinstance(value, list):
        raise Odd("not_text", f"a text or a list of messages is needed, not {value!r:.60}")
    if not value:
        raise Odd("blank", "has no messages")
    if all(isinstance(turn, str) for turn in value):
        raise Odd("texts_without_roles", f"is a list of texts without roles: {value!r:.60}")
    form = "messages"
    made = []
    for turn in value:
        if not isinstance(turn, dict):
            raise Odd("not_a_message", f"a message is an object with a role and a content, not {turn!r:.60}")
        message, turn_form = _message(turn, write)
        form = turn_form if turn_form != "messages" else form
        if message is not None:
            made.append(message)
    if not made:
        raise Odd("blank", "has no message with text")
    reasoning = any(turn.get(key) for turn in value for key in REASONING_KEYS)
    return made, form + LEFT_OUT * reasoning


def text(value):
    """Return `value` if it is a text that can be encoded and is not blank; raise Odd otherwise."""
    if value is None:
        raise Odd("blank", "has no text")
    if not isinstance(value, str):
        raise Odd("not_text", f"a text is needed, not {value!r:.60}")
    if not value.strip():
        raise Odd("blank", "has no text")
    if not unicode.is_valid(value):
        raise Odd("not_unicode", f"{unicode.FAULT}: {value!a:.60}")
    return value


def refused(messages, error):
    """Return the Odd for `messages` that a chat template refuses with `error` (Exception)."""
    roles = {message["role"] for message in messages}
    rare = {SCHEMAS: "tool_schemas", "tool": "tool_turns", "developer": "developer_role"}
    reason = next((reason for role, reason in rare.items() if role in roles), "template")
    return Odd(reason, str(error))


def looks_stored(value):
    """Return whether a text seems to be a conversation stored as JSON or Python."""
    try:
        return isinstance(value, str) and _stored(value) is not None
    except Odd:
        return True


def looks_told(value):
    """Return whether a text seems to be a conversation: stored (`looks_stored`), or a transcript."""
    return looks_stored(value) or _transcript(value) is not None


def _of_text(value, write):
    text(value)
    stored = _stored(value)
    if stored is not None:
        messages, form = read(stored, write)
        return messages, f"{form}_as_text"
    if (pattern := _transcript(value)) is not None:
        return _of_transcript(value, pattern), TRANSCRIPTS[pattern]
    return [{"role": "user", "content": value}], "text"


def _transcript(value):
    """Return the pattern (a key of TRANSCRIPTS) of the speakers in a text that is a transcript, or None."""
    found = (pattern for pattern in TRANSCRIPTS if pattern.match(value) and len(pattern.findall(value)) > 1)
    return next(found, None)


def _stored(value):
    """Return the conversation (list or dict) that a text stores as JSON or Python; None for another text."""
    if not BEGINNING.match(value) or not STORED.search(value):
        return None
    found = _parsed(value)
    if isinstance(found, str):
        found = _parsed(found)  # encoded twice
    turns = found if isinstance(found, list) else [found]
    if turns and all(map(_is_turn, turns)):
        return found
    if not KNOWN.search(value):
        return None
    if isinstance(found, (list, dict)):
        return found
    raise Odd("stored_as_text", f"is a conversation as text that is neither JSON nor Python: {value!r:.60}")


def _is_turn(value):
    keys = (ROLE_KEYS, (*CONTENT_KEYS, *CALL_KEYS))
    return isinstance(value, dict) and all(any(key in value for key in names) for names in keys)


def _parsed(value):
    """Return what a text stores as JSON or Python, None if neither can read it."""
    value = value.strip()
    array = ARRAY.fullmatch(value)
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(array[1] if array else value)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return None


def _of_transcript(value, pattern):
    _, *parts = pattern.split(value)
    made = []
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        role = "user" if speaker == "Human" else "assistant"
        made.append({"role": role, "content": said.removeprefix(" ")})
    if made[-1]["role"] == "assistant" and not made[-1]["content"].strip():
        made.pop()  # the beginning of the answer to write
    for message in made:
        text(message["content"])
    return made


def _of_dict(value, write):
    for key in LIST_KEYS:
        if isinstance(value.get(key), (list, str)):
            return read(value[key], write)
    if any(key in value for key in ROLE_KEYS):
        columns = list(value.values())
        if all(isinstance(column, list) for column in columns) and len(set(map(len, columns))) == 1:
            turns = [dict(zip(value, turn, strict=True)) for turn in zip(*columns, strict=True)]
            return read(turns, write)
        return read([value], write)
    raise Odd("not_a_conversation", f"is an object with the keys {sorted(map(str, value))!r:.80}")


def _message(turn, write):
    """Return (message, form) of one turn (dict); message is None for an empty system message."""
    role_key = next((key for key in ROLE_KEYS if turn.get(key) is not None), None)
    if role_key is None:
        raise Odd("no_role", f"a message has no role: {turn!r:.60}")
    named = turn[role_key]
    named = named.get("role") if isinstance(named, dict) else named  # as ChatGPT exports authors
    calls = _calls(turn, named)
    named = "assistant" if named in CALL_ROLES else named
    role = ROLE_OF.get(named.strip().lower()) if isinstance(named, str) else None
    if role is None:
        raise Odd("unknown_role", f"a message has the role {named!r:.40}, none of {', '.join(ROLES)}")
    content_key = next((key for key in CONTENT_KEYS if turn.get(key) is not None), None)
    content, in_parts = _content(turn.get(content_key))
    if role == "system" and (content is None or (isinstance(content, str) and not content.strip())):
        return None, "messages"
    skipped = any(turn.get(key) in (0, False) for key in ("weight", "train", "loss"))
    if role == "assistant" and (skipped or turn.get("masked") in (1, True)):
        raise Odd("not_to_learn", "marks an assistant's turn as not to train on, which is not supported")
    if calls is not None:
        content = _written(calls, "" if turn[role_key] in CALL_ROLES else content, role, write)
    try:
        text(content)
    except Odd as odd:
        raise Odd(odd.reason, f"the {role} message {odd}") from None
    form = "sharegpt" if role_key == "from" else "content_parts" if in_parts else "messages"
    return {"role": role, "content": content}, form


def _calls(turn, named):
    """Return the calls (list of {"name", "arguments"}) of a turn (dict) by a speaker `named`, or None."""
    found = next((turn[key] for key in CALL_KEYS if turn.get(key) not in (None, [], {}, "", "[]")), None)
    if found is None and named in CALL_ROLES:
        found = next((turn[key] for key in CONTENT_KEYS if turn.get(key) is not None), None)
        if found is None:
            raise Odd("blank", "a call of a tool has no content")
    if found is None:
        return None
    found = _json(found)
    made = []
    for call in found if isinstance(found, list) else [found]:
        call = call.get("function", call) if isinstance(call, dict) else None
        name = call.get("name") if isinstance(call, dict) else None
        arguments = {} if not isinstance(call, dict) else call.get("arguments", call.get("parameters"))
        arguments = {} if arguments in (None, "") else _json(arguments)
        if not isinstance(name, str) or not name.strip() or not isinstance(arguments, dict):
            raise Odd("tool_calls", f"a call of a tool has a name and arguments, not {found!r:.60}")
        made.append({"name": name, "arguments": arguments})
    return made


def _written(calls, content, role, write):
    """Return the text of an assistant's message with `calls` and `content` by `write`; see `read`."""
    if role != "assistant" or not (content is None or isinstance(content, str)):
        raise Odd("tool_calls", f"calls of tools are the assistant's, beside a text, not the {role}'s")
    if write is None:
        raise Odd("tool_calls", "the assistant calls a tool, which is not text")
    try:
        return write({"role": role, "content": content or "", "tool_calls": calls})
    except InputError as error:
        raise Odd("tool_calls", str(error)) from None


def schemas(value):
    """Return the message with the schemas of a dialogue's tools, or None without any. Raises Odd.

    value: list of schemas (OpenAI's form, or their functions alone), or that as JSON text.
    """
    found = _json(value) if isinstance(value, str) and value.strip() else value
    if found in (None, "", []) or (isinstance(found, str) and not found.strip()):
        return None
    found = found if isinstance(found, list) else [found]
    made = []
    for schema in map(_json, found):
        function = schema.get("function", schema) if isinstance(schema, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Odd("tool_schemas", f"a tool's schema is an object with a name, not {schema!r:.60}")
        made.append(schema if "function" in schema else {"type": "function", "function": schema})
    return {"role": SCHEMAS, "content": json.dumps(made, ensure_ascii=False)}


def _json(value):
    """Return a value that may be stored as JSON text. Objects of tables lose keys that other rows have."""
    if not isinstance(value, str):
        return _without_nulls(value)
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _without_nulls(value):
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _content(value):
    """Return (content, whether it has parts) of a message: the texts of its parts, joined by line feeds."""
    if isinstance(value, dict):
        value = value.get("parts", [value])
    if not isinstance(value, list):
        return value, False
    texts = []
    for part in value:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if not isinstance(part, dict) or kind not in TEXT_PARTS or not isinstance(part.get("text"), str):
            kind = str(kind or "unknown").removesuffix("_url").removeprefix("input_")
            reason = "part_" + re.sub(r"\W+", "_", kind)[:30]
            raise Odd(reason, f"has a part of the type {kind!r:.40}, which is not text")
        texts.append(part["text"])
    return "\n".join(texts), True
