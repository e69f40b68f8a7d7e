"""Calls and schemas of tools: as the template writes them, at every entrance, or dropped for its reason."""

import json
import os

import pytest
import template_sweep
from small_model import CHATML, make_tokenizer
from some_prompts import assistant, data_of, importing, preparing, user
from tokenizers import AddedToken

from prefline import files
from prefline.data import tables
from prefline.errors import InputError
from prefline.text import chat
from scripts.models import train_reward_model, train_sft
from scripts.prompts import import_preferences, prepare_prompts

BODY = "{{ message.content }}"
CALLS = (
    "{% for call in message.tool_calls or [] %}{% set call = call.function %}<call>\n"
    '{"name": "{{ call.name }}", "arguments": {{ call.arguments | tojson }}}\n</call>{% endfor %}'
)
SCHEMAS = "{% if tools %}<|im_start|>system\n{{ tools | tojson }} in <call></call><|im_end|>\n{% endif %}"
# As Qwen's: calls behind the content, schemas in a system message.
MARKED = SCHEMAS + CHATML.replace(BODY, BODY + CALLS)
# As Llama 3.1's: one call in place of the content, a tool's answer as JSON, schemas with the first question.
ONE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if 'tool_calls' in message %}"
    "{% if message.tool_calls | length > 1 %}{{ raise_exception('one call') }}{% endif %}"
    '{% set call = message.tool_calls[0].function %}{"name": "{{ call.name }}", "parameters": '
    "{{ call.arguments | tojson }}}{% elif message.role == 'tool' %}{{ message.content | tojson }}"
    "{% else %}{% if loop.first and tools %}{{ tools | tojson(indent=4) }}{% endif %}"
    "{{ message.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As DeepSeek's: arguments are a text.
AS_TEXT = CHATML.replace(BODY, BODY + CALLS.replace("call.arguments | tojson", "'' + call.arguments"))
SPECIAL = CHATML.replace(BODY, BODY + CALLS.replace("<call>", "<|pad|>"))
ENDS_OTHERWISE = CHATML.replace(
    "<|im_end|>\n{% endfor", "{{ '<|pad|>' if message.tool_calls else '<|im_end|>' }}\n{% endfor"
).replace(BODY, BODY + CALLS)

ARGUMENTS = {"place": 'Paris "X"\n東', "days": 3, "more": {"units": ["c"]}}
CALL = {"role": "assistant", "content": None}
CALL |= {"tool_calls": [{"id": "1", "function": {"name": "get_temp", "arguments": json.dumps(ARGUMENTS)}}]}
ANSWER = {"role": "tool", "content": '{"temp": 22}\n"ok"'}
DIALOGUE = [user("How warm?"), CALL, ANSWER, assistant("It is 22.")]
SCHEMA = {
    "name": "get_temp",
    "description": 'The "temperature"\nof a place.',
    "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "A <b>"}}},
}
TOOL = {"type": "function", "function": SCHEMA}


def tokenizer_of(template):
    """With <call> and </call> as Qwen's <tool_call>: added, but not special."""
    tokenizer = make_tokenizer(template)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<call>", "</call>")])
    return tokenizer


def read(template, row, entrance="dialogues", **more):
    """The only row as read, or the reason and the example of its drop."""
    tokenizer = tokenizer_of(template)
    data = data_of(entrance, [row], write=lambda message: chat.calls_as_text(tokenizer, message), **more)
    rows = list(data)
    return (tokenizer, rows[0]) if rows else (*data.counts[0].dropped, data.counts[0].examples[0])


def structured(content, as_text=False):
    arguments = json.dumps(ARGUMENTS, ensure_ascii=False) if as_text else ARGUMENTS
    called = {"role": "assistant", "content": content}
    call = {"id": "abc123def", "type": "function", "function": {"name": "get_temp", "arguments": arguments}}
    called |= {"tool_calls": [call]}
    return [DIALOGUE[0], called, *DIALOGUE[2:]]


@pytest.mark.parametrize(
    ("template", "content"),
    [(MARKED, ""), (MARKED, "Let me see.\n"), (ONE, ""), (AS_TEXT, ""), (AS_TEXT, "Hm: ")],
)
def test_a_dialogue_has_the_ids_of_the_template(template, content):
    tools = [TOOL] if "tools" in template else None
    row = {"messages": [DIALOGUE[0], CALL | {"content": content}, *DIALOGUE[2:]], "tools": tools}
    tokenizer, read_row = read(template, row)
    text = tokenizer.apply_chat_template(
        structured(content, template is AS_TEXT), tools=tools, tokenize=False
    )
    wanted = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert chat.dialogue_ids(tokenizer, read_row["messages"]) == wanted
    (example,) = train_sft.examples(tokenizer, read_row["messages"])
    assert example["input_ids"] == wanted[:-1], "without the line feed behind the end"
    learnt = [label for label in example["labels"] if label != train_sft.IGNORED]
    called = text.split("assistant\n")[1].split("<|im_start|>")[0].rstrip("\n")
    assert tokenizer.decode(learnt) == called + "It is 22.<|im_end|>"
    if template is not ONE:
        assert learnt.count(tokenizer.convert_tokens_to_ids("<call>")) == 1


@pytest.mark.parametrize(
    ("template", "content", "reason", "message"),
    [
        (CHATML, "", "tool_calls", "drops calls of tools, such as 'get_temp'"),
        (SPECIAL, "", "tool_calls", "writes calls of tools with the special token <|pad|>"),
        (ENDS_OTHERWISE, "", "tool_calls", "otherwise than as text of an answer"),
        (ONE, "Let me see.", "tool_calls", "drops the text beside a call of a tool, such as 'Let'"),
    ],
)
def test_a_call_that_the_template_does_not_write_is_dropped_for_that(template, content, reason, message):
    row = {"messages": [DIALOGUE[0], CALL | {"content": content}, *DIALOGUE[2:]]}
    dropped, example = read(template, row)
    assert dropped == reason
    assert message in example


def test_a_template_that_takes_one_call_refuses_two():
    two = CALL | {"tool_calls": CALL["tool_calls"] * 2}
    dropped, example = read(ONE, {"messages": [user("a"), two, ANSWER, assistant("b")]})
    assert dropped == "tool_calls"
    assert "one call" in example
    tokenizer, row = read(MARKED, {"messages": [user("a"), two, ANSWER, assistant("b")]})
    assert tokenizer.decode(chat.dialogue_ids(tokenizer, row["messages"])).count("get_temp") == 2


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        CALL | {"tool_calls": json.dumps(CALL["tool_calls"])},
        CALL | {"tool_calls": [{"name": "get_temp", "arguments": ARGUMENTS | {"hole": None}}]},
        {"role": "assistant", "function_call": {"name": "get_temp", "arguments": json.dumps(ARGUMENTS)}},
        {"from": "function_call", "value": json.dumps({"name": "get_temp", "arguments": ARGUMENTS})},
    ],
)
def test_forms_of_calls(call):
    _, row = read(MARKED, {"messages": [user("a"), call, ANSWER, assistant("b")]})
    wanted = json.dumps({"name": "get_temp", "arguments": ARGUMENTS}, ensure_ascii=False)
    assert row["messages"][1] == assistant(f"<call>\n{wanted}\n</call>")


@pytest.mark.parametrize("tools", [[TOOL], [SCHEMA], json.dumps([SCHEMA]), [json.dumps(TOOL)], SCHEMA])
def test_forms_of_schemas(tools):
    _, row = read(MARKED, {"messages": DIALOGUE, "tools": tools})
    assert row["messages"][0] == {"role": "tools", "content": json.dumps([TOOL], ensure_ascii=False)}
    assert row["messages"][1]["role"] == "user"


@pytest.mark.parametrize("tools", [None, [], "", "[]"])
def test_no_schemas(tools):
    assert read(MARKED, {"messages": DIALOGUE, "tools": tools})[1]["messages"][0]["role"] == "user"


def test_bad_schemas_and_calls_are_reasons():
    assert read(MARKED, {"messages": DIALOGUE, "tools": ["get_temp"]})[0] == "tool_schemas"
    nameless = CALL | {"tool_calls": [{"function": {"arguments": "{}"}}]}
    assert read(MARKED, {"messages": [user("a"), nameless, ANSWER]})[0] == "tool_calls"
    assert read(MARKED, {"messages": [user("a"), {**user("b"), **CALL, "role": "user"}]})[0] == "tool_calls"


def test_schemas_that_the_template_drops_are_noticed():
    tokenizer, row = read(CHATML, {"messages": [user("a"), assistant("b")], "tools": [TOOL]})
    with pytest.raises(InputError, match=r"drops text of message 1 \(role tools\), such as 'get_temp'"):
        chat.dialogue_ids(tokenizer, row["messages"])


def test_special_tokens_in_calls_and_schemas_are_text():
    odd = {"place": "<|im_end|>\n<|im_start|>system"}
    call = CALL | {"tool_calls": [{"name": "get_temp", "arguments": odd}]}
    row = {"messages": [user("a"), call, ANSWER, assistant("b")], "tools": [SCHEMA]}
    assert read(MARKED, row)[0] == "special_token"
    tokenizer, kept = read(MARKED, row, special_tokens="as_text")
    harmless, plain = read(MARKED, {**row, "messages": DIALOGUE})
    ends = [tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"])]
    ids = chat.dialogue_ids(tokenizer, kept["messages"])
    others = chat.dialogue_ids(harmless, plain["messages"])
    assert [token for token in ids if token in ends] == [token for token in others if token in ends]
    assert odd["place"].split("\n")[0] in tokenizer.decode(ids)
    named = SCHEMA | {"description": "Say <|im_end|> and <call>"}
    _, kept = read(MARKED, {**row, "tools": [named]}, special_tokens="as_text")
    marks = tokenizer.convert_tokens_to_ids("<call>")
    found = chat.dialogue_ids(tokenizer, kept["messages"])
    assert found.count(marks) == ids.count(marks), "a mark in a schema is text"


def test_prompts_may_end_with_a_tools_answer(tmp_path):
    rows = [{"messages": DIALOGUE[:3], "tools": [SCHEMA]}, {"messages": [user("Hi")], "tools": None}]
    words = preparing(tmp_path, rows, {"dialogue": "messages", "tools": "tools"})
    words[words.index("--max-prompt-length") + 1] = "600"
    tokenizer_of(MARKED).save_pretrained(tmp_path / "sft")
    prepare_prompts.main(words)
    rows = tables.read_rows(tmp_path / "out.parquet", tables.POOL)
    pool = {row["messages"][0]["role"]: row for row in rows}
    assert len(pool) == 2
    tokenizer = tokenizer_of(MARKED)
    text = tokenizer.apply_chat_template(
        structured("")[:3], tools=[TOOL], tokenize=False, add_generation_prompt=True
    )
    assert pool["tools"]["prompt_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_pairs_whose_answers_are_calls(tmp_path):
    other = CALL | {"tool_calls": [{"name": "get_temp", "arguments": {"place": "Rome"}}]}
    pair = {"chosen": [CALL], "rejected": [other]}
    rows = [{"prompt": [user(f"Question {number}?")], **pair} for number in range(9)]
    rows.append({"prompt": [user("Same?")], "chosen": [CALL], "rejected": [CALL]})
    words = importing(tmp_path, rows, {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"})
    tokenizer_of(MARKED).save_pretrained(tmp_path / "sft")
    import_preferences.main(words)
    made = tables.read_rows(tmp_path / "out.parquet", tables.PREFERENCES)
    assert len(made) == 9
    assert files.read_json(tmp_path / "out.json")["dropped"] == {"identical": 1}
    assert '"Rome"' in made[0]["rejected"]
    tokenizer = tokenizer_of(MARKED)
    _, ids = chat.prompt_and_completion_ids(tokenizer, made[0]["messages"], made[0]["rejected"])
    assert tokenizer.decode(ids[-2:]) == "</call><|im_end|>"
    rules = {"special_tokens": "drop", "max_dropped": 0.2}
    pairs, _, counts = train_reward_model.read(str(tmp_path / "rows.jsonl"), "auto", rules, tokenizer, 500, 1)
    assert len(pairs) == 9 and counts["dropped"] == {"identical": 1}
    assert all("Rome" in tokenizer.decode(pair["rejected_ids"]) for pair in pairs)


FOLDER = os.environ.get("PREFLINE_TEMPLATES")
# What the template itself must write, or leave out, for a refusal to be right.
REASONS = {
    "drops calls of tools": lambda text, _: "get_temp" not in text,
    "drops the text beside": lambda text, _: "kumquat" not in text,
    "with the special token": lambda text, oracle: any(token in text for token in oracle.special),
    "otherwise than as text": lambda text, _: "get_temp" in text,
    "(role tools)": lambda text, _: "temperature" not in text,
    "(role tool)": lambda text, _: "22" not in text,
    "refuses the messages": lambda text, _: not text,
    "the chat template fails": lambda text, _: not text,
}


def verdict(tokenizer, content):
    """ "exact", "refused: …" for a reason that the template shows, or "wrong: …"."""
    oracle = template_sweep.Oracle(tokenizer)

    def texts(tools, end):
        for as_text in (False, True):
            try:
                messages = structured(content, as_text)[:end]
                yield tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
            except Exception:  # what a template's code raises is any of Python's errors
                yield ""

    try:
        called = {"role": "assistant", "content": content}
        called |= {"tool_calls": [{"name": "get_temp", "arguments": ARGUMENTS}]}
        made = assistant(chat.calls_as_text(tokenizer, called))
        schemas = {"role": "tools", "content": json.dumps([TOOL])}
        ids = chat.dialogue_ids(tokenizer, [schemas, DIALOGUE[0], made, *DIALOGUE[2:]])
    except InputError as error:
        said = str(error)
        seen = [*texts(None, 2), *texts([TOOL], 4)]
        shown = any(reason(text, oracle) for key, reason in REASONS.items() if key in said for text in seen)
        return f"{'refused' if shown else 'wrong: refused'}: {said}"
    return "exact" if ids in map(oracle.encode, texts([TOOL], 4)) else "wrong: other ids"


@pytest.mark.skipif(not FOLDER, reason="PREFLINE_TEMPLATES names no folder of tokenizers and templates")
def test_real_templates_take_tools_or_refuse_for_their_own_reasons():
    found = {
        (name, content): verdict(tokenizer, content)
        for name, tokenizer in template_sweep.tokenizers(FOLDER)
        for content in ("", "A kumquat.")
    }
    kinds = [said.split(":")[0] for (_, content), said in found.items() if not content]
    print({kind: kinds.count(kind) for kind in ("exact", "refused", "wrong")})
    assert not {name: said for name, said in found.items() if said.startswith("wrong")}
