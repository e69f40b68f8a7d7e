"""Draw the win rates of sweeps as small multiples: how a rate depends on each swept value.

Each grid has the key with most values along the horizontal axis, and a panel for each combination of the
other keys' values. A sweep of points with names has one panel, with the names along the axis. Every iteration
has a colour; a run with `seeds` is its mean. Bars are 95 % intervals, which are not corrected for choosing
the best of many points.

    python -m scripts.mt_bench.plot_sweeps --winrate results/winrate.json \\
        --sweeps '{"dpo": {"dpo_beta_0p05": {"beta": 0.05}, "dpo_beta_0p5": {"beta": 0.5}}}' \\
        --out results/mt_bench/sweeps.png
"""

import json

from prefline import errors, files
from prefline import policies as naming
from prefline.config import section
from prefline.reporting import pictures
from prefline.reporting.pictures import COLOURS, GRID, MUTED, STYLE, shortened

# Inches.
WIDTH, TALL = 9.0, 1.5  # of the paper, of a panel
LEFT, EDGE, BETWEEN = 0.6, 0.25, 0.25  # at the sides, between panels abreast
TOP, BELOW, BOTTOM = 1.15, 0.95, 0.75  # over the upper panels, to those below, under the last
ABREAST = 3
CHARACTER = 0.082  # of a title
NOTE = "Lines: 95 % intervals of each point, not corrected for their number. Dashed: as good as the start."
NAMES = "point"  # what is along the axis in place of a key
TITLE_LINE = 0.14  # of a title, which has a line for each key
SHORT, LONG = 10, 20  # characters of a value at the axis, and of values that would be the same
LONGER = 0.03  # room for a character more, at an angle
TURNED = 5  # from this number of values on, they are written at an angle
MOST_VALUES = 12  # that are written at an axis
APART = 0.12  # between iterations, in values


def panels(sweeps):
    """Return the panels (list of dict): title, key, and runs, [(value to show, run)].

    key: what is along the axis, NAMES for points with names; sweeps: {run: {run of a point: {key: value}, or
    None for a point with a name}}.
    """
    made = []
    for name, points in sweeps.items():
        if None in points.values():
            runs = [(run.removeprefix(f"{name}_"), run) for run in points]
            made.append({"title": name, "key": NAMES, "runs": runs})
            continue
        keys = list(dict.fromkeys(key for values in points.values() for key in values))
        shown = {run: {key: _text(values[key]) for key in keys} for run, values in points.items()}
        across = max(keys, key=lambda key: len({values[key] for values in shown.values()}))
        groups = {}
        for run, values in shown.items():
            others = [f"{key} {values[key]}" for key in keys if key != across]
            groups.setdefault("\n".join(others), []).append((values[across], run))
        made += [
            {"title": f"{name}: {title}" if title else name, "key": across, "runs": runs}
            for title, runs in groups.items()
        ]
    return made


def _text(value):
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def axis_labels(values):
    """Return what is written at an axis for values (list of str): short, not too many, none like another."""
    for most in (SHORT, LONG, max(map(len, values))):
        short = [shortened(value, most) for value in values]
        if len(set(short)) == len(set(values)):
            break
    step = -(-len(values) // MOST_VALUES)
    return [value if place % step == 0 else "" for place, value in enumerate(short)]


def draw(result, sweeps):
    """Return the figure. result: what compute_winrate writes; sweeps: as `panels` takes them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    shown, rates = panels(sweeps), {**result["win_rates"], **result["repeated"]}
    of_run = {}
    for name in naming.subjects(result["policies"]):
        of_run.setdefault(naming.run_of(name), []).append(rates[name]["overall"])
    abreast = min(ABREAST, len(shown))
    bands = -(-len(shown) // abreast)
    width = (WIDTH - LEFT - EDGE - (abreast - 1) * BETWEEN) / abreast
    longest = max(len(value) for panel in shown for value in axis_labels([one for one, _ in panel["runs"]]))
    titles = TITLE_LINE * max(panel["title"].count("\n") for panel in shown)
    under = LONGER * max(longest - SHORT, 0)
    over, below = TOP + titles, BELOW + titles + under
    height = over + bands * TALL + (bands - 1) * below + BOTTOM + under + 0.3
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))

        def write(x, top, text, **style):
            figure.text(x / WIDTH, 1 - top / height, text, va="baseline", **style)

        title = f"Sweeps: MT-Bench win rates against {shortened(result['start'])}"
        write(EDGE, 0.35, title, fontsize=13, fontweight="bold")
        write(
            EDGE, 0.58, f"{result['questions']} questions, judge: {shortened(result['judge'])}", color=MUTED
        )
        for number, panel in enumerate(shown):
            band, place = divmod(number, abreast)
            x, top = LEFT + place * (width + BETWEEN), over + band * (TALL + below)
            axes = figure.add_axes([x / WIDTH, 1 - (top + TALL) / height, width / WIDTH, TALL / height])
            for up, line in enumerate(reversed(panel["title"].split("\n"))):
                shown_line = shortened(line, int(width / CHARACTER))
                write(x, top - 0.12 - TITLE_LINE * up, shown_line, fontweight="bold", fontsize=8)
            draw_panel(axes, panel, of_run)
            if place:
                axes.set_yticklabels([])
        write(EDGE, height - 0.12, NOTE, color=MUTED, fontsize=8)
    return figure


def draw_panel(axes, panel, of_run):
    """Draw the rates of a panel's runs. of_run: {run: summaries of its iterations, in their order}."""
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.axhline(0.5, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    values = [value for value, _ in panel["runs"]]
    joined = 0.8 if all(map(_is_number, values)) and panel["key"] != NAMES else 0  # names have no order
    most = max(len(of_run[run]) for _, run in panel["runs"])
    for t in range(most):
        colour, moved = COLOURS[t % len(COLOURS)], APART * (t - (most - 1) / 2)
        points = [
            (place + moved, of_run[run][t])
            for place, (_, run) in enumerate(panel["runs"])
            if t < len(of_run[run]) and of_run[run][t]["win_rate_adjusted"] is not None
        ]
        for x, one in points:
            axes.plot([x, x], [one["ci_low"], one["ci_high"]], color=colour, linewidth=1.6)
        label = f"iteration {t + 1}" if most > 1 else None
        heights = [one["win_rate_adjusted"] for _, one in points]
        axes.plot(
            [x for x, _ in points], heights, "o-", color=colour, linewidth=joined, markersize=5, label=label
        )
    number, written = len(values), axis_labels(values)
    wide = number >= TURNED or max(map(len, written)) > SHORT
    turned = {"rotation": 30, "ha": "right"} if wide else {}
    axes.set_xticks(range(number), written, fontsize=8, **turned)
    axes.set(xlim=(-0.5, number - 0.5), ylim=(0, 1))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"], fontsize=8)
    axes.set_xlabel(panel["key"], fontsize=8)
    if most > 1:
        axes.legend(fontsize=7, frameon=False, ncols=most, loc="best", handletextpad=0.3)


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--winrate", required=True, help="win rates, as compute_winrate writes them (json)")
    parser.add_argument(
        "--sweeps", type=json.loads, required=True, help="JSON: {run: {run of a point: its values, or null}}"
    )
    parser.add_argument("--out", required=True, help="the picture (png)")
    args = parser.parse_args(argv)

    pictures.save(draw(files.read_json(args.winrate), args.sweeps), args.out)


if __name__ == "__main__":
    errors.run(main)
