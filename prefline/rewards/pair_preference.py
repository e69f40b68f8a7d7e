"""A language model that is shown two answers and says A or B (RLHFlow/pair-preference-model-LLaMA3-8B).

The question is written as in that model's training data (RLHFlow/RLHF-Reward-Modeling, pair-pm; Dong et al.
2024, arXiv 2405.07863), then put as a user's message into the model's own chat template. The probability is
the softmax of the logits of A and B alone, in float32: nothing is sampled.
"""

import itertools

import numpy as np
import torch

from prefline.errors import InputError
from prefline.rewards import loading
from prefline.rewards.batches import Batches, check_length, device, longest, lower_body, pad
from prefline.rewards.pairwise import Comparer, letter_ids
from prefline.text import chat


class PairPreference(Comparer):
    """See `scripts.rewards.compare_completions.load`."""

    def __init__(self, model, batch_tokens, dtype):
        self.device = device()
        self.tokenizer = chat.load_tokenizer(model)
        self.in_batches = Batches(batch_tokens)
        letters = letter_ids(self.tokenizer, model)
        self.model = loading.load("AutoModelForCausalLM", model)
        self.model.eval().requires_grad_(False)
        # In place of the model's own, so that what an architecture does to its logits is still done.
        self.head = LettersAtTheEnd(self.model.get_output_embeddings(), letters)
        lower_body(self.model, dtype)
        self.model.set_output_embeddings(self.head)
        self.model.to(self.device)
        self.max_length = longest(self.model.config)

    def ids(self, comparison, first, second):
        message = {"role": "user", "content": question(comparison.messages, first, second)}
        try:
            ids = chat.prompt_ids(self.tokenizer, [message])
        except InputError as error:
            raise InputError(f"{comparison.where}: {error}") from None
        check_length(len(ids), self.max_length, comparison.where)
        return np.array(ids)

    @torch.inference_mode()
    def _forward(self, rows):
        ids, mask = pad(rows, self.device)
        self.head.last = mask.sum(1) - 1
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return torch.softmax(logits, dim=1)[:, 0].cpu()


class LettersAtTheEnd(torch.nn.Module):
    """The rows of a language model's head for two tokens, in float32, on the hidden states at `last`.

    last: int64 tensor [rows], set before each pass. Hidden states [rows, tokens, hidden] become float32
    logits [rows, 2].
    """

    def __init__(self, head, tokens):
        super().__init__()
        self.register_buffer("weight", head.weight[tokens].float())
        self.register_buffer("bias", None if head.bias is None else head.bias[tokens].float())
        self.last = None

    def forward(self, hidden):
        end = hidden[torch.arange(len(hidden), device=hidden.device), self.last]
        return torch.nn.functional.linear(end.float(), self.weight, self.bias)


def question(messages, first, second):
    """Return the model's prompt (str) about two answers to `messages`.

    A system message is part of the first user turn: the model knows the turns of two speakers.
    """
    turns = [
        (speaker, "\n\n".join(message["content"] for message in group))
        for speaker, group in itertools.groupby(
            messages, key=lambda message: "assistant" if message["role"] == "assistant" else "user"
        )
    ]
    context = "".join(f"\n<turn> {speaker}\n {content}" for speaker, content in turns)
    return f"[CONTEXT] \n{context}\n [RESPONSE A] {first} [RESPONSE B] {second} \n"
