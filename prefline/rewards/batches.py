"""Score dialogues in batches: as many tokens at once as fit into memory, the longest first."""

import numpy as np
import torch

from prefline.architectures import exact
from prefline.errors import InputError
from prefline.rewards import Dialogue, templates
from prefline.text import chat

# Number of tokens that keeps a CPU busy: larger batches exceed its caches, and are slower in more memory.
CPU_TOKENS = 1024
# Largest difference by rounding between a score in a batch and alone: absolute, and as a part of the score.
ROUNDING = {"float32": 1e-4, "bfloat16": 5e-2}
TRIED = [
    Dialogue([{"role": "user", "content": asked}], answered, "a trial dialogue")
    for asked, answered in (
        ("Hi!", "Yes."),
        ("Is it?", "No."),
        ("Which bird is blue?", "A jay, and few others."),
    )
]


def device():
    """Return the accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def lower_body(body, dtype):
    """Round the parameters of the module `body` to `dtype` (str), and only those.

    Rotary frequencies are buffers; rounded ones would displace every far token.
    """
    for parameter in body.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))


def pad(rows, target):
    """Return (ids, mask): int64 tensors [len(rows), longest] of lists of ids, right-padded, on `target`."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids.to(target), mask.to(target)


class Batches:
    """Batches of at most `tokens` token ids, padding included, for a function `forward`.

    On a CPU they have at most CPU_TOKENS. When memory runs out, the limit is halved and scoring continues.
    """

    def __init__(self, tokens):
        self.tokens = min(tokens, CPU_TOKENS) if device().type == "cpu" else tokens

    def run(self, rows, forward):
        """Yield (numbers, forward(batch)) until each of `rows` (lists of ids) is done."""
        waiting = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
        while waiting:
            longest = len(rows[waiting[0]])
            batch = waiting[: max(1, self.tokens // longest)]
            try:
                made = forward([rows[row] for row in batch])
            except RuntimeError as error:
                if "out of memory" not in str(error) or len(batch) == 1:
                    raise
                self.tokens = len(batch) * longest // 2
                print(f"out of memory: continuing with {self.tokens} tokens in a batch")
                continue
            yield batch, made
            waiting = waiting[len(batch) :]


class Scorer:
    """The base class of scoring models; a subclass has `_forward(rows)`, which returns rewards.Scores."""

    def __init__(self, model, config, batch_tokens):
        """Read the tokenizer of a model. model: directory; config: its transformers config."""
        self.device = device()
        self.tokenizer = chat.load_tokenizer(model)
        if note := templates.note(self.tokenizer):
            print(f"{model}: {note}", flush=True)
        self.padding = getattr(config.get_text_config(), "pad_token_id", None)
        self.max_length = longest(config)
        self.in_batches = Batches(batch_tokens)

    def batches(self, dialogues):
        """Yield (numbers, Scores) of the list of `rewards.Dialogue`, longest first; see `rewards`.

        Raises InputError, naming the dialogue, for one too long for the model or without a finite score.
        """
        rows = [self.ids(dialogue) for dialogue in dialogues]
        for numbers, scores in self.in_batches.run(rows, self._forward):
            for row, score in zip(numbers, scores.reward, strict=True):
                if not np.isfinite(score):
                    raise InputError(
                        f"{dialogues[row].where}: the reward model's score is {score}; score in float32 "
                        "(its dtype in the config), or take another reward model"
                    )
            yield numbers, scores

    def ids(self, dialogue):
        """Return the token ids (list of int) of the whole dialogue in the reward model's own chat template.

        Text that the template writes after the last end token is included, as in the model's training.
        """
        messages = [*dialogue.messages, {"role": "assistant", "content": dialogue.completion}]
        try:
            ids = chat.dialogue_ids(self.tokenizer, messages)
        except InputError as error:
            raise InputError(f"{dialogue.where}: {error}") from None
        check_length(len(ids), self.max_length, dialogue.where)
        return ids

    def try_padding(self, dtype):
        """Score one dialogue at a time if padded dialogues get other scores than alone."""
        rows = [self.ids(dialogue) for dialogue in TRIED]
        alone = [self._forward([row]).reward[0] for row in rows]
        try:
            beside = self._forward(rows).reward
        except Exception:  # some code takes one at a time, some wants a padding token or its own last one
            beside = [np.nan]
        if len(beside) != len(alone) or not np.allclose(beside, alone, ROUNDING[dtype], ROUNDING[dtype]):
            self.in_batches = Batches(1)
            print("dialogues are scored one at a time: padded ones get other scores")


def last_read(row, padding):
    """Return the place (int) in `row` (list of ids) where transformers' classifiers read a dialogue alone.

    That is the last token other than `padding` (int, or None where the model has no padding token). A
    dialogue that ends in the padding token itself was read before it in training, too.
    """
    return next((place for place in range(len(row) - 1, -1, -1) if row[place] != padding), 0)


def longest(config):
    """Return the most tokens (int, or None) that a model of this config reads with exact positions."""
    limits = (getattr(config, "max_position_embeddings", None), exact.longest(config))
    return min((limit for limit in limits if limit is not None and limit > 0), default=None)


def check_length(length, most, where):
    """Raise InputError, naming the answer, if its tokens are more than `most`, if that is not None."""
    if most is not None and length > most:
        raise InputError(
            f"{where}: has {length} tokens, the reward model reads {most}; "
            "lower prompts.max_prompt_length or generate.max_tokens, or remove the row of a benchmark"
        )
