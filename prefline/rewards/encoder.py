"""An encoder with a classifying head of one output or several, which reads the dialogue in its own way.

Such models (DeBERTa, RoBERTa …) read [CLS] question [SEP] answer [SEP] and have no chat template: the config
gives one that writes just that. They are small, and computed in float32 whatever the dtype.
"""

import torch

from prefline.errors import InputError
from prefline.rewards import Scores, loading
from prefline.rewards.batches import Scorer, lower_body, pad


class Encoder(Scorer):
    """See `prefline.rewards.scorers.load`."""

    def __init__(self, model, batch_tokens, dtype, head_weights):
        self.model = loading.load("AutoModelForSequenceClassification", model)
        super().__init__(model, self.model.config, batch_tokens)
        self.model.eval().requires_grad_(False).to(self.device)
        lower_body(self.model, "float32")
        self.weights = None if head_weights is None else torch.tensor(head_weights, device=self.device)
        self.try_padding("float32")

    @torch.inference_mode()
    def _forward(self, rows):
        ids, mask = pad(rows, self.device)
        # Some tell positions by the padding token.
        ids = ids.masked_fill(mask == 0, self.padding or 0)
        heads = self.model(input_ids=ids, attention_mask=mask).logits.float()
        if self.weights is None:
            return Scores(heads.squeeze(-1).cpu().numpy())
        return Scores((heads @ self.weights).cpu().numpy(), heads.cpu().numpy())


def check(model, config):
    """Raise InputError for an encoder that reads more than the text of a dialogue, or reads it twice."""
    if config.is_encoder_decoder:
        raise InputError(
            f"{model}: is a {config.architectures[0]}, an encoder with a decoder, which Prefline does not "
            "read as a reward model; take one that is a language model or an encoder with a head"
        )
    if (getattr(config, "type_vocab_size", 0) or 0) > 1:
        raise InputError(
            f"{model}: is a {config.architectures[0]}, which tells question and answer apart by token types, "
            "and a chat template writes none; take a reward model that reads dialogues"
        )
