"""ppo, rloo and grpo for real on a small Llama: what they are given, that they learn and resume."""

import contextlib
import importlib
import json
import math
import shutil
import signal
import types
from unittest import mock

import pytest
import small_model
import torch
from safetensors.torch import load_file
from transformers import GenerationMixin

from prefline import engines, files
from prefline.data import tables
from prefline.engines.transformers import Engine
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.text import chat
from prefline.training import held_out_samples
from prefline.training.settings import Settings
from scripts.train import plot_training, train_online

TOKENIZER = small_model.make_tokenizer()
ENDS = (4, 1, *range(40, 80))
METHODS = {
    "rloo": {"beta": 0.05, "num_generations": 4, "num_iterations": 1, "epsilon": 0.2},
    "ppo": {
        **{"kl_coef": 0.05, "cliprange": 0.2, "cliprange_value": 0.2, "vf_coef": 0.1},
        **{"gamma": 1.0, "lam": 0.95, "num_ppo_epochs": 2},
    },
}
METHODS["grpo"] = {**METHODS["rloo"], "scale_rewards": "group"}
TRAINING = {
    **{"temperature": 1.0, "max_completion_length": 12, "missing_eos_penalty": 0.0, "length_penalty": 0.0},
    **{"learning_rate": 3e-3, "lr_scheduler_type": "constant_with_warmup", "max_grad_norm": 0},
    **{"num_train_epochs": 2, "global_batch_size": 16, "per_device_train_batch_size": 16},
    **{"batch_tokens": 1024, "endpoints": {}, "reward_models": []},
    "judge_batch_size": 8,
}
OWN = {"weight": 1.0, "normalize": "none"}
SHORT = {"kind": "function", "function": "prefline/rewards/functions.py:length", "arguments": {}, **OWN}
HEAD = {"kind": "classifier", "dtype": "float32", "weight": 20.0, "normalize": "none"}
HEADS = {
    "one": HEAD | {"model": "one_head", "head_weights": None},
    "two": HEAD | {"model": "two_heads", "head_weights": [1.0, -2.0]},
}


def write_prompts(path, names):
    rows = []
    for name in names:
        messages = [{"role": "user", "content": f"Say {name}!"}]
        ids = chat.prompt_ids(TOKENIZER, messages)
        rows.append({"prompt_id": name, "messages": messages, "prompt_ids": ids, "reference": name})
    tables.write(path, rows, tables.PROMPTS)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A policy, a classifier with one head and one with two, and prompts."""
    world = tmp_path_factory.mktemp("online")
    small_model.make_model(world / "sft", TOKENIZER, ends=ENDS, initializer_range=0.2)
    manifest.write(world / "sft.json", world / "sft", "train_sft", {}, [])
    shape = {"pad_token_id": TOKENIZER.pad_token_id, "max_position_embeddings": 256, "initializer_range": 0.2}
    template = small_model.make_tokenizer(small_model.CHATML, bos_token=None)
    for name, labels in (("one_head", 1), ("two_heads", 2)):
        small_model.make_model(
            world / name, template, "LlamaForSequenceClassification", num_labels=labels, **shape
        )
        manifest.write(world / f"{name}.json", world / name, "fetch_model", {}, [])
    write_prompts(world / "train-00000.parquet", [f"p{number}" for number in range(16)])
    write_prompts(world / "test-00000.parquet", [f"t{number}" for number in range(4)])
    return world


def words(world, out, method, rewards, **changed):
    values = {
        "method": method,
        "model": world / "sft",
        "reference": world / "sft",
        "prompts": [world / "train-00000.parquet", world / "test-00000.parquet"],
        "journal": out / "journal",
        **TRAINING,
        **METHODS[method],
        **changed,
    }
    values["rewards"], values["endpoints"] = json.dumps(rewards), json.dumps(values["endpoints"])
    return small_model.flags(out, **values)


def train(world, out, method, rewards=None, **changed):
    """(weights, metrics, rows of log.csv) of a training, as small_model.results has them."""
    train_online.main(words(world, out, method, rewards or {"short": SHORT}, **changed))
    return small_model.results(out)


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
    assert log[-1]["kl" if method != "ppo" else "objective/kl"] != 0
    assert load_file(world / "sft/model.safetensors").keys() == weights.keys()
    tokenizer = chat.load_tokenizer(tmp_path / "model")
    assert tokenizer.pad_token_id == TOKENIZER.pad_token_id
    assert files.read_json(tmp_path / "model/generation_config.json")["eos_token_id"] == list(ENDS)
    assert files.read_json(tmp_path / "model/config.json")["use_cache"] is True


@pytest.fixture(scope="module")
def trained(world):
    """A policy that the workflow trained, as it was written when that switched the cache off."""
    train(world, world / "trained", "rloo", num_train_epochs=0.25)
    path = world / "trained/model/config.json"
    config = files.read_json(path)
    assert config["use_cache"] is True
    files.write_json(path, config | {"use_cache": False})
    return world / "trained/model"


@contextlib.contextmanager
def widths_of_forwards(monkeypatch):
    """[[tokens a row of each forward pass] of each batch that is decoded within]."""
    decoded, decoding = [], []

    def noted(decode):
        def note(*args, **kwargs):
            decoded.append([])
            decoding.append(True)
            made = decode(*args, **kwargs)
            decoding.pop()
            return made

        return note

    def look(module, inputs):
        if decoding and isinstance(module, torch.nn.Embedding):
            decoded[-1].append(inputs[0].shape[1])

    with monkeypatch.context() as patch, torch.nn.modules.module.register_module_forward_pre_hook(look):
        patch.setattr(GenerationMixin, "generate", noted(GenerationMixin.generate))
        patch.setattr(Engine, "_decode", noted(Engine._decode))
        yield decoded


@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("rloo", {}),
        ("grpo", {"gradient_checkpointing": True}),
        ("rloo", {"peft": small_model.LORA}),
        ("ppo", {}),
        ("ppo", {"gradient_checkpointing": True}),
    ],
)
def test_after_the_prompt_a_forward_pass_has_one_token_a_row(
    world, trained, tmp_path, method, changed, monkeypatch
):
    """Sampling, to train on or held out, whatever the config of the start says."""
    changed = {"model": trained, "num_train_epochs": 0.5} | changed
    with widths_of_forwards(monkeypatch) as decoded:
        train(world, tmp_path, method, **changed)
    prompt = len(chat.prompt_ids(TOKENIZER, [{"role": "user", "content": "Say p10!"}]))
    assert len(decoded) > 2, "held out before and after, and to train on"
    assert {first for first, *_ in decoded} <= {prompt, prompt - 1}
    assert {width for _, *rest in decoded for width in rest} == {1}
    if "peft" not in changed:
        assert files.read_json(tmp_path / "model/config.json")["use_cache"] is False, "as the start's"


def test_recomputed_activations_change_no_sample(world, trained, tmp_path):
    """While they are, transformers hides the cache from the layers of a model."""
    for method in ("rloo", "ppo"):
        kept, recomputed = (
            train(
                world,
                tmp_path / f"{method}-{way}",
                method,
                model=trained,
                num_train_epochs=1 if method == "ppo" else 0.5,
                gradient_checkpointing=way,
            )[0]
            for way in (False, True)
        )
        assert all(torch.equal(kept[name], recomputed[name]) for name in kept)


def test_the_engine_has_a_cache_whatever_the_config_says(trained, monkeypatch):
    engine = Engine(str(trained), 8, "float32")
    ids = chat.prompt_ids(TOKENIZER, [{"role": "user", "content": "Say p1!"}])
    requests = [engines.Request(ids, seed, f"prompt_id p{seed}") for seed in range(4)]
    with widths_of_forwards(monkeypatch) as decoded:
        engine.generate(requests, engines.Sampling(1.0, 1.0, 0, 12))
    ((first, *rest),) = decoded
    assert first == len(ids) and rest and set(rest) == {1}


TRL = {"rloo": "trl.trainer.rloo_trainer", "ppo": "trl.experimental.ppo.ppo_trainer"}


@pytest.mark.parametrize(("method", "peft"), [("rloo", None), ("rloo", small_model.LORA), ("ppo", None)])
def test_bfloat16_is_computed_in_throughout(world, tmp_path, method, peft, monkeypatch):
    """By policy, value model and reference, sampling, training or held out; log-probabilities are float32."""
    from prefline.training import online_trainers  # noqa: F401, before TRL's own

    module = importlib.import_module(TRL[method])
    products, logits, selected = set(), set(), module.selective_log_softmax

    def log_softmax(of, index):
        logits.add(of.dtype)
        return selected(of, index)

    def look(module, _, output):
        if isinstance(module, torch.nn.Linear):
            products.add(output.dtype)

    monkeypatch.setattr(module, "selective_log_softmax", log_softmax)
    changed = {"num_train_epochs": 2 if method == "rloo" else 4}
    if peft is not None:
        changed = {"num_train_epochs": 3, "learning_rate": 1e-2}
    with torch.nn.modules.module.register_module_forward_hook(look):
        _, metrics, log = train(world, tmp_path, method, dtype="bfloat16", peft=peft, **changed)
    assert logits == {torch.float32}
    # Adapters are float32 while they sample.
    assert products == ({torch.bfloat16} if peft is None else {torch.bfloat16, torch.float32})
    assert metrics["eval_kl_before"] == pytest.approx(0, abs=0.05)
    assert log[0]["kl" if method == "rloo" else "objective/kl"] == pytest.approx(0, abs=0.05)
    assert all(math.isfinite(row["loss"]) for row in log)
    assert metrics["eval_reward"] > metrics["eval_reward_before"] + 0.5


def test_a_policy_learns_what_reward_models_like(world, tmp_path):
    models = [world / "one_head", world / "two_heads"]
    _, metrics, _ = train(world, tmp_path, "rloo", HEADS, reward_models=models, num_train_epochs=4)
    assert metrics["eval_reward"] > metrics["eval_reward_before"] + 1
    parts = metrics["eval_rewards/one"], metrics["eval_rewards/two"]
    assert metrics["eval_reward"] == pytest.approx(20 * sum(parts))


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_the_weights_do_not_depend_on_what_fits_in_memory_at_once(world, tmp_path, method):
    changed = {"num_iterations": 2, "num_train_epochs": 0.5}
    wanted, _, _ = train(world, tmp_path / "whole", method, **changed)
    weights, _, log = train(world, tmp_path / "cut", method, per_device_train_batch_size=4, **changed)
    assert len(log) == 4
    assert all(torch.allclose(weights[name], wanted[name], rtol=0, atol=1e-5) for name in wanted)
    start = load_file(world / "sft/model.safetensors")
    assert any((start[name] - wanted[name]).abs().max() > 1e-3 for name in wanted)


def measured(made, world, batch_tokens):
    """What held_out.evaluate says of a trainer's policy, and how many completions were decoded together."""
    sizes, decode = [], held_out_samples.Sampler._decode

    def counted(sampler, requests, sampling):
        sizes.append(len(requests))
        return decode(sampler, requests, sampling)

    settings = types.SimpleNamespace(seed=1, dtype="float32", model=world / "sft")
    sampling = engines.Sampling(1.0, 1.0, 0, 12)
    models = made.model, made.ref_model, made.accelerator
    prompts = tables.read_rows(world / "test-00000.parquet", tables.PROMPTS)
    with mock.patch.object(held_out_samples.Sampler, "_decode", counted):
        found = held_out_samples.evaluate(
            settings, sampling, *models, prompts, made.rewards, "now", batch_tokens
        )
    return found, sizes, max(len(prompt["prompt_ids"]) for prompt in prompts) + 12


def test_held_out_completions_are_those_whatever_fits_in_memory_at_once(world, tmp_path):
    made, _ = trainer_of(world, tmp_path, "rloo")
    (means, said), sizes, longest = measured(made, world, 100_000)
    assert sizes == [16]
    for batch_tokens, most in ((1, 1), (longest * 5 + 1, 5)):
        (cut_means, cut_said), sizes, _ = measured(made, world, batch_tokens)
        assert max(sizes) == most and sum(sizes) == 16
        assert cut_said == said
        assert cut_means == pytest.approx(means, abs=1e-4)


def test_held_out_completions_that_cannot_be_measured_are_one_sentence(world, tmp_path):
    made, _ = trainer_of(world, tmp_path, "rloo")
    torch.nn.init.constant_(made.model.get_output_embeddings().weight, math.nan)
    with pytest.raises(
        InputError, match="held-out prompts now: no completion has both a reward and a finite"
    ):
        measured(made, world, 100)


def test_an_unknown_change_of_the_logits_is_refused(world, tmp_path, monkeypatch):
    made, _ = trainer_of(world, tmp_path, "rloo")
    forward, attention = made.ref_model.forward, made.model.config._attn_implementation

    def doubled(**inputs):
        output = forward(**inputs)
        output.logits = output.logits * 2
        return output

    measured(made, world, 100)
    assert made.model.config._attn_implementation == attention, "TRL's batches are padded"
    monkeypatch.setattr(made.ref_model, "forward", doubled)
    with pytest.raises(InputError, match="after the head"):
        measured(made, world, 100)


def trainer_of(world, out, method, **changed):
    """TRL's trainer as the script makes it, and the rows of its train prompts."""
    from transformers import AutoModelForCausalLM

    from prefline.engines.model_files import ModelFiles
    from prefline.rewards.online import Rewards
    from prefline.training import weights

    args = train_online.parse(words(world, out, method, {"short": SHORT}, **changed))
    machine = {name: vars(args).pop(name) for name in train_online.MACHINE}
    train, _ = train_online.read_prompts(args.prompts)
    policy = ModelFiles(args.model)
    rewards = Rewards(
        args.rewards, {}, policy=policy, length_penalty=0.0, missing_eos_penalty=0.0, seed=1, **machine
    )
    settings = Settings.of(vars(args))
    model = weights.load(settings, AutoModelForCausalLM)
    make = train_online.proximal if method == "ppo" else train_online.grouped
    return make(args, settings, model, policy.tokenizer, train, rewards, policy.end_tokens), train


@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_the_ids_that_trl_trains_on_are_ours(world, tmp_path, method):
    """One BOS, no template around the template, and nothing behind whichever token ended a completion."""
    made, train = trainer_of(world, tmp_path, method)
    made.model.train()
    batch = made._generate_and_score_completions([{"prompt": row["prompt_id"]} for row in train])
    ended = set()
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    for row, ids, mask, completion, said in zip(
        train, *(batch[name].tolist() for name in names), strict=True
    ):
        prompt = [token for token, real in zip(ids, mask, strict=True) if real]
        assert prompt == row["prompt_ids"]
        assert prompt.count(TOKENIZER.bos_token_id) == 1
        spoken = [token for token, real in zip(completion, said, strict=True) if real]
        assert not set(spoken[:-1]) & set(ENDS)
        assert spoken[-1] in ENDS or len(spoken) == TRAINING["max_completion_length"]
        ended.add(spoken[-1])
    assert len(ended & set(ENDS)) > 2, "not the tokenizer's end token alone"


@pytest.mark.parametrize("method", ["rloo", "grpo"])
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


def test_what_ppo_scores_is_ours(world, tmp_path):
    made, train = trainer_of(world, tmp_path, "ppo")
    pad, said = TOKENIZER.pad_token_id, [101, 102, ENDS[-1]]
    query = [pad, pad, *train[0]["prompt_ids"]]
    rewards = made.score(torch.tensor([[*query, *said, pad], [*query, *said[:2], 103, 104]]), len(query))
    texts = [TOKENIZER.decode(ids) for ids in (said[:2], [*said[:2], 103, 104])]
    assert rewards.tolist() == [-len(text) for text in texts]
    with pytest.raises(KeyError):  # another prompt, or a BOS more
        made.score(torch.tensor([[TOKENIZER.bos_token_id, *query, *said]]), len(query) + 1)


STOPS = '''
import os, signal
from pathlib import Path

calls = []

def reward(messages, completion, reference, marker, call):
    """Minus the length; sends SIGTERM at a call, while there is a marker."""
    calls.append(completion)
    if len(calls) == call and Path(marker).exists():
        Path(marker).unlink()
        os.kill(os.getpid(), signal.SIGTERM)
    return -len(completion)
'''


def stopped(world, tmp_path, method, call, **settings):
    """Have SIGTERM stop a training at a call of its reward; returns the rewards, which do so no more."""
    (tmp_path / "own.py").write_text(STOPS)
    (tmp_path / "marker").touch()
    arguments = {"marker": str(tmp_path / "marker"), "call": call}
    function = {"kind": "function", "function": f"{tmp_path}/own.py:reward", "arguments": arguments}
    rewards = {"own": function | OWN}
    with pytest.raises(SystemExit) as raised:
        train(world, tmp_path, method, rewards, **settings)
    assert raised.value.code == 143
    return rewards


def checkpoint_of(tmp_path):
    """The one checkpoint of a training that was stopped after 5 steps."""
    (checkpoint,) = tmp_path.glob("work/*/checkpoint-*")
    assert checkpoint.name == "checkpoint-5"
    return checkpoint


def reported(out, column):
    """[(step, value), …] of a column as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = out.glob("work/tensorboard/model-*")
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(f"train/{column}")]


def test_ppo_can_be_watched_and_drawn(world, tmp_path):
    _, _, log = train(world, tmp_path, "ppo")
    for column in ("loss", "objective/kl", "learning_rate"):
        wanted = [(row["step"], pytest.approx(row[column], rel=1e-5)) for row in log]
        assert reported(tmp_path, column) == wanted
    paths = {"log-csv": tmp_path / "log.csv", "metrics": tmp_path / "metrics.json"}
    words = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    plot_training.main(["--name", "ppo-1", *words, "--out", str(tmp_path / "training.png")])
    assert plot_training.in_words(files.read_json(tmp_path / "metrics.json")) == "2 steps, 32 completions"


def test_ppo_that_is_stopped_begins_again(world, tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    rewards = stopped(world, tmp_path, "ppo", call=16 * 3)  # the second step's
    assert signal.getsignal(signal.SIGTERM) is before
    assert "ppo has no checkpoints and will begin again" in capsys.readouterr().out
    assert [step for step, _ in reported(tmp_path, "loss")] == [1]
    weights, _, log = train(world, tmp_path, "ppo", rewards)
    assert [step for step, _ in reported(tmp_path, "loss")] == [1, 2]
    wanted, _, wanted_log = train(world, tmp_path, "ppo", rewards, work_dir=tmp_path / "other")
    assert log == wanted_log and [row["step"] for row in log] == [1, 2]
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "num_iterations", "peft"),
    [("rloo", 1, None), ("rloo", 2, None), ("grpo", 2, None), ("grpo", 1, small_model.LORA)],
)
def test_a_training_that_was_stopped_ends_as_an_undisturbed_one(
    world, tmp_path, method, num_iterations, peft
):
    """With two iterations it is stopped between two steps on the same completions."""
    # 16 held-out completions, then 16 for each sampling: in the second epoch.
    call = 16 * (6 if num_iterations == 1 else 4)
    settings = {"num_iterations": num_iterations, "per_device_train_batch_size": 8, "peft": peft}
    rewards = stopped(world, tmp_path, method, call, **settings)
    checkpoint_of(tmp_path)
    weights, _, log = train(world, tmp_path, method, rewards, **settings)
    wanted, _, wanted_log = train(world, tmp_path, method, rewards, work_dir=tmp_path / "other", **settings)
    assert log == wanted_log
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert not list(tmp_path.glob("work/*/checkpoint-*")), "the result is kept instead"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "grpo"])
@pytest.mark.parametrize(("rows", "fewer"), [(16, 4), (8, 2)])
def test_between_two_steps_on_the_same_completions_it_goes_on_with_fewer_at_once(
    world, tmp_path, method, rows, fewer
):
    """As after running out of memory; but not on another number of devices."""
    settings = {"num_iterations": 2, "per_device_train_batch_size": rows}
    rewards = stopped(world, tmp_path, method, 16 * 4, **settings)
    checkpoint = checkpoint_of(tmp_path)
    other_device = checkpoint / "completions_1.safetensors"
    other_device.touch()
    with pytest.raises(InputError, match=r"checkpoint-5 lies between two .* 2 devices .* train with 2 again"):
        train(world, tmp_path, method, rewards, **settings)
    other_device.unlink()
    settings["per_device_train_batch_size"] = fewer
    weights, _, log = train(world, tmp_path, method, rewards, **settings)
    wanted, _, wanted_log = train(world, tmp_path, method, rewards, work_dir=tmp_path / "other", **settings)
    assert [row["loss"] for row in log] == pytest.approx([row["loss"] for row in wanted_log], abs=2e-5)
    assert all(torch.allclose(weights[name], wanted[name], rtol=0, atol=1e-5) for name in wanted)


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


def test_ppo_needs_a_padding_token_of_its_own(tmp_path):
    with pytest.raises(InputError, match=r"the padding token is '<.im_end.>'; name a special token"):
        train_online.check_padding(small_model.make_tokenizer(pad_token="<|im_end|>"), ENDS, tmp_path)


def test_no_prompts_of_a_split_is_one_sentence(world):
    with pytest.raises(InputError, match="--prompts has no test prompts; raise"):
        train_online.read_prompts([world / "train-00000.parquet"])


def test_a_loss_that_is_not_finite_names_the_prompts(world, tmp_path):
    with pytest.raises(InputError, match=r"became nan at step \d+ of 8 .* in the batch of prompt_id p\d+, "):
        train(world, tmp_path, "rloo", learning_rate=1e30)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"learning_rate": 1e10}, r"the loss became nan at step 2 of 2, in the completions of prompt_id p\d"),
        (
            {"learning_rate": 1e30},
            r"the weights became nan or infinite at step 2 of 2, in the completions of ",
        ),
    ],
)
def test_what_is_no_longer_finite_in_ppo_is_one_sentence(world, tmp_path, changed, sentence):
    with pytest.raises(InputError, match=sentence):
        train(world, tmp_path, "ppo", **changed)


def test_what_was_trained_before_is_taken_from_where_it_was_kept(world, tmp_path, capsys):
    wanted, metrics, log = train(world, tmp_path, "rloo", num_train_epochs=1)
    weights, again, same = train(world, tmp_path, "rloo", num_train_epochs=1, batch_tokens=999)
    assert "nothing to train" in capsys.readouterr().out
    assert (again, same) == (metrics, log)
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


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


@pytest.mark.long
def test_two_processes_that_are_stopped_go_on_where_they_were(world, tmp_path):
    """In the middle of an epoch."""
    changed = {"per_device_train_batch_size": 8, "num_iterations": 2}
    flags = {name: words(world, tmp_path / name, "rloo", {"short": SHORT}, **changed) for name in "ab"}
    small_model.said_by(small_model.launch("train_online", flags["a"]))
    process = small_model.launch("train_online", flags["b"])
    for line in process.stdout:
        if line.startswith("step 9/"):
            break
    process.send_signal(signal.SIGTERM)
    said = process.stdout.read()
    assert process.wait() != 0 and "stopped by SIGTERM at step 1" in said
    said = small_model.said_by(small_model.launch("train_online", flags["b"]))
    assert "going on after step 1" in said
    (weights, _, log), (wanted, _, wanted_log) = (small_model.results(tmp_path / name) for name in "ba")
    assert log == wanted_log
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


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
