"""Reward models with several heads, with a gate, and with code of their own."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_model import CHATML, make_model, make_tokenizer

from prefline import rewards
from prefline.data import tables
from prefline.errors import InputError
from prefline.rewards import scorers
from prefline.text import chat
from scripts.rewards import score_completions

QUESTION = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Which bird is blue?"}]
ANSWERS = ["", "a jay", "b" * 40, "The blue jay, of course."]
DIALOGUES = [rewards.Dialogue(QUESTION, text, f"row {row}") for row, text in enumerate(ANSWERS)]


def scored(scorer, dialogues=DIALOGUES):
    """(rewards [n], parts [n, heads] or None) in the order of the dialogues."""
    found, parts = np.empty(len(dialogues), np.float32), {}
    for numbers, scores in scorer.batches(dialogues):
        found[numbers] = scores.reward
        if scores.parts is not None:
            parts |= dict(zip(numbers, scores.parts, strict=True))
    return found, np.array([parts[row] for row in sorted(parts)]) if parts else None


def hidden_states(path, ids):
    """Of one sequence, as the body gives them: [tokens, hidden]."""
    body = transformers.AutoModel.from_pretrained(path)
    with torch.inference_mode():
        return body(torch.tensor([ids])).last_hidden_state[0]


def test_heads_are_weighted_and_kept(tmp_path):
    path = make_model(tmp_path, make_tokenizer(CHATML), "LlamaForSequenceClassification", num_labels=3)
    weights = [0.5, -2.0, 0.0]
    own = transformers.AutoModelForSequenceClassification.from_pretrained(path)
    scorer = scorers.load(path, 200, "float32", weights)
    heads = []
    for dialogue in DIALOGUES:
        state = hidden_states(path, scorer.ids(dialogue))[-1].clone()
        heads.append(own.score(state).tolist())
    found, parts = scored(scorer)
    np.testing.assert_allclose(parts, heads, atol=1e-5)
    np.testing.assert_allclose(found, np.array(heads) @ weights, atol=1e-5)


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """A small model with the weights' names, config keys and shapes of RLHFlow/ArmoRM-Llama3-8B-v0.1."""
    heads, hidden = 5, 32
    path = make_model(tmp_path_factory.mktemp("armo"), make_tokenizer(CHATML), "LlamaForCausalLM")
    weights = load_file(path / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if name.startswith("model.")}
    draw = torch.Generator().manual_seed(1)
    sizes = {"0": (16, hidden), "1": (16, 16), "2": (heads, 16)}
    for number, size in sizes.items():
        weights[f"gating.layers.{number}.weight"] = torch.randn(size, generator=draw)
        weights[f"gating.layers.{number}.bias"] = torch.randn(size[0], generator=draw)
    weights["gating.logit_scale"] = torch.tensor([1.5])
    weights["regression_layer.weight"] = torch.randn(heads, hidden, generator=draw)
    weights["reward_transform_matrix"] = torch.randn(heads, heads, generator=draw)
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    config |= {
        "architectures": ["LlamaForRewardModelWithGating"],
        "auto_map": {"AutoModelForSequenceClassification": "modeling_custom.LlamaForRewardModelWithGating"},
        "num_objectives": heads,
        "gating_temperature": 3,
    }
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_the_gate_reads_the_end_of_the_prompt_and_weighs_the_heads(gated):
    weights = load_file(gated / "model.safetensors")
    scorer = scorers.load(gated, 200, "float32")
    tokenizer = chat.load_tokenizer(gated)
    expected, expected_heads, gates = [], [], []
    for dialogue in DIALOGUES:
        ids = scorer.ids(dialogue)
        states = hidden_states(gated, ids)
        user_end = [place for place, token in enumerate(ids) if token == tokenizer.eos_token_id][1]
        gate = states[user_end]
        for number in range(3):
            layer = f"gating.layers.{number}"
            gate = weights[f"{layer}.weight"] @ gate + weights[f"{layer}.bias"]
            gate = torch.relu(gate) if number < 2 else gate
        gate = torch.softmax(gate / 3, 0) * 1.5
        heads = weights["regression_layer.weight"] @ states[-1]
        expected.append(float(gate @ (heads @ weights["reward_transform_matrix"])))
        expected_heads.append(heads.tolist())
        gates.append(gate.tolist())
    found, parts = scored(scorer)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(parts, expected_heads, rtol=1e-5, atol=1e-4)
    (
        np.testing.assert_allclose(gates, gates[:1] * len(gates), atol=1e-6),
        "the answer is not the gate's matter",
    )


def test_gated_scores_do_not_depend_on_the_batch_and_stay_float32(gated):
    found, parts = scored(scorers.load(gated, 10_000, "float32"))
    alone, _ = scored(scorers.load(gated, 1, "float32"))
    np.testing.assert_allclose(found, alone, atol=1e-4)
    rounded, _ = scored(scorers.load(gated, 200, "bfloat16"))
    assert not np.array_equal(rounded, torch.tensor(rounded).bfloat16().float().numpy())
    assert parts.dtype == np.float32


def test_a_gated_model_is_whole_and_weighs_by_itself(gated, tmp_path):
    with pytest.raises(InputError, match="weighs its heads by itself"):
        scorers.load(gated, 200, "float32", [1.0])
    weights = load_file(gated / "model.safetensors")
    for path in gated.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    del weights["reward_transform_matrix"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks the weights reward_transform_matrix"):
        scorers.load(tmp_path, 200, "float32")


OWN_CODE = """
import torch
from dataclasses import dataclass
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput

@dataclass
class Output(ModelOutput):
    score: torch.Tensor = None
    rewards: torch.Tensor = None

class Mean(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.post_init()

    def forward(self, input_ids, attention_mask):
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None]
        heads = (hidden * mask).sum(1)[:, :2] / mask.sum(1)
        return Output(score=heads.sum(1), rewards=heads)
"""


def test_a_model_with_code_of_its_own_is_asked_for_its_score_and_heads(tmp_path):
    path = make_model(tmp_path / "own", make_tokenizer(CHATML), "LlamaForCausalLM")
    (path / "modeling_mean.py").write_text(OWN_CODE)
    config = json.loads((path / "config.json").read_text())
    config |= {
        "architectures": ["Mean"],
        "auto_map": {"AutoModelForSequenceClassification": "modeling_mean.Mean"},
    }
    (path / "config.json").write_text(json.dumps(config))
    scorer = scorers.load(path, 300, "float32")
    heads = [hidden_states(path, scorer.ids(dialogue)).mean(0)[:2].tolist() for dialogue in DIALOGUES]
    found, parts = scored(scorer)
    np.testing.assert_allclose(parts, heads, atol=1e-4)
    np.testing.assert_allclose(found, np.sum(heads, 1), atol=1e-4)
    (path / "modeling_mean.py").unlink()
    with pytest.raises(InputError, match=r"is a Mean, which gives no score.*remote_code"):
        scorers.load(path, 300, "float32")


def test_every_head_is_in_the_artifact_and_in_the_journal(tmp_path, gated, monkeypatch):
    prompts = [{"prompt_id": "p", "messages": QUESTION, "prompt_ids": [1]}]
    rows = [
        {
            "prompt_id": "p",
            "sample": sample,
            "completion_ids": [4],
            "completion": text,
            "finish_reason": "error" if sample == 3 else "stop",
            "seed": 1,
        }
        for sample, text in enumerate(ANSWERS)
    ]
    tables.write(tmp_path / "prompts.parquet", prompts, tables.PROMPTS)
    tables.write(tmp_path / "completions.parquet", rows, tables.COMPLETIONS)
    words = [
        *("--prompts", str(tmp_path / "prompts.parquet")),
        *("--completions", str(tmp_path / "completions.parquet")),
        *("--model", str(gated), "--head-weights", "null", "--batch-tokens", "300", "--dtype", "float32"),
        *("--journal", str(tmp_path / "journal"), "--out", str(tmp_path / "rewards.parquet")),
    ]
    score_completions.main(words)
    made = tables.read_rows(tmp_path / "rewards.parquet", tables.REWARDS)
    found, parts = scored(scorers.load(gated, 300, "float32"), DIALOGUES[:3])
    np.testing.assert_allclose([row["reward"] for row in made[:3]], found, atol=1e-4)
    np.testing.assert_allclose([row["parts"] for row in made[:3]], parts, atol=1e-4)
    assert made[3]["reward"] is None and made[3]["parts"] is None, "the engine gave it up"
    first = (tmp_path / "rewards.parquet").read_bytes()
    monkeypatch.setattr(scorers, "load", None)  # not a model is loaded
    score_completions.main(words)
    assert (tmp_path / "rewards.parquet").read_bytes() == first
