"""Small models that compare two completions, of both kinds, and a dialogue to ask them about."""

import torch
import transformers
from safetensors.torch import save_file
from small_model import CHATML, make_model, make_tokenizer

QUESTION = [{"role": "user", "content": "Which bird is blue?"}]
DIALOGUE = [
    {"role": "system", "content": "Be brief."},
    *QUESTION,
    {"role": "assistant", "content": "A jay."},
    {"role": "user", "content": "And green?"},
]


def save_language_model(path, architecture="LlamaForCausalLM", tokenizer=None, **config):
    tokenizer = tokenizer or make_tokenizer(CHATML, bos_token=None)
    shape = {"num_key_value_heads": 1, "max_position_embeddings": 512} | config
    return make_model(path, tokenizer, architecture, **shape)


def save_pairrm(path, n_tasks=2):
    """A small DeBERTa with the names, tokens and markers of llm-blender/PairRM-hf, and random weights."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = [chr(number) for number in range(33, 127)]
    names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "▁", *letters]
    spm = Tokenizer(models.Unigram([(name, -1.0) for name in names], unk_id=3))
    spm.normalizer = normalizers.NFKC()
    spm.pre_tokenizer = pre_tokenizers.Metaspace()
    spm.add_special_tokens(names[:4])
    spm.add_tokens(["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"])
    spm.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    spm.enable_truncation(64)  # as tokenizer.json may have it, saved from a training
    markers = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id", "cand_prefix_id")
    config = transformers.DebertaV2Config(
        vocab_size=len(names) + 4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
        max_position_embeddings=512,
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        layer_norm_eps=1e-7,
        n_tasks=n_tasks,
        drop_out=0.05,
        architectures=["DebertaV2PairRM"],
        **{name: len(names) + number for number, name in enumerate(markers)},
    )
    torch.manual_seed(0)
    body = transformers.DebertaV2Model(config).state_dict()
    weights = {f"pretrained_model.{name}": tensor.contiguous() for name, tensor in body.items()}
    for name, shape in {"1.weight": (16, 32), "1.bias": (16,), "4.weight": (2, 16), "4.bias": (2,)}.items():
        weights[f"head_layer.{name}"] = torch.randn(shape)
    path.mkdir(exist_ok=True)
    save_file(weights, path / "model.safetensors")
    config.save_pretrained(path)
    spm.save(str(path / "tokenizer.json"))
    return path
