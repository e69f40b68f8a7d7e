"""Before its first step, a policy is its reference to the last bit, in bfloat16, too."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from measurements import architectures
from prefline.architectures import miniature
from prefline.training import adapters, logps, models, precision

KINDS = ["llama", "gpt2", "gemma2", "gpt_neox", "falcon", "mixtral", "qwen3_moe", "deepseek_v3"]
LORA = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "target_modules": ["q_proj"]}


def pairs():
    draw = torch.Generator().manual_seed(1)

    def ids(length):
        return torch.randint(3, 60, (length,), generator=draw).tolist()

    return [(ids(5 + row), [ids(20 + row), ids(25)]) for row in range(6)]


def policy(directory, peft):
    if peft is None:
        return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return adapters.put_on(adapters.load_frozen(directory, AutoModelForCausalLM, "bfloat16", None), peft)


@pytest.mark.parametrize("peft", [None, LORA], ids=["full", "adapters"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", KINDS)
def test_a_policy_begins_as_its_reference(name, stored, peft, tmp_path):
    model = architectures.model(name)
    for parameter in model.parameters():
        parameter.data *= 3
    model.to(getattr(torch, stored)).save_pretrained(tmp_path)
    if peft is not None and not any("q_proj" in key for key, _ in model.named_modules()):
        pytest.skip("has no q_proj")
    reference = logps.load(tmp_path, "bfloat16")
    prompts = [prompt for prompt, _ in pairs() for _ in range(2)]
    completions = [completion for _, both in pairs() for completion in both]
    sums = {}
    for rows, values in logps.score(reference, prompts, completions, 1.0, 256):
        sums |= dict(zip(rows, values, strict=True))

    trained = policy(tmp_path, peft).train()
    models.disable_dropout(trained)
    found = []
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        logps.prepare(trained)
        for start in (0, 3):
            batch = logps.collate(pairs()[start : start + 3])
            found += logps.completion_logps(trained, **batch, temperature=1.0).tolist()
    assert found == pytest.approx([sums[row] for row in range(len(found))], abs=1e-4)


def test_buffers_of_a_body_are_computed_by_the_body():
    """Gemma 3n's body draws its buffers from attributes that the language model around it lacks."""
    small = miniature.of(architectures.config("gemma3n_text"))
    exact = miniature.build(small)
    rounded = miniature.build(small).to(torch.bfloat16)
    precision.mix(rounded)
    buffers = dict(rounded.named_buffers())
    for name, wanted in exact.named_buffers():
        assert torch.equal(buffers[name], wanted), name


def test_products_alone_are_rounded(tmp_path):
    model = architectures.model("llama", tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    loaded = precision.load(AutoModelForCausalLM, tmp_path, "bfloat16")
    narrow = {name for name, one in loaded.named_parameters() if one.dtype == torch.bfloat16}
    assert all("proj" in name or "lm_head" in name for name in narrow) and len(narrow) == 15
    norm = "model.norm.weight"
    assert torch.equal(loaded.state_dict()[norm], model.state_dict()[norm])
    whole = precision.load(AutoModelForCausalLM, tmp_path, "float32")
    assert {one.dtype for one in whole.parameters()} == {torch.float32}
