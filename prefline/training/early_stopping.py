"""Find the best step by the held-out losses during training, and decide when to stop.

Pure functions of the history of logged steps, dicts with `step` and, where the held-out data was evaluated,
`eval_loss`. A checkpoint has the history, so a resumed training decides as an undisturbed one.
"""

from prefline.errors import InputError


def check(values, where=""):
    """Raise InputError if the keys `values` (dict) use held-out losses on the way and there are none."""
    if values["eval_steps"] is not None:
        return
    for key, off in (("checkpoint", "last"), ("early_stopping_patience", None)):
        if values[key] != off:
            raise InputError(
                f"{where}{key} {values[key]} needs the held-out loss during training, but eval_steps is "
                f"null; set it to a number of optimizer steps, or {key} to {off or 'null'}"
            )


def best_step(history):
    """Return the step (int) of the lowest held-out loss in a history, the first of equals, or None."""
    evaluated = [(step["eval_loss"], step["step"]) for step in history if "eval_loss" in step]
    return min(evaluated)[1] if evaluated else None


def is_time_to_stop(history, patience):
    """Return whether the last `patience` (int, or None: never) evaluations brought no lower held-out loss."""
    if patience is None:
        return False
    best = best_step(history)
    return len([step for step in history if "eval_loss" in step and step["step"] > best]) >= patience


def outcome(values, history):
    """Return the evaluations' results for the metrics: dict; {} if the keys `values` ask for none."""
    if values["eval_steps"] is None:
        return {}
    best, last = best_step(history), history[-1]["step"]
    return {
        "best_step": best,
        "best_eval_loss": next(step["eval_loss"] for step in history if step["step"] == best),
        "saved_step": best if values["checkpoint"] == "best" else last,
        "stopped_early": is_time_to_stop(history, values["early_stopping_patience"]),
    }
