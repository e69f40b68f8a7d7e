"""Forms of pairs, labelled completions and dialogues: what each becomes, or why it is dropped."""

import json

import pytest
from forms_of_data import ASK, CALL, DIALOGUES, LEARNT, SAY, SYSTEM, TOOL, image, made, said
from some_prompts import assistant, user


def pair(messages, chosen, rejected, chosen_reward=None, rejected_reward=None):
    return {
        "messages": messages,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_reward": chosen_reward,
        "rejected_reward": rejected_reward,
    }


ANSWERED = pair([user(ASK)], SAY, "No.")
CONTEXT = [user("a"), assistant("b"), user("c")]
PAIRS = {
    "texts": ({"prompt": ASK, "chosen": SAY, "rejected": "No."}, ANSWERED),
    "indented answers": (
        {"prompt": ASK, "chosen": "    return x\n", "rejected": "\treturn\n\n"},
        pair([user(ASK)], "    return x\n", "\treturn\n\n"),
    ),
    "messages": (
        {"prompt": [user(ASK)], "chosen": [assistant(SAY)], "rejected": [assistant("No.")]},
        ANSWERED,
    ),
    "texts in objects": (
        {"prompt": ASK, "chosen": {"messages": SAY}, "rejected": {"messages": "No."}},
        ANSWERED,
    ),
    "one message each": ({"prompt": ASK, "chosen": assistant(SAY), "rejected": assistant("No.")}, ANSWERED),
    "implicit prompt": (DIALOGUES, ANSWERED),
    "a prompt beside dialogues": ({"prompt": ASK, **DIALOGUES}, ANSWERED),
    "a null prompt beside dialogues": ({"prompt": None, **DIALOGUES}, ANSWERED),
    "a prompt with other white space": (
        {
            "prompt": ASK,
            "chosen": [user(f"{ASK}\n"), assistant(SAY)],
            "rejected": [user(ASK), assistant("No.")],
        },
        pair([user(f"{ASK}\n")], SAY, "No."),
    ),
    "a system message in the prompt": (
        {"prompt": [SYSTEM, user(ASK)], **DIALOGUES},
        pair([SYSTEM, user(ASK)], SAY, "No."),
    ),
    "the first question beside dialogues": (
        {"prompt": "a", "chosen": [*CONTEXT, assistant("d")], "rejected": [*CONTEXT, assistant("e")]},
        pair(CONTEXT, "d", "e"),
    ),
    "the last question beside dialogues": (
        {"prompt": "c", "chosen": [*CONTEXT, assistant("d")], "rejected": [*CONTEXT, assistant("e")]},
        pair(CONTEXT, "d", "e"),
    ),
    "dialogues that continue the prompt": (
        {
            "prompt": "a",
            "chosen": [assistant("b"), user("c"), assistant("d")],
            "rejected": [assistant("b"), user("c"), assistant("e")],
        },
        pair(CONTEXT, "d", "e"),
    ),
    "another prompt": ({"prompt": "What?", **DIALOGUES}, "prompt_not_in_dialogue"),
    "ultrafeedback": (
        {
            "prompt": ASK,
            "prompt_id": "x",
            **DIALOGUES,
            "messages": [user(ASK)],
            "score_chosen": 8.5,
            "score_rejected": "3",
        },
        pair([user(ASK)], SAY, "No.", 8.5, 3.0),
    ),
    "transcripts": (
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
        pair([user("a")], "b", "c"),
    ),
    "a transcript and answers": (
        {"prompt": "\n\nHuman: a\n\nAssistant:", "chosen": " b", "rejected": " c"},
        pair([user("a")], " b", " c"),
    ),
    "stored dialogues": ({name: str(value) for name, value in DIALOGUES.items()}, ANSWERED),
    "sharegpt": (
        {"conversations": [said("human", ASK)], "chosen": said("gpt", SAY), "rejected": said("gpt", "No.")},
        ANSWERED,
    ),
    "alpaca": (
        {"instruction": "Sum up.", "input": "Long.", "chosen": "a", "rejected": "b"},
        pair([user("Sum up.\n\nLong.")], "a", "b"),
    ),
    "alpaca without input": ({"instruction": ASK, "input": "", "chosen": SAY, "rejected": "No."}, ANSWERED),
    "a system column": (
        {"system": "Be brief.", "question": ASK, "chosen": SAY, "rejected": "No."},
        pair([SYSTEM, user(ASK)], SAY, "No."),
    ),
    "a nested pair": ({"id": 3, "data": {"prompt": ASK, "chosen": SAY, "rejected": "No."}}, ANSWERED),
    "the first output": ({"instruction": ASK, "output_1": SAY, "output_2": "No.", "preference": 1}, ANSWERED),
    "the second output": (
        {"instruction": ASK, "output_1": "No.", "output_2": SAY, "preference": 1.83},
        ANSWERED,
    ),
    "a winner": (
        {"conversation_a": DIALOGUES["rejected"], "conversation_b": DIALOGUES["chosen"], "winner": "model_b"},
        ANSWERED,
    ),
    "a better response": (
        {"prompt": ASK, "response_0": SAY, "response_1": "No.", "better_response_id": 0},
        ANSWERED,
    ),
    "ratings": (
        {"instruction": ASK, "generations": ["Hm.", SAY, "No."], "ratings": [2, 5.0, 1]},
        pair([user(ASK)], SAY, "No.", 5.0, 1.0),
    ),
    "some ratings": (
        {"instruction": ASK, "generations": ["Hm.", SAY, "No."], "ratings": [None, 5, 1]},
        pair([user(ASK)], SAY, "No.", 5.0, 1.0),
    ),
    "rated completions": (
        {
            "instruction": ASK,
            "completions": [{"response": "No.", "overall_score": 3}, {"response": SAY, "overall_score": 8}],
        },
        pair([user(ASK)], SAY, "No.", 8.0, 3.0),
    ),
    "a tie of ratings": ({"instruction": ASK, "generations": ["a", "b"], "ratings": [3, 3]}, "tie"),
    "one rating": ({"instruction": ASK, "generations": ["a", "b"], "ratings": [3, None]}, "no_ratings"),
    "too few ratings": ({"instruction": ASK, "generations": ["a", "b"], "ratings": [3]}, "no_ratings"),
    "no list": ({"instruction": ASK, "generations": "a", "ratings": [3]}, "no_completions"),
    "a tie": ({"instruction": ASK, "output_1": "a", "output_2": "b", "preference": 1.5}, "tie"),
    "a tie in words": ({"conversation_a": "a", "conversation_b": "b", "winner": "tie (bothbad)"}, "tie"),
    "no preference": (
        {"instruction": ASK, "output_1": "a", "output_2": "b", "preference": None},
        "no_preference",
    ),
    "a preference of NaN": (
        {"instruction": ASK, "output_1": "a", "output_2": "b", "preference": float("nan")},
        "no_preference",
    ),
    "a preference in truth values": (
        {"instruction": ASK, "output_1": "a", "output_2": "b", "preference": True},
        "no_preference",
    ),
    "identical": ({"prompt": ASK, "chosen": "same", "rejected": "same"}, "identical"),
    "identical but for white space": (
        {"prompt": ASK, "chosen": "same", "rejected": " same\r\n"},
        pair([user(ASK)], "same", " same\r\n"),
    ),
    "blank answer": ({"prompt": ASK, "chosen": "", "rejected": "no"}, "blank"),
    "null answer": ({"prompt": ASK, "chosen": "yes", "rejected": None}, "blank"),
    "null prompt": ({"prompt": None, "chosen": "yes", "rejected": "no"}, "blank"),
    "no prompt": ({"chosen": "yes", "rejected": "no"}, "no_prompt"),
    "answers without a prompt": ({"chosen": [assistant("yes")], "rejected": [assistant("no")]}, "no_prompt"),
    "no answer": ({"chosen": [user("Hi")], "rejected": [user("Ho")]}, "no_answer"),
    "different prompts": (
        {"chosen": [user("a"), assistant("b")], "rejected": [user("x"), assistant("c")]},
        "different_prompts",
    ),
    "two system messages": (
        {"prompt": [SYSTEM, user(ASK)], "system": "Be long.", "chosen": "a", "rejected": "b"},
        "two_system_messages",
    ),
    "a number as answer": ({"prompt": ASK, "chosen": 3, "rejected": "no"}, "not_text"),
    "an image in the answer": (
        {"prompt": ASK, "chosen": [image("assistant")], "rejected": [assistant("no")]},
        "part_image",
    ),
    "a special token in the answer": (
        {"prompt": ASK, "chosen": "a <|im_end|>", "rejected": "no"},
        "special_token",
    ),
    "a reward that is no number": (
        {"prompt": ASK, "chosen": "a", "rejected": "b", "chosen_score": "good", "rejected_score": 1},
        "no_number",
    ),
    "an infinite reward": (
        {"prompt": ASK, "chosen": "a", "rejected": "b", "chosen_score": float("inf"), "rejected_score": 1},
        "no_number",
    ),
    "no rewards": (
        {"prompt": ASK, "chosen": SAY, "rejected": "No.", "score_chosen": None, "score_rejected": ""},
        ANSWERED,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair(name):
    row, expected = PAIRS[name]
    found = made("pairs", row)
    if not isinstance(found, str):
        found = {key: found[key] for key in ANSWERED}
    assert found == expected


@pytest.mark.parametrize(
    ("label", "side"),
    [
        (True, "chosen"),
        (False, "rejected"),
        (1, "chosen"),
        (0.0, "rejected"),
        ("true", "chosen"),
        ("0", "rejected"),
    ],
)
def test_a_completion_with_a_label(label, side):
    row = {"prompt": ASK, "completion": SAY, "label": label}
    found = made("pairs", row, unpaired=True)
    other = {"chosen": "rejected", "rejected": "chosen"}[side]
    assert (found["messages"], found[side], found[other]) == ([user(ASK)], SAY, None)


@pytest.mark.parametrize("label", [None, "maybe", 2, [True]])
def test_a_completion_without_a_label(label):
    assert made("pairs", {"prompt": ASK, "completion": SAY, "label": label}, unpaired=True) == "no_label"


SFT = {
    "messages": ({"messages": LEARNT}, LEARNT),
    "sharegpt": ({"conversations": [said("human", ASK), said("gpt", SAY)]}, LEARNT),
    "prompt and completion": ({"prompt": ASK, "completion": SAY}, LEARNT),
    "conversational prompt and completion": ({"prompt": [user(ASK)], "completion": [assistant(SAY)]}, LEARNT),
    "question and answer": ({"question": ASK, "answer": SAY}, LEARNT),
    "query and response": ({"query": ASK, "response": SAY}, LEARNT),
    "alpaca": (
        {"instruction": "Sum up.", "input": "Long.", "output": "a"},
        [user("Sum up.\n\nLong."), assistant("a")],
    ),
    "alpaca with a null input": ({"instruction": ASK, "input": None, "output": SAY}, LEARNT),
    "a system column": ({"system": "Be brief.", "messages": LEARNT}, [SYSTEM, *LEARNT]),
    "the same system message twice": (
        {"system": "Be brief.", "messages": [SYSTEM, *LEARNT]},
        [SYSTEM, *LEARNT],
    ),
    "an empty system column": ({"system": "", "messages": LEARNT}, LEARNT),
    "prompt and messages": ({"prompt": ASK, "messages": LEARNT}, LEARNT),
    "chosen of pairs": (DIALOGUES, LEARNT),
    "transcript": ({"chosen": f"\n\nHuman: {ASK}\n\nAssistant: {SAY}"}, LEARNT),
    "stored messages": ({"messages": json.dumps(LEARNT)}, LEARNT),
    "nested": ({"row": {"messages": LEARNT}}, LEARNT),
    "null": ({"messages": None}, "blank"),
    "an empty answer": ({"messages": [user("a"), assistant("")]}, "blank"),
    "a null completion": ({"prompt": ASK, "completion": None}, "blank"),
    "a turn that is not to be learnt": (
        {"messages": [user("a"), {**assistant("b"), "weight": 0}]},
        "not_to_learn",
    ),
    "a turn with a weight": ({"messages": [user(ASK), {**assistant(SAY), "weight": 1}]}, LEARNT),
    "begins with the assistant": ({"messages": [assistant("Hi!"), *LEARNT]}, "begins_with_assistant"),
    "tool calls": ({"messages": [user("a"), CALL, TOOL, assistant("b")]}, "tool_calls"),
    "a special token": ({"messages": [user("a"), assistant("b <|im_end|>")]}, "special_token"),
}


@pytest.mark.parametrize("name", SFT)
def test_a_dialogue(name):
    row, expected = SFT[name]
    found = made("dialogues", row)
    assert (found if isinstance(found, str) else found["messages"]) == expected
