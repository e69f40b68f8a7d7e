"""What a policy thinks and what it answers, whatever marks the reasoning."""

import pytest
from small_model import CHATML, make_tokenizer

from prefline.text import chat, reasoning

OPENED = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
# As harmony's: channels are special tokens, and an answer has one of its own.
CHANNELS = CHATML.replace("{{ message.role }}\n", "{{ message.role }}<|pad|>final<|begin_of_text|>").replace(
    "assistant\n{% endif", "assistant{% endif"
)


@pytest.mark.parametrize(
    ("template", "markers", "text", "answer"),
    [
        (CHATML, None, "Yes.", "Yes."),
        (CHATML, None, "\n<think>\nHm.\n</think>\n\nYes.", "Yes."),
        (CHATML, None, "<think>Hm.</think>\n\n    return 1\n", "    return 1\n"),
        (CHATML, None, "<think>Hm.", None),
        (CHATML, None, "Say <think> or </think>.", "Say <think> or </think>."),
        (CHATML, None, "[THINK]Hm.[/THINK]Yes.", "Yes."),
        (CHATML, ["<why>", "<so>"], "<why>Hm.<so> Yes.", "Yes."),
        (CHATML, ["<why>", "<so>"], "<think>Hm.</think>Yes.", "Yes."),
        (OPENED, None, "Hm.\n</think>\n\nYes.", "Yes."),
        (OPENED, None, "Hm. Yes.", None),
        (CHANNELS, None, "<|pad|>final<|begin_of_text|>Yes.", "Yes."),
        (
            CHANNELS,
            ["<|pad|>analysis", "<|pad|>final<|begin_of_text|>"],
            "<|pad|>analysis<|begin_of_text|>Hm.<|end_of_text|><|im_start|>assistant"
            "<|pad|>final<|begin_of_text|>Yes.",
            "Yes.",
        ),
    ],
)
def test_an_answer_is_what_follows_the_reasoning(template, markers, text, answer):
    tokenizer = make_tokenizer(template)
    tokenizer.init_kwargs["reasoning_markers"] = markers
    said = chat.said(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])
    assert said.answer == answer
    assert said.text == text, "the reasoning is kept"


@pytest.mark.parametrize(
    ("channels", "answer"),
    [
        (["final"], "3."),
        (["analysis", "final"], "3."),
        (["analysis", "analysis", "final"], "3."),
        (["commentary", "final"], "3."),
        (["analysis", "commentary", "final"], "3."),
        (["final <|constrain|>json"], "3."),
        (["analysis", "final <|constrain|>json"], "3."),
        (["final", "final"], "3."),
        (["analysis"], None),
        (["analysis", "commentary to=functions.sum <|constrain|>json"], None),
    ],
)
def test_the_answer_of_channels_is_the_last_final_one(channels, answer):
    """As harmony's, whose marks are special tokens."""
    marks = ["<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>"]
    template = CHATML.replace("{{ message.role }}\n", "{{ message.role }}<|channel|>final<|message|>")
    tokenizer = make_tokenizer(template.replace("assistant\n{% endif", "assistant{% endif"))
    tokenizer.add_tokens(marks, special_tokens=True)
    parts = [f"<|channel|>{channel}<|message|>{number}." for number, channel in enumerate(channels)]
    parts[-1] = parts[-1].replace(f"{len(parts) - 1}.", "3.")
    ids = tokenizer("<|end|><|start|>assistant".join(parts), add_special_tokens=False)["input_ids"]
    assert chat.said(tokenizer, ids).answer == answer
    assert reasoning.split("Plain <|channel|>final<|message|> text", reasoning.KNOWN)[0] == ""
