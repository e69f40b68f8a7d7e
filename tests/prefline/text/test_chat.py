"""Chat templates of several styles in ids: one BOS, right ends, a prompt that begins its dialogue."""

import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import CHATML, SPECIAL, TEMPLATE, make_tokenizer

from prefline import files
from prefline.data import sources
from prefline.errors import InputError
from prefline.text import chat, tokenizer_class
from scripts.models import train_sft

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


def test_a_bos_inside_a_message_is_text():
    ids = chat.prompt_ids(STYLES["llama_3"], chat.as_messages("Hi <|begin_of_text|>", "here"))
    assert ids[0] == 0 and ids.count(0) == 1
    assert STYLES["llama_3"].decode(ids).count("<|begin_of_text|>") == 2


def test_a_bos_behind_other_text_is_refused():
    late = make_tokenizer(CHATML.replace("assistant\n", "assistant\n{{ bos_token }}"))
    with pytest.raises(InputError, match="after other text"):
        chat.prompt_ids(late, chat.as_messages("Hi", "here"))


def test_documents_begin_as_dialogues_do():
    begins = {name: chat.document_ids(made, ["a"])[0][0] == 0 for name, made in STYLES.items()}
    assert begins == {name: bool(count) for name, count in BOS.items()}
    same = make_tokenizer(CHATML, bos_token="<|im_end|>")
    # As in OPT, whose tokenizer puts its EOS before every text.
    first = "<|begin_of_text|>"
    opt = make_tokenizer(CHATML, add_bos=True, eos_token=first)
    assert chat.document_ids(opt, ["a"])[0] == [*opt("a")["input_ids"], 0]
    assert opt("a")["input_ids"][0] == 0
    bare = make_tokenizer(None)
    for made in (same, bare):
        assert chat.document_ids(made, ["a"])[0] == [*made("a")["input_ids"], 4]


def test_a_bos_that_is_the_eos_comes_first_once():
    first, asked = "<|begin_of_text|>", chat.as_messages("Hi", "here")
    ends = CHATML.replace("<|im_end|>", first)
    for template in (ends, first + ends, "{{ bos_token }}" + ends):
        made = make_tokenizer(template, add_bos=True, eos_token=first)
        prompt, completion = chat.prompt_and_completion_ids(made, asked, "yes")
        assert prompt[:2] == [0, 3] and prompt == chat.prompt_ids(made, asked)
        assert completion[-1] == 0 and completion.count(0) == 1
        answered = [*asked, {"role": "assistant", "content": "yes"}]
        assert chat.dialogue_ids(made, answered)[: len(prompt) + len(completion)] == prompt + completion
    plain = make_tokenizer(ends, eos_token=first)
    assert chat.prompt_ids(plain, asked)[0] == 3


def test_a_text_may_have_private_characters():
    text = "\U000f0000 <|im_end|> \U00100000 <|pad|>"
    assert text in STYLES["chatml"].decode(chat.prompt_ids(STYLES["chatml"], chat.as_messages(text, "here")))


def test_a_last_turn_that_is_unlike_the_others_is_refused():
    template = CHATML.replace("{{ message.role }}", "{{ message.role }}{% if loop.last %}!{% endif %}")
    with pytest.raises(InputError, match=r"begins an answer with '!.* in a prompt and with 'Sentinel"):
        chat.prompt_and_completion_ids(make_tokenizer(template), chat.as_messages("Hi", "here"), "yes")


def test_a_second_question_is_tried():
    chat.check_second_turn(STYLES["chatml"])
    each_turn = make_tokenizer(
        "{% for message in messages %}{{ bos_token }}{{ message.content }}{% endfor %}"
    )
    with pytest.raises(InputError, match=r"a second question, as MT-Bench asks, .* more than once"):
        chat.check_second_turn(each_turn)


def test_an_answer_follows_how_it_is_begun():
    tokenizer, asked = STYLES["chatml"], chat.as_messages("Hi", "here")
    begun = chat.prompt_ids(tokenizer, asked, begun="```python\n")
    assert begun == chat.prompt_ids(tokenizer, asked) + tokenizer("```python\n")["input_ids"]


def test_an_answer_without_its_end_token_is_refused():
    endless = make_tokenizer(CHATML.replace("<|im_end|>", "").replace("<|im_start|>", "#"))
    with pytest.raises(InputError, match="ends an answer without the tokenizer's end token"):
        chat.prompt_and_completion_ids(endless, chat.as_messages("Hi", "here"), "yes")


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


def test_a_tokenizer_that_loses_text_is_refused(tmp_path):
    STYLES["chatml"].save_pretrained(tmp_path)
    made = files.read_json(tmp_path / "tokenizer.json")
    files.write_json(tmp_path / "tokenizer.json", made | {"pre_tokenizer": {"type": "Whitespace"}})
    with pytest.raises(InputError, match=r"the tokenizer loses text \('two words.* comes back as 'twowords"):
        chat.load_tokenizer(tmp_path)


@pytest.mark.parametrize("named", [*tokenizer_class.PLAIN_CLASSES, "LlamaTokenizer", "GPT2Tokenizer", None])
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2"])
def test_the_tokenizer_is_the_one_that_the_library_would_choose(tmp_path, model_type, named):
    transformers = pytest.importorskip("transformers")
    STYLES["llama_3"].save_pretrained(tmp_path)
    config = files.read_json(tmp_path / "tokenizer_config.json") | {"tokenizer_class": named}
    files.write_json(tmp_path / "tokenizer_config.json", config)
    files.write_json(tmp_path / "config.json", {"model_type": model_type})
    if (model_type, named) == ("llama", "LlamaTokenizer"):
        with pytest.raises(InputError, match="loses text"):
            chat.load_tokenizer(tmp_path)
        return
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


def test_the_ids_of_the_embedded_world_are_those_of_its_first_release():
    """Measured before answers were made of opener, text and closer: that changed none of them."""
    tokenizer = chat.load_tokenizer("data/policy")
    columns = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    hashed = hashlib.sha256()
    for where, row in sources.read_rows("data/world/preferences_train.jsonl", columns):
        messages = chat.as_messages(row["prompt"], where)
        for side in ("chosen", "rejected"):
            answer = row[side] if isinstance(row[side], str) else row[side][-1]["content"]
            hashed.update(json.dumps(chat.prompt_and_completion_ids(tokenizer, messages, answer)).encode())
    assert hashed.hexdigest() == "20423676a725fdc5507dca3cc7f90a42adf6e38129b240a15a82f0d3752f96a3"
    hashed = hashlib.sha256()
    for where, row in sources.read_rows("data/world/sft_train.jsonl", {"messages": "messages"}):
        for made in train_sft.examples(tokenizer, chat.as_messages(row["messages"], where)):
            hashed.update(json.dumps([made["input_ids"], made["labels"]]).encode())
    assert hashed.hexdigest() == "c956d98b8715392a37de5ac3220405cda1f88449b7a516439c7924328965982d"
