"""What is saved is what was trained: every family of models, in float32 and rounded, whole and merged."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from small_model import make_model, make_tokenizer
from transformers import AutoModelForCausalLM

from measurements import architectures
from prefline import files
from prefline.errors import InputError
from prefline.training import adapters, fidelity, models, weights
from scripts.models.merge_adapter import merge

# One of each kind: dense, tied, learned positions, experts, router biases that stay in float32, recurrent.
# Fast tests have those in FAST, slow ones the others.
KINDS = [
    "llama",
    "gemma2",
    "gpt2",
    "mixtral",
    "qwen3_moe",
    "deepseek_v3",
    "lfm2_moe",
    "ernie4_5_moe",
    "mamba2",
]
SEQUENCES = [([5, 9, 4], list(range(3, 30))), ([7], list(range(50, 20, -1)))]
FAST = KINDS[0], "deepseek_v3"
# Whose code cannot compute in bfloat16 on a CPU.
ONLY_FLOAT32 = {"deepseek_v4", "xlnet", "xlstm", "xmod"}


def every_family():
    known = architectures.names()
    assert set(KINDS) <= set(known)

    def marks(name):
        return [] if name in FAST else pytest.mark.slow if name in KINDS else pytest.mark.long

    return [pytest.param(name, marks=marks(name)) for name in known]


def random_model(name, **changes):
    """A small model whose router biases are close to each other, and far from zero, as trained ones are."""
    if name in architectures.NOT_BUILT:
        pytest.skip(architectures.NOT_BUILT[name])
    model = architectures.model(name, **changes)
    torch.manual_seed(1)
    with torch.no_grad():
        for key, tensor in model.state_dict(keep_vars=True).items():
            if "e_score_correction_bias" in key or "expert_bias" in key:
                tensor.data = 8 + 0.01 * torch.randn_like(tensor.data)
    return model


def test_an_evaluation_leaves_the_weights_as_they_are(tmp_path):
    """RWKV's eval mode divides those of later layers, which a save would write."""
    random_model("rwkv", rescale_every=1).save_pretrained(tmp_path / "start")
    settings = SimpleNamespace(
        model=tmp_path / "start", seed=1, dtype="float32", peft=None, optim="adamw_torch"
    )
    settings.attn_implementation = "sdpa"
    model = weights.load(settings, AutoModelForCausalLM)
    trained = fidelity.of_trained(model, SEQUENCES, "float32")
    models.save(model, tmp_path / "start", "float32", tmp_path / "model")
    start = load_file(tmp_path / "start" / "model.safetensors")
    for name, written in load_file(tmp_path / "model" / "model.safetensors").items():
        assert torch.equal(written, start[name]), name
    assert files.read_json(tmp_path / "model" / "config.json")["rescale_every"] == 1
    back = fidelity.read_back(tmp_path / "model", type(model), "float32", "eager")
    fidelity.check(trained, fidelity.values(back, SEQUENCES), "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", every_family())
def test_saved_and_read_back(name, dtype, tmp_path):
    model = random_model(name)
    model.config.save_pretrained(tmp_path / "start")
    try:
        trained = fidelity.of_trained(model, SEQUENCES, dtype)
        models.save(model, tmp_path / "start", dtype, tmp_path / "model")
        attention = model.config._attn_implementation
        written = fidelity.read_back(tmp_path / "model", type(model), dtype, attention)
        fidelity.values(written, SEQUENCES)
    except InputError as error:
        assert "cannot compute in bfloat16" in str(error) and "set dtype to float32" in str(error)
        assert dtype == "bfloat16" and name in ONLY_FLOAT32
        return
    found = fidelity.check(trained, fidelity.values(written, SEQUENCES), dtype)
    if dtype == "float32":
        assert found["max_token"] < 1e-4
    config = files.read_json(tmp_path / "model/config.json")
    assert config["dtype"] == dtype
    loaded, kept = written.state_dict(), model.state_dict()
    assert {name: tensor.dtype for name, tensor in loaded.items()} == {
        name: tensor.dtype for name, tensor in kept.items()
    }


@pytest.mark.parametrize("name", ["deepseek_v3", "glm4_moe", "lfm2_moe", "ernie4_5_moe"])
def test_router_biases_stay_in_float32(name, tmp_path):
    model = random_model(name)
    model.config.save_pretrained(tmp_path / "start")
    biases = {key: one.clone() for key, one in model.state_dict().items() if "bias" in key and "e" in key}
    biases = {key: one for key, one in biases.items() if "expert" in key or "correction" in key}
    models.save(model, tmp_path / "start", "bfloat16", tmp_path / "model")
    weights = load_file(tmp_path / "model/model.safetensors")
    assert biases
    assert sorted(one.sum().item() for one in biases.values()) == sorted(
        one.sum().item() for key, one in weights.items() if one.dtype == torch.float32 and "bias" in key
    )
    assert {one.dtype for one in weights.values()} == {torch.float32, torch.bfloat16}


def test_more_than_rounding_is_refused_and_kept_aside(tmp_path):
    written = tmp_path / ".model.tmp"
    files.write_text(written / "model.safetensors", "weights")
    trained, other = [torch.zeros(4)], [torch.full((4,), 0.5)]
    with (
        pytest.raises(InputError, match=r"0.5 nats per token .* allows 0.1; .* the weights are in .*sft"),
        fidelity.set_aside(written, tmp_path / "work", "sft"),
    ):
        fidelity.check(trained, other, "bfloat16")
    assert (tmp_path / "work/refused/sft/model.safetensors").is_file() and not written.exists()
    with pytest.raises(InputError, match="nan nats"):
        fidelity.check(trained, [torch.full((4,), torch.nan)], "float32")
    assert fidelity.check(trained, [torch.full((4,), 0.05)], "bfloat16")["max_sequence"] == pytest.approx(0.2)


def test_the_start_decides_on_cache_and_router(tmp_path):
    model = random_model("mixtral")
    model.config.save_pretrained(tmp_path / "start")
    start = files.read_json(tmp_path / "start/config.json")
    # As trainers of transformers and TRL do.
    model.config.use_cache, model.config.output_router_logits = False, True
    model.config.router_aux_loss_coef = 0.5
    models.save(model, tmp_path / "start", "float32", tmp_path / "model")
    config = files.read_json(tmp_path / "model/config.json")
    for key in ("use_cache", *models.ROUTER):
        assert config[key] == start[key]


def test_a_reward_models_tokenizer_pads_as_its_config_says(tmp_path):
    """In batches of plain transformers, too, the score is read at the last token of the dialogue."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = make_tokenizer(pad_token="<|im_end|>")
    start = make_model(tmp_path / "start", tokenizer, "LlamaForSequenceClassification", num_labels=1)
    model = AutoModelForSequenceClassification.from_pretrained(start)
    model.config.pad_token_id = 2
    models.save(model, start, "float32", tmp_path / "model")
    saved = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert saved.pad_token_id == 2 and saved.eos_token_id == 4
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    texts = ["the cat<|im_end|>", "the cat sat on the mat<|im_end|>"]
    batch = saved(texts, padding=True, return_tensors="pt")
    alone = [model(**saved([text], return_tensors="pt")).logits.item() for text in texts]
    assert model(**batch).logits.flatten().tolist() == pytest.approx(alone, abs=1e-5)


def adapted(model, **settings):
    """The model with adapters that one step has trained."""
    lora = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "target_modules": "all-linear"}
    model = adapters.put_on(model, lora | settings).eval()
    ids = torch.tensor([[*SEQUENCES[0][0], *SEQUENCES[0][1]]])
    model(input_ids=ids, use_cache=False).logits.float().logsumexp(-1).sum().backward()
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.grad is not None:
            parameter.data -= 0.1 * parameter.grad.sign()
    return model


@pytest.mark.parametrize("name", every_family())
def test_adapters_are_merged_or_refused_before_training(name):
    """Of every linear layer, experts included."""
    try:
        model = adapted(random_model(name))
    except InputError as error:
        assert "peft.target_modules" in str(error)
        return
    trained = fidelity.values(model, SEQUENCES)
    fidelity.check(trained, fidelity.values(merge(model, "float32"), SEQUENCES), "float32")


def test_experts_have_no_dropout():
    with pytest.raises(InputError, match=r"peft.lora_dropout is 0.1, but adapters of experts have none"):
        adapted(random_model("mixtral"), lora_dropout=0.1)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_tied_weights_get_no_adapters(target):
    with pytest.raises(InputError, match=f"includes .*{target}, whose weights the model uses in 2 places"):
        adapted(random_model("llama", tie_word_embeddings=True), target_modules=["q_proj", target])
    model = adapted(random_model("llama", tie_word_embeddings=False), target_modules=["q_proj", target])
    trained = fidelity.values(model, SEQUENCES)
    fidelity.check(trained, fidelity.values(merge(model, "float32"), SEQUENCES), "float32")


def test_adapters_survive_their_file(tmp_path):
    """The record of the training is what a merge holds the file against."""
    make_model(tmp_path / "start")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "start")
    model = adapted(model)
    sequences = [(prompt, completion) for prompt, completion in SEQUENCES]
    trained = fidelity.values(model, sequences)
    settings = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "target_modules": "all-linear"}
    how = {"dtype": "float32", "peft": settings, "attn_implementation": "sdpa"}
    (tmp_path / "adapter").mkdir()
    adapters.save(model, tmp_path / "adapter", how, sequences, [one + 1 for one in trained])
    from scripts.models import merge_adapter

    words = ["--adapter", tmp_path / "adapter", "--model", tmp_path / "start", "--merge-into", "original"]
    words += ["--work-dir", tmp_path / "work", "--out", tmp_path / "out", "--manifest", tmp_path / "out.json"]
    with pytest.raises(InputError, match=r"adapter: the saved model is not the trained one.* 1 nats"):
        merge_adapter.main(list(map(str, words)))
    adapters.save(model, tmp_path / "adapter", how, sequences, trained)
    merge_adapter.main(list(map(str, words)))
    assert files.read_json(tmp_path / "out/merge.json")["original"]["max_token"] < 1e-4
