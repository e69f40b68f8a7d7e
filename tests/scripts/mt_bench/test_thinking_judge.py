"""A judge that thinks, served by real vLLM: its reasoning names one answer, its verdict the other."""

import csv
import json

import pytest
from small_model import make_model, make_tokenizer
from stand_in import endpoint

from prefline import files
from prefline.judging import calls, prompts
from prefline.text import chat
from scripts.mt_bench import ask_judge, compute_winrate

pytest.importorskip("vllm")

QUESTIONS = [{"question_id": n, "category": "writing", "turns": [f"{n}?", "And?"]} for n in range(2)]
SAID = "<think>If A is better: [[A]]</think>\n[[B]]"
JUDGE_PROMPTS = "data/mt_bench/judge_prompts.jsonl"


def answers_of(name):
    return {n: [f"{name} {n}", "so"] for n in range(2)}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def trained_judge(path):
    """Train a small model to say SAID to all that it will be asked, save it to `path` and return that."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = make_tokenizer()
    shape = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 2048}
    make_model(path, tokenizer, initializer_range=0.02, **shape)
    files.write_json(path / "generation_config.json", {"eos_token_id": [4, 1]})
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    templates = prompts.load(JUDGE_PROMPTS, "pairwise")
    given = [answers_of("dpo-1"), answers_of("sft")]
    asked = [
        chat.prompt_ids(tokenizer, game.messages)
        for match in calls.of_questions(QUESTIONS, given, {}, templates, "")
        for game in match
    ]
    reply = [*tokenizer(SAID)["input_ids"], 4]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(400):
        ids = torch.tensor([[*asked[step % len(asked)], *reply]])
        logits = model(ids, logits_to_keep=len(reply) + 1).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(reply))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step >= len(asked) and loss < 0.01:
            break
    assert loss < 0.05, float(loss)
    model.save_pretrained(path)
    return path


@pytest.mark.long
def test_verdicts_of_a_judge_that_thinks_are_read_after_its_reasoning(tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    answers = [
        write_jsonl(
            tmp_path / f"{name}.jsonl",
            [{"question_id": n, "choices": [{"turns": turns}]} for n, turns in answers_of(name).items()],
        )
        for name in ("dpo-1", "sft")
    ]
    questions = write_jsonl(tmp_path / "question.jsonl", QUESTIONS)
    values = {
        "questions": questions,
        "references": write_jsonl(tmp_path / "reference.jsonl", []),
        "judge-prompts": JUDGE_PROMPTS,
        "judge": "own", "model": trained_judge(tmp_path / "judge"), "batch-size": 8,
        "tensor-parallel-size": 1, "gpu-memory-percent": 90, "max-num-batched-tokens": 0, "max-tokens": 64,
        "verdicts": "last", "endpoint": json.dumps(endpoint("", kind="vllm")), "seed": 1,
        "journal": tmp_path / "journal", "out": tmp_path / "judged.jsonl",
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in values.items()]
    ask_judge.main([*words, "--answers", *answers, "--models", "dpo-1", "sft"])
    rows = [json.loads(line) for line in (tmp_path / "judged.jsonl").read_text().splitlines()]
    assert {row[game] for row in rows for game in ("g1_judgment", "g2_judgment")} == {SAID}
    assert {(row["g1_winner"], row["g2_winner"]) for row in rows} == {("model_2", "model_1")}

    words = ["--questions", questions, "--policies", "dpo-1", "--judgments", str(tmp_path / "judged.jsonl")]
    words += ["--other-judges", "--other-judgments", "--pairs", "--answers", answers[0], "--start", "sft"]
    words += ["--start-answers", answers[1], "--max-lost", "0", "--bootstrap-samples", "100", "--seed", "1"]
    compute_winrate.main([*words, "--out", str(tmp_path / "w.json"), "--csv", str(tmp_path / "w.csv")])
    found = files.read_json(tmp_path / "w.json")["win_rates"]["dpo-1"]
    assert (found["overall"]["tie"], found["overall"]["error"]) == (4, 0)
    assert found["position_bias"]["biased_toward_second"] == 1
    assert found["read_otherwise_by_fastchat"] == 8
    with open(tmp_path / "w.csv") as file:
        assert next(csv.DictReader(file))["matches"] == "4"
