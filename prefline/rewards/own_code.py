"""A reward model that brings code of its own, which the config allows by name (models.NAME.remote_code).

Its forward pass takes ids and mask, and gives `score` [rows], with or without `rewards` [rows, heads], or
else `logits`: [rows, 1], or [rows, heads] for head_weights. Its head runs in whatever the code makes of it,
so score in float32 where scores are equal too often.
"""

import torch
from transformers import AutoModelForSequenceClassification
from transformers.utils.logging import disable_progress_bar

from prefline.errors import InputError
from prefline.rewards import Scores
from prefline.rewards.batches import Scorer, lower_body, pad


class OwnCode(Scorer):
    """See `prefline.rewards.scorers.load`."""

    def __init__(self, model, batch_tokens, dtype, head_weights):
        disable_progress_bar()
        self.model = AutoModelForSequenceClassification.from_pretrained(
            model, dtype="auto", use_safetensors=True, trust_remote_code=True
        )
        super().__init__(model, self.model.config, batch_tokens)
        self.name, self.head_weights = model, head_weights
        self.model.eval().requires_grad_(False).to(self.device)
        lower_body(self.model, dtype)
        if self.model.config.pad_token_id is None:
            self.model.config.pad_token_id = self.tokenizer.pad_token_id

    @torch.inference_mode()
    def _forward(self, rows):
        ids, mask = pad(rows, self.device)
        ids = ids.masked_fill(mask == 0, self.model.config.pad_token_id or 0)
        output = self.model(input_ids=ids, attention_mask=mask)
        if getattr(output, "score", None) is not None:
            parts = getattr(output, "rewards", None)
            parts = None if parts is None else parts.float().cpu().numpy()
            return Scores(output.score.float().reshape(len(rows)).cpu().numpy(), parts)
        heads = output.logits.float().reshape(len(rows), -1).cpu()
        weights = [1.0] if self.head_weights is None else self.head_weights
        if heads.shape[1] != len(weights):
            raise InputError(
                f"{self.name}: gives {heads.shape[1]} numbers, not {len(weights)}; set head_weights"
            )
        return Scores((heads @ torch.tensor(weights)).numpy(), heads.numpy() if len(weights) > 1 else None)
