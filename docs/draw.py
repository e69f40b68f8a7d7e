"""Draw docs/rulegraph.png: the rules and the files between them, as Snakemake reports them.

python -m docs.draw
"""

import json
import re
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import yaml

from prefline.config.section import parser
from prefline.reporting.rulegraph import HEIGHT, WIDTH, positions, without_shortcuts

# The palette of Okabe and Ito, one colour for each file under rules/.
COLOURS = {
    "checks": "#BBBBBB",
    "models": "#56B4E9",
    "prompts": "#F0E442",
    "generate": "#E69F00",
    "rewards": "#E69F00",
    "rank": "#E69F00",
    "tokenize": "#009E73",
    "logps": "#009E73",
    "train": "#0072B2",
    "mt_bench": "#CC79A7",
    "vibe_check": "#CC79A7",
    "report": "#CC79A7",
    "publish": "#CC79A7",
}
DARK = {"train"}
# Targets of the graph. Sampling a trained policy to measure its KL would make the graph a circle.
TARGETS = ("results/winrate.png", "results/vibe_check.md", "results/samples/sft/rewards.png")


def step_of(file):
    """Return the step (str) of a file of rules: STEP.smk, or STEP_PART.smk."""
    return max((step for step in COLOURS if file == step or file.startswith(f"{step}_")), key=len)


def rule_graph():
    """Return (rules, edges) of one iteration up to TARGETS: list of str, list of (from, to).

    More iterations make the graph of rules a circle; the arrow that closes it is drawn by hand.
    """
    config = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
    once = json.dumps({run: {"iterations": 1} for run in config["runs"]})
    dot = subprocess.check_output(
        ["snakemake", *TARGETS, "--rulegraph", "dot", "--forceall", "--quiet", "--config", f"runs={once}"],
        text=True,
    )
    names = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)"', dot, re.M))
    edges = re.findall(r"^\s*(\d+) -> (\d+)", dot, re.M)
    kept = {number for number, name in names.items() if name != "all"}
    return (
        [names[number] for number in kept],
        [(names[a], names[b]) for a, b in edges if a in kept and b in kept],
    )


def sections():
    """Return {rule: name of its file under rules/}."""
    found = {}
    for path in Path("rules").glob("*.smk"):
        for name in re.findall(r"^(?:rule|use rule \w+ as) (\w+)\b", path.read_text(encoding="utf-8"), re.M):
            found[name] = path.stem
    return found


def draw(path):
    rules, edges = rule_graph()
    edges = without_shortcuts(edges)
    section = sections()
    place = positions(sorted(rules), sorted(edges))
    xs, ys = zip(*place.values(), strict=True)
    size = (max(xs) - min(xs) + 2 * WIDTH) / 95, (max(ys) - min(ys) + HEIGHT) / 80
    figure, axes = plt.subplots(figsize=size)
    for a, b in edges:
        (x1, y1), (x2, y2) = place[a], place[b]
        axes.annotate(
            "",
            xy=(x2, y2 + HEIGHT / 2),
            xytext=(x1, y1 - HEIGHT / 2),
            arrowprops={
                "arrowstyle": "-|>",
                "color": "#888888",
                "linewidth": 1.1,
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )
    (x1, y1), (x2, y2) = place["train_policy"], place["generate_completions"]
    side = max(xs) + WIDTH * 0.75
    axes.plot(
        [x1 + WIDTH * 0.3, side, side, x2 + WIDTH * 0.55],
        [y1, y1, y2, y2],
        color="#0072B2",
        linewidth=1.3,
        linestyle="--",
    )
    axes.annotate(
        "",
        xy=(x2 + WIDTH * 0.5, y2),
        xytext=(x2 + WIDTH / 2 + 30, y2),
        arrowprops={"arrowstyle": "-|>", "color": "#0072B2", "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0},
    )
    axes.text(side + 8, (y1 + y2) / 2, "next\niteration", color="#0072B2", fontsize=9.5, va="center")
    for rule, (x, y) in place.items():
        step = step_of(section[rule])
        colour = COLOURS[step]
        axes.text(
            x,
            y,
            rule,
            ha="center",
            va="center",
            fontsize=9.5,
            color="white" if step in DARK else "black",
            bbox={"boxstyle": "round,pad=0.45", "facecolor": colour, "edgecolor": "none"},
        )
    axes.set_xlim(min(xs) - WIDTH / 2, side + 70)
    axes.set_ylim(min(ys) - HEIGHT, max(ys) + HEIGHT)
    axes.axis("off")
    figure.savefig(path, dpi=160, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    parser(__doc__).parse_args()
    draw("docs/rulegraph.png")
