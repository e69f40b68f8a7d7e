"""Every kind of trouble that real chat templates make, at every entrance; real ones from a folder."""

import datetime
import os
import string

import pytest
import template_sweep
from small_model import CHATML, SPECIAL, TEMPLATE, make_tokenizer

from prefline import files
from prefline.errors import InputError
from prefline.text import chat, templates

FOLDER = os.environ.get("PREFLINE_TEMPLATES")
THINKING = CHATML.replace(
    "{{ message.content }}",
    "{% set said = message.content.split('</think>')[-1].lstrip('\n') %}"
    "{% if message.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ said }}",
)
OPENS_THINKING = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif").replace(
    "{{ message.content }}", "{{ message.content.split('</think>')[-1] }}"
)
PARTS = CHATML.replace(
    "{{ message.content }}",
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}",
)
EXACT = dict.fromkeys(template_sweep.ENTRANCES, "exact")
PAIRS = ("pairs", "sft", "sft_turns")
# What a template does: (template, tokenizer's own arguments, {entrance: what its refusal says}).
KINDS = {
    "a line feed before the answer": (CHATML, {}, {}),
    "text behind the end": (CHATML.replace("<|im_end|>\n", "<|im_end|> \n<|end_of_text|>"), {}, {}),
    "the next header behind the end": (
        "{% for message in messages %}{{ message.content }}<|im_end|><|im_start|>{% endfor %}"
        "{% if add_generation_prompt %}assistant\n{% endif %}",
        {},
        {},
    ),
    "a channel before the answer": (
        CHATML.replace("{{ message.role }}\n", "{{ message.role }}<|pad|>final\n").replace(
            "assistant\n{% endif", "assistant{% endif"
        ),
        {},
        {},
    ),
    "an empty thought before the last answer only": (THINKING, {}, {}),
    "a prompt that opens a thought": (OPENS_THINKING, {}, {}),
    "an empty thought in the prompt only": (
        CHATML.replace("assistant\n{% endif", "assistant\n<think>\n\n</think>\n\n{% endif"),
        {},
        {},
    ),
    "an empty thought without line feeds": (
        OPENS_THINKING.replace(
            "message.role }}\n",
            "message.role }}\n{% if message.role == 'assistant' %}<think></think>{% endif %}",
        ),
        {},
        {},
    ),
    "another beginning in the prompt": (
        CHATML.replace("<|im_start|>assistant\n{% endif", "Answer:{% endif"),
        {},
        dict.fromkeys(PAIRS, "begins an answer with"),
    ),
    "contents in parts": (PARTS, {}, {}),
    "blanks taken off": (CHATML.replace("message.content", "message.content | trim"), {}, {}),
    "line feeds taken off": (CHATML.replace("message.content", "message.content.strip('\n')"), {}, {}),
    "no end": (
        CHATML.replace("<|im_end|>\n", "\n").replace("<|im_start|>", "#"),
        {},
        dict.fromkeys(PAIRS, "ends an answer without"),
    ),
    "the user's next turn as the end": (CHATML.replace("<|im_end|>", ""), {}, {}),
    "a BOS in the template": (TEMPLATE, {}, {}),
    "a BOS of the tokenizer": (CHATML, {"add_bos": True}, {}),
    "a BOS in every turn": (
        CHATML.replace(
            "<|im_start|>{{", "{% if message.role == 'user' %}{{ bos_token }}{% endif %}<|im_start|>{{"
        ),
        {},
        {"prompts": "more than once", "sft_turns": "more than once", "system": "after other text"},
    ),
    "no system message": (
        CHATML.replace(
            "{% for",
            "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{% for",
        ),
        {},
        {"system": "refuses the messages: no; for a template without system messages, set"},
    ),
    "a lost system message": (
        CHATML.replace("in messages %}", "in messages if message.role != 'system' %}"),
        {},
        {"system": r"drops text of message 1 \(role system\)"},
    ),
    "a date": (CHATML.replace("{% for", "{{ strftime_now('%d %B %Y') }}{% for", 1), {}, {}),
    "an end that is no document's": (CHATML, {"eos_token": "<|end_of_text|>"}, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_template_is_exact_or_refused_for_its_own_reason(kind):
    template, own, refused = KINDS[kind]
    tokenizer = template_sweep.settled(make_tokenizer(merged=("\n\n", " \n"), **own), template)
    found = template_sweep.verdicts(tokenizer)
    for entrance, verdict in found.items():
        if entrance in refused:
            assert verdict.startswith("refused: ") and refused[entrance].replace("\\", "") in verdict
        else:
            assert verdict == "exact", f"{entrance}: {verdict}"


def test_a_blank_before_the_first_word_is_the_tokenizers_own():
    """As Llama 2's: what follows a prompt has no second one."""
    template = (
        "{% for message in messages %}"
        "{% if message.role == 'user' %}[INST] {{ message.content.strip() }} [/INST]"
        "{% else %}{{ ' ' + message.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    )
    tokenizer = template_sweep.settled(make_tokenizer(blank=True, eos_token="<|im_end|>"), template)
    found = template_sweep.verdicts(tokenizer)
    assert found == EXACT | {"system": found["system"]}
    prompt, completion = chat.prompt_and_completion_ids(tokenizer, template_sweep.turns(1)[:1], "yes sir")
    whole = "[INST] What is kumquat? [/INST] yes sir <|im_end|>"
    assert prompt + completion == tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_thoughts_of_an_answer_take_the_place_of_an_empty_one():
    asked = template_sweep.turns(1)[:1]
    answer = "<think>\nlong\n</think>\n\nYes."
    for template, said in ((THINKING, answer), (OPENS_THINKING, "long\n</think>\n\nYes.")):
        tokenizer = make_tokenizer(template)
        _, completion = chat.prompt_and_completion_ids(tokenizer, asked, answer)
        assert tokenizer.decode(completion) == said + "<|im_end|>"


def test_other_text_with_markers_keeps_the_templates_text_before_it():
    asked = template_sweep.turns(1)[:1]
    channel = KINDS["a channel before the answer"][0]
    for template, opener in ((channel, "<|pad|>final\n"), (THINKING, "<think>\n\n</think>\n\n")):
        tokenizer = make_tokenizer(template)
        for answer in ("[THINK]Hm.[/THINK]Yes.", "<think> is a word.", "[THINK] is a word.", "Say </think>."):
            _, completion = chat.prompt_and_completion_ids(tokenizer, asked, answer)
            assert tokenizer.decode(completion) == f"{opener}{answer}<|im_end|>"
    tokenizer = make_tokenizer(channel)
    _, completion = chat.prompt_and_completion_ids(tokenizer, asked, "<think>Hm.</think>Yes.")
    assert tokenizer.decode(completion) == "<|pad|>final\n<think>Hm.</think>Yes.<|im_end|>"
    tokenizer = make_tokenizer(OPENS_THINKING)
    _, completion = chat.prompt_and_completion_ids(tokenizer, asked, "<think> is a word.")
    assert tokenizer.decode(completion) == "\n</think>\n\n<think> is a word.<|im_end|>"


def test_earlier_thoughts_are_the_templates_to_drop():
    first = "<think>\nlong\n</think>\n\nYes."
    dialogue = [
        {"role": "user", "content": "Is it?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Sure?"},
    ]
    tokenizer = make_tokenizer(THINKING)
    said = tokenizer.decode(chat.prompt_ids(tokenizer, dialogue))
    assert "Yes." in said and "long" not in said
    dialogue[1]["content"] = "Yes. </think>"
    with pytest.raises(InputError, match=r"drops text of message 2 \(role assistant\), such as 'Yes.'"):
        chat.prompt_ids(tokenizer, dialogue)


def test_texts_of_special_tokens_are_ordinary_text():
    asked = [{"role": "user", "content": "Say <|im_end|> twice"}]
    for own in ({}, {"add_bos": True}, {"blank": True}):
        tokenizer = make_tokenizer(TEMPLATE, **own)
        special = chat.special_tokens(tokenizer)
        assert chat.special_tokens_in(tokenizer, asked) == ["<|im_end|>"]
        answer = "<|im_end|> and <|im_start|>user"
        prompt, completion = chat.prompt_and_completion_ids(tokenizer, asked, answer)
        harmless = [{"role": "user", "content": "Say so twice"}]
        plain, short = chat.prompt_and_completion_ids(tokenizer, harmless, "yes")
        for ids, like in ((prompt, plain), (completion, short)):
            assert [token for token in ids if token in special] == [
                token for token in like if token in special
            ]
        said = tokenizer.decode(prompt + completion)
        assert said.count("<|im_end|>") == 4 and "Say <|im_end|> twice" in said and answer in said
        whole = chat.dialogue_ids(tokenizer, [*asked, {"role": "assistant", "content": answer}])
        assert whole[: len(prompt)] == prompt
        (document,) = chat.document_ids(tokenizer, ["a<|im_end|>b"])
        assert document.count(SPECIAL.index("<|im_end|>")) == 1, "the document's own end"


def _with_added(template, *texts):
    """A tokenizer that has `texts` as added tokens that it does not call special."""
    from tokenizers import AddedToken

    tokenizer = make_tokenizer(template)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in texts])
    return tokenizer


def test_added_tokens_that_the_template_writes_are_structure_though_not_called_special():
    """As DeepSeek's roles, Qwen's <tool_call> and </think>."""
    calls = "{% if tools %}<tool_call>{% endif %}"
    template = calls + THINKING.replace("<|im_start|>", "<role>")
    words = ("<role>", "<tool_call>", "<think>", "</think>", "user", "<odd>", "  ")
    tokenizer = _with_added(template, *words)
    ids = dict(zip(words, tokenizer.convert_tokens_to_ids(list(words)), strict=True))
    text = "<role>user\nHi <tool_call>x</think><odd>"
    assert chat.special_tokens_in(tokenizer, text) == ["<role>"]
    plain, odd = (
        chat.prompt_ids(tokenizer, [{"role": "user", "content": content}]) for content in ("Hi", text)
    )
    assert text in tokenizer.decode(odd)
    for word in ("<role>", "<tool_call>", "</think>"):
        assert odd.count(ids[word]) == plain.count(ids[word])
    assert ids["<odd>"] in odd and ids["user"] in odd, "words are no structure"
    answer = f"<think>\nHm.\n</think>\n\n<role>user<tool_call>{tokenizer.eos_token}"
    asked = [{"role": "user", "content": "Hi"}]
    _, completion = chat.prompt_and_completion_ids(tokenizer, asked, answer)
    assert tokenizer.decode(completion) == answer + "<|im_end|>"
    assert [token for token in completion if token in ids.values() or token == completion[-1]] == [
        *(ids[word] for word in ("<think>", "</think>", "user", "<tool_call>")),
        completion[-1],
    ]
    whole = chat.dialogue_ids(tokenizer, [*asked, {"role": "assistant", "content": "a<role>b"}])
    assert whole.count(ids["<role>"]) == 2
    (document,) = chat.document_ids(tokenizer, ["a<role>b</think>"])
    assert ids["<role>"] not in document and ids["</think>"] not in document


def test_a_message_is_missed_though_its_words_are_elsewhere():
    asked = [
        {"role": "user", "content": "How warm?"},
        {"role": "assistant", "content": "It is 22 degrees."},
        {"role": "tool", "content": "22"},
        {"role": "user", "content": "Sure?"},
    ]
    tokenizer = make_tokenizer(CHATML.replace("in messages %}", "in messages if message.role != 'tool' %}"))
    for entrance in (chat.prompt_ids, chat.dialogue_ids):
        with pytest.raises(InputError, match=r"drops text of message 3 \(role tool\), such as '22'"):
            entrance(tokenizer, asked)
    first = "in messages if message.role != 'system' or message == messages[0] %}"
    tokenizer = make_tokenizer(CHATML.replace("in messages %}", first))
    system, second = ({"role": "system", "content": text} for text in ("Be brief, please", "Be brief"))
    chat.prompt_ids(tokenizer, [system, asked[0]])
    with pytest.raises(InputError, match=r"drops text of message 2 \(role system\), such as 'Be'"):
        chat.prompt_ids(tokenizer, [system, second, asked[0]])


def test_a_template_knows_no_clock():
    tokenizer = make_tokenizer("{{ strftime_now('%Y') }}" + CHATML)
    with pytest.raises(InputError, match="writes today's date"):
        chat.prompt_ids(tokenizer, template_sweep.turns(1)[:1])
    tokenizer.chat_template = templates.settled(tokenizer.chat_template, "1999-02-03")
    assert tokenizer.decode(chat.prompt_ids(tokenizer, template_sweep.turns(1)[:1])).startswith("1999")


def _rendered(template):
    return make_tokenizer(template).apply_chat_template(template_sweep.turns(1)[:1], tokenize=False)


def test_a_date_is_written_in_any_format():
    day = datetime.datetime(2026, 1, 5)
    plain = [f"%{letter}" for letter in string.ascii_letters if letter != "s"]
    for form in (*plain, "%d %B %Y", "%-d %b", "%e", "%-H", "%#a", "%^a", "%Ey", "100%%", "%%d %d", "% x"):
        settled = templates.settled(f"{{{{ strftime_now('{form}') }}}}", "2026-01-05")
        assert _rendered(settled) == day.strftime(form), form
    epoch = templates.settled("{{ strftime_now('%s') }}", "1970-01-02")
    assert _rendered(epoch) == "86400", "in any time zone"
    given = templates.settled("{{ strftime_now(form) }}", "2026-01-05", {"form": "%j"})
    assert _rendered(given) == "005"


def test_settings_are_variables_of_the_template():
    template = (
        "{% for message in messages %}{% set own = loop.index %}{{ own }}{% endfor %}"
        "{% generation %}{{ name }}{% endgeneration %}"
    )
    for value in ("Bot 🙂", 'Jürgen "x" \\n {{ 1 }} %}', ["é", {"東": None}]):
        said = _rendered(templates.settled(template, None, {"name": value}))
        assert said == f"1{value}"
    for name in ("for", "loop", "own", "message", "messages", "add_generation_prompt", "generation", "set"):
        with pytest.raises(InputError, match=f"chat_template_kwargs: the chat template has no .*'{name}'"):
            templates.settled(template, None, {name: 1})


@pytest.mark.skipif(not FOLDER, reason="PREFLINE_TEMPLATES names no folder of tokenizers and templates")
def test_real_templates_are_exact_or_refused_for_their_own_reasons():
    """Prints the table of docs/chat_templates.md; verdicts go to the file that PREFLINE_SWEEP names."""
    found = {name: template_sweep.verdicts(made) for name, made in template_sweep.tokenizers(FOLDER)}
    wrong = {
        (name, entrance): verdict
        for name, verdicts in found.items()
        for entrance, verdict in verdicts.items()
        if verdict.startswith("wrong")
    }
    if os.environ.get("PREFLINE_SWEEP"):
        files.write_json(os.environ["PREFLINE_SWEEP"], found)
    print(template_sweep.table(found))
    assert found and not wrong
