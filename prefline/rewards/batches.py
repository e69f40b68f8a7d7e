"""Dialogues through a model in batches: as many tokens at once as the memory takes, the longest first."""

import numpy as np
import torch

from prefline.errors import InputError
from prefline.text import chat

# What keeps a CPU busy: larger batches leave its caches, and are slower in more memory.
CPU_TOKENS = 1024


def device():
    """The accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def lower_body(body, dtype):
    """Round the parameters of the module `body` to `dtype` (str), and only those.

    Rotary frequencies are buffers, and rounded ones displace every far token.
    """
    for parameter in body.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))


def pad(rows, target):
    """(ids, mask): int64 tensors [len(rows), longest] of lists of ids, padded on the right, on `target`."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids.to(target), mask.to(target)


class Batches:
    """Runs rows of token ids through `forward`, at most `tokens` at once, padding included.

    On a CPU at most CPU_TOKENS. Out of memory halves that and goes on.
    """

    def __init__(self, tokens):
        self.tokens = min(tokens, CPU_TOKENS) if device().type == "cpu" else tokens

    def run(self, rows, forward):
        """Yield (numbers, forward(batch)) until every one of `rows` (lists of ids) went through."""
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
                print(f"out of memory: going on with {self.tokens} tokens in a batch")
                continue
            yield batch, made
            waiting = waiting[len(batch) :]


class Scorer:
    """What scoring models have in common; a subclass has `_forward(rows)`, which gives rewards.Scores."""

    def __init__(self, model, config, batch_tokens):
        """model: directory; config: its transformers config."""
        self.device = device()
        self.tokenizer = chat.load_tokenizer(model)
        self.max_length = getattr(config, "max_position_embeddings", None)
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
        """Token ids (list of int) of the whole dialogue in the reward model's own chat template."""
        try:
            prompt, completion = chat.prompt_and_completion_ids(
                self.tokenizer, dialogue.messages, dialogue.completion
            )
        except InputError as error:
            raise InputError(f"{dialogue.where}: {error}") from None
        check_length(len(prompt) + len(completion), self.max_length, dialogue.where)
        return prompt + completion


def check_length(length, longest, where):
    """Raise InputError, naming the answer, if `length` tokens are more than a model reads (None: any)."""
    if longest is not None and length > longest:
        raise InputError(
            f"{where}: has {length} tokens, the reward model reads {longest}; "
            "lower prompts.max_prompt_length or generate.max_tokens"
        )
