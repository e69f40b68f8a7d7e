"""The methods that train a policy, and the hyperparameters that each of them has.

The method preference is this project's trainer on pairs and precomputed reference log-probabilities
(losses.py); the others are TRL's. The method kto learns from the pairs' completions one by one. The methods
rloo, grpo and ppo sample from the policy during training, and learn from rewards (ONLINE). Hyperparameters
have the config's names, which are TRL's except for ppo's max_completion_length (response_length in TRL). The
workflow imports this module, so torch is not imported.
"""

from prefline.errors import InputError
from prefline.training import losses

ONLINE = ("ppo", "rloo", "grpo")
SAMPLING = ("sampler", "max_sampling_ratio", "temperature", "max_completion_length")
SAMPLING += ("missing_eos_penalty", "stop_at")
GROUPED = ("beta", "num_generations", "num_iterations", "resamplings", "epsilon")
# Hyperparameters of each of TRL's methods.
HYPERPARAMETERS = {
    "kto": ("beta", "desirable_weight", "undesirable_weight"),
    "rloo": (*SAMPLING, *GROUPED),
    "grpo": (*SAMPLING, *GROUPED, "scale_rewards"),
    "ppo": (
        *SAMPLING,
        *("kl_coef", "cliprange", "cliprange_value", "vf_coef", "gamma", "lam", "num_ppo_epochs"),
    ),
}
# Keys that only some methods have.
KEYS = {"loss_type", "loss_arguments", *losses.hyperparameters(list(losses.LOSSES))}
KEYS |= {key for keys in HYPERPARAMETERS.values() for key in keys}
# Those of which null is a value, not the absence of one.
NULLABLE = {"max_sampling_ratio"}


def hyperparameters(method, loss_type):
    """Return the names (set of str) of a method's hyperparameters; loss_type: for the method preference."""
    if method == "preference":
        return {"loss_type", *losses.hyperparameters(loss_type)}
    return set(HYPERPARAMETERS[method])


def name(method, loss_type):
    """Return the name of the way to train in messages: "the loss rebel", "the method grpo"."""
    return f"the loss {loss_type}" if method == "preference" else f"the method {method}"


def check(method, values, rewards):
    """Raise InputError unless `values` (dict), all training keys of a run, suit its method, and `rewards` do.

    rewards: {name: section}, the config's.
    """
    if method == "preference":
        losses.check(values["loss_type"], values)
    if method == "ppo" and values["peft"]:
        raise InputError("ppo trains all parameters; set peft to null, or take rloo or grpo")
    if method in ("rloo", "grpo"):
        check_groups(values["global_batch_size"], values["num_generations"])
    if method == "ppo" and (values["eval_steps"] or values["checkpoint"] == "best"):
        raise InputError("ppo has no checkpoints; set eval_steps to null and checkpoint to last")
    if values.get("beta") == 0 and method not in ("rloo", "grpo"):
        raise InputError(
            f"beta is 0, which only rloo and grpo take; {name(method, values.get('loss_type'))} needs more"
        )
    if method in ONLINE and values["sampler"] == "vllm" and (values["peft"] or {}).get("lora_dropout"):
        raise InputError(
            "online.sampler is vllm and peft.lora_dropout is not 0: vLLM samples without dropout, so its "
            "log-probabilities cannot be compared with the trainer's; set lora_dropout to 0, or take "
            "online.sampler: transformers"
        )
    if method in ONLINE:
        for reward, section in rewards.items():
            check_reward(method, reward, section)


def check_groups(global_batch_size, num_generations):
    """Raise InputError unless a step's completions are whole groups of the completions of a prompt."""
    if global_batch_size % num_generations:
        above = -(-global_batch_size // num_generations) * num_generations
        sizes = [size for size in (above - num_generations, above) if size]
        divisors = [number for number in range(2, global_batch_size + 1) if global_batch_size % number == 0]
        near = sorted(sorted(divisors, key=lambda number: (abs(number - num_generations), number))[:2])
        proposals = [f"global_batch_size {' or '.join(map(str, sizes))}"]
        if near:
            proposals.append(f"num_generations {' or '.join(map(str, near))}")
        raise InputError(
            f"num_generations {num_generations} does not divide global_batch_size {global_batch_size}, the "
            f"completions of a step; take {', or '.join(proposals)}"
        )


def check_reward(method, reward, section):
    """Raise InputError if a method that samples as it trains cannot have `reward` (section: the config's)."""
    if section["normalize"] == "policy":
        raise InputError(
            f"rewards.{reward}.normalize is policy, but while {method} trains, the policy's completions are "
            f"not known in advance: take none{'' if method == 'ppo' else ', or prompt'}"
        )
    if method == "ppo" and section["kind"] == "pairwise":
        raise InputError(
            f"rewards.{reward} compares completions of one prompt, of which ppo has one at a time; take rloo "
            "or grpo, or a reward of another kind"
        )
    if method == "ppo" and section["normalize"] == "prompt":
        raise InputError(
            f"rewards.{reward}.normalize is prompt, but ppo has one completion of each prompt; take none, or "
            "rloo or grpo"
        )
    if section["kind"] == "judge" and section["endpoint"]["kind"] == "vllm":
        raise InputError(
            f"rewards.{reward}.endpoint is of the kind vllm: {method} asks the judge while it trains, and "
            "they would share the device; start a server and name it (docs/endpoints.md)"
        )
