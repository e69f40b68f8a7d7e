"""Convert a row of data, in any known form, to what an entrance needs: a prompt, a pair, a dialogue, a text.

`columns` of the config names the data's column for each field; "auto" finds the names of known forms in the
data. An entrance is a function of a row's fields (dict) that returns a dict, or raises Odd.
"""

from prefline.data import choices, prompts
from prefline.data import messages as conversation
from prefline.data.counts import Odd
from prefline.errors import InputError

QUESTIONS = ("prompt", "instruction", "question", "query", "problem")
ANSWERS = ("completion", "response", "output", "answer")
SYSTEMS = ("system", "system_prompt", "system_message")
INPUTS = ("input",)
TOOLS = ("tools", "functions")
AROUND = ("messages", "system", "tools")  # fields of whole dialogues
DIALOGUES = ("messages", "conversations", "conversation", "dialogue")
MISSING = object()
# Columns of answers, and the key of a row that has whether they store dialogues as text (stored_answers).
ANSWER_FIELDS = ("chosen", "rejected", "completion", "output_1", "output_2", "text")
STORED = "stored"
# The key of a row that has the function which writes calls of tools (messages.read).
WRITE = "write"
# Columns with more of a row's text; if none of them is read, a warning names them once.
CONTEXT = {*SYSTEMS, *INPUTS, *TOOLS, "context", "history", "image", "images", "documents"}
# Known forms of each entrance: {field: names that its column may have}. The first form with all its columns
# counts. Fields of OPTIONAL may be missing.
OPTIONAL = {"prompt": (*QUESTIONS, "conversations", "conversation"), "input": INPUTS, "system": SYSTEMS}
OPTIONAL |= {"tools": TOOLS}
REWARDS = {
    f"{side}_reward": (f"{side}_reward", f"score_{side}", f"{side}_score", f"{side}_rating")
    for side in ("chosen", "rejected")
}
PAIRS = {
    "chosen and rejected": {"chosen": ("chosen",), "rejected": ("rejected",)},
    "two outputs and a preference": {
        "output_1": ("output_1",),
        "output_2": ("output_2",),
        "preference": ("preference",),
    },
    "two responses and the better one": {
        "output_1": ("response_0",),
        "output_2": ("response_1",),
        "preferred_index": ("better_response_id",),
    },
    "two conversations and a winner": {
        "output_1": ("conversation_a", "response_a"),
        "output_2": ("conversation_b", "response_b"),
        "preference": ("winner",),
    },
    "answers and ratings": {
        "completions": ("generations", "completions", "responses"),
        "ratings": ("ratings", "scores"),
    },
    "rated completions": {"completions": ("completions",)},
    "completions and labels": {"completion": ("completion", "response"), "label": ("label",)},
}
FORMS = {
    "prompts": {
        "prompts": {"prompt": QUESTIONS},
        "dialogues": {"dialogue": (*DIALOGUES, "chosen")},
        "inputs": {"prompt": INPUTS},
    },
    "pairs": PAIRS,
    "dialogues": {
        "messages": {"messages": DIALOGUES},
        "prompts and completions": {"prompt": (*QUESTIONS, "input"), "completion": (*ANSWERS, "chosen")},
        "chosen dialogues": {"messages": ("chosen",)},
        "texts": {"text": ("text",)},
    },
    "texts": {"texts": {"text": ("text", "content", "document")}},
}


def detect(entrance, names, empty=()):
    """Return (form, {field: column}) of data with the columns `names`, or None if no known form has them.

    empty: the columns that hold nothing; they make no form. Columns of one struct count as well:
    `data.prompt`. Raises InputError if several structs have a form.
    """
    heads = sorted({name.rpartition(".")[0] for name in names})
    made = []
    for head in heads:
        known = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == head}
        for form, fields in FORMS[entrance].items():
            found = _named(fields, {key: name for key, name in known.items() if name not in empty})
            if len(found) < len(fields):
                continue
            if entrance != "texts" and set(fields) not in ({"text"}, {"dialogue"}):
                taken = set(found.values())
                more = {**OPTIONAL, **(REWARDS if "chosen" in fields else {})}
                free = {name: column for name, column in known.items() if column not in taken}
                found = _named({field: more[field] for field in more if field not in fields}, free) | found
            if "input" in found and not found.keys() & {"prompt", "messages"}:
                found["prompt"] = found.pop("input")
            if "messages" in found:
                found = {field: column for field, column in found.items() if field in AROUND}
            made.append((form, found))
            break
        if made and not head:
            break
    if len(made) > 1:
        said = " or ".join(", ".join(columns.values()) for _, columns in made)
        raise InputError(f"several columns could be meant: {said}; name those to read under `columns`")
    return made[0] if made else None


def _named(fields, known):
    found = {field: next((name for name in names if name in known), None) for field, names in fields.items()}
    return {field: known[name] for field, name in found.items() if name is not None}


def stored_answers(source, columns, rows):
    """Return whether the answers of rows (list of dict) that look like conversations as text are such.

    They are if most answers look so; otherwise an answer may be JSON that the prompt asks for.
    """
    values = [lookup(row, columns[field]) for row in rows for field in ANSWER_FIELDS if field in columns]
    if "completions" in columns:
        lists = [lookup(row, columns["completions"]) for row in rows]
        values += [choices.answer(one) for found in lists if isinstance(found, list) for one in found]
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    number = sum(map(conversation.looks_told, texts))
    stored = 2 * number > len(texts)
    if number and not stored:
        print(
            f"warning: {source}: {number} of the first {len(texts)} answers look like conversations stored "
            "as text; all stay the text that they are"
        )
    return stored


def lookup(record, column):
    """Return a row's value in `column`, which may be nested ("data.prompt"); MISSING without one."""
    if column in record:
        return record[column]
    value = record
    for part in column.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def prompt(fields, system=None):
    """Return {"messages", "reference", "form"} of a row with a prompt, or with a dialogue without its answer.

    system: str or None, for prompts without a system message.
    """
    if fields.get("dialogue") is not None:
        messages, form = conversation.read(fields["dialogue"], fields.get(WRITE))
        if form == "text":  # perhaps an answer, which is no prompt
            raise Odd("not_a_dialogue", "is a text, not a dialogue; name the column of prompts as `prompt`")
        if messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        if not messages:
            raise Odd("no_prompt", "the dialogue is an answer without a prompt")
    else:
        messages, form = _asked(fields)
    messages = _complete(messages, fields, system)
    return {"messages": messages, "reference": _reference(fields.get("reference")), "form": form}


def pair(fields, system=None):
    """Return {"messages", "chosen", "rejected", "chosen_reward", "rejected_reward", "form"} of a row.

    Answers are texts, or dialogues that may differ in the last answer only; the messages before it are the
    prompt. A prompt beside whole dialogues counts once. For a completion with a label, the other side is
    None.
    """
    if "label" in fields:
        good = choices.label(fields["label"])
        fields = fields | {"chosen": fields.get("completion"), "rejected": fields.get("completion")}
        made = _pair(fields, system, unpaired=True)
        return made | ({"rejected": None} if good else {"chosen": None})
    return _pair(fields | choices.chosen(fields), system, unpaired=False)


def dialogue(fields):
    """Return {"messages", "form"} of a row for fine-tuning, or {"text", "form"} of a plain text."""
    if "text" in fields:
        return document(fields)
    if "messages" in fields:
        messages, form = conversation.read(fields["messages"], fields.get(WRITE))
    else:
        asked, form = _asked(fields)
        messages = _joined(asked, _answer(fields, "completion")[0])
    if not any(message["role"] == "assistant" for message in messages):
        raise Odd("no_assistant", "no assistant speaks")
    return {"messages": _complete(messages, fields, None), "form": form}


def document(fields):
    """Return {"text", "form"} of a row of raw text."""
    if fields.get(STORED) and conversation.looks_stored(fields["text"]):
        raise Odd("stored_as_text", "is a conversation stored as text; name its column `messages` for SFT")
    return {"text": conversation.text(fields["text"]), "form": "text"}


ENTRANCES = {"prompts": prompt, "pairs": pair, "dialogues": dialogue, "texts": document}


def _pair(fields, system, unpaired):
    sides = ("chosen", "rejected")
    read = {side: _answer(fields, side) for side in sides}
    dialogues = {side: messages for side, (messages, _) in read.items()}
    for messages in dialogues.values():
        if messages[-1]["role"] != "assistant":
            raise Odd("no_answer", f"a dialogue ends with the {messages[-1]['role']}, not the assistant")
    befores = [messages[:-1] for messages in dialogues.values()]
    if not _alike(*befores):
        raise Odd("different_prompts", "chosen and rejected differ before their last answers")
    texts = {side: messages[-1]["content"] for side, messages in dialogues.items()}
    before = befores[0]
    if "prompt" not in fields and not before:
        raise Odd("no_prompt", "has answers without a prompt; name its column under `columns`")
    asked = [] if before and not fields.get("prompt") else _asked(fields)[0]
    messages = _complete(_joined(asked, before), fields, system)
    if not unpaired and texts["chosen"] == texts["rejected"]:
        raise Odd("identical", "chosen and rejected are the same text")
    rewards = {f"{side}_reward": _reward(fields.get(f"{side}_reward")) for side in sides}
    return {"messages": messages, **texts, **rewards, "form": read["chosen"][1]}


def _asked(fields):
    """Return (messages, form) of a row's prompt, with its input."""
    messages, form = conversation.read(fields.get("prompt"), fields.get(WRITE))
    more = fields.get("input")
    if more is not None and not (isinstance(more, str) and not more.strip()):
        if form != "text":
            raise Odd("input_beside_messages", "has an input, but the prompt is messages, not a text")
        messages = [{"role": "user", "content": f"{messages[0]['content']}\n\n{conversation.text(more)}"}]
        form = "instruction_and_input"
    return messages, form


def _answer(fields, name):
    """Return (messages, form) of an answer: a text is the assistant's; all else is a whole dialogue."""
    value = fields.get(name)
    if isinstance(value, str) and not fields.get(STORED, True) and conversation.looks_told(value):
        return [{"role": "assistant", "content": conversation.text(value)}], "text"  # JSON is the answer
    messages, form = conversation.read(value, fields.get(WRITE))
    if form == "text":
        messages = [{"role": "assistant", "content": messages[0]["content"]}]
    return messages, form


def _joined(asked, before):
    """Return the messages before an answer, from a prompt and the beginning of a dialogue, each once."""
    if not asked or not before:
        return asked or before
    if before[0]["role"] in ("assistant", "tool"):
        return asked + before  # the dialogue continues the prompt
    systems, turns = _split_system(asked)
    if _alike(before[-len(asked) :], asked) or _alike(before[: len(asked)], asked):
        return before
    own_systems, own_turns = _split_system(before)
    if _alike(own_turns[: len(turns)], turns) or _alike(own_turns[-len(turns) :], turns):
        if own_systems and systems and not _alike(own_systems, systems):
            raise Odd("two_system_messages", "the prompt and the dialogue have different system messages")
        return (own_systems or systems) + own_turns
    raise Odd("prompt_not_in_dialogue", "the prompt is not in the dialogue; set its column to null")


def _split_system(messages):
    number = 1 if messages[0]["role"] in ("system", "developer") else 0
    return messages[:number], messages[number:]


def _alike(one, other):
    return prompts.normalize(one) == prompts.normalize(other)


def _complete(messages, fields, system):
    """Return `messages` with the schemas of tools, and with a system message if they have none.

    That is the row's, or else `system`.
    """
    own = fields.get("system")
    if own is not None and not (isinstance(own, str) and not own.strip()):
        own = conversation.text(own)
        if messages[0]["role"] == "system" and prompts.normal_text(own) != prompts.normal_text(
            messages[0]["content"]
        ):
            raise Odd("two_system_messages", "the system column differs from the conversation's message")
    else:
        own = system
    first = next((message for message in messages if message["role"] not in ("system", "developer")), None)
    if first is None:
        raise Odd("only_system", "has a system message and nothing else")
    if first["role"] != "user":
        raise Odd(f"begins_with_{first['role']}", f"begins with the {first['role']}; a user must speak first")
    if own is not None and messages[0]["role"] not in ("system", "developer"):
        messages = [{"role": "system", "content": own}, *messages]
    schemas = conversation.schemas(fields.get("tools"))
    return messages if schemas is None else [schemas, *messages]


def _reward(value):
    """Return a reward as float, None if there is none."""
    if value is None or value == "":
        return None
    number = choices.number(value)
    if number is None:
        raise Odd("no_number", f"a reward is a finite number, not {value!r:.40}")
    return number


def _reference(value):
    """Return a right answer as str, also for a number; None if there is none."""
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of integers with gaps
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return value
    raise Odd("bad_reference", f"the reference is a string or a number, not {value!r:.60}")
