"""A decoder with one linear output, read at the dialogue's last token (Hugging Face sequence classifiers).

The head runs here and in float32: in bfloat16 a score has 8 bits, and equal scores would be common. The
token is found by the dialogue's length: Hugging Face looks for the last token that is not the padding token,
which is the wrong one where a dialogue ends in the padding token itself.
"""

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils.logging import disable_progress_bar

from scripts.common import chat
from scripts.common.errors import InputError


class SequenceClassifier:
    """See `scripts.common.rewards.load`."""

    def __init__(self, model, batch_tokens, dtype):
        disable_progress_bar()
        config = AutoConfig.from_pretrained(model)
        if config.num_labels != 1:
            raise InputError(f"{model}: a reward model with {config.num_labels} labels where one is needed")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = chat.load_tokenizer(model)
        self.batch_tokens = batch_tokens
        self.max_length = getattr(config, "max_position_embeddings", None)
        classifier, loading = AutoModelForSequenceClassification.from_pretrained(
            model, dtype="auto", use_safetensors=True, output_loading_info=True
        )
        if not isinstance(getattr(classifier, "score", None), torch.nn.Linear):
            raise InputError(f"{model}: {type(classifier).__name__} has no linear head `score` on a decoder")
        if loading["missing_keys"]:
            raise InputError(
                f"{model}: lacks the weights {', '.join(sorted(loading['missing_keys']))}; "
                "a trained sequence classifier is needed"
            )
        classifier.eval().requires_grad_(False)
        self.head = classifier.score.float().to(self.device)
        self.body = classifier.base_model.to(self.device)
        # Parameters only: rotary frequencies are buffers, and rounded ones displace every far token.
        for parameter in self.body.parameters():
            parameter.data = parameter.data.to(getattr(torch, dtype))

    def batches(self, dialogues):
        """Yield (numbers, scores) of the list of `rewards.Dialogue`, longest first; see `rewards`.

        Raises InputError, naming the dialogue, for one too long for the model or without a finite score.
        """
        ids = [self.ids(dialogue) for dialogue in dialogues]
        waiting = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        while waiting:
            longest = len(ids[waiting[0]])
            batch = waiting[: max(1, self.batch_tokens // longest)]
            try:
                scores = self._forward([ids[row] for row in batch])
            except RuntimeError as error:
                if "out of memory" not in str(error) or len(batch) == 1:
                    raise
                self.batch_tokens = len(batch) * longest // 2
                print(f"out of memory: going on with {self.batch_tokens} tokens in a batch")
                continue
            for row, score in zip(batch, scores, strict=True):
                if not np.isfinite(score):
                    raise InputError(
                        f"{dialogues[row].where}: the reward model's score is {score}; score in float32 "
                        "(rank.dtype), or take another reward model"
                    )
            yield batch, scores
            waiting = waiting[len(batch) :]

    def ids(self, dialogue):
        """Token ids (list of int) of the whole dialogue in the reward model's own chat template."""
        try:
            prompt, completion = chat.prompt_and_completion_ids(
                self.tokenizer, dialogue.messages, dialogue.completion
            )
        except InputError as error:
            raise InputError(f"{dialogue.where}: {error}") from None
        ids = prompt + completion
        if self.max_length is not None and len(ids) > self.max_length:
            raise InputError(
                f"{dialogue.where}: has {len(ids)} tokens, the reward model reads {self.max_length}; "
                "lower prompts.max_prompt_length or generate.max_tokens"
            )
        return ids

    @torch.inference_mode()
    def _forward(self, rows):
        """Scores (float32 array [len(rows)]) of one batch of token ids, padded on the right."""
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        padded = padded.to(self.device)
        mask = torch.arange(padded.shape[1], device=self.device) < lengths[:, None]
        hidden = self.body(input_ids=padded, attention_mask=mask.long(), use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(rows), device=self.device), lengths - 1]
        return self.head(last.float()).squeeze(-1).cpu().numpy()
