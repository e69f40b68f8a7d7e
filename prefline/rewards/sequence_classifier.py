"""A decoder with linear outputs, read at the dialogue's last token (Hugging Face sequence classifiers).

One output is the reward of a Bradley-Terry model. Several are heads, whose weighted sum is the reward.

The head runs here and in float32: in bfloat16 a score has 8 bits, and equal scores would be common.
"""

import torch

from prefline.rewards import Scores, forms, loading
from prefline.rewards.batches import Scorer, last_read, lower_body, pad


class SequenceClassifier(Scorer):
    """See `prefline.rewards.scorers.load`."""

    def __init__(self, model, batch_tokens, dtype, head_weights):
        classifier = loading.load("AutoModelForSequenceClassification", model, **forms.shape(model))
        super().__init__(model, classifier.config, batch_tokens)
        classifier.eval().requires_grad_(False)
        self.head = classifier.score.float().to(self.device)
        self.weights = None if head_weights is None else torch.tensor(head_weights, device=self.device)
        self.body = classifier.base_model.to(self.device)
        lower_body(self.body, dtype)

    @torch.inference_mode()
    def _forward(self, rows):
        ids, mask = pad(rows, self.device)
        hidden = self.body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        places = torch.tensor([last_read(row, self.padding) for row in rows], device=self.device)
        last = hidden[torch.arange(len(rows), device=self.device), places]
        heads = self.head(last.float())
        if self.weights is None:
            return Scores(heads.squeeze(-1).cpu().numpy())
        return Scores((heads @ self.weights).cpu().numpy(), heads.cpu().numpy())
