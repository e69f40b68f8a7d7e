"""ppo, rloo and grpo for real on a small Llama: they learn, on one device or two, and refuse bad input."""

import importlib
import math
import shutil

import pytest
import small_model
import torch
from online_training import ENDS, OWN, SHORT, TOKENIZER, make_world, reported, train, words
from safetensors.torch import load_file

from prefline import files
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.text import chat
from prefline.training.settings import Settings
from scripts.train import plot_training, train_online

HEAD = {"kind": "classifier", "dtype": "float32", "weight": 20.0, "normalize": "none"}
HEADS = {
    "one": HEAD | {"model": "one_head", "head_weights": None},
    "two": HEAD | {"model": "two_heads", "head_weights": [1.0, -2.0]},
}
MODULES = {"rloo": "trl.trainer.rloo_trainer", "ppo": "prefline.training.ppo"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("online"))


@pytest.mark.parametrize("method", ["rloo", "grpo", pytest.param("ppo", marks=pytest.mark.slow)])
def test_a_policy_learns_what_is_rewarded(world, tmp_path, method):
    weights, metrics, log = train(world, tmp_path, method, num_train_epochs=6)
    assert metrics["eval_reward"] > metrics["eval_reward_before"] + 0.5
    assert metrics["eval_completions/mean_length"] < metrics["eval_completions/mean_length_before"]
    assert metrics["eval_kl_before"] == pytest.approx(0, abs=1e-4)
    assert metrics["eval_kl"] > 0
    assert metrics["eval_rewards/short"] == metrics["eval_reward"], "no penalty, and one reward"
    steps = 6 if method == "ppo" else 24
    assert metrics["train_steps"] == len(log) == steps
    assert all(math.isfinite(row["loss"]) for row in log)
    assert log[-1]["kl"] != 0
    assert load_file(world / "sft/model.safetensors").keys() == weights.keys()
    tokenizer = chat.load_tokenizer(tmp_path / "model")
    assert tokenizer.pad_token_id == TOKENIZER.pad_token_id
    assert files.read_json(tmp_path / "model/generation_config.json")["eos_token_id"] == list(ENDS)
    assert files.read_json(tmp_path / "model/config.json")["use_cache"] is True


@pytest.mark.parametrize(
    ("method", "peft"),
    [
        ("rloo", None),
        pytest.param("rloo", small_model.LORA, marks=pytest.mark.slow),
        pytest.param("ppo", None, marks=pytest.mark.slow),
    ],
)
def test_bfloat16_is_computed_in_throughout(world, tmp_path, method, peft, monkeypatch):
    """By policy, value model and reference, sampling, training or held out; log-probabilities are float32."""
    from prefline.training import online_trainers  # noqa: F401, before TRL's own

    module = importlib.import_module(MODULES[method])
    products, logits, selected = set(), set(), module.selective_log_softmax

    def log_softmax(of, index):
        logits.add(of.dtype)
        return selected(of, index)

    def look(module, _, output):
        if isinstance(module, torch.nn.Linear):
            products.add(output.dtype)

    monkeypatch.setattr(module, "selective_log_softmax", log_softmax)
    changed = {"num_train_epochs": 6} | ({"learning_rate": 1e-2} if peft else {})
    with torch.nn.modules.module.register_module_forward_hook(look):
        _, metrics, log = train(world, tmp_path, method, dtype="bfloat16", peft=peft, **changed)
    assert logits == {torch.float32}
    assert products == {torch.bfloat16}
    assert metrics["eval_kl_before"] == pytest.approx(0, abs=0.05)
    assert log[0]["kl"] == pytest.approx(0, abs=0.05)
    assert all(math.isfinite(row["loss"]) for row in log)
    assert metrics["eval_reward"] > metrics["eval_reward_before"] + 0.5


@pytest.mark.slow
def test_a_policy_learns_what_reward_models_like(world, tmp_path):
    models = [world / "one_head", world / "two_heads"]
    more = {"num_generations": 16, "global_batch_size": 64, "per_device_train_batch_size": 64}
    more |= {"num_train_epochs": 6, "learning_rate": 1e-2}
    _, metrics, _ = train(world, tmp_path, "rloo", HEADS, reward_models=models, **more)
    assert metrics["eval_reward"] > metrics["eval_reward_before"] + 10
    parts = metrics["eval_rewards/one"], metrics["eval_rewards/two"]
    assert metrics["eval_reward"] == pytest.approx(20 * sum(parts))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_the_weights_do_not_depend_on_what_fits_in_memory_at_once(world, tmp_path, method):
    changed = {"num_iterations": 2, "num_train_epochs": 0.5}
    wanted, _, _ = train(world, tmp_path / "whole", method, **changed)
    weights, _, log = train(world, tmp_path / "cut", method, per_device_train_batch_size=4, **changed)
    assert len(log) == 4
    assert all(torch.allclose(weights[name], wanted[name], rtol=0, atol=1e-5) for name in wanted)
    start = load_file(world / "sft/model.safetensors")
    assert any((start[name] - wanted[name]).abs().max() > 1e-3 for name in wanted)


@pytest.mark.parametrize("method", ["rloo", pytest.param("grpo", marks=pytest.mark.slow)])
def test_dropout_of_any_kind_is_no_part_of_a_log_ratio(world, tmp_path, method):
    """A model's own: the policy begins as its reference, which has none."""
    shutil.copytree(world / "sft", tmp_path / "sft")
    config = files.read_json(tmp_path / "sft/config.json") | {"attention_dropout": 0.5}
    files.write_json(tmp_path / "sft/config.json", config)
    manifest.write(tmp_path / "sft.json", tmp_path / "sft", "train_sft", {}, [])
    start = {"model": tmp_path / "sft", "reference": tmp_path / "sft"}
    _, _, log = train(world, tmp_path / "out", method, **start, num_train_epochs=0.25)
    assert log[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert files.read_json(tmp_path / "out/model/config.json")["attention_dropout"] == 0.5


@pytest.mark.slow
def test_ppo_can_be_watched_and_drawn(world, tmp_path):
    _, _, log = train(world, tmp_path, "ppo")
    for column in ("loss", "kl", "learning_rate"):
        wanted = [(row["step"], pytest.approx(row[column], rel=1e-5)) for row in log]
        assert reported(tmp_path, column) == wanted
    paths = {"log-csv": tmp_path / "log.csv", "metrics": tmp_path / "metrics.json"}
    words = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    plot_training.main(["--name", "ppo-1", *words, "--out", str(tmp_path / "training.png")])
    assert plot_training.in_words(files.read_json(tmp_path / "metrics.json")) == "2 steps, 32 completions"


@pytest.mark.parametrize(
    ("method", "changed", "sentence"),
    [
        ("grpo", {"num_generations": 3}, "num_generations 3 does not divide global_batch_size 16"),
        (
            "rloo",
            {"global_batch_size": 128},
            "a step takes 32 prompts, but there are 16; lower global_batch_size",
        ),
        (
            "ppo",
            {"per_device_train_batch_size": 8},
            "must be in memory at once, not in 2 pieces; raise the resource",
        ),
        (
            "ppo",
            {"global_batch_size": 32, "per_device_train_batch_size": 32},
            "takes 32 prompts, but there are 16",
        ),
    ],
)
def test_batches_that_a_method_cannot_have_are_one_sentence(world, tmp_path, method, changed, sentence):
    with pytest.raises(InputError, match=sentence):
        train(world, tmp_path, method, **changed)


def test_completions_that_are_compared_must_be_on_one_device(world, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    args = train_online.parse(
        words(world, tmp_path, "grpo", {"short": SHORT | {"normalize": "prompt"}}, num_generations=16)
    )
    with pytest.raises(
        InputError, match="each of 2 has 8 completions; take a global_batch_size that is a mult"
    ):
        train_online.check_batches(args, Settings.of(vars(args)), 16)


def test_no_prompts_of_a_split_is_one_sentence(world):
    with pytest.raises(InputError, match="--prompts has no test prompts; raise"):
        train_online.read_prompts([world / "train-00000.parquet"])


def test_a_loss_that_is_not_finite_names_the_prompts(world, tmp_path):
    with pytest.raises(InputError, match=r"became nan at step \d+ of 8 .* in the batch of prompt_id p\d+, "):
        train(world, tmp_path, "rloo", learning_rate=1e30)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"learning_rate": 1e10},
            r"the loss became nan at step \d of 2, in the completions of prompt_id p\d",
        ),
        (
            {"learning_rate": 1e30},
            r"the weights became nan or infinite at step 1 of 2, in the completions of ",
        ),
    ],
)
def test_what_is_no_longer_finite_in_ppo_is_one_sentence(world, tmp_path, changed, sentence):
    with pytest.raises(InputError, match=sentence):
        train(world, tmp_path, "ppo", **changed)


@pytest.mark.slow
def test_two_processes_share_prompts_and_completions(world, tmp_path):
    """And the weights, with FSDP2: both sample from the whole policy, one longer than the other."""
    found = {}
    for parallel in ("ddp", "fsdp2"):
        changed = {"per_device_train_batch_size": 8, "num_train_epochs": 1, "eval_steps": 2}
        flags = words(world, tmp_path / parallel, "rloo", {"short": SHORT}, **changed)
        said = small_model.said_by(small_model.launch("train_online", flags, parallel=parallel))
        assert said.count("step 1/4 ") == 1, "one of them speaks"
        found[parallel] = small_model.results(tmp_path / parallel)
    weights, metrics, log = found["ddp"]
    alone = train(world, tmp_path / "alone", "rloo", num_train_epochs=0.25)[1]
    assert metrics["eval_reward_before"] == pytest.approx(alone["eval_reward_before"], abs=1e-6)
    assert metrics["eval_reward"] > metrics["eval_reward_before"]
    others, _, their_log = found["fsdp2"]
    assert [row["loss"] for row in their_log] == pytest.approx([row["loss"] for row in log], abs=2e-5)
    assert all(torch.allclose(others[name], weights[name], rtol=0, atol=1e-5) for name in weights)


RECORDS = """
import os

def reward(messages, completion, reference, folder):
    with open(os.path.join(folder, os.environ["RANK"]), "a") as file:
        file.write(repr(completion) + "\\n")
    return -len(completion)
"""


@pytest.mark.long
def test_devices_that_share_a_prompt_say_different_things(world, tmp_path):
    (tmp_path / "own.py").write_text(RECORDS)
    function = {"kind": "function", "function": f"{tmp_path}/own.py:reward"}
    rewards = {"own": function | {"arguments": {"folder": str(tmp_path)}} | OWN}
    changed = {"num_generations": 8, "global_batch_size": 8, "per_device_train_batch_size": 4}
    flags = words(world, tmp_path / "out", "rloo", rewards, **changed, num_train_epochs=1 / 16)
    small_model.said_by(small_model.launch("train_online", flags))
    held_out = 2 * 4
    one, other = ((tmp_path / rank).read_text().splitlines()[held_out:-held_out] for rank in "01")
    assert len(one) == len(other) == 4 and one != other


def test_what_cannot_be_shared_out_is_one_sentence(world, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match=r"`parallel` is fsdp2, which ppo does not go with; take ddp$"):
        train(world, tmp_path, "ppo")
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(InputError, match=r"is zero3, which grpo does not go with; take ddp or fsdp2$"):
        train(world, tmp_path, "grpo")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "peft"), [("rloo", small_model.LORA), ("grpo", small_model.QLORA)])
def test_adapters_are_held_to_the_reference_that_is_named(world, tmp_path, method, peft):
    """Not to the weights beneath them, which TRL would take."""
    more = {"peft": peft, "num_train_epochs": 3, "learning_rate": 1e-2}
    weights, metrics, _ = train(world, tmp_path, method, **more)
    assert all("lora_" in name for name in weights)
    assert metrics["eval_reward"] > metrics["eval_reward_before"] + 0.5
    quantized = "quantization" in peft
    assert abs(metrics["eval_kl_before"]) < 1e-4 if not quantized else abs(metrics["eval_kl_before"]) > 1e-3
    way = "quantized" if quantized else "original"
    found = small_model.merge(tmp_path, world / "sft", way)
    assert found["sequences"] == 16 and found[way]["mean_token"] < 1e-4

    other = tmp_path / "other"
    small_model.make_model(other / "base", TOKENIZER, ends=ENDS, initializer_range=0.3)
    manifest.write(other / "base.json", other / "base", "train_sft", {}, [])
    more |= {"num_train_epochs": 0.25, "reference": other / "base"}
    _, metrics, log = train(world, other, method, **more)
    assert metrics["eval_kl_before"] > 0.1 and log[0]["kl"] > 0.01


@pytest.mark.parametrize(
    ("method", "peft"), [("rloo", None), pytest.param("grpo", small_model.LORA, marks=pytest.mark.slow)]
)
def test_without_a_kl_term_the_kl_is_still_measured(world, tmp_path, method, peft):
    """`beta: 0`, as DAPO and Dr. GRPO have it; the first prompts that are resampled count as sampled."""
    changed = {"beta": 0, "resamplings": 1, "peft": peft, "num_train_epochs": 0.5, "learning_rate": 1e-2}
    _, metrics, log = train(world, tmp_path, method, **changed)
    assert metrics["eval_kl_before"] == pytest.approx(0, abs=1e-4) and abs(metrics["eval_kl"]) > 1e-3
    assert all("kl" not in row and row["rewards/resampled"] >= 0 for row in log)
    assert {"entropy", "completions/clipped_ratio", "rewards/short", "rewards/differing"} <= log[0].keys()


@pytest.mark.parametrize(
    "method", ["rloo", *(pytest.param(one, marks=pytest.mark.slow) for one in ("grpo", "ppo"))]
)
def test_equal_rewards_are_not_silent(world, tmp_path, method, capsys):
    rewards = {"same": SHORT | {"function": f"{tmp_path}/own.py:same"}}
    (tmp_path / "own.py").write_text("def same(messages, completion, reference):\n    return 0.1\n")
    epochs = 16 if method == "ppo" else 4
    train(world, tmp_path / "warned", method, rewards, num_train_epochs=epochs)
    said = capsys.readouterr().out
    assert said.count("differed in reward, so nothing was learned") == 2
    assert "warning: step 8 of 16: in the last 8 steps no completions" in said
    if method == "rloo":
        train(world, tmp_path / "short", method, rewards, num_train_epochs=0.5)
        assert "warning: step 2 of 2: in the last 2 steps no completions" in capsys.readouterr().out
        with pytest.raises(InputError, match=r"^step 8 of 16: .*; online.stop_at has idle, which ends"):
            train(world, tmp_path / "ended", method, rewards, stop_at='["idle"]', num_train_epochs=4)
    capsys.readouterr()
    train(world, tmp_path / "out", method, stop_at='["idle"]')
    assert "differed in reward" not in capsys.readouterr().out
