"""The embedded world: reproducible, well formed, flawed as planned, and blind to its evaluation."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from data import make_world
from data.making import manners, tasks
from data.making.facts import dice
from data.making.overlap import HeldOut
from prefline.data.ngrams import ngrams, of_texts, words

DATA = Path(__file__).parents[2] / "data"
TRAINING = [
    f"{name}_{split}" for name in ("pretrain", "sft", "preferences") for split in ("train", "test")
] + ["prompts"]


def rows(name):
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def messages(row):
    """The conversation of a chat, preference or prompt row."""
    return row["prompt"] if "prompt" in row else row["messages"]


def held_out_questions():
    questions = [turn for row in rows("mt_bench/question") for turn in row["turns"]]
    return questions + [row["messages"][-1]["content"] for row in rows("world/vibe_check")]


@pytest.fixture(scope="module")
def tokenizer():
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(DATA / "policy")


@pytest.mark.slow
def test_the_script_makes_the_same_bytes(tmp_path):
    make_world.main(["--out", str(tmp_path)])
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(made) == 19
    for path in made:
        assert (tmp_path / path).read_bytes() == (DATA / path).read_bytes(), path


def test_the_data_is_small():
    made = [path for path in DATA.rglob("*") if path.suffix in {".json", ".jsonl", ".jinja"}]
    assert sum(path.stat().st_size for path in made) < 3.3e6


def test_sums_of_the_test_are_asked_nowhere_else_and_have_right_references():
    asked = [row["question"] for row in rows("world/sums_problems_test")]
    learnt = {row["question"] for row in rows("world/sums_problems_train")}
    learnt |= {
        row["messages"][0]["content"] for name in ("train", "test") for row in rows(f"world/sums_sft_{name}")
    }
    assert len(set(asked)) == len(asked) == 120 and learnt.isdisjoint(asked)
    assert of_texts(asked, 8).isdisjoint(of_texts(learnt, 8))
    for row in rows("world/sums_problems_test") + rows("world/sums_problems_train"):
        first, second = row["question"].rstrip("?").split(" is ")[1].split(" plus ")
        assert row["answer"].endswith(f"\n#### {int(first) + int(second)}")


def test_evaluation_has_the_form_of_mt_bench():
    questions, references = rows("mt_bench/question"), rows("mt_bench/reference_answer/reference")
    assert Counter(row["category"] for row in questions) == dict.fromkeys(tasks.FAMILIES, 10)
    assert len({turn for row in questions for turn in row["turns"]}) == 160
    assert [row["question_id"] for row in questions] == [row["question_id"] for row in references]
    for question, reference in zip(questions, references, strict=True):
        assert len(question["turns"]) == 2 and all(question["reference"])
        assert reference["choices"] == [{"index": 0, "turns": question["reference"]}]


@pytest.mark.parametrize("name", [name for name in TRAINING if not name.startswith("pretrain")])
def test_conversations_alternate(name):
    for row in rows(f"world/{name}"):
        roles = [message["role"] for message in messages(row) if message["role"] != "system"]
        assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))]
        assert roles[-1] == ("assistant" if name.startswith("sft") else "user")
        assert "chosen" not in row or row["chosen"] != row["rejected"]


def test_prompts_are_many_and_all_different():
    prompts = [row["messages"] for row in rows("world/prompts")]
    assert len(prompts) >= 1000 and len({json.dumps(prompt) for prompt in prompts}) == len(prompts)
    assert 0.1 < sum(prompt[0]["role"] == "system" for prompt in prompts) / len(prompts) < 0.3
    assert 0.3 < sum(any(m["role"] == "assistant" for m in prompt) for prompt in prompts) / len(prompts) < 0.5


def test_most_answers_are_flawed():
    """Evasive and rambling answers show by their first word; one flaw in twenty, the wrong ones, does not."""
    said = [message for row in rows("world/sft_train") for message in row["messages"]]
    answers = [message["content"] for message in said if message["role"] == "assistant"]
    visible = sum(answer.startswith("Well,") for answer in answers) / len(answers)
    assert 0.69 <= visible / 0.95 <= 0.75


@pytest.mark.parametrize("name", TRAINING)
def test_training_gives_no_evaluation_question_away(name):
    """No shared word 8-gram, no equal question, no near-copy by word trigrams."""
    questions = held_out_questions()
    normalized = {tuple(words(question)) for question in questions}
    long_ngrams = of_texts(questions, 8)
    trigrams = [ngrams(question, 3) for question in questions]
    holders = defaultdict(list)
    for index, held_out in enumerate(trigrams):
        for trigram in held_out:
            holders[trigram].append(index)
    texts = set()
    for row in rows(f"world/{name}"):
        texts.update([row["text"]] if "text" in row else [message["content"] for message in messages(row)])
        texts.update(row[key] for key in ("chosen", "rejected") if key in row)
    for text in texts:
        assert long_ngrams.isdisjoint(ngrams(text, 8)), text
        assert tuple(words(text)) not in normalized, text
        own = ngrams(text, 3)
        shared = Counter(index for trigram in own for index in holders.get(trigram, ()))
        for index, count in shared.items():
            assert count < 0.6 * (len(own) + len(trigrams[index]) - count), text


@pytest.mark.parametrize("category", tasks.FAMILIES)
def test_holding_out_questions_leaves_every_family_to_train_on(category):
    held_out = HeldOut(held_out_questions())
    for family in tasks.FAMILIES[category]:
        draws = [tasks.frame(rng, family(rng)) for rng in (dice(family.__name__, i) for i in range(300))]
        kept = sum(not any(held_out.gives_away(turn.question) for turn in turns) for turns in draws)
        assert kept > 60, (family.__name__, kept)


@pytest.mark.parametrize("category", tasks.FAMILIES)
def test_every_wrong_answer_is_wrong(category):
    for family in tasks.FAMILIES[category]:
        for index in range(200):
            for turn in family(dice("test", family.__name__, index)):
                assert turn.answer != turn.wrong
                assert turn.topic in manners.say("evasive", turn, dice(index)) or turn.topic[0].isupper()


def test_rambling_keeps_the_answer_and_loses_its_form():
    turn = tasks.Turn("", "LAMP: GLASS", "", "")
    assert "Lamp: glass." in manners.say("rambling", turn, dice(0))


def test_template_has_one_bos_and_the_prefix_property(tokenizer):
    conversation = [{"role": "system", "content": "s"}]
    for question, answer in [("one", " \n two"), ("three", "- four\n- five ")]:
        conversation.append({"role": "user", "content": question})
        prompt = tokenizer.apply_chat_template(conversation, add_generation_prompt=True)["input_ids"]
        conversation.append({"role": "assistant", "content": answer})
        dialogue = tokenizer.apply_chat_template(conversation)["input_ids"]
        assert dialogue[: len(prompt)] == prompt
        assert dialogue.count(tokenizer.bos_token_id) == 1 and dialogue[0] == tokenizer.bos_token_id


def test_template_marks_what_the_assistant_says(tokenizer):
    conversation = [{"role": "user", "content": "a bee?"}, {"role": "assistant", "content": "Buzz!"}]
    encoded = tokenizer.apply_chat_template(conversation, return_dict=True, return_assistant_tokens_mask=True)
    said = [i for i, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(said) == "Buzz!<|im_end|>"


def test_policy_ends_on_every_end_token(tokenizer):
    generation = json.loads((DATA / "policy" / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|end_of_text|>"])
    assert generation["pad_token_id"] == tokenizer.pad_token_id not in generation["eos_token_id"]
    assert tokenizer.decode(tokenizer("Ö, 7 lamps!\n")["input_ids"]) == "Ö, 7 lamps!\n"
