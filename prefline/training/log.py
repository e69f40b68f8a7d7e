"""log.csv: the course of a training in about LOG_ROWS rows, whatever its length."""

import math

from prefline import files

LOG_ROWS = 100


def steps_per_row(steps):
    """Return how many optimizer steps (int) a row stands for, in a training of `steps`."""
    return -(-steps // LOG_ROWS)


def write(path, history):
    """Write log.csv: one row for every `steps_per_row` optimizer steps, and one for what is left over.

    history: list of dicts, one for each step, with `step` and numbers. A row holds the last step, epoch,
    learning rate, token count and evaluation (eval_*) of its steps, and the means of everything else.
    """
    window_steps = steps_per_row(len(history))
    last = ("step", "epoch", "learning_rate", "num_input_tokens_seen")
    names = [name for name in last if any(name in step for step in history)]
    names += sorted({name for step in history for name in step} - set(names))
    lines = [",".join(names)]
    for start in range(0, len(history), window_steps):
        window = history[start : start + window_steps]
        values = []
        for name in names:
            numbers = [step[name] for step in window if name in step]
            if not numbers:
                values.append("")
            elif name in last or name.startswith("eval_"):
                values.append(f"{numbers[-1]:.10g}")
            else:
                values.append(f"{math.fsum(numbers) / len(numbers):.6g}")
        lines.append(",".join(values))
    files.write_text(path, "\n".join(lines) + "\n")
