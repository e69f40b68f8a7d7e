"""Reward models with several heads, with a gate, and with code of their own."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_model import CHATML, make_model, make_tokenizer

from prefline import rewards
from prefline.data import tables
from prefline.errors import InputError
from prefline.rewards import forms, scorers
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
    with pytest.raises(InputError, match="its gate weighs its heads"):
        scorers.load(gated, 200, "float32", [1.0])
    weights = load_file(gated / "model.safetensors")
    for path in gated.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    del weights["reward_transform_matrix"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks the weights reward_transform_matrix"):
        scorers.load(tmp_path, 200, "float32")


def edit(path, **values):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))


def test_quantiles_of_heads_count_by_their_mean_and_gates_may_be_normalized(gated, tmp_path):
    """QRM: names, shapes and numbering of the weights as published, four quantiles of each head."""
    shutil.copytree(gated, tmp_path, dirs_exist_ok=True)
    weights = load_file(gated / "model.safetensors")
    draw = torch.Generator().manual_seed(2)
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("gating.layers")}
    kept["regression_layer.weight"] = torch.randn(5 * 4, 32, generator=draw)
    layers = {}
    for number, size in (("0", (16, 32)), ("3", (16, 16)), ("6", (5, 16))):
        layers[f"{number}.weight"] = torch.randn(size, generator=draw)
    for number in ("2", "5"):
        for name in ("weight", "bias", "running_mean"):
            layers[f"{number}.{name}"] = torch.randn(16, generator=draw)
        layers[f"{number}.running_var"] = torch.rand(16, generator=draw) + 0.5
    layers["6.bias"] = torch.randn(5, generator=draw)
    named = {f"gating.layers.{name}": tensor for name, tensor in layers.items()}
    save_file(kept | named, tmp_path / "model.safetensors", {"format": "pt"})
    forms.check(tmp_path)
    scorer = scorers.load(tmp_path, 200, "float32")
    expected = []
    for dialogue in DIALOGUES:
        ids = scorer.ids(dialogue)
        states = hidden_states(tmp_path, ids)
        gate = states[[place for place, token in enumerate(ids) if token == 4][1]]
        for linear, norm in (("0", "2"), ("3", "5"), ("6", None)):
            gate = layers[f"{linear}.weight"] @ gate + layers.get(f"{linear}.bias", 0)
            if norm:
                spread = (layers[f"{norm}.running_var"] + 1e-5).sqrt()
                gate = (torch.relu(gate) - layers[f"{norm}.running_mean"]) / spread
                gate = gate * layers[f"{norm}.weight"] + layers[f"{norm}.bias"]
        heads = (kept["regression_layer.weight"] @ states[-1]).reshape(5, 4).mean(1)
        gate = torch.softmax(gate / 3, 0) * 1.5
        expected.append(float(gate @ (heads @ kept["reward_transform_matrix"])))
    np.testing.assert_allclose(scored(scorer)[0], expected, rtol=1e-5, atol=1e-4)
    named["gating.layers.6.weight"] = torch.randn(4, 16)
    save_file(kept | named, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="heads, matrix and gate do not fit together"):
        forms.check(tmp_path)


# Code of a model's own: `read` makes what the forward pass gives of the hidden states [rows, tokens, hidden].
OWN_CODE = """
import torch
from dataclasses import dataclass
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput

@dataclass
class Output(ModelOutput):
    score: torch.Tensor = None
    rewards: torch.Tensor = None
    logits: torch.Tensor = None

class Own(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.head = torch.nn.Linear(config.hidden_size, 2, bias=False)
        {end}

    def forward(self, input_ids, attention_mask):
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        last = hidden[torch.arange(len(hidden)), attention_mask.sum(1) - 1]
        mask = attention_mask[..., None]
        heads = self.head(last)
        return {read}
"""


def own(path, read, auto="AutoModelForSequenceClassification", end="self.post_init()", **config):
    """A model with code of its own whose forward pass gives `read`."""
    make_model(path, make_tokenizer(CHATML), "LlamaForCausalLM", **config)
    weights = load_file(path / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if name.startswith("model.")}
    weights["head.weight"] = torch.randn(2, 32, generator=torch.Generator().manual_seed(3))
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    (path / "modeling_own.py").write_text(OWN_CODE.format(read=read, end=end))
    edit(path, architectures=["Own"], auto_map={auto: "modeling_own.Own"})
    return path


def heads_of(path, scorer):
    """The two heads (float64 [n, 2]) of DIALOGUES, each alone."""
    weight = load_file(path / "model.safetensors")["head.weight"]
    return np.array([(weight @ hidden_states(path, scorer.ids(one))[-1]).tolist() for one in DIALOGUES])


@pytest.mark.parametrize(
    ("read", "head_weights", "combined"),
    [
        ("Output(score=heads.sum(1), rewards=heads)", None, [1, 1]),
        ("Output(score=heads[:, :1])", None, [1, 0]),
        ("Output(logits=heads)", [0.5, -2.0], [0.5, -2]),
        ("Output(logits=heads[:, :1])", None, [1, 0]),
        ("heads[:, 0]", None, [1, 0]),
        ("heads[:, :1]", None, [1, 0]),
        ("(heads[:, :1], hidden)", None, [1, 0]),
    ],
)
@pytest.mark.parametrize("auto", forms.OWN)
def test_a_models_own_code_is_loaded_as_named_and_its_score_found(
    tmp_path, read, head_weights, combined, auto
):
    path = own(tmp_path, read, auto)
    forms.check(path, head_weights)
    scorer = scorers.load(path, 700, "float32", head_weights)
    found, _ = scored(scorer)
    np.testing.assert_allclose(found, heads_of(path, scorer) @ np.array(combined), atol=1e-4)


@pytest.mark.parametrize(
    ("read", "head_weights", "message"),
    [
        ("hidden[..., 0]", None, "gives 50 numbers a dialogue, not 1"),
        ("hidden", None, r"gives numbers of the shape \[3, 50, 32\]"),
        ("heads", None, "gives 2 numbers a dialogue, not 1; .* head_weights"),
        ("heads.sum()", None, r"of the shape \[\] for 3 dialogues"),
        ("Output(score=heads.sum(1))", [1.0], "weighs its heads; set head_weights: null"),
        ("Output()", None, "gives a Output without `score` and `logits`"),
        ("None", None, "gives a NoneType without `score`"),
    ],
)
def test_own_code_without_one_score_is_refused_when_it_is_fetched(tmp_path, read, head_weights, message):
    with pytest.raises(InputError, match=message):
        forms.check(own(tmp_path, read), head_weights)


def test_own_code_without_a_weight_is_refused_and_never_gets_a_random_one(tmp_path):
    path = own(tmp_path, "heads[:, 0]", "AutoModel")
    weights = load_file(path / "model.safetensors")
    del weights["head.weight"]
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    for refuse in (forms.check, lambda model: scorers.load(model, 100, "float32")):
        with pytest.raises(InputError, match=r"lacks the weights head\.weight of a Own"):
            refuse(path)


def test_code_for_transformers_4_may_lack_post_init(tmp_path):
    path = own(tmp_path, "heads[:, 0]", end="pass")
    forms.check(path)
    scorer = scorers.load(path, 700, "float32")
    np.testing.assert_allclose(scored(scorer)[0], heads_of(path, scorer)[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    "read",
    [
        "heads[:, 0] + len(hidden)",  # what is beside a dialogue counts
        "hidden[:, -1, :1]",  # padding counts
        "heads[:, 0].reshape(1)",  # one at a time
    ],
)
def test_code_that_minds_what_is_beside_a_dialogue_gets_one_at_a_time(tmp_path, read, capsys):
    path = own(tmp_path, read)
    found, _ = scored(scorers.load(path, 700, "float32"))
    alone = [scored(scorers.load(path, 700, "float32"), [one])[0][0] for one in DIALOGUES]
    np.testing.assert_allclose(found, alone, atol=1e-5)
    assert "one at a time" in capsys.readouterr().out


def test_a_reward_token_is_added_where_the_config_has_one(tmp_path):
    path = own(tmp_path, "heads[:, 0]")
    edit(path, reward_token_id=7)
    scorer = scorers.load(path, 700, "float32")
    assert scorer.ids(DIALOGUES[0])[-2:] == [203, 7], "behind all that the template writes"
    np.testing.assert_allclose(scored(scorer)[0], heads_of(path, scorer)[:, 0], atol=1e-4)


def test_code_that_the_config_does_not_allow_is_not_replaced_by_transformers_own(tmp_path):
    path = own(tmp_path, "heads[:, 0]")
    (path / "modeling_own.py").unlink()
    for architecture in ("Own", "LlamaForSequenceClassification"):
        edit(path, architectures=[architecture])
        with pytest.raises(InputError, match=r"scores with its own code.*remote_code"):
            forms.check(path)


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
