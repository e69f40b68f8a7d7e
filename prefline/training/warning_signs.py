"""Signs in a log that a training on rewards learns nothing, or the wrong thing, and what to do about each.

They are found in the log alone, so that a resumed training finds the same ones.
"""

from prefline.errors import InputError
from prefline.training import process

DIFFERING = "rewards/differing"  # share of the prompts whose completions differ in reward
IDLE_STEPS = 8  # without a difference in reward
WINDOW = 8  # steps whose mean is compared with that of as many first ones
LEAST_ENTROPY = 0.1  # of the first steps'
LARGEST_GROWTH = 2.0  # of the mean length
MOST_TRUNCATED = 0.5  # share of the completions
LARGEST_KL = 0.5  # nats per token


def check(state, stop_at):
    """Print a warning for each sign that the last step shows for the first time.

    state: transformers.TrainerState; stop_at: list of str, names of SIGNS that raise InputError instead.
    """
    history = [step for step in state.log_history if "loss" in step]
    for name, sign in SIGNS.items():
        said = sign(history, state)
        if said is None:
            continue
        said = f"step {state.global_step} of {state.max_steps}: {said}"
        if name in stop_at:
            raise InputError(f"{said}; online.stop_at has {name}, which ends the training")
        if process.is_main():
            print(f"warning: {said}", flush=True)


def idle(history, state):
    """Warn at every IDLE_STEPS steps in a row without any difference in reward, or where none had one."""
    steps = same_completions = 0
    for step in reversed(history):
        differing = step.get(DIFFERING, step.get("reward_std"))
        if differing is None:  # a step on the completions of an earlier one
            same_completions += 1
        elif differing > 0:
            break
        else:
            steps, same_completions = steps + same_completions + 1, 0
    ended = steps == len(history) and state.global_step == state.max_steps
    if steps and (steps % IDLE_STEPS == 0 or ended):
        whose = "no completions of the same prompt" if DIFFERING in history[0] else "no completions"
        return (
            f"in the last {steps} steps {whose} differed in reward, so nothing was learned; check the "
            "rewards (all 0, or all the highest?), raise num_generations or temperature, or take prompts "
            "that are sometimes solved"
        )


def entropy(history, state):
    """Warn where the policy's tokens have become almost certain."""
    first, last, now = _course(history, "entropy", lambda first, last: last < LEAST_ENTROPY * first)
    if now:
        return (
            f"the entropy fell from {first:.3g} to {last:.3g} nats per token, so the completions of a "
            "prompt are nearly the same; raise beta or kl_coef, lower learning_rate, or raise temperature"
        )


def length(history, state):
    """Warn where completions have become much longer, or most of them are cut off."""
    column = "completions/mean_length"
    first, last, now = _course(history, column, lambda first, last: last > LARGEST_GROWTH * first)
    if now:
        return (
            f"the mean length of the completions grew from {first:.0f} to {last:.0f} tokens; check what the "
            "reward pays for, set rank.length_penalty, or raise beta or kl_coef"
        )
    _, last, now = _course(history, "completions/clipped_ratio", lambda _, last: last > MOST_TRUNCATED)
    if now:
        return (
            f"{last:.0%} of the completions were cut off; raise max_completion_length, or raise "
            "missing_eos_penalty"
        )


def kl(history, state):
    """Warn where the policy is far from its reference."""
    _, last, now = _course(history, "kl", lambda _, last: abs(last) > LARGEST_KL)
    if now:
        return (
            f"the KL from the reference is {last:.2f} nats per token, beyond {LARGEST_KL}; read completions, "
            "since the reward may be exploited; raise beta or kl_coef, or lower learning_rate"
        )


SIGNS = {"idle": idle, "entropy": entropy, "length": length, "kl": kl}


def _course(history, column, shows):
    """Return (mean of the first steps, of the last steps, whether they show it now but not a step ago)."""

    def means(count):
        parts = history[: min(WINDOW, count)], history[max(0, count - WINDOW) : count]
        values = [[step[column] for step in part if column in step] for part in parts]
        return [sum(part) / len(part) for part in values if part]

    now, before = means(len(history)), means(len(history) - 1)
    if len(now) < 2 or not shows(*now):
        return None, None, False
    return *now, len(before) < 2 or not shows(*before)
