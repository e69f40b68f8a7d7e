"""Train a policy on the rewards of completions that it samples, by TRL's ppo, rloo or grpo.

No pairs and no log-probabilities are needed beforehand: the prompts are enough, and what scores completions.
Train prompts are sampled from; test prompts are answered before and after, so that metrics.json says what the
training did to the reward, the length and the distance from the reference. Every optimizer step takes
--global-batch-size completions, on whatever number of devices. log.csv has TRL's names.

rloo and grpo resume from their checkpoints; TRL's ppo has none and begins again.

    reads   prompt_id, messages, prompt_ids, reference; files are called train-NNNNN or test-NNNNN
    writes  a model directory, its manifest, metrics.json, log.csv

    python -m scripts.train.train_online --method grpo --prompts results/samples/sft/prompts \
        --shards '{"test": 1, "train": 5}' \
        --model results/models/sft --reference results/models/sft \
        --rewards '{"right": {"kind": "function", …}}' --beta 0.04 … (--help lists every flag)
"""

import json
import math
from pathlib import Path

from prefline import engines, errors, seeds
from prefline.config import schema, section
from prefline.config.functions import file_of
from prefline.data import prompts, tables
from prefline.errors import InputError
from prefline.machine import device
from prefline.provenance import manifest
from prefline.servers.endpoint import Endpoint
from prefline.training import (
    adapters,
    arguments,
    methods,
    models,
    precision,
    probe,
    process,
    results,
    sharding,
    weights,
)
from prefline.training.settings import Settings

# Flags that shape no weights: where and how fast rewards are made.
MACHINE = ("batch_tokens", "endpoints", "judge_batch_size", "journal")
PROMPTS_OF_TRIAL = 4
# Rewards that need the other completions to a prompt.
COMPARING = {"kind": "pairwise", "normalize": "prompt"}


def paths_of(folders, shards):
    """Return the paths of the train shards in all folders, and of the last one's test shards.

    shards: {"train": number of shards, "test": number}.
    """
    wanted = [(folder, "train") for folder in folders] + [(folders[-1], "test")]
    return [
        f"{folder}/{name}.parquet"
        for folder, split in wanted
        for name in prompts.shards({split: shards[split]})
    ]


def read_prompts(paths):
    """Return (train, test) rows of tables.PROMPTS, each prompt once; InputError if a split is empty."""
    splits = {"train": {}, "test": {}}
    for path in paths:
        rows = tables.read_rows(path, tables.PROMPTS)
        splits[prompts.split_of_shard(path)] |= {row["prompt_id"]: row for row in rows}
    for split, rows in splits.items():
        if not rows:
            raise InputError(
                f"--prompts has no {split} prompts; raise prompts.num_prompts or num_test_prompts"
            )
    return list(splits["train"].values()), list(splits["test"].values())


def check_batches(args, settings, number):
    """Raise InputError if the devices cannot share the global batch as the method needs it."""
    rows, pieces = arguments.shares(settings)
    share, world = rows * pieces, process.world_size()
    if args.method == "ppo" and pieces > 1:
        raise InputError(
            f"ppo averages over the tokens of all {args.global_batch_size} completions of a step, which must "
            f"be in memory at once, not in {pieces} pieces; raise the resource per_device_train_batch_size, "
            "lower global_batch_size, or train on more devices"
        )
    needed = args.global_batch_size
    if args.method != "ppo":
        methods.check_groups(args.global_batch_size, args.num_generations)
        needed //= args.num_generations
        for name, section in args.rewards.items():
            compares = any(section[key] == value for key, value in COMPARING.items())
            if compares and share % args.num_generations:
                raise InputError(
                    f"rewards.{name} compares the {args.num_generations} completions of a prompt, which must "
                    f"be on one device, and each of {world} has {share} completions; take a "
                    f"global_batch_size that is a multiple of {world * args.num_generations}"
                )
        if args.resamplings and share % args.num_generations:
            raise InputError(
                f"resamplings replace the {args.num_generations} completions of a prompt, which must be on "
                f"one device, and each of {world} has {share} completions; take a global_batch_size that "
                f"is a multiple of {world * args.num_generations}, or resamplings 0"
            )
    if args.sampler == "vllm" and world > 1:
        raise InputError(
            f"online.sampler vllm samples on one device, and the training has {world}; set the resource gpu "
            "of train_online to 1, or take online.sampler: transformers"
        )
    if number < needed:
        raise InputError(
            f"a step takes {needed} prompts, but there are {number}; lower global_batch_size or raise "
            "prompts.num_prompts"
        )


def grouped(args, settings, model, tokenizer, train, rewards, ends):
    """Return TRL's rloo or grpo."""
    from datasets import Dataset

    from prefline.training.online_trainers import CONFIGS, TRAINERS

    # TRL loads the reference from the path in the model's config.
    model.config._name_or_path = str(args.reference)
    own = ("beta", "num_generations", "num_iterations", "epsilon", "temperature", "max_completion_length")
    own += ("scale_rewards",) if args.method == "grpo" else ()
    made = TRAINERS[args.method](
        model=model,
        args=arguments.make(
            settings,
            CONFIGS[args.method],
            **{key: getattr(args, key) for key in own},
            model_init_kwargs={
                "dtype": args.dtype,
                "use_safetensors": True,
                "attn_implementation": model.config._attn_implementation,
            },
            generation_kwargs={"eos_token_id": ends},
            disable_dropout=False,  # that of adapters stays
            include_num_input_tokens_seen="no",  # TRL counts them
        ),
        train_dataset=Dataset.from_dict({"prompt": [row["prompt_id"] for row in train]}),
        processing_class=tokenizer,
        prompts={row["prompt_id"]: row for row in train},
        rewards=rewards,
        ends=ends,
        resamplings=args.resamplings,
        stop_at=args.stop_at,
    )
    if args.peft is not None:
        adapters.unrounded(made.model)
    if args.peft is not None and args.beta:
        # TRL's is the weights beneath the adapters, whatever was named, and a copy of the adapters as they
        # begin, beside which those of a checkpoint are not loaded. Accelerate has its logits in float32.
        made.model.delete_adapter("ref")
        made.ref_model = made.accelerator.prepare_model(
            weights.load_reference(args.reference, args.dtype, args.attn_implementation).to(
                made.accelerator.device
            ),
            evaluation_mode=True,
        )
    elif made.ref_model is not None and args.dtype == "bfloat16" and sharding.name() is None:
        precision.mix(made.accelerator.unwrap_model(made.ref_model))
    if made.ref_model is not None:
        probe.ready_for_trainers(made.accelerator.unwrap_model(made.ref_model), "left")
    return made


def proximal(args, settings, model, tokenizer, train, rewards, ends):
    """Return TRL's ppo, with a value model that begins with the policy's weights and a new head."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig

    from prefline.training.ppo import PPO

    own = ("kl_coef", "cliprange", "cliprange_value", "vf_coef", "gamma", "lam", "num_ppo_epochs")
    own += ("temperature",)
    value_model = weights.load(settings, AutoModelForSequenceClassification, num_labels=1)
    models.disable_dropout(value_model)
    return PPO(
        model=model,
        ref_model=weights.load_reference(args.reference, args.dtype, args.attn_implementation),
        value_model=value_model,
        args=arguments.make(
            settings,
            PPOConfig,
            **{key: getattr(args, key) for key in own},
            # As rloo and grpo have it: an epoch has the steps that its prompts fill.
            total_episodes=args.global_batch_size
            * math.ceil(args.num_train_epochs * (len(train) // args.global_batch_size)),
            response_length=args.max_completion_length,
            num_sample_generations=0,
            save_strategy="no",
            include_num_input_tokens_seen="no",  # TRL's ppo counts none
        ),
        train_dataset=Dataset.from_dict({"prompt": [row["prompt_id"] for row in train]}),
        processing_class=tokenizer,
        prompts={row["prompt_id"]: row for row in train},
        rewards=rewards,
        ends=ends,
        stop_at=args.stop_at,
    )


def use_vllm(made, args, settings, percent):
    """Have a trainer sample by vLLM, after a trial; percent: int, of a GPU's memory for it."""
    from prefline.training.vllm_sampler import VLLM

    longest = max(len(row["prompt_ids"]) for row in made.prompts.values()) + args.max_completion_length
    completer = VLLM(
        args.model, args.global_batch_size, args.dtype, seeds.derive(args.seed, "vllm"), longest, percent
    )
    policy = made.accelerator.unwrap_model(made.model)
    policy.to(made.accelerator.device)
    # In float32 the two differ by rounding alone, which mismatch.check holds them to.
    most = None if args.dtype == "float32" else args.max_sampling_ratio
    made.use(completer, most, list(made.prompts)[:PROMPTS_OF_TRIAL])


def read_endpoints(text):
    """Return {name of a judge: Endpoint} of a flag's text."""
    return {name: Endpoint(**values) for name, values in json.loads(text).items()}


def parse(argv):
    parser = section.parser(__doc__)
    parser.add_argument("--method", choices=methods.ONLINE, required=True, help="how to train")
    parser.add_argument(
        "--prompts", nargs="+", required=True, help="folders of prompts, SHARD.parquet, one for each policy"
    )
    parser.add_argument(
        "--shards", type=json.loads, required=True, help="JSON: how many shards of each split a folder has"
    )
    parser.add_argument("--reference", required=True, help="directory of the policy that it is held to")
    parser.add_argument("--rewards", type=json.loads, required=True, help="JSON: the config's rewards")
    parser.add_argument("--reward-models", nargs="*", required=True, help="directories of their models")
    parser.add_argument("--endpoints", type=read_endpoints, required=True, help="JSON: of each judge")
    parser.add_argument("--judge-batch-size", type=int, required=True, help="requests to a judge in flight")
    parser.add_argument(
        "--batch-tokens",
        type=int,
        required=True,
        help="most tokens at once in a reward model, and of held-out completions",
    )
    parser.add_argument(
        "--gpu-memory-percent", type=int, required=True, help="of a GPU, for the sampler vllm"
    )
    parser.add_argument("--journal", required=True, help="folder of finished verdicts; safe to delete")
    section.add(parser, "rank", "length_penalty")
    section.add(parser, "online", optional=schema.properties(schema.at("online")))
    section.add(parser, "train", "beta", optional=("beta",))
    Settings.add_flags(parser)
    args = parser.parse_args(argv)
    missing = sorted(set(methods.HYPERPARAMETERS[args.method]) - vars(args).keys())
    if missing:
        parser.error(f"{args.method} needs --{missing[0].replace('_', '-')}")
    for name, reward in args.rewards.items():
        methods.check_reward(args.method, name, reward)
    args.prompts = paths_of(args.prompts, vars(args).pop("shards"))
    return args


def main(argv=None):
    args = parse(argv)
    machine = {name: vars(args).pop(name) for name in MACHINE}
    percent = vars(args).pop("gpu_memory_percent")  # which shapes no weights either
    inputs = [args.reference, *args.reward_models, *args.prompts]
    inputs += [reward["rubric"] for reward in args.rewards.values() if reward.get("rubric")]
    own_files = [file_of(reward["function"]) for reward in args.rewards.values() if reward.get("function")]
    settings = Settings.of(vars(args))
    key = results.work_key(settings, "scripts/train/train_online.py", [args.model, *inputs], own_files)
    starts = {args.model, args.reference, *args.reward_models}
    parents = [*sorted(str(manifest.path_of(start)) for start in starts), *args.prompts]
    if results.restore(settings, key, "train_online", parents):
        return
    if args.sampler == "vllm":
        device.check_sampler()
    sharding.refuse(args.method, ["fsdp2", "zero3"] if args.method == "ppo" else ["zero3"])
    train, test = read_prompts(args.prompts)
    check_batches(args, settings, len(train))

    process.quiet()
    adapters.import_packages(args.peft)
    from transformers import AutoModelForCausalLM

    from prefline.engines.model_files import ModelFiles
    from prefline.rewards.online import Rewards
    from prefline.training import held_out_samples, loop

    policy = ModelFiles(args.model)
    rewards = Rewards(
        args.rewards,
        {Path(model).name: model for model in args.reward_models},
        policy=policy,
        length_penalty=args.length_penalty,
        missing_eos_penalty=args.missing_eos_penalty,
        seed=args.seed,
        **machine,
    )
    if process.is_main():
        print(f"{len(train)} train prompts, {len(test)} test prompts", flush=True)
    model = weights.load(settings, AutoModelForCausalLM)
    probe.ready_for_trainers(model, "left")
    models.disable_dropout(model)
    ppo = args.method == "ppo"
    made = (proximal if ppo else grouped)(
        args, settings, model, policy.tokenizer, train, rewards, policy.end_tokens
    )

    if args.sampler == "vllm":
        use_vllm(made, args, settings, percent)
    sampling = engines.Sampling(args.temperature, 1.0, 0, args.max_completion_length)

    def evaluate(when):
        reference = made.ref_model
        if reference is None:  # with beta 0, the training needs none
            reference = weights.load_reference(args.reference, args.dtype, args.attn_implementation)
            reference.to(made.accelerator.device)
        measured, said = held_out_samples.evaluate(
            settings,
            sampling,
            model,
            reference,
            made.accelerator,
            test,
            rewards,
            when,
            machine["batch_tokens"],
        )
        # The loss is what the best checkpoint has least of.
        return {"loss": -measured["reward"], **measured}, said

    before, _ = evaluate("before training")
    if ppo:
        from prefline.training.ppo import fit

        metrics = fit(made, settings, key)
    else:
        metrics = loop.fit(made, settings, key, [], lambda: evaluate("while training")[0])
    after, said = evaluate("after training")
    metrics |= made.completer.report()
    metrics |= {f"eval_{name}": value for name, value in after.items()}
    metrics |= {f"eval_{name}_before": value for name, value in before.items()}
    results.save(model, settings, "train_online", parents, said)
    if process.is_main():
        for name in ("reward", "kl", "completions/mean_length"):
            print(f"held-out {name} {before[name]:.4g} -> {after[name]:.4g}")
    results.finish(settings, key, metrics)


if __name__ == "__main__":
    errors.run(main)
