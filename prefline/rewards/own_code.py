"""Score with a reward model's own code, which the config allows (models.NAME.remote_code).

config.json names the class under `auto_map`, as AutoModelForSequenceClassification or else as AutoModel.
Its forward pass takes ids and mask, and returns `score` [rows], with or without `rewards` [rows, heads]. Or
it returns `logits` or a plain tensor: [rows], [rows, 1], or [rows, heads] for head_weights. The code
chooses the head's dtype, so score in float32 if scores are equal too often.

If config.json has a `reward_token_id`, that token is appended to the dialogue, and the score is read there.
"""

import torch

from prefline.errors import InputError
from prefline.rewards import Scores, forms, loading
from prefline.rewards.batches import TRIED, Scorer, lower_body, pad


class OwnCode(Scorer):
    """See `prefline.rewards.scorers.load`."""

    def __init__(self, model, batch_tokens, dtype, head_weights):
        self.model = load(model)
        super().__init__(model, self.model.config, batch_tokens)
        self.name, self.head_weights = model, head_weights
        self.reward_token = getattr(self.model.config, "reward_token_id", None)
        self.model.eval().requires_grad_(False).to(self.device)
        lower_body(self.model, dtype)
        self.try_padding(dtype)

    def ids(self, dialogue):
        """Return the token ids (list of int) of the dialogue, with the reward token if there is one."""
        ids = super().ids(dialogue)
        return ids if self.reward_token in (None, ids[-1]) else [*ids, self.reward_token]

    @torch.inference_mode()
    def _forward(self, rows):
        ids, mask = pad(rows, self.device)
        ids = ids.masked_fill(mask == 0, self.padding or 0)
        return read(self.model(input_ids=ids, attention_mask=mask), len(rows), self.head_weights, self.name)


def load(model, shapes_only=False):
    """Return the model of the directory `model`, of the class that auto_map names; see loading.load."""
    auto = forms.own_class(model, loading.read_config(model))
    # The eager attention asks for no values, which weights without values lack.
    options = {"attn_implementation": "eager"} if shapes_only else {}
    return loading.load(auto, model, own_code=True, shapes_only=shapes_only, **options)


def check(model, head_weights):
    """Raise InputError for a model that lacks weights, or whose code gives no score by its shapes."""
    loaded = load(model, shapes_only=True).eval()
    ids = torch.ones(len(TRIED), 50, dtype=torch.long, device="meta")
    try:
        output = loaded(input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception:  # some code asks for values, which are not there yet: it is tried when it scores
        return
    numbers(output, len(TRIED), head_weights, model)


def numbers(output, rows, head_weights, model):
    """Return (tensor [rows, 1 or heads], whether they are scores) of what the code gave for `rows` dialogues.

    Raises InputError where these are not one number for each dialogue, or each of head_weights.
    """
    score = getattr(output, "score", None)
    found = score
    if found is None and not isinstance(output, torch.Tensor):
        found = output[0] if isinstance(output, (tuple, list)) and output else getattr(output, "logits", None)
    elif found is None:
        found = output
    if not isinstance(found, torch.Tensor):
        raise InputError(f"{model}: its code gives a {type(output).__name__} without `score` and `logits`")
    if found.ndim not in (1, 2) or len(found) != rows:
        raise InputError(
            f"{model}: its code gives numbers of the shape {list(found.shape)} for {rows} dialogues; a "
            "reward model gives one for each"
        )
    found = found.reshape(rows, -1)
    if score is not None and head_weights is not None:
        raise InputError(f"{model}: its code weighs its heads; set head_weights: null")
    wanted = 1 if head_weights is None else len(head_weights)
    if found.shape[1] != wanted:
        raise InputError(
            f"{model}: its code gives {found.shape[1]} numbers a dialogue, not {wanted}; if they are rewards "
            "to add up, give a weight for each in head_weights"
        )
    return found, score is not None


def read(output, rows, head_weights, model):
    """Return the Scores in what the code gave for `rows` dialogues."""
    found, final = numbers(output, rows, head_weights, model)
    found = found.float().cpu()
    if final or head_weights is None:
        parts = getattr(output, "rewards", None) if final else None
        parts = None if parts is None else parts.float().reshape(rows, -1).cpu().numpy()
        return Scores(found[:, 0].numpy(), parts)
    return Scores((found @ torch.tensor(head_weights)).numpy(), found.numpy())
