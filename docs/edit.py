"""Draw docs/edit.png: every job of the default run, and of the same command after an edit.

Both run in a temporary copy of the working tree. Snakemake's metadata of every file have the start and end of
its job.

    python -m docs.edit
"""

import json
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt

from docs.draw import COLOURS, sections, step_of
from measurements.default_run import copy_project, timed
from prefline.config.section import parser

COMMAND = ("snakemake", "results/winrate.png")
OLD, NEW = "    beta: 0.1\n", "    beta: 0.2\n"  # of runs.dpo
KEPT = (
    "Not run again: pretraining, fine-tuning, reward model,\nwhat was sampled, scored, paired and tokenized, "
    "reference\nlog-probabilities, both iterations of REBEL, their verdicts"
)


def jobs(directory, after=0.0):
    """Return (start, end, rule) of jobs in `directory` begun after `after`; seconds from the first start."""
    found = {}
    for path in (directory / ".snakemake/metadata").rglob("*"):
        if path.is_file():
            made = json.loads(path.read_text(encoding="utf-8"))
            if made["starttime"] > after:  # jobs with several outputs have one log: one entry is enough
                found[tuple(made["log"])] = (made["starttime"], made["endtime"], made["rule"])
    began = min(found.values())[0]
    return sorted((start - began, end - began, rule) for start, end, rule in found.values())


def record():
    """Return the jobs of the default run, and those after the edit."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "prefline"
        copy_project(directory)
        timed(directory, *COMMAND)
        everything = jobs(directory)
        config = directory / "config.yaml"
        text = config.read_text(encoding="utf-8")
        assert text.count(OLD) == 1, f"config.yaml has {OLD!r} {text.count(OLD)} times"
        config.write_text(text.replace(OLD, NEW), encoding="utf-8")
        edited = time.time()
        timed(directory, *COMMAND)
        return everything, jobs(directory, after=edited)


def draw(path, *runs):
    """Draw the jobs of each run; runs: lists made by `jobs`."""
    rows = [list(dict.fromkeys(rule for _, _, rule in run)) for run in runs]
    spans = [max(end for _, end, _ in run) for run in runs]
    figure, panels = plt.subplots(
        2,
        figsize=(9.4, 6.6),
        sharex=True,
        layout="constrained",
        gridspec_kw={"height_ratios": [len(row) + 0.5 for row in rows]},
    )
    section = sections()
    titles = ("snakemake results/winrate.png", "runs.dpo.beta: 0.1 → 0.2, and the same command again")
    for axes, run, row, span, title in zip(panels, runs, rows, spans, titles, strict=True):
        for start, end, rule in run:
            width = max(end - start, spans[0] / 400)  # wide enough to be seen
            axes.barh(row.index(rule), width, left=start, height=0.7, color=COLOURS[step_of(section[rule])])
        axes.set_yticks(range(len(row)), row, fontfamily="monospace", fontsize=8.5)
        axes.set_ylim(len(row) - 0.4, -0.6)
        axes.set_title(f"{title}: {len(run)} jobs, {span:.0f} s", loc="left", fontsize=10.5, weight="bold")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e5e5e5")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[1].text(
        spans[1] + 0.03 * spans[0],
        (len(rows[1]) - 1) / 2,
        KEPT,
        fontsize=9.5,
        va="center",
        color="#444444",
        bbox={"facecolor": "white", "edgecolor": "none"},
    )
    panels[1].set_xlabel("seconds after the first job's start")
    figure.savefig(path, dpi=160, metadata={"Software": None})
    plt.close(figure)


def main(argv=None):
    parser(__doc__).parse_args(argv)
    draw("docs/edit.png", *record())


if __name__ == "__main__":
    main()
