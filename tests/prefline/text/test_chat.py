"""Chat templates of several styles in ids: one BOS, right ends, a prompt that begins its dialogue."""

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import CHATML, SPECIAL, TEMPLATE, make_tokenizer

from prefline import files
from prefline.errors import InputError
from prefline.text import chat

LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}"
    "<|im_start|>{{ message.role }}<|pad|>\n\n{{ message.content | trim }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|pad|>\n\n{% endif %}"
)
# Mistral's form, whose end token closes the answer and whose tokenizer, not template, adds the BOS.
MISTRAL = (
    "{% for message in messages %}{% if message.role == 'assistant' %}{{ message.content }}{{ eos_token }}"
    "{% else %}[INST] {{ message.content }} [/INST]{% endif %}{% endfor %}"
)
STYLES = {
    "chatml": make_tokenizer(CHATML),
    "chatml_with_bos": make_tokenizer(TEMPLATE),
    "llama_3": make_tokenizer(LLAMA_3, add_bos=True),
    # A base model's tokenizer: eos_token ends documents, another token ends turns.
    "base": make_tokenizer(TEMPLATE, eos_token="<|end_of_text|>"),
    "mistral": make_tokenizer(MISTRAL, eos_token="<|end_of_text|>", add_bos=True),
}
BOS = {"chatml": 0, "chatml_with_bos": 1, "llama_3": 1, "base": 1, "mistral": 1}
ENDS = {"chatml": 4, "chatml_with_bos": 4, "llama_3": 4, "base": 4, "mistral": 1}
CONTENTS = st.text(min_size=1).filter(lambda text: text.strip() and not any(s in text for s in SPECIAL))


@pytest.mark.parametrize("style", STYLES)
@given(contents=st.lists(CONTENTS, min_size=1, max_size=5).filter(lambda c: len(c) % 2), answer=CONTENTS)
@settings(suppress_health_check=[HealthCheck.filter_too_much], max_examples=50)
def test_any_dialogue_has_one_bos_its_prompt_first_and_one_end(style, contents, answer):
    tokenizer = STYLES[style]
    messages = [
        {"role": ("user", "assistant")[turn % 2], "content": content} for turn, content in enumerate(contents)
    ]
    prompt, completion = chat.prompt_and_completion_ids(tokenizer, messages, answer)
    assert prompt == chat.prompt_ids(tokenizer, messages)
    assert (prompt + completion).count(0) == BOS[style]
    assert prompt[: BOS[style]] == [0] * BOS[style]
    assert [token for token in completion if token < len(SPECIAL)] == [ENDS[style]]
    assert completion[-1] == ENDS[style]
    text = tokenizer.decode(completion[:-1], clean_up_tokenization_spaces=False)
    assert text == (answer.strip() if style == "llama_3" else answer)


def test_what_follows_the_end_token_is_left_out():
    _, completion = chat.prompt_and_completion_ids(STYLES["chatml"], chat.as_messages("Hi", "here"), "yes")
    whole = STYLES["chatml"]("yes<|im_end|>\n", add_special_tokens=False)["input_ids"]
    assert completion == whole[:-1]


def test_the_tokenizers_bos_comes_once_beside_the_templates():
    hello = chat.as_messages("Hello", "here")
    assert chat.prompt_ids(STYLES["llama_3"], hello)[:2] == [0, 3]
    assert chat.prompt_ids(STYLES["mistral"], hello)[:1] == [0]
    assert 0 not in chat.prompt_ids(STYLES["chatml"], hello)


def test_two_bos_are_refused():
    twice = make_tokenizer("{{ bos_token }}" + TEMPLATE)
    with pytest.raises(InputError, match="more than once"):
        chat.prompt_ids(twice, chat.as_messages("Hi", "here"))
    each_turn = make_tokenizer(TEMPLATE.replace("<|im_start|>{{", "{{ bos_token }}<|im_start|>{{"))
    with pytest.raises(InputError, match="more than once"):
        chat.prompt_ids(each_turn, chat.as_messages("Hi", "here"))


def test_a_bos_inside_a_message_is_refused():
    with pytest.raises(InputError, match="or a message holds it"):
        chat.prompt_ids(STYLES["llama_3"], chat.as_messages("Hi <|begin_of_text|>", "here"))


@pytest.mark.parametrize(
    "template",
    [
        # Qwen's thinking models put an empty thought into the generation prompt only.
        CHATML.replace("assistant\n{% endif", "assistant\n<think>\n\n</think>\n\n{% endif"),
        # The last turn is rendered unlike the ones before it.
        CHATML.replace("{{ message.role }}", "{{ message.role }}{% if loop.last %}!{% endif %}"),
    ],
)
def test_a_broken_prefix_is_refused(template):
    with pytest.raises(InputError, match="breaks the prefix property"):
        chat.prompt_and_completion_ids(make_tokenizer(template), chat.as_messages("Hi", "here"), "yes")


def test_an_answer_without_its_end_token_is_refused():
    endless = make_tokenizer(CHATML.replace("<|im_end|>", ""))
    with pytest.raises(InputError, match="ends an answer without the tokenizer's end token"):
        chat.prompt_and_completion_ids(endless, chat.as_messages("Hi", "here"), "yes")


def test_nothing_but_white_space_may_follow_the_end_token():
    signed = make_tokenizer(CHATML.replace("<|im_end|>", "<|im_end|>bye"))
    with pytest.raises(InputError, match="ends an answer without the tokenizer's end token"):
        chat.prompt_and_completion_ids(signed, chat.as_messages("Hi", "here"), "yes")


def test_a_template_that_refuses_is_quoted():
    strict = make_tokenizer("{{ raise_exception('only poems, please') }}")
    with pytest.raises(InputError, match="the chat template refuses the messages: only poems, please"):
        chat.prompt_ids(strict, chat.as_messages("Hi", "here"))


def test_special_tokens_are_all_of_them():
    assert chat.special_tokens(STYLES["base"]) == dict(enumerate(SPECIAL))


def test_a_tokenizer_needs_a_template(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no chat template"):
        chat.load_tokenizer(tmp_path)


@pytest.mark.parametrize("named", [*chat.PLAIN_CLASSES, "LlamaTokenizer", "GPT2Tokenizer", None])
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2"])
def test_the_tokenizer_is_the_one_that_the_library_would_choose(tmp_path, model_type, named):
    transformers = pytest.importorskip("transformers")
    STYLES["llama_3"].save_pretrained(tmp_path)
    config = files.read_json(tmp_path / "tokenizer_config.json") | {"tokenizer_class": named}
    files.write_json(tmp_path / "tokenizer_config.json", config)
    files.write_json(tmp_path / "config.json", {"model_type": model_type})
    ours = chat.load_tokenizer(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert vars(ours).keys() == vars(theirs).keys()
    assert ours.init_kwargs == theirs.init_kwargs
    assert ours.chat_template == theirs.chat_template


def test_tokens_alone_need_no_torch():
    code = (
        "import sys; from prefline.text import chat; chat.load_tokenizer('data/policy'); print(*sys.modules)"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "tokenizers" in loaded and "torch" not in loaded


def test_a_string_is_a_user_turn():
    assert chat.as_messages("Hi", "here") == [{"role": "user", "content": "Hi"}]


def test_a_system_message_is_put_first_where_there_is_none():
    system = {"role": "system", "content": "S"}
    assert chat.as_messages("Hi", "here", system="S") == [system, {"role": "user", "content": "Hi"}]
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "Hi"}]
    assert chat.as_messages(own, "here", system="S") == own


def test_other_keys_of_a_message_are_dropped():
    value = [{"role": "user", "content": "Hi", "name": "Ann"}]
    assert chat.as_messages(value, "here") == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "a string or a list of messages"),
        ([], "a string or a list of messages"),
        (None, "a string or a list of messages"),
        (["Hi"], "has a `role` among"),
        ([{"role": "human", "content": "Hi"}], "has a `role` among"),
        ([{"role": "user"}], "the user message has no text"),
        (" ", "the user message has no text"),
    ],
)
def test_what_is_no_prompt_is_named(value, message):
    with pytest.raises(InputError, match=f"row 7: .*{message}"):
        chat.as_messages(value, "row 7")
