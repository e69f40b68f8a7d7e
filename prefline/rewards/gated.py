"""Score with many heads, weighted by a gate on the prompt (ArmoRM; Wang et al. 2024, arXiv 2406.12845).

The heads are linear in the hidden state of the dialogue's last token. A matrix makes them independent of
verbosity. The gate is a perceptron on the hidden state of the token that ends the user's last turn. Its
softmax, divided by a temperature, weighs the heads. The architecture is that of
RLHFlow/ArmoRM-Llama3-8B-v0.1, so none of its code runs. Heads, gate and sum are float32.

QRM (Dorka 2024, arXiv 2409.10164) has several quantiles of each head, whose mean counts, and a gate with
batch normalization after each ReLU. The shapes and names of the weights distinguish the two.
"""

from pathlib import Path

import torch
from safetensors import safe_open

from prefline.errors import InputError
from prefline.rewards import Scores, loading
from prefline.rewards.batches import Scorer, lower_body, pad
from prefline.text import chat

HEADS, MATRIX, GATE = "regression_layer.weight", "reward_transform_matrix", "gating."


class Gated(Scorer):
    """See `prefline.rewards.scorers.load`."""

    def __init__(self, model, batch_tokens, dtype, _):
        self.body = loading.load("AutoModel", model)
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
        """Return the ids of `Scorer.ids` as a GatedRow, which also has the place that the gate reads."""
        row = GatedRow(super().ids(dialogue))
        row.gate = self._gate_position(dialogue, row)
        return row

    def _gate_position(self, dialogue, row):
        ids = chat.dialogue_ids(self.tokenizer, dialogue.messages)
        end = max((place for place, token in enumerate(ids) if token in self.special), default=None)
        if end is None:
            raise InputError(f"{dialogue.where}: the chat template ends a turn without a special token")
        if row[: end + 1] != ids[: end + 1]:
            raise InputError(
                f"{dialogue.where}: the chat template writes the prompt differently if an answer follows, so "
                "the place that the gate reads is unknown; set models.NAME.chat_template"
            )
        return end

    @torch.inference_mode()
    def _forward(self, rows):
        ids, mask = pad(rows, self.device)
        hidden = self.body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        numbers = torch.arange(len(rows), device=self.device)
        # As published: before the first padding token.
        last = [
            (row.index(self.padding) - 1) % len(row) if self.padding in row else len(row) - 1 for row in rows
        ]
        heads = hidden[numbers, torch.tensor(last)].float() @ self.heads.T
        # Quantiles of a head, if there are any, are beside each other.
        heads = heads.reshape(len(rows), len(self.matrix), -1).mean(2)
        gates = self._gates(hidden[numbers, torch.tensor([row.gate for row in rows])].float())
        reward = (gates * (heads @ self.matrix)).sum(1)
        return Scores(reward.cpu().numpy(), heads.cpu().numpy())

    def _gates(self, state):
        """Return the weights (float32 [rows, heads]) of the heads from hidden states [rows, hidden]."""
        for layer in self.layers:
            state = layer(state)
        return torch.softmax(state / self.temperature, dim=1) * self.scale


class GatedRow(list):
    """Token ids with `gate`, the place of the token that the gate reads."""


def gate_layers(weights):
    """Return the layers of the gate, first to last: functions of states (float32 [rows, width]).

    weights: {name: tensor}. ReLUs have no weights. They are where the published numbering has gaps, or,
    without gaps, after each layer but the last.
    """
    parts = {}
    for name, tensor in weights.items():
        if name.startswith(f"{GATE}layers."):
            number, _, part = name.removeprefix(f"{GATE}layers.").partition(".")
            parts.setdefault(int(number), {})[part] = tensor
    last = max(parts)
    layers, room = [], len(parts) <= last
    for number in range(last + 1):
        if number not in parts:
            layers.append(torch.relu)
            continue
        layers.append(
            _normalization(parts[number]) if "running_mean" in parts[number] else _linear(parts[number])
        )
        if not room and number < last:
            layers.append(torch.relu)
    return layers


def _linear(part):
    return lambda state: torch.nn.functional.linear(state, part["weight"], part.get("bias"))


def _normalization(part):
    return lambda state: torch.nn.functional.batch_norm(
        state, part["running_mean"], part["running_var"], part["weight"], part["bias"]
    )


def check(model):
    """Raise InputError for heads and a gate whose shapes are not those of ArmoRM or QRM."""
    loading.load("AutoModel", model, shapes_only=True)
    weights = read_weights(model, (HEADS, MATRIX, GATE))
    heads, matrix, hidden = weights[HEADS], weights[MATRIX], weights[HEADS].shape[1]
    shaped = matrix.ndim == 2 and len(matrix) == matrix.shape[1] and len(heads) % len(matrix) == 0
    try:
        gates = torch.zeros(1, hidden)
        for layer in gate_layers({name: tensor.float() for name, tensor in weights.items()}):
            gates = layer(gates)
        shaped = shaped and gates.shape == (1, len(matrix)) and weights[f"{GATE}logit_scale"].numel() == 1
    except (RuntimeError, KeyError, ValueError):
        shaped = False
    if not shaped:
        raise InputError(
            f"{model}: its heads, matrix and gate do not fit together as ArmoRM's and QRM's do; only its "
            "makers' code can read them"
        )


def read_weights(model, prefixes):
    """Return {name: tensor} of the weights in the directory `model` whose names begin with one of `prefixes`.

    Raises InputError if one of `prefixes` is in no file.
    """
    found = {}
    for path in sorted(Path(model).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118
    missing = [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in found)]
    if missing:
        raise InputError(f"{model}: lacks the weights {', '.join(missing)}, which its architecture has")
    return found
