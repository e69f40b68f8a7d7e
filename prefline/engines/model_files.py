"""Read the files of a model directory that every engine needs, and refuse requests that it cannot answer."""

from pathlib import Path

from prefline.architectures import exact
from prefline.errors import InputError
from prefline.model_files import shards
from prefline.text import chat
from prefline.text.ends import end_tokens

# Requests that a message names.
NAMED = 10


class ModelFiles:
    """The tokenizer, end tokens and limits of the model directory `path`.

    tokenizer; end_tokens (list of int); end_of_turn: int, the one that the chat template writes; vocabulary:
    rows of the embedding; context: most tokens of prompt and completion together, within exact.longest, or
    None; config: the transformers config. Raises InputError for a directory without weights, a chat template
    or an end token, and for a tokenizer of another model.
    """

    def __init__(self, path):
        from transformers import AutoConfig, GenerationConfig

        check_weights(path)
        self.path = str(path)
        self.tokenizer = chat.load_tokenizer(path)
        self.config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        text_config = self.config.get_text_config()
        self.vocabulary = text_config.vocab_size
        contexts = [getattr(text_config, "max_position_embeddings", None), exact.longest(self.config)]
        self.context = min(filter(None, contexts), default=None)
        if len(self.tokenizer) > self.vocabulary:
            raise InputError(
                f"{path}: the tokenizer has {len(self.tokenizer)} tokens, the model embeds "
                f"{self.vocabulary}; they do not belong together"
            )
        if Path(path, "generation_config.json").is_file():
            generation_config = GenerationConfig.from_pretrained(path)
        else:
            generation_config = GenerationConfig.from_model_config(self.config)
        self.end_tokens = end_tokens(generation_config, self.tokenizer)
        if not self.end_tokens:
            raise InputError(f"{path}: no end token; set eos_token_id in generation_config.json")
        ends = (chat.end_of_turn(self.tokenizer), self.tokenizer.eos_token_id, self.end_tokens[0])
        self.end_of_turn = next(token for token in ends if token is not None)

    def check(self, requests, max_tokens):
        """Raise InputError, naming the requests, if there are some that the model cannot answer."""
        long = [one for one in requests if self.context and len(one.prompt_ids) + max_tokens > self.context]
        if long:
            more = f" and {len(long) - NAMED} more" if len(long) > NAMED else ""
            longest = max(len(request.prompt_ids) for request in long)
            raise InputError(
                f"{'; '.join(one.name for one in long[:NAMED])}{more}: a prompt of {longest} tokens and "
                f"max_tokens {max_tokens} do not fit the model's context of {self.context}; lower "
                f"{long[0].shortened_by}"
            )
        for request in requests:
            if not request.prompt_ids:
                raise InputError(f"{request.name}: the prompt has no tokens")
            if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < self.vocabulary:
                raise InputError(
                    f"{request.name}: the prompt has an id outside of the model's vocabulary of "
                    f"{self.vocabulary}; it was made with the tokenizer of another model"
                )


def check_weights(model):
    """Raise InputError unless the directory `model` holds safetensors weights."""
    index, names = Path(model, "model.safetensors.index.json"), {"model.safetensors"}
    if index.is_file():
        names = set(shards(index) or [index.name])
    missing = sorted(name for name in names if not Path(model, name).is_file())
    if missing:
        raise InputError(f"{model}: has no weights ({missing[0]} is missing); name a trained model")
