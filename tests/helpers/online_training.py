"""A small start policy with reward models and prompts, and online trainings from it."""

import json

import small_model

from prefline.data import tables
from prefline.provenance import manifest
from prefline.text import chat
from prefline.training.settings import Settings
from scripts.train import train_online

TOKENIZER = small_model.make_tokenizer()
ENDS = (4, 1, *range(40, 80))
METHODS = {
    "rloo": {"beta": 0.05, "num_generations": 4, "num_iterations": 1, "epsilon": 0.2, "resamplings": 0},
    "ppo": {
        **{"kl_coef": 0.05, "cliprange": 0.2, "cliprange_value": 0.2, "vf_coef": 0.1},
        **{"gamma": 1.0, "lam": 0.95, "num_ppo_epochs": 2},
    },
}
METHODS["grpo"] = {**METHODS["rloo"], "scale_rewards": "group"}
TRAINING = {
    **{"temperature": 1.0, "max_completion_length": 12, "missing_eos_penalty": 0.0, "length_penalty": 0.0},
    **{"sampler": "transformers", "max_sampling_ratio": 2.0, "gpu_memory_percent": 35, "stop_at": "[]"},
    **{"learning_rate": 3e-3, "lr_scheduler_type": "constant_with_warmup", "max_grad_norm": 0},
    **{"num_train_epochs": 2, "global_batch_size": 16, "per_device_train_batch_size": 16},
    **{"batch_tokens": 1024, "endpoints": {}, "reward_models": []},
    "judge_batch_size": 8,
}
OWN = {"weight": 1.0, "normalize": "none"}
SHORT = {"kind": "function", "function": "prefline/rewards/functions.py:length", "arguments": {}, **OWN}


def write_prompts(path, names):
    rows = []
    for name in names:
        messages = [{"role": "user", "content": f"Say {name}!"}]
        ids = chat.prompt_ids(TOKENIZER, messages)
        rows.append({"prompt_id": name, "messages": messages, "prompt_ids": ids, "reference": name})
    tables.write(path, rows, tables.PROMPTS)


def make_world(world, **of_policy):
    """Write a policy, a classifier with one head and one with two, and prompts; the folder."""
    small_model.make_model(world / "sft", TOKENIZER, ends=ENDS, **{"initializer_range": 0.2} | of_policy)
    manifest.write(world / "sft.json", world / "sft", "train_sft", {}, [])
    shape = {"pad_token_id": TOKENIZER.pad_token_id, "max_position_embeddings": 256, "initializer_range": 0.2}
    # Read at the end token: what a random model gives the line feed behind it says little of an answer.
    ending = small_model.CHATML.replace("<|im_end|>\n", "<|im_end|>")
    template = small_model.make_tokenizer(ending, bos_token=None)
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
        "prompts": world,
        "shards": json.dumps({"train": 1, "test": 1}),
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


def reported(out, column):
    """[(step, value), …] of a column as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = out.glob("work/tensorboard/model-*")
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(f"train/{column}")]


def trainer_of(world, out, method, **changed):
    """TRL's trainer as the script makes it, and the rows of its train prompts."""
    from transformers import AutoModelForCausalLM

    from prefline.engines.model_files import ModelFiles
    from prefline.rewards.online import Rewards
    from prefline.training import weights

    args = train_online.parse(words(world, out, method, {"short": SHORT}, **changed))
    machine = {name: vars(args).pop(name) for name in train_online.MACHINE}
    vars(args).pop("gpu_memory_percent")
    train, _ = train_online.read_prompts(args.prompts)
    policy = ModelFiles(args.model)
    rewards = Rewards(
        args.rewards, {}, policy=policy, length_penalty=0.0, missing_eos_penalty=0.0, seed=1, **machine
    )
    settings = Settings.of(vars(args))
    model = weights.load(settings, AutoModelForCausalLM)
    make = train_online.proximal if method == "ppo" else train_online.grouped
    return make(args, settings, model, policy.tokenizer, train, rewards, policy.end_tokens), train
