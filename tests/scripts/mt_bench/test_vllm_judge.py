"""Real vLLM as MT-Bench's judge, in the job itself."""

import json

import pytest
from small_model import make_model, make_tokenizer
from stand_in import endpoint

from prefline.engines import local_server
from prefline.text import verdicts
from scripts.mt_bench import ask_judge

pytest.importorskip("vllm")

QUESTIONS = [{"question_id": n, "category": "writing", "turns": [f"{n}?", "And?"]} for n in range(3)]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.long
def test_vllm_judges_in_the_job(tmp_path, monkeypatch):
    """Random weights give no verdict: what is said is taken for one by its length."""
    monkeypatch.setattr(verdicts, "verdict", lambda text: "AB"[len(text) % 2])
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    model = make_model(
        tmp_path / "judge",
        make_tokenizer(),
        ends=(1, *range(4, 12)),
        hidden_size=64,
        max_position_embeddings=1024,
    )
    answers = [
        write_jsonl(
            tmp_path / f"{name}.jsonl",
            [{"question_id": n, "choices": [{"turns": [f"{name} {n}", "so"]}]} for n in range(3)],
        )
        for name in ("dpo-1", "sft")
    ]
    values = {
        "questions": write_jsonl(tmp_path / "question.jsonl", QUESTIONS),
        "references": write_jsonl(tmp_path / "reference.jsonl", []),
        "judge-prompts": "data/mt_bench/judge_prompts.jsonl",
        "judge": "own", "model": model, "batch-size": 8, "tensor-parallel-size": 1,
        "gpu-memory-percent": 90, "max-num-batched-tokens": 0, "max-tokens": 64, "verdicts": "last",
        "endpoint": json.dumps(endpoint("", kind="vllm")), "seed": 1, "journal": tmp_path / "journal",
        "out": tmp_path / "out.jsonl",
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in values.items()]
    words += ["--answers", *answers, "--models", "dpo-1", "sft"]
    ask_judge.main(words)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    decided = [row[game] for row in rows for game in ("g1_winner", "g2_winner")]
    assert decided.count("error") <= 3 and all(row["g1_judgment"] for row in rows)

    made = (tmp_path / "out.jsonl").read_bytes()
    monkeypatch.setattr(local_server, "serve", None)
    ask_judge.main(words)  # asks nothing: what the judge said is in the journal
    assert (tmp_path / "out.jsonl").read_bytes() == made
