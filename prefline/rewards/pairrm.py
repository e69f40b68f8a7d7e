"""PairRM, an encoder that reads a source and two candidates (llm-blender/PairRM-hf; arXiv 2306.02561).

Source and candidates are three texts, each with [CLS], its own marker token and [SEP]. A perceptron on the
hidden states at the source's and a candidate's marker scores the candidate; the probability that the first
wins is the sigmoid of the difference. The weights are read here by their published names, so that no code
comes with the model; the perceptron is float32.

The tokenizer is read from tokenizer.json itself: transformers 5 rebuilds DeBERTa's with another normalization
than the one the model was trained with.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, DebertaV2Model

from prefline.errors import InputError
from prefline.rewards import loading
from prefline.rewards.batches import Batches, device, lower_body, pad
from prefline.rewards.gated import read_weights
from prefline.rewards.pairwise import Comparer

# Tokens, as published: of the source, and of source and both candidates together.
MAX_SOURCE, MAX_ALL = 1224, 2048
BODY, HEAD = "pretrained_model.", "head_layer."
LAYERS = (1, 4)  # those of the head that have weights
MARKERS = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id")
SEVERAL_TURNS = (
    "Finish the following coversation in each i-th turn by filling in <Response i> with your response."  # sic
)


class PairRM(Comparer):
    """See `scripts.rewards.compare_completions.load`."""

    def __init__(self, model, batch_tokens, dtype):
        self.device = device()
        self.in_batches = Batches(batch_tokens)
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        self.markers = [getattr(config, name) for name in MARKERS]
        self.tokenizer = read_tokenizer(model, self.markers)
        self.structure = [self.tokenizer.id_to_token(token) for token in self.markers] + ["[SEP]"]
        # A text of one prompt is in many comparisons, which come one after the other.
        self._encoded = functools.lru_cache(maxsize=1024)(self._encode)
        self.cut = 0
        weights = read_weights(model, (BODY, HEAD))
        self.body = DebertaV2Model(config)
        load_body(self.body, weights, model)
        self.body.eval().requires_grad_(False).to(self.device)
        lower_body(self.body, dtype)
        self.layers = [
            [weights[f"{HEAD}{number}.{name}"].float().to(self.device) for name in ("weight", "bias")]
            for number in LAYERS
        ]

    def batches(self, comparisons):
        """Do as `Comparer.batches`, and log how many comparisons were too long to be read whole."""
        self.cut = 0
        yield from super().batches(comparisons)
        if self.cut:
            print(
                f"{self.cut // 2} of {len(comparisons)} comparisons were cut to PairRM's {MAX_ALL} tokens "
                f"({MAX_SOURCE} of them for the prompt)"
            )

    def ids(self, comparison, first, second):
        shown = texts(comparison.messages, first, second)
        whole = [self._encoded(marker, text) for marker, text in enumerate(shown)]
        source = cut(whole[0], MAX_SOURCE)
        candidates = [cut(ids, (MAX_ALL - len(source)) // 2) for ids in whole[1:]]
        row = np.concatenate([source, *candidates])
        self.cut += len(row) < sum(map(len, whole))
        return row

    def _encode(self, marker, text):
        for token in self.structure:
            text = text.replace(token, " ")
        return np.array(self.tokenizer.encode(self.structure[marker] + text).ids)

    @torch.inference_mode()
    def _forward(self, rows):
        ids, mask = pad(rows, self.device)
        hidden = self.body(input_ids=ids, attention_mask=mask).last_hidden_state
        numbers = torch.arange(len(rows), device=self.device)
        source, *candidates = [
            hidden[numbers, (ids == marker).int().argmax(1)].float() for marker in self.markers
        ]
        first, second = [self._scores(torch.cat([source, candidate], dim=1)) for candidate in candidates]
        return torch.sigmoid((first - second).mean(1)).cpu()

    def _scores(self, states):
        """Return scores (float32 [rows, tasks]) from hidden states [rows, 2 × hidden]."""
        (inner, inner_bias), (outer, outer_bias) = self.layers
        states = torch.tanh(torch.nn.functional.linear(states, inner, inner_bias))
        return torch.nn.functional.linear(states, outer, outer_bias)


def texts(messages, first, second):
    """Return (source, candidate, candidate) as PairRM was trained: a question, or a conversation with gaps.

    A system message precedes them, on separate lines.
    """
    instruction = [message["content"] for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    if len(turns) <= 1:
        return "\n".join(message["content"] for message in messages), first, second
    source, answers = [], []
    for message in [*turns, {"role": "assistant", "content": None}]:
        if message["role"] == "user":
            source.append(f"USER: {message['content']}")
        else:
            answers.append(message["content"])
            source.append(f"Assistant: <Response {len(answers)}>")
    source = "\n".join([*instruction, SEVERAL_TURNS + "\n".join(source)])
    return source, *(
        "\n".join(f"<Response {turn}>: {text}" for turn, text in enumerate([*answers[:-1], last], 1))
        for last in (first, second)
    )


def cut(ids, longest):
    """Return `ids` (array), or the first of them and the final [SEP] where they are more than `longest`."""
    return ids if len(ids) <= longest else np.append(ids[: longest - 1], ids[-1])


def read_tokenizer(model, markers):
    """Return the tokenizer of the directory `model`; InputError if it lacks tokens with the ids `markers`."""
    path = Path(model) / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{model}: PairRM needs its tokenizer as tokenizer.json")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for marker in markers:
        text = tokenizer.id_to_token(marker)
        if text is None or tokenizer.encode(text).ids.count(marker) != 1:
            raise InputError(f"{path}: has no token {marker}, which config.json names as a prefix")
    return tokenizer


def check(model):
    """Raise InputError unless the directory `model` has PairRM's markers, tokens and weights."""
    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    lacking = [name for name in MARKERS if not isinstance(getattr(config, name, None), int)]
    if lacking:
        raise InputError(f"{model}: its config.json lacks {', '.join(lacking)}, which PairRM reads at")
    read_tokenizer(model, [getattr(config, name) for name in MARKERS])
    with torch.device("meta"):
        wanted = {
            BODY + name: list(value.shape) for name, value in DebertaV2Model(config).state_dict().items()
        }
    width, found = config.hidden_size, loading.shapes(model)
    wanted[f"{HEAD}{LAYERS[0]}.weight"] = [width, 2 * width]
    outputs = found.get(f"{HEAD}{LAYERS[1]}.weight", [1])[0]
    wanted |= {f"{HEAD}{LAYERS[0]}.bias": [width], f"{HEAD}{LAYERS[1]}.weight": [outputs, width]}
    wanted[f"{HEAD}{LAYERS[1]}.bias"] = [outputs]
    wrong = [name for name, shape in wanted.items() if found.get(name) != shape]
    if wrong:
        raise InputError(f"{model}: lacks the weights {', '.join(wrong[:3])}, or has them in another shape")


def load_body(body, weights, model):
    """Load those of `weights` (by published name) that are the encoder's; InputError if some are missing."""
    found = {name.removeprefix(BODY): tensor for name, tensor in weights.items() if name.startswith(BODY)}
    missing = body.load_state_dict(found, strict=False).missing_keys
    if missing:
        raise InputError(f"{model}: lacks the weights {', '.join(BODY + name for name in missing)}")
