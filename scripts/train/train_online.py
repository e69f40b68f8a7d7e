"""Train a policy on the rewards of what it says meanwhile, by TRL's ppo, rloo or grpo.

No pairs and no log-probabilities are needed beforehand: the prompts are enough, and what scores completions.
Train prompts are sampled from; test prompts are answered before and after, so that metrics.json says what the
training did to the reward, the length and the distance from the reference. Every optimizer step takes
--global-batch-size completions, on whatever number of devices. log.csv has TRL's names.

rloo and grpo go on from their checkpoints; TRL's ppo has none and begins again.

    reads   prompt_id, messages, prompt_ids, reference; files are called train-NNNNN or test-NNNNN
    writes  a model directory, its manifest, metrics.json, log.csv

    python -m scripts.train.train_online --method grpo --prompts results/samples/sft/prompts/*.parquet \
        --model results/models/sft --reference results/models/sft \
        --rewards '{"right": {"kind": "function", …}}' --beta 0.04 … (--help lists every flag)
"""

import json
from pathlib import Path

from prefline import engines, errors
from prefline.config import schema, section
from prefline.config.functions import file_of
from prefline.data import tables
from prefline.errors import InputError
from prefline.provenance import manifest
from prefline.rewards.combine import split_of
from prefline.servers.endpoint import Endpoint
from prefline.training import adapters, arguments, methods, models, process, results, sharding, weights
from prefline.training.settings import Settings

# Flags that shape no weights: where and how fast rewards are made.
MACHINE = ("batch_tokens", "endpoints", "judge_batch_size", "journal")
# Rewards that look at the other completions to a prompt.
COMPARING = {"kind": "pairwise", "normalize": "prompt"}


def read_prompts(paths):
    """(train, test) rows of tables.PROMPTS, each prompt once; InputError if one of the splits has none."""
    splits = {"train": {}, "test": {}}
    for path in paths:
        rows = tables.read_rows(path, tables.PROMPTS)
        splits[split_of(path)] |= {row["prompt_id"]: row for row in rows}
    for split, rows in splits.items():
        if not rows:
            raise InputError(
                f"--prompts has no {split} prompts; raise prompts.num_prompts or num_test_prompts"
            )
    return list(splits["train"].values()), list(splits["test"].values())


def check_batches(args, settings, prompts):
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
    if prompts < needed:
        raise InputError(
            f"a step takes {needed} prompts, but there are {prompts}; lower global_batch_size or raise "
            "prompts.num_prompts"
        )


def check_padding(tokenizer, ends, directory):
    """Raise InputError unless ppo can tell what is padded from what is said."""
    padding = tokenizer.pad_token_id
    if padding is None or padding in ends or padding == tokenizer.bos_token_id:
        raise InputError(
            f"{directory}: ppo takes a completion to end where padding begins, but the padding token is "
            f"{tokenizer.pad_token!r}; name a special token that ends and begins nothing as pad_token in "
            "tokenizer_config.json, or take rloo or grpo"
        )


def grouped(args, settings, model, tokenizer, train, rewards, ends):
    """TRL's rloo or grpo."""
    from datasets import Dataset

    from prefline.training.online_trainers import CONFIGS, TRAINERS

    # TRL loads the reference from where the model's config says that it came from.
    model.config._name_or_path = str(args.reference)
    own = ("beta", "num_generations", "num_iterations", "epsilon", "temperature", "max_completion_length")
    own += ("scale_rewards",) if args.method == "grpo" else ()
    made = TRAINERS[args.method](
        model=model,
        args=arguments.make(
            settings,
            CONFIGS[args.method],
            **{key: getattr(args, key) for key in own},
            model_init_kwargs={"dtype": args.dtype, "use_safetensors": True},
            generation_kwargs={"eos_token_id": ends},
            disable_dropout=False,  # that of adapters stays
            include_num_input_tokens_seen="no",  # TRL counts them by itself
        ),
        train_dataset=Dataset.from_dict({"prompt": [row["prompt_id"] for row in train]}),
        processing_class=tokenizer,
        prompts={row["prompt_id"]: row for row in train},
        rewards=rewards,
        ends=ends,
    )
    if args.peft is not None:
        # TRL's is the weights beneath the adapters, whatever was named, and a copy of the adapters as they
        # begin, beside which those of a checkpoint are not loaded. Accelerate has its logits in float32.
        made.model.delete_adapter("ref")
        made.ref_model = made.accelerator.prepare_model(
            weights.load_reference(args.reference, args.dtype).to(made.accelerator.device),
            evaluation_mode=True,
        )
        adapters.unrounded(made.model)
    return made


def proximal(args, settings, model, tokenizer, train, rewards, ends):
    """TRL's ppo, with a value model that begins with the policy's weights and a new head."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig

    from prefline.training.ppo import PPO

    check_padding(tokenizer, ends, args.model)
    own = ("kl_coef", "cliprange", "cliprange_value", "vf_coef", "gamma", "lam", "num_ppo_epochs")
    own += ("temperature",)
    tokenizer.padding_side = "left"
    value_model = weights.load(settings, AutoModelForSequenceClassification, num_labels=1)
    models.disable_dropout(value_model)
    return PPO(
        model=model,
        ref_model=weights.load_reference(args.reference, args.dtype),
        value_model=value_model,
        args=arguments.make(
            settings,
            PPOConfig,
            **{key: getattr(args, key) for key in own},
            response_length=args.max_completion_length,
            stop_token="eos",
            local_rollout_forward_batch_size=args.per_device_train_batch_size,
            num_sample_generations=0,
            save_strategy="no",
            include_num_input_tokens_seen="no",  # TRL's ppo counts none
        ),
        train_dataset=Dataset.from_dict({"input_ids": [row["prompt_ids"] for row in train]}),
        processing_class=tokenizer,
        prompts={row["prompt_id"]: row for row in train},
        rewards=rewards,
        ends=ends,
    )


def read_endpoints(text):
    """{name of a judge: Endpoint} of a flag's text."""
    return {name: Endpoint(**values) for name, values in json.loads(text).items()}


def parse(argv):
    parser = section.parser(__doc__)
    parser.add_argument("--method", choices=methods.ONLINE, required=True, help="how to train")
    parser.add_argument("--prompts", nargs="+", required=True, help="shards of prompts (parquet)")
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
    return args


def main(argv=None):
    args = parse(argv)
    machine = {name: vars(args).pop(name) for name in MACHINE}
    inputs = [args.reference, *args.reward_models, *args.prompts]
    inputs += [reward["rubric"] for reward in args.rewards.values() if reward.get("rubric")]
    own_files = [file_of(reward["function"]) for reward in args.rewards.values() if reward.get("function")]
    settings = Settings.of(vars(args))
    key = results.work_key(settings, "scripts/train/train_online.py", [args.model, *inputs], own_files)
    starts = {args.model, args.reference, *args.reward_models}
    parents = [*sorted(str(manifest.path_of(start)) for start in starts), *args.prompts]
    if results.restore(settings, key, "train_online", parents):
        return
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
    models.disable_dropout(model)
    ppo = args.method == "ppo"
    made = (proximal if ppo else grouped)(
        args, settings, model, policy.tokenizer, train, rewards, policy.end_tokens
    )

    sampling = engines.Sampling(args.temperature, 1.0, 0, args.max_completion_length)

    def evaluate(when):
        measured, said = held_out_samples.evaluate(
            settings,
            sampling,
            model,
            made.ref_model,
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
    metrics |= {f"eval_{name}": value for name, value in after.items()}
    metrics |= {f"eval_{name}_before": value for name, value in before.items()}
    results.save(model, settings, "train_online", parents, said)
    if process.is_main():
        for name in ("reward", "kl", "completions/mean_length"):
            print(f"held-out {name} {before[name]:.4g} -> {after[name]:.4g}")
    results.finish(settings, key, metrics)


if __name__ == "__main__":
    errors.run(main)
