"""Draw the win rates against the start policy: the picture of the experiment.

The upper part has one row for each policy: its wins, ties and losses as shares of the matches, and
win_rate_adjusted with its 95 % interval beside the line of equal strength. Hollow marks below it are the
rates by other judges. Below are the same rate in each category, and who beats whom: how far the policy of a
row is ahead of a column's, coloured where chance does not explain it. A run with `seeds` has one row for
each iteration: the mean over its seeds, whose rates are small marks above it. Each run has one colour, of
Okabe and Ito's palette for colour-blind readers; every row also has its policy's name.

    python -m scripts.mt_bench.plot_winrate --winrate results/winrate.json --out results/winrate.png
"""

import textwrap

from prefline import errors, files
from prefline import policies as naming
from prefline.config import section
from prefline.judging import winrate
from prefline.reporting import pictures
from prefline.reporting.pictures import COLOURS, GRID, INK, LEGEND, MUTED, PALE, STYLE, labels, shortened

DARK = {"#0072B2", "#D55E00", "#009E73"}  # under white letters

# Inches.
WIDTH = 9.0
ROW, SMALL_ROW = 0.36, 0.24  # height of a policy in the upper and in the lower panels
TOP, BELOW, BETWEEN, BOTTOM = 1.15, 1.2, 0.42, 0.62  # over the upper panels, to the lower, among these, under
ABOVE_MATRIX = 0.75
EDGE, GAP, WIDE_GAP, NUMBERS = 0.2, 0.22, 0.45, 1.3  # at the sides, between panels, for rates in figures
LINE = 0.16  # of the notes at the bottom
CHARACTER = 0.085  # of a policy's name
NAME_LINE, NARROW = 0.11, 0.75  # a line of small letters, and their width, for names that take several
LONGEST = 34  # characters of a row's name in one line

CATEGORIES_ABREAST = 4
LETTERS = 148  # in a line of the notes
MAX_JUDGE = 14  # characters of a judge's name in the legend
MARKERS = ["D", "s", "^", "v"]  # of other judges than the main one, in their order
LOWER, APART = 0.2, 0.15  # the first one's distance below a row's middle, and between two, in rows
MIN_SHARE = 0.09  # a narrower share has no room for its label
MOST_LOST = 3  # policies that are named, of those with matches without a verdict
NOTE = "Lines: 95 % intervals. Dashed: as good as the start policy."
SEEDS_NOTE = (
    "Of several seeds: their mean, with an interval over questions and seeds; small marks: each seed."
)
ABOVE = 0.27  # distance of the seeds' marks from a row's middle, in rows
MATRIX_CELL = 0.6
MATRIX_NOTES = [
    "Who beats whom: points of the win rate by which a row is ahead of a column.",
    "Coloured: p < 0.05, corrected for the number of comparisons.",
]
TOO_MANY = ["Who beats whom: in the CSV and the report, for so many policies."]
MOST_COMPARED = 12  # policies in the matrix of who beats whom
BETTER, WORSE = "#BFE3D6", "#F6D5BF"


def draw(result):
    """Return the figure for `result`, what compute_winrate writes.

    `python -m tools.compare` adds `experiments`, {row: names}, and `differences`, a list of notes.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    made, result = result, by_subject(result)
    policies, categories = result["policies"], result["categories"]
    names = row_names(result)
    lines = 1 + max(name.count("\n") for name in names)
    small_row = max(SMALL_ROW, NAME_LINE * lines + 0.04)
    abreast = min(CATEGORIES_ABREAST, len(categories))
    bands = -(-len(categories) // abreast)
    upper, lower = ROW * len(policies) + 0.1, small_row * len(policies) + 0.1
    compared = 2 <= len(policies) < MOST_COMPARED
    matrix_notes = MATRIX_NOTES if compared else TOO_MANY if len(policies) > 1 else []
    several = [SEEDS_NOTE] if any(seeds_of(policy, result) for policy in policies) else []
    notes = [NOTE, *several, *matrix_notes, *lost(made), *positions(made), *agreements(result)]
    notes += result.get("differences", [])
    notes = [line for note in notes for line in textwrap.wrap(note, LETTERS)]
    # In the matrix a row more, for the start policy.
    matrix = small_row * (len(policies) + 1) if compared else 0
    below = TOP + upper + BELOW + bands * lower + (bands - 1) * BETWEEN + BOTTOM
    height = below + (matrix + ABOVE_MATRIX + 0.1 if matrix else 0) + LINE * (len(notes) - 1)
    longest = max(len(line) for name in names for line in name.split("\n"))
    left = EDGE + 0.1 + CHARACTER * longest * (NARROW if lines > 1 else 1)
    size = {"fontsize": 9 * NARROW, "linespacing": 1.1} if lines > 1 else {}

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))

        def panel(x, top, width, tall):
            """Return axes with a row per policy; x from the figure's left, top from its upper edge."""
            axes = figure.add_axes([x / WIDTH, 1 - (top + tall) / height, width / WIDTH, tall / height])
            axes.set(xlim=(0, 1), ylim=(len(policies) - 0.5, -0.5))
            axes.set_yticks(range(len(policies)), names if x == left else [""] * len(policies), **size)
            return axes

        def write(x, top, text, **style):
            figure.text(x / WIDTH, 1 - top / height, text, va="baseline", **style)

        write(
            EDGE,
            0.35,
            f"MT-Bench win rates against {shortened(result['start'])}",
            fontsize=13,
            fontweight="bold",
        )
        write(
            EDGE,
            0.58,
            f"{result['questions']} questions, both orders of the answers, judge: {result['judge']}",
            color=MUTED,
        )
        half = (WIDTH - left - WIDE_GAP - NUMBERS - EDGE) / 2
        over = TOP - (0.3 if result["other_judges"] else 0.07)
        write(left + half + WIDE_GAP, over, "Win rate (a tie is half a win)", fontweight="bold")
        draw_shares(panel(left, TOP, half, upper), result)
        overall = panel(left + half + WIDE_GAP, TOP, half, upper)
        draw_overall(overall, result)
        draw_others(overall, result)

        write(left, TOP + upper + BELOW - 0.4, "Win rate by category", fontweight="bold")
        across = (WIDTH - left - EDGE - (abreast - 1) * GAP) / abreast
        for number, category in enumerate(categories):
            band, column = divmod(number, abreast)
            top = TOP + upper + BELOW + band * (lower + BETWEEN)
            axes = panel(left + column * (across + GAP), top, across, lower)
            summaries = [result["win_rates"][policy]["category"][category] for policy in policies]
            draw_rates(axes, summaries, policies, markersize=4)
            axes.set_title(shortened(category), loc="left", fontsize=9, pad=4)
            lowest = number + abreast >= len(categories)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"] if lowest else [""] * 3)
        if matrix:
            write(left, below + 0.15, "Who beats whom", fontweight="bold")
            wide = min(WIDTH - left - EDGE, MATRIX_CELL * (len(policies) + 1))
            box = [
                left / WIDTH,
                1 - (below + ABOVE_MATRIX - 0.3 + matrix) / height,
                wide / WIDTH,
                matrix / height,
            ]
            draw_matrix(figure.add_axes(box), result)
        for line, text in enumerate(reversed(notes)):
            write(EDGE, height - 0.16 - LINE * line, text, color=MUTED, fontsize=8)
    return figure


def by_subject(result):
    """Return `result` with the mean of a run's seeds in place of the policies of each."""
    return {
        **result,
        "policies": list(naming.subjects(result["policies"])),
        "win_rates": {**result["win_rates"], **result["repeated"]},
        "other_judges": {
            name: {**other, "win_rates": {**other["win_rates"], **other["repeated"]}}
            for name, other in result["other_judges"].items()
        },
    }


def seeds_of(name, result):
    """Return the policies of a row under several seeds; [] for a single one."""
    policies = result["repeated"][name]["overall"]["policies"] if name in result["repeated"] else []
    return policies if len(policies) > 1 else []


def row_names(result):
    """Return the names of the rows, with numbers of seeds, and the experiments if several are compared."""
    policies = result["policies"]
    seeds = [f", {len(found)} seeds" if (found := seeds_of(name, result)) else "" for name in policies]
    names = [f"{name}{told}" for name, told in zip(labels(policies), seeds, strict=True)]
    if "experiments" not in result:
        return names
    places = [f"({shortened(result['experiments'][name])})" for name in policies]
    whole = [f"{name} {place}" for name, place in zip(names, places, strict=True)]
    if max(map(len, whole)) <= LONGEST:
        return whole
    return [f"{name}\n{place}" for name, place in zip(names, places, strict=True)]


def draw_shares(axes, result):
    """Draw each policy's wins, ties and losses as parts of a bar: its run's colour, pale, and grey."""
    overall = [result["win_rates"][policy]["overall"] for policy in result["policies"]]
    for row, (summary, colour) in enumerate(zip(overall, colours(result["policies"]), strict=True)):
        start = 0.0
        for name, shade in {"win": colour, "tie": pale(colour), "loss": PALE}.items():
            share = summary[name] / summary["matches"] if summary["matches"] else 0.0
            label = name if row == 0 else None
            axes.barh(row, share, left=start, height=0.66, color=shade, edgecolor="white", label=label)
            if share >= MIN_SHARE:
                style = {"color": "white" if shade in DARK else INK, "fontsize": 8}
                axes.text(start + share / 2, row, f"{share:.0%}", ha="center", va="center_baseline", **style)
            start += share
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axes.set_xlabel("share of the matches")
    axes.legend(**LEGEND)


def draw_overall(axes, result):
    """Draw each policy's overall rate with its interval, and write the figures at the right."""
    summaries = [result["win_rates"][policy]["overall"] for policy in result["policies"]]
    draw_rates(axes, summaries, result["policies"], markersize=6)
    for row, (policy, colour) in enumerate(zip(result["policies"], colours(result["policies"]), strict=True)):
        for one in seeds_of(policy, result):
            rate = result["win_rates"][one]["overall"]["win_rate_adjusted"]
            if rate is not None:
                axes.plot(rate, row - ABOVE, "|", color=colour, markersize=5, clip_on=False)
    for row, summary in enumerate(summaries):
        axes.annotate(
            figures(summary),
            (1, row),
            xytext=(8, 0),
            textcoords="offset points",
            va="center_baseline",
            annotation_clip=False,
        )
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_xlabel("win_rate_adjusted")


def draw_others(axes, result):
    """Draw each policy's overall rate by other judges, with a legend of their marks."""
    if not result["other_judges"]:
        return
    handles = [axes.plot([], [], **mark("o", INK, 6), label=judge_name(result["judge"]))[0]]
    judges = zip(MARKERS, result["other_judges"].items(), strict=False)
    for number, (marker, (name, other)) in enumerate(judges):
        handles.append(axes.plot([], [], **mark(marker, INK, 4, hollow=True), label=judge_name(name))[0])
        for row, (policy, colour) in enumerate(
            zip(result["policies"], colours(result["policies"]), strict=True)
        ):
            rate = other["win_rates"][policy]["overall"]["win_rate_adjusted"]
            if rate is not None:
                place = row + LOWER + APART * number
                axes.plot(rate, place, **mark(marker, colour, 4, hollow=True), clip_on=False)
    axes.legend(handles=handles, **LEGEND | {"ncols": len(handles), "fontsize": 8, "borderaxespad": 0.5})


def draw_matrix(axes, result):
    """Draw the advantage of the policy of each row over that of each column; a number names a column."""
    from matplotlib.patches import Rectangle

    names = [*result["policies"], result["start"]]
    numbered = [f"{name}  {number}" for number, name in enumerate(labels(names), 1)]
    small = {"fontsize": 9 * NARROW} if any("\n" in name for name in row_names(result)) else {}
    size = len(names)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5))
    axes.set_yticks(range(size), numbered, **small)
    axes.set_xticks(range(size), range(1, size + 1))
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for one in result["comparisons"]:
        if one["advantage"] is None:
            continue
        places = names.index(one["policy"]), names.index(one["other"])
        sure = one["p_corrected"] < 1 - result["confidence"]
        for (row, column), value in zip(
            (places, places[::-1]), (one["advantage"], -one["advantage"]), strict=True
        ):
            colour = (BETTER if value > 0 else WORSE) if sure else "#F7F7F7"
            axes.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, color=colour, linewidth=0))
            style = {
                "fontsize": 8,
                "fontweight": "bold" if sure else "normal",
                "color": INK if sure else MUTED,
            }
            axes.text(column, row, f"{100 * value:+z.0f}", ha="center", va="center_baseline", **style)


def judge_name(name):
    """Return a judge's name (str), short enough for four of them in a line."""
    return name if len(name) <= MAX_JUDGE else f"{name[: MAX_JUDGE - 1]}…"


def mark(marker, colour, size, hollow=False):
    """Return arguments of a mark of a rate."""
    face = {
        "markerfacecolor": "white" if hollow else colour,
        "markeredgecolor": colour if hollow else "white",
    }
    return {"marker": marker, "markersize": size, "linestyle": "none", "markeredgewidth": 1.0, **face}


def lost(result):
    """Return how many matches count, in a sentence, of the policies that lost most; [] where all count."""
    overall = {policy: result["win_rates"][policy]["overall"] for policy in result["policies"]}
    worst = sorted((one for one in overall if overall[one]["error"]), key=lambda one: -overall[one]["error"])
    if not worst:
        return []
    named = [f"{shortened(one)} {winrate.counted(overall[one])}" for one in worst[:MOST_LOST]]
    more = len(worst) - MOST_LOST
    more = f", and {more} more policies lost some" if more > 0 else ""
    return [f"Matches that count: {', '.join(named)}{more}. The rest have no verdict."]


def positions(result):
    """Return how far the main judge follows the answers' positions, in a sentence; [] without matches."""
    found = [result["win_rates"][policy]["position_bias"] for policy in result["policies"]]
    found = [one for one in found if one["consistency"] is not None]
    if not found:
        return []

    def shares(name):
        low, high = min(one[name] for one in found), max(one[name] for one in found)
        return f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"

    return [
        f"Both orders of the answers have the same verdict in {shares('consistency')} of the matches; in "
        f"{shares('biased_toward_first')} the first answer is preferred, in "
        f"{shares('biased_toward_second')} the second."
    ]


def agreements(result):
    """Return how far other judges agree with the main one, in a sentence for each."""
    found = {name: other["agreement"] for name, other in result["other_judges"].items()}
    return [
        f"{shortened(name)} agrees with {shortened(result['judge'])} in {one['share']:.0%} of the matches"
        + (f" (Cohen's kappa {one['kappa']:.2f})." if one["kappa"] is not None else ".")
        for name, one in found.items()
        if one["share"] is not None
    ]


def draw_rates(axes, summaries, policies, markersize):
    """Draw a point and its interval in each row, and the line at one half."""
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for row, (summary, colour) in enumerate(zip(summaries, colours(policies), strict=True)):
        if summary["win_rate_adjusted"] is None:
            continue
        axes.plot(
            [summary["ci_low"], summary["ci_high"]], [row, row], color=colour, linewidth=1.8, clip_on=False
        )
        axes.plot(
            summary["win_rate_adjusted"],
            row,
            marker="o",
            markersize=markersize,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.8,
            clip_on=False,
        )


def figures(summary):
    """Return a rate with its interval as text."""
    if summary["win_rate_adjusted"] is None:
        return "no valid match"
    return f"{summary['win_rate_adjusted']:.2f} [{summary['ci_low']:.2f}, {summary['ci_high']:.2f}]"


def colours(policies):
    """Return one colour for each policy: that of its run."""
    runs = list(dict.fromkeys(map(naming.run_of, policies)))
    return [COLOURS[runs.index(naming.run_of(policy)) % len(COLOURS)] for policy in policies]


def pale(colour):
    """Return a hexadecimal colour (#RRGGBB), mixed with twice as much white."""
    parts = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{(part + 2 * 255) // 3:02X}" for part in parts)


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--winrate", required=True, help="win rates, as compute_winrate writes them (json)")
    parser.add_argument("--out", required=True, help="the picture (png)")
    args = parser.parse_args(argv)

    pictures.save(draw(files.read_json(args.winrate)), args.out)


if __name__ == "__main__":
    errors.run(main)
