"""MT-Bench's judge as a script, with a server that stands in for its model."""

import functools
import json

import pytest
from judging_mt_bench import QUESTIONS, SAID, answer_rows, mine, write_jsonl
from stand_in import endpoint

from prefline.config import endpoints
from prefline.servers import conversation
from prefline.servers.client import Client
from scripts.mt_bench import ask_judge

PACE = {"attempts": 6, "first_wait": 0.01, "longest_wait": 0.05}


@pytest.fixture
def start(start):
    """start(says, ...) -> a StandIn, which is a consistent judge unless told what to say."""
    return lambda says=mine, **options: start(says, **options)


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """judge(server, **flags) -> the rows of a run of the script, on the answers in SAID."""
    monkeypatch.setattr(conversation, "Client", functools.partial(Client, **PACE))
    write_jsonl(tmp_path / "question.jsonl", QUESTIONS)
    references = {question["question_id"]: ["right 1", "right 2"] for question in QUESTIONS}
    write_jsonl(tmp_path / "reference.jsonl", answer_rows(references))
    for name, said in SAID.items():
        write_jsonl(tmp_path / f"{name}.jsonl", answer_rows(said))

    def run(server, model_1="dpo-1", model_2="sft", dry_run=False, **flags):
        values = {
            "questions": tmp_path / "question.jsonl",
            "references": tmp_path / "reference.jsonl",
            "judge-prompts": "data/mt_bench/judge_prompts.jsonl",
            "judge": "stand_in",
            "model": "",
            "batch-size": 8,
            "tensor-parallel-size": 1,
            "gpu-memory-percent": 90,
            "max-num-batched-tokens": 0,
            "max-tokens": 64,
            "verdicts": "last",
            "seed": 1,
            "journal": tmp_path / "journal",
            "out": tmp_path / f"{model_1}-{model_2}.jsonl",
        }
        models = [model for model in (model_1, model_2) if model]
        answers = flags.pop("answers", [tmp_path / f"{model}.jsonl" for model in models])
        known = {"kind", "name", *endpoints.DEFAULTS}
        asked = {name: flags.pop(name) for name in list(flags) if name in known}
        values["endpoint"] = json.dumps(endpoint(server, **asked))
        values |= {name.replace("_", "-"): value for name, value in flags.items()}
        words = [f"--{name}={value}" for name, value in values.items()]
        words += ["--answers", *map(str, answers), "--models", *models]
        ask_judge.main(words + ["--dry-run"] * dry_run)
        if not dry_run:
            return [json.loads(line) for line in values["out"].read_text().splitlines()]

    return run
