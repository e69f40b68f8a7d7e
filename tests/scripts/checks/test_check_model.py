"""The first rows of all data in the chat template of the model that it is for."""

import json

import pytest
from small_model import CHATML, TEMPLATE, make_model, make_tokenizer

from prefline import files
from prefline.errors import InputError
from scripts.checks import check_model

DIALOGUE = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": "an answer"}]
SHOUTED = "{{ bos_token }}" + CHATML.replace("message.content", "message.content | upper")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
SYSTEM_ONCE = NO_SYSTEM.replace("no system", "no third").replace("'system'", "'system' and messages[2:]")
ONE_QUESTION = "{% if messages | length > 2 %}{{ raise_exception('one only') }}{% endif %}" + TEMPLATE


def check(tmp_path, template=TEMPLATE, rows=(), entrance="prompts", ends=(4, 1), systems=None, **more):
    """What is found for a model with a template, whose data are `rows`."""
    tokenizer = make_tokenizer(template)
    if not ends:
        tokenizer.eos_token = None
    make_model(tmp_path / "model", tokenizer, ends=ends)
    files.write_jsonl(tmp_path / "a.jsonl", list(rows))
    named = {"entrance": entrance, "source": str(tmp_path / "a.jsonl"), "columns": "auto"} | more
    words = ["--name", "sft", "--policy", "--model", tmp_path / "model", "--special-tokens", "drop"]
    words += [
        "--systems",
        json.dumps(systems or {}),
        "--max-dropped",
        "0.2",
        "--data",
        json.dumps({"prompts.source": named}),
        "--out",
        tmp_path / "o.json",
    ]
    check_model.main([*map(str, words)])
    return files.read_json(tmp_path / "o.json")["found"]


ROWS = {
    "prompts": [{"messages": DIALOGUE[:1]}],
    "dialogues": [{"messages": DIALOGUE * 2}, {"messages": DIALOGUE}],
    "pairs": [{"prompt": "a", "chosen": "b", "rejected": "c"}],
}


@pytest.mark.parametrize("entrance", ROWS)
def test_rows_of_every_entrance_are_rendered(tmp_path, entrance):
    found = check(tmp_path, rows=ROWS[entrance] * 4, entrance=entrance)
    assert found == f"the template renders {4 * len(ROWS[entrance])} first rows; <|im_end|> ends an answer"


def test_calls_of_tools_are_rendered_as_the_training_renders_them(tmp_path):
    called = "{% for call in message.tool_calls or [] %}[call {{ call.function.name }}]{% endfor %}"
    template = TEMPLATE.replace("{{ message.content }}", "{{ message.content }}" + called)
    assert template != TEMPLATE
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    asked = {"role": "assistant", "content": "", "tool_calls": [call]}
    rows = [{"messages": [*DIALOGUE[:1], asked]}] * 8
    assert check(tmp_path, template, rows, "dialogues").startswith("the template renders 8 first rows")


def test_rows_that_are_all_too_long_are_refused_before_the_training(tmp_path, capsys):
    rows = [{"messages": DIALOGUE}] * 8
    said = r"the first 8 rows all have more than max_length \(5\) tokens, the shortest \d+"
    with pytest.raises(InputError, match=said):
        check(tmp_path, rows=rows, entrance="dialogues", max_length=5)
    check(tmp_path, rows=[*rows, *[{"messages": DIALOGUE * 9}]], entrance="dialogues", max_length=60)
    check(tmp_path, rows=rows * 20, entrance="dialogues", max_length=5)  # the rest may be shorter
    assert "warning: " in capsys.readouterr().out


BROKEN = {
    "words are dropped": ({"template": SHOUTED}, "the chat template drops the user's message"),
    "a role is refused": ({"template": NO_SYSTEM, "system": "Be brief."}, "prompts.source, with the chat"),
    "the system message of a benchmark is refused": (
        {"template": NO_SYSTEM, "systems": {"benchmarks.gsm8k.system": "Be brief."}},
        "models.sft: benchmarks.gsm8k.system: the chat template refuses the messages: no system",
    ),
    "the system message of the second turn is refused": (
        {"template": SYSTEM_ONCE, "systems": {"mt_bench.system": "Be brief."}},
        "models.sft: mt_bench.system: the chat template refuses the messages: no third",
    ),
    "a second question is refused": ({"template": ONE_QUESTION}, "models.sft: a second question"),
}


@pytest.mark.parametrize(("changed", "message"), BROKEN.values(), ids=BROKEN)
def test_a_template_that_fails_later_is_refused_in_one_sentence(tmp_path, changed, message):
    with pytest.raises(InputError) as error:
        check(tmp_path, rows=ROWS["prompts"] * 10, **changed)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "o.json").exists()


def test_answers_without_an_end_are_refused(tmp_path):
    endless = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    endless += "{% if add_generation_prompt %}assistant: {% endif %}"
    with pytest.raises(InputError, match=r"models\.sft: no token ends an answer"):
        check(tmp_path, endless, ROWS["prompts"], ends=())
