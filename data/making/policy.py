"""The policy before its first training step: a Hugging Face directory without weights.

The architecture is Llama's. The tokenizer is a byte-level BPE of the world's own text,
with a BOS, a padding token, a token that ends a document and ChatML turn markers. The
chat template writes one BOS, trims every message (so that the ids of a prompt are a
prefix of the ids of the dialogue whatever the answer starts with) and marks what the
assistant says for losses on assistant tokens.
"""

import json

VOCABULARY = 1024
BOS, END_OF_TEXT, PAD, TURN, END_OF_TURN = SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|pad|>",
    "<|im_start|>",
    "<|im_end|>",
]
IDS = {token: index for index, token in enumerate(SPECIAL)}
END_IDS = [IDS[END_OF_TURN], IDS[END_OF_TEXT]]

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message['role'] not in ['system', 'user', 'assistant'] %}
{{- raise_exception('unknown role: ' + message['role']) }}
{%- endif %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}
{{- message['content'] | trim + '<|im_end|>' }}
{%- endgeneration %}
{%- else %}
{{- message['content'] | trim + '<|im_end|>' }}
{%- endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "initializer_range": 0.06,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "use_cache": True,
    "dtype": "float32",
    "bos_token_id": IDS[BOS],
    "eos_token_id": END_IDS,
    "pad_token_id": IDS[PAD],
}
GENERATION_CONFIG = {
    "bos_token_id": IDS[BOS],
    "eos_token_id": END_IDS,
    "pad_token_id": IDS[PAD],
    "do_sample": True,
    "temperature": 1.0,
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": BOS,
    "eos_token": END_OF_TURN,
    "pad_token": PAD,
    "additional_special_tokens": [TURN, END_OF_TEXT],
    "add_bos_token": False,
    "clean_up_tokenization_spaces": False,
    "model_max_length": CONFIG["max_position_embeddings"],
    "padding_side": "right",
}


def train_tokenizer(texts):
    """A byte-level BPE: every byte is a token, so that no text is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write(folder, texts):
    """Write the directory; the texts are what the tokenizer learns from."""
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer(texts).save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    for name, value in {
        "config.json": CONFIG,
        "generation_config.json": GENERATION_CONFIG,
        "tokenizer_config.json": TOKENIZER_CONFIG,
    }.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
