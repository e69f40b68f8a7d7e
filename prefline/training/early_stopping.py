"""What follows from held-out losses on the way: which step was the best, and whether it is time to stop.

Pure functions of the history of logged steps, dicts with `step` and, where the held-out data was evaluated,
`eval_loss`. A checkpoint has the history, so a resumed training decides as an undisturbed one.
"""

from prefline.errors import InputError


def check(values, where=""):
    """Raise InputError if the keys `values` (dict) go by held-out losses on the way and there are none."""
    if values["eval_steps"] is not None:
        return
    for key, off in (("checkpoint", "last"), ("early_stopping_patience", None)):
        if values[key] != off:
            raise InputError(
                f"{where}{key} {values[key]} goes by the held-out loss on the way, but eval_steps is null: "
                f"say after how many optimizer steps to look at it, or set {key} to {off or 'null'}"
            )


def best_step(history):
    """Step (int) of the lowest held-out loss in a history, the first of equals; None without evaluations."""
    evaluated = [(step["eval_loss"], step["step"]) for step in history if "eval_loss" in step]
    return min(evaluated)[1] if evaluated else None


def is_time_to_stop(history, patience):
    """Whether the last `patience` (int, or None: never) evaluations brought no lower held-out loss."""
    if patience is None:
        return False
    best = best_step(history)
    return len([step for step in history if "eval_loss" in step and step["step"] > best]) >= patience


def outcome(values, history):
    """What evaluations came to, for the metrics: dict; {} where the keys `values` (dict) ask for none."""
    if values["eval_steps"] is None:
        return {}
    best, last = best_step(history), history[-1]["step"]
    return {
        "best_step": best,
        "best_eval_loss": next(step["eval_loss"] for step in history if step["step"] == best),
        "saved_step": best if values["checkpoint"] == "best" else last,
        "stopped_early": is_time_to_stop(history, values["early_stopping_patience"]),
    }
