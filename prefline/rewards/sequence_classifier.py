"""A decoder with linear outputs, read at the dialogue's last token (Hugging Face sequence classifiers).

One output is the reward of a Bradley-Terry model. Several are heads, whose weighted sum is the reward.

The head runs here and in float32: in bfloat16 a score has 8 bits, and equal scores would be common. The
token is found by the dialogue's length: Hugging Face looks for the last token that is not the padding token,
which is the wrong one where a dialogue ends in the padding token itself.
"""

import torch
from transformers import AutoModelForSequenceClassification
from transformers.utils.logging import disable_progress_bar

from prefline.errors import InputError
from prefline.rewards import Scores
from prefline.rewards.batches import Scorer, lower_body, pad


class SequenceClassifier(Scorer):
    """See `prefline.rewards.scorers.load`."""

    def __init__(self, model, batch_tokens, dtype, head_weights):
        disable_progress_bar()
        classifier, loading = AutoModelForSequenceClassification.from_pretrained(
            model, dtype="auto", use_safetensors=True, output_loading_info=True, trust_remote_code=False
        )
        super().__init__(model, classifier.config, batch_tokens)
        if not isinstance(getattr(classifier, "score", None), torch.nn.Linear):
            raise InputError(f"{model}: {type(classifier).__name__} has no linear head `score` on a decoder")
        if loading["missing_keys"]:
            raise InputError(
                f"{model}: lacks the weights {', '.join(sorted(loading['missing_keys']))}; "
                "a trained sequence classifier is needed"
            )
        classifier.eval().requires_grad_(False)
        self.head = classifier.score.float().to(self.device)
        self.weights = None if head_weights is None else torch.tensor(head_weights, device=self.device)
        self.body = classifier.base_model.to(self.device)
        lower_body(self.body, dtype)

    @torch.inference_mode()
    def _forward(self, rows):
        ids, mask = pad(rows, self.device)
        hidden = self.body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(rows), device=self.device), mask.sum(1) - 1]
        heads = self.head(last.float())
        if self.weights is None:
            return Scores(heads.squeeze(-1).cpu().numpy())
        return Scores((heads @ self.weights).cpu().numpy(), heads.cpu().numpy())
