"""What every engine has to know of a model directory before it may answer, and the refusals that follow."""

from pathlib import Path

from prefline import files
from prefline.errors import InputError
from prefline.text import chat


class ModelFiles:
    """The tokenizer, end tokens and limits of the model directory `path`.

    tokenizer; end_tokens (list of int); vocabulary: rows of the embedding; context: most tokens of prompt
    and completion together, or None; config: the transformers config. Raises InputError for a directory
    without weights, a chat template or an end token, and for a tokenizer of another model.
    """

    def __init__(self, path):
        from transformers import AutoConfig, GenerationConfig

        check_weights(path)
        self.path = str(path)
        self.tokenizer = chat.load_tokenizer(path)
        self.config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        text_config = self.config.get_text_config()
        self.vocabulary = text_config.vocab_size
        self.context = getattr(text_config, "max_position_embeddings", None)
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

    def check(self, requests, max_tokens):
        """InputError, naming the request, for the first that the model cannot answer."""
        for request in requests:
            length = len(request.prompt_ids)
            if length == 0:
                raise InputError(f"{request.name}: the prompt has no tokens")
            if self.context is not None and length + max_tokens > self.context:
                raise InputError(
                    f"{request.name}: a prompt of {length} tokens and max_tokens {max_tokens} do not fit the "
                    f"model's context of {self.context}; lower max_tokens or prompts.max_prompt_length"
                )
            if not 0 <= min(request.prompt_ids) <= max(request.prompt_ids) < self.vocabulary:
                raise InputError(
                    f"{request.name}: the prompt has an id outside of the model's vocabulary of "
                    f"{self.vocabulary}; it was made with the tokenizer of another model"
                )


def end_tokens(generation_config, tokenizer):
    """Sorted ids of every token that ends an answer: the generation config's (int, list or None) and EOS."""
    configured = generation_config.eos_token_id
    configured = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*configured, tokenizer.eos_token_id] if token is not None})


def check_weights(model):
    """InputError unless the directory `model` holds safetensors weights."""
    index, names = Path(model, "model.safetensors.index.json"), {"model.safetensors"}
    if index.is_file():
        names = set(files.read_json(index)["weight_map"].values())
    missing = sorted(name for name in names if not Path(model, name).is_file())
    if missing:
        raise InputError(f"{model}: has no weights ({missing[0]} is missing); name a trained model")
