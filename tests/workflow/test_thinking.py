"""A policy that thinks before it answers runs the whole chain; rewards and judges read its answers."""

import json

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import QUICK, ROOT, snakemake
from stand_in import StandIn

# As thinking models have it: the prompt opens the reasoning, and earlier turns are shown without theirs.
TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
{%- set said = message['content'] | trim %}
{%- if message['role'] == 'assistant' and not loop.last %}
{%- set said = said.split('</think>')[-1] | trim %}
{%- endif %}
{{- '<|im_start|>' + message['role'] + '\\n' + said + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n<think>\\n' }}
{%- endif %}"""
THOUGHT = "<think>\nWell,\n</think>\n\n"


def thoughtful(rows):
    """The rows of one question, whose answers come after a thought that is learnt at once."""
    for row in map(json.loads, rows):
        *before, question, answer = row["messages"]
        if not before:
            answer["content"] = THOUGHT + answer["content"]
            yield json.dumps({"messages": [question, answer]})


@pytest.mark.slow
def test_only_answers_are_rewarded_and_judged(project):
    judge = StandIn(says=lambda payload: f"[[{'AB'[len(str(payload)) % 2]}]]", name="judge")
    (project / "mine").mkdir()
    (project / "mine/thinking.jinja").write_text(TEMPLATE, encoding="utf-8")
    for split in ("train", "test"):
        rows = (ROOT / f"data/world/sft_{split}.jsonl").read_text(encoding="utf-8").splitlines()
        (project / f"mine/{split}.jsonl").write_text("\n".join(thoughtful(rows)) + "\n", encoding="utf-8")
    overlay = {
        "models": {
            "start": {"chat_template": "mine/thinking.jinja"},
            "sft": {
                "train_data": "mine/train.jsonl",
                "eval_data": "mine/test.jsonl",
                "training": {"num_train_epochs": 0.3},
            },
        },
        "generate": {"max_tokens": 48},
        "runs": {"rebel": None, "dpo": {"iterations": 1}},
        "endpoints": {"judge": {"kind": "openai", "urls": [judge.url], "model": "judge"}},
        "mt_bench": {
            "max_tokens": 48,
            "judge": "strict",
            "judges": {"strict": {"endpoint": "judge", "max_tokens": 64}},
        },
    }
    (project / "thinking.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    try:
        snakemake(project, "results/winrate.png", *QUICK, "thinking.yaml")
    finally:
        judge.close()
    samples = pq.read_table(project / "results/samples/sft/completions/train-00000.parquet").to_pylist()
    answered = [row for row in samples if row["answer"]]
    assert len(answered) > len(samples) / 4
    for row in answered:
        _, closing, answer = row["completion"].partition("</think>")
        assert closing and len(row["answer"]) <= len(answer)
    # A policy that has hardly learnt to think may repeat the thought in its answer.
    said = THOUGHT.removeprefix("<think>\n").strip()
    rows = (project / "results/mt_bench/answers/sft.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [turn for row in rows for turn in json.loads(row)["choices"][0]["turns"]]
    assert judge.asked and sum(turn.startswith(said) for turn in turns) < len(turns) / 2
    assert json.loads((project / "results/winrate.json").read_text())["policies"] == ["dpo-1"]
