"""Draw the course of a training: its loss, what it did to rewards and lengths, and the learning rate.

A line is the mean over the steps of a row of log.csv; points are the held-out data, evaluated before the
training, on the way (eval_steps) and after it. Panels without data in the log are left out.

    python -m scripts.train.plot_training --name dpo-1 --log-csv results/training/dpo-1/log.csv \\
        --metrics results/training/dpo-1/metrics.json --out results/training/dpo-1/training.png
"""

import csv
import math

from prefline import errors, files
from prefline.config import section
from prefline.reporting import pictures
from prefline.reporting.pictures import COLOURS, GRID, MUTED, STYLE, shortened

# Title, column of the log, and the same of the held-out data.
PANELS = (
    ("Loss", "loss", "loss"),
    ("Reward (held out: not normalized)", "reward", "reward"),
    ("Tokens per completion", "completions/mean_length", "completions/mean_length"),
    ("Share of completions cut off", "completions/clipped_ratio", "completions/clipped_ratio"),
    ("KL from the reference, nats per token", "kl", None),
    ("Entropy, nats per token", "entropy", None),
    ("Share of prompts whose rewards differ", "rewards/differing", None),
    ("Margin of implied rewards", "rewards/margins", "rewards/margins"),
    ("Share of pairs ranked right", "rewards/accuracies", "rewards/accuracies"),
    ("Learning rate", "learning_rate", None),
)
# Columns whose axis begins at 0, so that a small change looks small.
FROM_ZERO = {
    "completions/mean_length",
    "completions/clipped_ratio",
    "entropy",
    "rewards/differing",
    "learning_rate",
}
TRAIN, HELD_OUT = COLOURS[0], COLOURS[1]

# Inches.
WIDTH, TALL = 9.0, 1.9  # of the paper, of a panel
LEFT, EDGE, BETWEEN = 0.75, 0.2, 0.85  # at the sides, between panels abreast
TOP, BELOW, BOTTOM = 1.1, 0.8, 0.78  # over the upper panels, to those below, under the last
NOTE = "Blue lines: training, a mean over the steps of a row. Orange points: held-out data."


def read(log_csv):
    """Return {column: [(step, value), …]} of a log.csv; fields that are empty are left out."""
    columns = {}
    with open(log_csv, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and math.isfinite(float(value)):
                    columns.setdefault(name, []).append((float(row["step"]), float(value)))
    return columns


def held_out(column, log, metrics):
    """Return [(step, value), …] of a column's held-out values: before training, on the way, after it.

    A policy that is trained on rewards has no held-out loss: the negative reward is logged instead.
    """
    if column == "loss" and "eval_reward" in metrics:
        return []
    points = dict(log.get(f"eval_{column}", []))
    before = metrics.get(f"eval_{column}_before")
    if before is not None:
        points[0.0] = before
    after = metrics.get(f"eval_{column}")
    if after is not None:
        points[float(metrics.get("saved_step", metrics["train_steps"]))] = after
    return sorted(points.items())


def draw(name, log, metrics):
    """Return the figure. name: of the model; log: as `read` gives it; metrics: those of the training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    panels = [panel for panel in PANELS if panel[1] in log]
    bands = -(-len(panels) // 2)
    width = (WIDTH - LEFT - EDGE - BETWEEN) / 2
    height = TOP + bands * TALL + (bands - 1) * BELOW + BOTTOM
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))

        def write(x, top, text, **style):
            figure.text(x / WIDTH, 1 - top / height, text, va="baseline", **style)

        write(EDGE, 0.35, f"Training of {shortened(name)}", fontsize=13, fontweight="bold")
        write(EDGE, 0.58, in_words(metrics), color=MUTED)
        for number, (title, column, same) in enumerate(panels):
            band, place = divmod(number, 2)
            x, top = LEFT + place * (width + BETWEEN), TOP + band * (TALL + BELOW)
            axes = figure.add_axes([x / WIDTH, 1 - (top + TALL) / height, width / WIDTH, TALL / height])
            write(x, top - 0.14, title, fontweight="bold")
            draw_course(axes, log[column], held_out(same, log, metrics))
            if column in FROM_ZERO:
                axes.set_ylim(bottom=0)
            if number + 2 >= len(panels):
                axes.set_xlabel("optimizer step")
        write(LEFT, height - 0.14, NOTE, color=MUTED, fontsize=8)
    return figure


def draw_course(axes, course, points):
    """Draw a line through `course` and markers at `points`, lists of (step, value)."""
    from matplotlib.ticker import MaxNLocator

    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.plot(*zip(*course, strict=True), color=TRAIN, linewidth=1.4)
    if points:
        axes.plot(
            *zip(*points, strict=True),
            color=HELD_OUT,
            marker="o",
            markersize=5,
            markeredgecolor="white",
            linewidth=1.0 if len(points) > 2 else 0,
            clip_on=False,
        )
    axes.set_xlim(0, course[-1][0])
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    form = ".4g" if max(abs(value) for _, value in course) >= 0.01 else ".1e"
    axes.yaxis.set_major_formatter(
        lambda value, _: f"{value:{form if value else 'g'}}".replace("-", "\N{MINUS SIGN}")
    )


def in_words(metrics):
    """Return a line with steps, tokens and speed (of ppo, completions), and the saved step."""
    said = [f"{metrics['train_steps']:,} steps"]
    if "train_tokens" in metrics:
        said.append(f"{metrics['train_tokens']:,} tokens")
        said.append(f"{metrics['train_tokens_per_second']:,.0f} tokens/s")
    else:
        said.append(f"{metrics['train_completions']:,} completions")
    if metrics.get("train_mfu") is not None:
        said.append(f"MFU {metrics['train_mfu']:.1%}")
    if metrics.get("stopped_early"):
        said.append("stopped early")
    if metrics.get("saved_step", metrics["train_steps"]) != metrics["train_steps"]:
        said.append(f"weights of step {metrics['saved_step']:,}")
    return ", ".join(said)


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--name", required=True, help="of the model or policy, for the title")
    parser.add_argument("--log-csv", required=True, help="the course of the training (csv)")
    parser.add_argument("--metrics", required=True, help="what the training measured (json)")
    parser.add_argument("--out", required=True, help="the picture (png)")
    args = parser.parse_args(argv)

    pictures.save(draw(args.name, read(args.log_csv), files.read_json(args.metrics)), args.out)


if __name__ == "__main__":
    errors.run(main)
