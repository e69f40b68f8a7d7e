"""The scripts and their journals: what is there is not made again, and artifacts are the same to the byte."""

import json
import os
import resource
import secrets
import signal
import subprocess
import sys
import time

import pytest
from small_model import CHATML, ENGINE, make_model, make_tokenizer

from prefline import engines, files
from prefline.data import tables
from prefline.engines import Completion
from prefline.rewards import scorers
from prefline.text import chat
from scripts.generate import generate_completions
from scripts.logps import compute_ref_logps
from scripts.mt_bench import answer_mt_bench, judge_mt_bench
from scripts.rewards import score_completions
from scripts.vibe_check import answer_vibe_check

NAMES = [f"p{number}" for number in range(8)]
QUESTIONS = [
    {"question_id": number, "category": "writing", "turns": ["Name a beast.", f"And {number} more."]}
    for number in range(4)
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A policy, a reward model, and an input of every script."""
    world = tmp_path_factory.mktemp("world")
    tokenizer = make_tokenizer()
    make_model(world / "sft", tokenizer, ends=(1, *range(4, 40)))
    shape = {"num_labels": 1, "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 256}
    make_model(
        world / "reward_model",
        make_tokenizer(CHATML, bos_token=None),
        "LlamaForSequenceClassification",
        **shape,
    )
    write_prompts(world / "prompts.parquet", NAMES)
    pairs = [
        {"prompt_id": name, "prompt_ids": [1, 2], "chosen_ids": [5 + number], "rejected_ids": [number, 6]}
        for number, name in enumerate(NAMES)
    ]
    other = {"split": "train", "chosen_reward": 1.0, "rejected_reward": 0.0}
    tables.write(world / "tokenized.parquet", [pair | other for pair in pairs], tables.TOKENIZED)
    files.write_jsonl(world / "questions.jsonl", QUESTIONS)
    files.write_jsonl(world / "vibe.jsonl", [{"prompt": name} for name in NAMES])
    return world


def write_prompts(path, names):
    tokenizer = make_tokenizer()
    messages = {name: [{"role": "user", "content": f"Say {name}"}] for name in names}
    rows = [
        {"prompt_id": name, "messages": turns, "prompt_ids": chat.prompt_ids(tokenizer, turns)}
        for name, turns in messages.items()
    ]
    tables.write(path, rows, tables.PROMPTS)


def words(values):
    return [word for key, value in values.items() for word in (f"--{key.replace('_', '-')}", str(value))]


def generation(world, out, **changed):
    return words(
        {
            "prompts": world / "prompts.parquet",
            "model": world / "sft",
            **ENGINE,
            "num_completions": 3,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "max_prompt_length": 64,
            "max_tokens": 8,
            "batch-size": 4,
            "seed": 1,
            "journal": out / "journal",
            "out": out / "completions.parquet",
            "metrics": out / "speed/completions.json",  # apart: it differs between runs
        }
        | changed
    )


def answering(world, out, name, **data):
    return words(
        data
        | {
            "model": world / "sft",
            **ENGINE,
            "max_tokens": 8,
            "seed": 1,
            "journal": out / "journal",
            "out": out / name,
        }
    )


def every_script(world, out):
    """(script, its flags) of all that keep a journal, in an order in which each finds what it reads."""
    answers = {"questions": world / "questions.jsonl", "temperature": json.dumps({"writing": 0.9})}
    answers |= {"system": "null"}
    model = {"model": world / "reward_model", "dtype": "float32", "head_weights": "null", "batch_tokens": 200}
    kept = {"journal": out / "journal"}
    scoring = {
        "prompts": world / "prompts.parquet",
        "completions": out / "completions.parquet",
        "out": out / "rewards.parquet",
    }
    reference = {
        "tokenized": world / "tokenized.parquet",
        "model": world / "sft",
        "part": "0000",
        "num_shards": 1,
        "temperature": 1.0,
        "batch_tokens": 32,
        "attn_implementation": "sdpa",
        "dtype": "float32",
        "out": out / "ref_logps.parquet",
    }
    judging = {
        "questions": world / "questions.jsonl",
        "answers_1": out / "a.jsonl",
        "model_1": "a",
        "answers_2": out / "b.jsonl",
        "model_2": "b",
        "judge": "reward",
        "system": "null",
        "out": out / "judgments.jsonl",
    }
    vibe = {"prompts": world / "vibe.jsonl", "columns": json.dumps({"prompt": "prompt"})}
    vibe |= {"system": "null", "temperature": 1.0, "top_p": 1.0, "top_k": 0}
    return [
        (generate_completions, generation(world, out)),
        (score_completions, words(scoring | model | kept)),
        (compute_ref_logps, words(reference | kept)),
        (answer_mt_bench, answering(world, out, "a.jsonl", model_id="a", **answers)),
        (answer_mt_bench, [*answering(world, out, "b.jsonl", model_id="b", **answers), "--seed", "2"]),
        (judge_mt_bench, words(judging | model | kept)),
        (answer_vibe_check, answering(world, out, "vibe.jsonl", **vibe)),
    ]


def artifacts(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


WITHOUT_MODELS = """
import importlib, json, sys
for name, flags in json.loads(sys.argv[1]):
    importlib.import_module(name).main(flags)
    loaded = {"torch", "transformers", "tokenizers"} & set(sys.modules)
    assert not loaded, (name, loaded)
"""


def test_with_every_row_there_no_model_is_loaded_and_no_byte_differs(world, tmp_path):
    for script, flags in every_script(world, tmp_path):
        script.main(flags)
    made = artifacts(tmp_path)
    assert len(made) == 7
    for name in made:
        (tmp_path / name).unlink()
    again = [(script.__name__, flags) for script, flags in every_script(world, tmp_path)]
    subprocess.run([sys.executable, "-c", WITHOUT_MODELS, json.dumps(again)], check=True)
    assert artifacts(tmp_path) == made


@pytest.fixture
def asked(monkeypatch):
    """The requests that engines are given, as they come."""
    from prefline.engines.transformers import Engine

    seen, stream = [], Engine.stream

    def watched(self, requests, sampling):
        seen.extend(requests)
        return stream(self, requests, sampling)

    monkeypatch.setattr(Engine, "stream", watched)
    return seen


def sample(world, out, **changed):
    generate_completions.main(generation(world, out, **changed))
    return tables.read_rows(out / "completions.parquet", tables.COMPLETIONS)


def test_more_completions_sample_only_the_new_ones(world, tmp_path, asked):
    few = sample(world, tmp_path)
    asked.clear()
    many = sample(world, tmp_path, num_completions=5)
    assert len(asked) == 2 * len(NAMES)
    assert [row for row in many if row["sample"] < 3] == few


def test_regrouped_and_grown_shards_find_their_rows(world, tmp_path, asked):
    rows = {(row["prompt_id"], row["sample"]): row for row in sample(world, tmp_path)}
    asked.clear()
    for names in (NAMES[5:], NAMES[4::-1]):
        write_prompts(tmp_path / "part.parquet", names)
        part = sample(world, tmp_path, prompts=tmp_path / "part.parquet")
        assert part == [rows[name, number] for name in names for number in range(3)]
    assert asked == []
    write_prompts(tmp_path / "part.parquet", [*NAMES, "new"])
    sample(world, tmp_path, prompts=tmp_path / "part.parquet")
    assert len(asked) == 3


@pytest.mark.parametrize("changed", [{"temperature": 0.9}, {"max_tokens": 9}, {"seed": 2}])
def test_what_shapes_a_completion_makes_it_anew(world, tmp_path, asked, changed):
    sample(world, tmp_path)
    asked.clear()
    sample(world, tmp_path, **changed)
    assert len(asked) == 3 * len(NAMES)
    asked.clear()
    sample(world, tmp_path)
    assert asked == [], "and back again nothing"


def test_pace_does_not_count(world, tmp_path, asked):
    sample(world, tmp_path)
    asked.clear()
    sample(world, tmp_path, **{"batch-size": 1})
    assert asked == []


def test_a_new_question_is_the_only_one_answered_and_judged(world, tmp_path, asked, monkeypatch):
    scripts = every_script(world, tmp_path)[3:6]
    for script, flags in scripts:
        script.main(flags)
    asked.clear()
    scored, batches = [], scorers.load(world / "reward_model", 100, "float32").__class__.batches
    monkeypatch.setattr(
        "prefline.rewards.sequence_classifier.SequenceClassifier.batches",
        lambda self, dialogues: scored.extend(dialogues) or batches(self, dialogues),
    )
    new = {"question_id": "new", "category": "writing", "turns": ["Sing.", "Louder."]}
    files.write_jsonl(tmp_path / "questions.jsonl", [new, *QUESTIONS])
    for script, flags in scripts:
        flags[flags.index("--questions") + 1] = str(tmp_path / "questions.jsonl")
        script.main(flags)
    assert len(asked) == 4, "two turns of two policies"
    assert {dialogue.messages[0]["content"] for dialogue in scored} == {"Sing."}


def saved_rows(out):
    return sum(path.read_bytes().count(b"\n") for path in out.glob("journal/*/*/*.jsonl"))


@pytest.mark.slow
def test_killed_with_kill_9_only_the_rest_is_sampled(world, tmp_path, asked):
    """Batches of one prompt: 16 rows are saved at a time."""
    pace = {"batch-size": 1, "num_completions": 12, "max_tokens": 24}
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    sample(world, undisturbed, **pace)
    asked.clear()

    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.generate.generate_completions", *generation(world, killed, **pace)],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not saved_rows(killed) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "completions.parquet").exists()
    number = saved_rows(killed)
    assert 0 < number < 12 * len(NAMES)

    sample(world, killed, **pace)
    assert len(asked) == 12 * len(NAMES) - number
    assert artifacts(killed) == artifacts(undisturbed)


def test_a_scoring_that_dies_keeps_its_batches(world, tmp_path, monkeypatch):
    """Any death between two batches: here the reward model fails in its third."""
    generation_flags, scoring_flags = (flags for _, flags in every_script(world, tmp_path)[:2])
    generate_completions.main(generation_flags)
    score_completions.main([*scoring_flags, "--journal", str(tmp_path / secrets.token_hex(4))])
    undisturbed = (tmp_path / "rewards.parquet").read_bytes()
    (tmp_path / "rewards.parquet").unlink()

    from prefline.rewards.sequence_classifier import SequenceClassifier

    sizes, forward = [], SequenceClassifier._forward

    def dies_in_the_third(self, rows):
        if len(sizes) == 2:
            raise KeyboardInterrupt
        sizes.append(len(rows))
        return forward(self, rows)

    monkeypatch.setattr(SequenceClassifier, "_forward", dies_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        score_completions.main(scoring_flags)
    rest = []
    monkeypatch.setattr(
        SequenceClassifier, "_forward", lambda self, rows: rest.extend(rows) or forward(self, rows)
    )
    score_completions.main(scoring_flags)
    assert len({tuple(row) for row in rest}) == len(rest)
    completions = tables.read_rows(tmp_path / "completions.parquet", tables.COMPLETIONS)
    distinct = {(row["prompt_id"], row["completion"]) for row in completions}
    assert len(rest) + sum(sizes) == len(distinct)
    assert (tmp_path / "rewards.parquet").read_bytes() == undisturbed


class QuickEngine(engines.Base):
    """Says anything, at once: to fill a large journal."""

    batch_size = 500
    start_seconds = 0.0

    def __init__(self):
        self.tokenizer = make_tokenizer()

    def stream(self, requests, sampling):
        for index, request in enumerate(requests):
            yield index, Completion([7 + request.seed % 200] * sampling.max_tokens, "length")

    def report(self):
        return {}


@pytest.mark.slow
def test_ten_thousand_completions_are_found_in_three_seconds(world, tmp_path, monkeypatch):
    write_prompts(tmp_path / "prompts.parquet", [f"prompt {number}" for number in range(2000)])
    flags = generation(
        world, tmp_path, prompts=tmp_path / "prompts.parquet", num_completions=5, max_tokens=100
    )
    monkeypatch.setattr(engines, "load", lambda *_, **__: QuickEngine())
    generate_completions.main(flags)
    made = artifacts(tmp_path)
    (tmp_path / "completions.parquet").unlink()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "scripts.generate.generate_completions", *flags], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert artifacts(tmp_path) == made
    # Processor time: the tests share their cores.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3.0
