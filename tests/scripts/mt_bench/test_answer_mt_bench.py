"""The script that answers MT-Bench's questions: the model's own first answer, temperatures, clear errors."""

import json

import pytest
from small_model import ENGINE

from prefline import engines
from prefline.engines.model_files import ModelFiles
from prefline.errors import InputError
from prefline.provenance import journal
from prefline.text import chat
from scripts.mt_bench import answer_mt_bench

QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Name a beast.", "And another."]},
    {"question_id": 2, "category": "math", "turns": ["How much is 2 plus 2?", "Add 3 to that."]},
    {"question_id": 3, "category": "writing", "turns": ["Name a fruit."]},
]
TEMPERATURES = {"writing": 0.7, "math": 0.0}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A Llama with the embedded policy's tokenizer and fresh weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained("data/policy")
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    chat.load_tokenizer("data/policy").save_pretrained(directory)
    GenerationConfig.from_pretrained("data/policy").save_pretrained(directory)
    return str(directory)


class EchoEngine(engines.Base):
    """Answers with the numbers of its requests, and remembers what it was asked."""

    def __init__(self):
        self.tokenizer = chat.load_tokenizer("data/policy")
        self.calls = []

    def stream(self, requests, sampling):
        self.calls.append((requests, sampling))
        end = self.tokenizer.eos_token_id
        texts = [f" answer {len(self.calls)}.{number} " for number in range(len(requests))]
        for index, text in enumerate(texts):
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            yield index, engines.Completion([*ids, end], "stop")


def test_the_second_turn_sees_the_models_own_first_answer(tmp_path):
    engine = EchoEngine()
    sampling = engines.Sampling(0.7, 1.0, 0, 16)
    kept = journal.Journal(tmp_path, "answers", {}, "echo")
    answered, cut_off = answer_mt_bench.answer_turns(lambda: engine, kept, QUESTIONS, sampling, seed=1)
    assert answered == {1: ["answer 1.0", "answer 2.0"], 2: ["answer 1.1", "answer 2.1"], 3: ["answer 1.2"]}
    assert cut_off == 0
    second = engine.calls[1][0]
    assert len(second) == 2, "a question of one turn is not asked again"
    assert second[0].prompt_ids == chat.prompt_ids(
        engine.tokenizer,
        [
            {"role": "user", "content": "Name a beast."},
            {"role": "assistant", "content": "answer 1.0"},
            {"role": "user", "content": "And another."},
        ],
    )
    draws = {request.seed for requests, _ in engine.calls for request in requests}
    assert len(draws) == 5, "every answer has draws of its own"


class SaidEngine(EchoEngine):
    """Answers every request with the same text, by a tokenizer whose template is set."""

    def __init__(self, said, template):
        super().__init__()
        self.said = said
        self.tokenizer.chat_template = template

    def stream(self, requests, sampling):
        self.calls.append((requests, sampling))
        ids = self.tokenizer(self.said, add_special_tokens=False)["input_ids"]
        for index in range(len(requests)):
            yield index, engines.Completion([*ids, self.tokenizer.eos_token_id], "stop")


OPENED = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' %}{{ message.content.split('</think>')[-1] }}"
    "{% else %}{{ message.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
NEVER_EMPTY = (
    "{% for message in messages %}{% if not message.content %}{{ raise_exception('empty') }}{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    "said, template, expected, calls",
    [
        ("Well, </think> yes </think> no", OPENED, ["yes </think> no"] * 2, 2),
        ("", NEVER_EMPTY, ["", ""], 1),
    ],
    ids=["reasoning that ends twice", "an empty answer"],
)
def test_an_earlier_answer_that_the_template_refuses_ends_no_job(
    said, template, expected, calls, tmp_path, capsys
):
    engine = SaidEngine(said, template)
    sampling = engines.Sampling(0.7, 1.0, 0, 16)
    kept = journal.Journal(tmp_path, "answers", {}, "said")
    answered, _ = answer_mt_bench.answer_turns(lambda: engine, kept, QUESTIONS[:1], sampling, seed=1)
    assert answered == {1: expected} and len([asked for asked, _ in engine.calls if asked]) == calls
    if calls == 1:
        assert "is left unanswered: the template refuses an earlier answer" in capsys.readouterr().out
    else:
        shown = engine.tokenizer.decode(engine.calls[1][0][0].prompt_ids)
        assert "no<|im_end|>" in shown and "yes" not in shown


def test_a_question_that_the_template_refuses_is_an_error(tmp_path):
    engine = SaidEngine("yes", "{{ raise_exception('none of these') }}")
    kept = journal.Journal(tmp_path, "answers", {}, "said")
    with pytest.raises(InputError, match="none of these"):
        answer_mt_bench.answer_turns(
            lambda: engine, kept, QUESTIONS[:1], engines.Sampling(0.7, 1.0, 0, 16), seed=1
        )


class SpellingEngine(EchoEngine):
    """Answers with the text of its end token, spelled out in ordinary tokens."""

    def stream(self, requests, sampling):
        self.calls.append((requests, sampling))
        text = f"one {self.tokenizer.eos_token} two"
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        for index in range(len(requests)):
            yield index, engines.Completion([*ids, self.tokenizer.eos_token_id], "stop")


def test_texts_of_special_tokens_are_text_in_the_second_turn(tmp_path):
    """In the question and in the first answer."""
    engine = SpellingEngine()
    end, ends = engine.tokenizer.eos_token, chat.special_tokens(engine.tokenizer)
    question = {**QUESTIONS[0], "turns": ["Name a beast.", f"And {end} another."]}
    sampling = engines.Sampling(0.7, 1.0, 0, 64)
    kept = journal.Journal(tmp_path, "answers", {}, "echo")
    answered, _ = answer_mt_bench.answer_turns(lambda: engine, kept, [question], sampling, seed=1)
    assert answered == {1: [f"one {end} two"] * 2}
    asked = engine.calls[1][0][0].prompt_ids
    plain = ["Name a beast.", "one two", "And another."]
    roles = ("user", "assistant", "user")
    plain = [{"role": role, "content": text} for role, text in zip(roles, plain, strict=True)]
    wanted = [token for token in chat.prompt_ids(engine.tokenizer, plain) if token in ends]
    assert [token for token in asked if token in ends] == wanted
    assert engine.tokenizer.decode(asked).count(end) == wanted.count(engine.tokenizer.eos_token_id) + 2


def test_every_turn_begins_with_the_system_message(tmp_path):
    engine = EchoEngine()
    sampling = engines.Sampling(0.7, 1.0, 0, 16)
    kept = journal.Journal(tmp_path, "answers", {}, "echo")
    answer_mt_bench.answer_turns(lambda: engine, kept, QUESTIONS, sampling, seed=1, system="Be brief.")
    system, first = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a beast."}
    rest = [{"role": "assistant", "content": "answer 1.0"}, {"role": "user", "content": "And another."}]
    for (requests, _), dialogue in zip(engine.calls, ([first], [first, *rest]), strict=True):
        assert requests[0].prompt_ids == chat.prompt_ids(engine.tokenizer, [system, *dialogue])
    begin = chat.prompt_ids(engine.tokenizer, [system, first])[:8]
    assert all(request.prompt_ids[:8] == begin for requests, _ in engine.calls for request in requests)
    assert sum(len(requests) for requests, _ in engine.calls) == 5


class ThinkingEngine(EchoEngine):
    """Thinks before it answers; the last answer stays a thought."""

    def stream(self, requests, sampling):
        for index, made in super().stream(requests, sampling):
            thought = "<think>hm</think>" if index < 2 else "<think>hm"
            ids = self.tokenizer(thought, add_special_tokens=False)["input_ids"]
            yield index, engines.Completion([*ids, *made.ids], made.finish_reason)


def test_reasoning_is_in_no_answer_and_in_no_second_turn(tmp_path):
    engine = ThinkingEngine()
    sampling = engines.Sampling(0.7, 1.0, 0, 16)
    kept = journal.Journal(tmp_path, "answers", {}, "echo")
    answered, cut_off = answer_mt_bench.answer_turns(lambda: engine, kept, QUESTIONS, sampling, seed=1)
    assert answered == {1: ["answer 1.0", "answer 2.0"], 2: ["answer 1.1", "answer 2.1"], 3: [""]}
    assert cut_off == 1, "a thought without an answer is cut off"
    assert "hm" not in engine.tokenizer.decode(engine.calls[1][0][0].prompt_ids)


def test_the_second_turn_fits_the_context_that_is_asked_for(model, tmp_path, monkeypatch):
    """Even if every token of the first answer is a byte that is no text."""
    asked, longest = [], []

    class Babbling(EchoEngine):
        def stream(self, requests, sampling):
            pieces = range(len(self.tokenizer))
            (token, *_) = (
                one for one in pieces if self.tokenizer.decode([one]) == "\N{REPLACEMENT CHARACTER}"
            )
            for index, request in enumerate(requests):
                longest.append(len(request.prompt_ids) + sampling.max_tokens)
                yield index, engines.Completion([token] * sampling.max_tokens, "length")

    monkeypatch.setattr(engines, "start", lambda *given: asked.append(given[-1]) or Babbling())
    questions = tmp_path / "question.jsonl"
    questions.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    answer(model, questions, tmp_path / "sft.jsonl", 8)
    assert len(asked) == 1
    assert max(longest) <= asked[0]


def test_questions_beyond_the_context_are_named_before_the_model_is_loaded(model, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "start", lambda *given: pytest.fail("the model is loaded"))
    long = [question | {"turns": ["word " * 400, "And?"]} for question in QUESTIONS[::2]]
    write_jsonl(tmp_path / "question.jsonl", [QUESTIONS[1], *long])
    message = r"question 1; question 3: a prompt of \d+ tokens .* do not fit .*; lower mt_bench\.max_tokens$"
    with pytest.raises(InputError, match=message):
        answer(model, tmp_path / "question.jsonl", tmp_path / "sft.jsonl", 8)


def test_an_answer_that_leaves_no_room_for_the_next_turn_is_named(model, tmp_path, monkeypatch):
    """How long the first answers are is known only once they are there."""
    files = ModelFiles(model)

    class Full(EchoEngine):
        def stream(self, requests, sampling):
            files.check(requests, sampling.max_tokens)
            words = self.tokenizer("word " * files.context, add_special_tokens=False)["input_ids"]
            for index in range(len(requests)):
                yield index, engines.Completion(words, "length")

    monkeypatch.setattr(engines, "start", lambda *given: Full())
    write_jsonl(tmp_path / "question.jsonl", QUESTIONS)
    message = r"^question \d, turn 2.*: a prompt of .*; lower mt_bench\.max_tokens$"
    with pytest.raises(InputError, match=message):
        answer(model, tmp_path / "question.jsonl", tmp_path / "sft.jsonl", 8)


def test_questions_are_grouped_by_the_temperature_of_their_category():
    groups = answer_mt_bench.by_temperature(QUESTIONS, TEMPERATURES)
    assert {key: [question["question_id"] for question in group] for key, group in groups.items()} == {
        0.7: [1, 3],
        0.0: [2],
    }


def test_a_category_without_a_temperature_is_named():
    with pytest.raises(InputError, match=r"question 2: mt_bench\.temperature has no category 'math'"):
        answer_mt_bench.by_temperature(QUESTIONS, {"writing": 0.7})


def answer(model, questions, out, batch_size, kept=None):
    arguments = {
        "questions": str(questions),
        "model": model,
        "model-id": "sft",
        **ENGINE,
        "batch-size": batch_size,
        "system": "null",
        "max-tokens": "8",
        "temperature": json.dumps(TEMPERATURES),
        "seed": "1",
        "journal": str(kept or out.with_suffix(".journal")),
        "out": str(out),
    }
    answer_mt_bench.main([word for key, value in arguments.items() for word in (f"--{key}", str(value))])
    return out.read_bytes()


def test_answers_are_in_fastchats_form_and_alike_in_any_batch_and_order(model, tmp_path, capsys):
    questions, turned = tmp_path / "question.jsonl", tmp_path / "turned.jsonl"
    write_jsonl(questions, QUESTIONS)
    write_jsonl(turned, QUESTIONS[::-1])
    whole = answer(model, questions, tmp_path / "a.jsonl", 8)
    assert whole == answer(model, questions, tmp_path / "b.jsonl", 1)
    assert sorted(whole.splitlines()) == sorted(answer(model, turned, tmp_path / "c.jsonl", 2).splitlines())
    assert "sft: 5 answers to 3 questions" in capsys.readouterr().out
    rows = [json.loads(line) for line in whole.splitlines()]
    for row, question in zip(rows, QUESTIONS, strict=True):
        assert list(row) == ["question_id", "answer_id", "model_id", "choices"]
        assert row["question_id"] == question["question_id"]
        assert row["model_id"] == "sft"
        assert len(row["choices"][0]["turns"]) == len(question["turns"])
        assert not any("<|" in text for text in row["choices"][0]["turns"])
    assert len({row["answer_id"] for row in rows}) == len(rows)
