"""Many heads, weighted by a gate that reads the prompt (ArmoRM; Wang et al. 2024, arXiv 2406.12845).

The heads are linear in the hidden state of the dialogue's last token. The gate is a perceptron on the hidden
state of the token that ends the user's last turn; its softmax, divided by a temperature, weighs the heads,
which are first made independent of verbosity by a matrix. The architecture is that of
RLHFlow/ArmoRM-Llama3-8B-v0.1, so that none of its code need run. Heads, gate and sum are float32.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

from prefline.errors import InputError
from prefline.rewards import Scores
from prefline.rewards.batches import Scorer, lower_body, pad
from prefline.text import chat

HEADS, MATRIX, GATE = "regression_layer.weight", "reward_transform_matrix", "gating."


class Gated(Scorer):
    """See `prefline.rewards.scorers.load`."""

    def __init__(self, model, batch_tokens, dtype, _):
        disable_progress_bar()
        self.body = AutoModel.from_pretrained(
            model, dtype="auto", use_safetensors=True, trust_remote_code=False
        )
        super().__init__(model, self.body.config, batch_tokens)
        self.body.eval().requires_grad_(False).to(self.device)
        lower_body(self.body, dtype)
        weights = read_weights(model, (HEADS, MATRIX, GATE))
        weights = {name: tensor.float().to(self.device) for name, tensor in weights.items()}
        self.heads, self.matrix = weights[HEADS], weights[MATRIX]
        self.layers = gate_layers(weights)
        self.scale = weights[f"{GATE}logit_scale"]
        self.temperature = getattr(self.body.config, "gating_temperature", 10.0)
        self.special = set(chat.special_tokens(self.tokenizer))

    def ids(self, dialogue):
        """(ids, gate): those of `Scorer.ids`, as a list that also knows where the gate reads."""
        row = GatedRow(super().ids(dialogue))
        row.gate = self._gate_position(dialogue)
        return row

    def _gate_position(self, dialogue):
        ids = chat.prompt_ids(self.tokenizer, dialogue.messages, add_generation_prompt=False)
        end = max((place for place, token in enumerate(ids) if token in self.special), default=None)
        if end is None:
            raise InputError(f"{dialogue.where}: the chat template ends a turn without a special token")
        return end

    @torch.inference_mode()
    def _forward(self, rows):
        ids, mask = pad(rows, self.device)
        hidden = self.body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        numbers = torch.arange(len(rows), device=self.device)
        heads = hidden[numbers, mask.sum(1) - 1].float() @ self.heads.T
        gates = self._gates(hidden[numbers, torch.tensor([row.gate for row in rows])].float())
        reward = (gates * (heads @ self.matrix)).sum(1)
        return Scores(reward.cpu().numpy(), heads.cpu().numpy())

    def _gates(self, state):
        """The weights (float32 [rows, heads]) of the heads from hidden states [rows, hidden]."""
        for number, (weight, bias) in enumerate(self.layers):
            state = torch.nn.functional.linear(state, weight, bias)
            if number < len(self.layers) - 1:
                state = torch.relu(state)
        return torch.softmax(state / self.temperature, dim=1) * self.scale


class GatedRow(list):
    """Token ids with `gate`, the place of the token that the gate reads."""


def gate_layers(weights):
    """(weight, bias or None) of each layer of the gate, first to last, from weights by name."""
    numbers = sorted(
        int(name.split(".")[2])
        for name in weights
        if name.startswith(f"{GATE}layers.") and name.endswith("weight")
    )
    names = [f"{GATE}layers.{number}" for number in numbers]
    return [(weights[f"{name}.weight"], weights.get(f"{name}.bias")) for name in names]


def read_weights(model, prefixes):
    """{name: tensor} of the weights in the directory `model` whose names begin with one of `prefixes`.

    Raises InputError if one of `prefixes` is in no file.
    """
    found = {}
    for path in sorted(Path(model).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118
    missing = [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in found)]
    if missing:
        architecture = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))["architectures"]
        raise InputError(f"{model}: is a {architecture[0]}, but lacks the weights {', '.join(missing)}")
    return found
