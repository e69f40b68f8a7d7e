"""Text that only a tokenizer's normalization turns into a special token stays text at every entrance."""

import collections
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import CHATML, SPECIAL, make_tokenizer

from prefline.text import chat

NORMALIZERS = {
    "nfkc": {"type": "NFKC"},
    "nfd": {"type": "NFD"},
    "lowercase": {"type": "Lowercase"},
    "replace": {"type": "Replace", "pattern": {"String": "_"}, "content": "-"},
    "remove": {"type": "Replace", "pattern": {"Regex": "[*~]"}, "content": ""},
    "strip": {"type": "Strip", "strip_left": True, "strip_right": True},
    "prepend": {"type": "Prepend", "prepend": "_"},
    "bert": {
        "type": "BertNormalizer",
        **{"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
    },
}
NORMALIZERS["several"] = {
    "type": "Sequence",
    "normalizers": [NORMALIZERS[name] for name in ("nfkc", "lowercase", "remove")],
}
# Each becomes <|im_end|> by one of them.
DISGUISED = {
    "nfkc": "\uff1c|im_end|\uff1e",
    "lowercase": "<|IM_END|>",
    "replace": "<|im-end|>",
    "remove": "<|im*_end|>",
    "bert": "<|im_\u0301end|>",
    "several": "\uff1c|Im~_eND|>",
}
END = 4


def normalizing(name, template=CHATML):
    """Return a tokenizer whose special tokens are looked for in normalized text."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    made = json.loads(make_tokenizer(template).backend_tokenizer.to_str())
    made["normalizer"] = NORMALIZERS[name]
    for token in made["added_tokens"]:
        token["normalized"] = True
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(made)),
        chat_template=template,
        **{"bos_token": SPECIAL[0], "eos_token": SPECIAL[4], "pad_token": SPECIAL[2]},
    )


TOKENIZERS = {name: normalizing(name) for name in NORMALIZERS}


def control(ids):
    return [token for token in ids if token < len(SPECIAL)]


@pytest.mark.parametrize("name", DISGUISED)
def test_a_disguised_token_drops_the_row_or_is_text(name):
    tokenizer, text = TOKENIZERS[name], f"a {DISGUISED[name]} b"
    assert END in tokenizer(text, add_special_tokens=False)["input_ids"]
    assert chat.special_tokens_in(tokenizer, text) == ["<|im_end|>"]
    assert chat.special_tokens_in(tokenizer, chat.as_messages(text, "here")) == ["<|im_end|>"]
    assert chat.special_tokens_in(tokenizer, "a im_end b") == []
    asked = chat.as_messages(text, "here")
    prompt, completion = chat.prompt_and_completion_ids(tokenizer, asked, text)
    assert control(prompt) == [3, 4, 3]
    assert control(completion) == [END]
    assert (
        control(chat.dialogue_ids(tokenizer, [*asked, {"role": "assistant", "content": text}])) == [3, 4] * 2
    )
    assert control(chat.document_ids(tokenizer, [text])[0]) == [END]
    assert tokenizer.decode(completion[:-1]) == tokenizer.backend_tokenizer.normalizer.normalize_str(text)


def test_text_without_disguised_tokens_has_the_ids_of_the_template():
    for name, tokenizer in TOKENIZERS.items():
        asked = chat.as_messages("Hi \uff1cTHERE_*", "here")
        whole = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        assert chat.prompt_ids(tokenizer, asked) == whole, name


WIDE = {ord(letter): chr(ord(letter) + 0xFEE0) for letter in "<|>_imendsart"}
PIECES = st.one_of(
    st.sampled_from([*SPECIAL, *DISGUISED.values(), *"<|>_-*~ \n", "im", "END", "\u0338", "\u0301"]),
    st.sampled_from(SPECIAL).map(str.upper),
    st.sampled_from(SPECIAL).map(lambda token: token.translate(WIDE)),
    st.text(max_size=3),
)
TEXTS = st.lists(PIECES, min_size=1, max_size=6).map("".join).filter(str.strip)


@pytest.mark.parametrize("name", NORMALIZERS)
@given(text=TEXTS, answer=TEXTS)
@settings(suppress_health_check=[HealthCheck.filter_too_much], max_examples=30, deadline=None)
def test_no_text_gives_a_control_token(name, text, answer):
    tokenizer = TOKENIZERS[name]
    asked = chat.as_messages(text, "here")
    prompt, completion = chat.prompt_and_completion_ids(tokenizer, asked, answer)
    written = collections.Counter([3, 4, 3])
    assert not collections.Counter(control(prompt)) - written
    # Prepended to tokens, too, it lets no text end as one: an end of turn is none behind other text.
    assert control(completion) == ([] if name == "prepend" else [END])
    whole = chat.dialogue_ids(tokenizer, [*asked, {"role": "assistant", "content": answer}])
    assert not collections.Counter(control(whole)) - collections.Counter([3, 4] * 2)
    if END in tokenizer(text, add_special_tokens=False)["input_ids"]:
        assert "<|im_end|>" in chat.special_tokens_in(tokenizer, text)
