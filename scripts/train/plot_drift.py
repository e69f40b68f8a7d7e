"""Plot win rate, rewards and length against KL from the start policy: over-optimization, at a glance.

Each policy is a point, placed by its Kullback-Leibler divergence from the start policy on its own samples.
The panels show win rate, the mean of each cheap reward, and completion length; the start policy's value is
dashed. A policy whose reward rises with KL while its win rate falls, or whose answers only grow, has learnt
the reward and not the goal behind it (Gao et al. 2022, arXiv 2210.10760). Bars are 95 % intervals.

    python -m scripts.train.plot_drift --policies dpo-1 --drift results/training/dpo-1/drift.json \\
        --start sft --winrate results/winrate.json --out results/drift.png
"""

import math

from prefline import errors, files
from prefline import policies as naming
from prefline.config import section
from prefline.reporting import pictures
from prefline.reporting.pictures import COLOURS, GRID, MUTED, STYLE, shortened

# Inches.
WIDTH, TALL = 9.0, 2.1  # of the paper, of a panel
LEFT, EDGE, BETWEEN = 0.75, 0.25, 0.85  # at the sides, between panels abreast
TOP, BELOW, BOTTOM = 1.1, 0.85, 0.6  # over the upper panels, to those below, under the last
LETTER, LINE = 4.9, 9.5  # points of a label: its letters' mean width, its height
Z = 1.96  # standard errors in half a 95 % interval


def panels(policies, drifts, winrate):
    """Return [(title, the start policy's value, values, limits)] of the panels to draw.

    values: [(value, low, high)] of each policy; limits: the least and the largest value that there can be;
    drifts: one dict of measure_drift for each of `policies`; winrate: as compute_winrate writes it.
    """
    rates = [winrate["win_rates"][policy]["overall"] for policy in policies]
    won = [(rate["win_rate_adjusted"], rate["ci_low"], rate["ci_high"]) for rate in rates]
    made = [("Win rate against the start policy", 0.5, won, (0, 1))]
    for name in drifts[0]["rewards"]:
        means = [drift["rewards"][name] for drift in drifts]
        values = [(mean["policy"],) * 3 for mean in means]
        made.append((f"Mean reward: {shortened(name)}", means[0]["start"], values, (-math.inf, math.inf)))
    tokens = [drift["completion_tokens"] for drift in drifts]
    values = [(one["policy"],) * 3 for one in tokens]
    made.append(("Tokens per completion", tokens[0]["start"], values, (0, math.inf)))
    return made


def draw(policies, drifts, start, winrate):
    """Return the figure; start: the start policy's name, the others as `panels` takes them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    shown = panels(policies, drifts, winrate)
    kl = [drift["kl"][start] for drift in drifts]
    bands = -(-len(shown) // 2)
    width = (WIDTH - LEFT - EDGE - BETWEEN) / 2
    height = TOP + bands * TALL + (bands - 1) * BELOW + BOTTOM
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))

        def write(x, top, text, **style):
            figure.text(x / WIDTH, 1 - top / height, text, va="baseline", **style)

        title = f"Win rate and rewards against KL from {shortened(start)}"
        write(EDGE, 0.35, title, fontsize=13, fontweight="bold")
        of = f"{drifts[0]['prompts']:,} held-out prompts, each policy's own samples; lines: 95 % intervals"
        write(EDGE, 0.58, of, color=MUTED)
        for number, (title, at_start, values, limits) in enumerate(shown):
            band, place = divmod(number, 2)
            x, top = LEFT + place * (width + BETWEEN), TOP + band * (TALL + BELOW)
            axes = figure.add_axes([x / WIDTH, 1 - (top + TALL) / height, width / WIDTH, TALL / height])
            write(x, top - 0.14, title, fontweight="bold")
            draw_points(axes, policies, kl, values, at_start, limits)
            if number + 2 >= len(shown):
                axes.set_xlabel(f"KL from {shortened(start)} (nats per completion)")
    return figure


def draw_points(axes, policies, kl, values, at_start, limits):
    """Draw each policy at its KL, joined by run and seed, and the start policy's value as a dashed line.

    limits: the least and the largest value that there can be.
    """
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.axhline(at_start, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    runs, named = list(dict.fromkeys(map(naming.run_of, policies))), []
    for chain in dict.fromkeys(map(naming.chain_of, policies)):
        colour = COLOURS[runs.index(naming.run_of(chain)) % len(COLOURS)]
        own = [place for place, policy in enumerate(policies) if naming.chain_of(policy) == chain]
        own = [place for place in own if values[place][0] is not None]
        at = [kl[place]["nats_per_sequence"] for place in own]
        axes.plot(at, [values[place][0] for place in own], color=colour, linewidth=1.0)
        for place, x in zip(own, at, strict=True):
            value, low, high = values[place]
            error = Z * kl[place]["standard_error_per_sequence"]
            axes.plot([x, x], [low, high], color=colour, linewidth=1.6)
            # The estimate may be below zero, but no KL is.
            axes.plot([max(x - error, min(x, 0)), x + error], [value, value], color=colour, linewidth=1.6)
            axes.plot(x, value, "o", color=colour, markersize=6, markeredgecolor="white", clip_on=False)
            named.append((x, value, shortened(policies[place])))
    axes.margins(x=0.14, y=0.18)
    lowest = min(found["nats_per_sequence"] for found in kl)
    axes.set_xlim(min(lowest * 1.14, 0), axes.get_xlim()[1])
    (bottom, top), (least, most) = axes.get_ylim(), limits
    axes.set_ylim(max(bottom, least), min(top, most))
    points = axes.transData.transform([point[:2] for point in named]) * 72 / axes.figure.dpi if named else []
    lifts = lifted([(x, y, len(name) * LETTER) for (x, y), (_, _, name) in zip(points, named, strict=True)])
    for (x, value, name), lift in zip(named, lifts, strict=True):
        axes.annotate(name, (x, value), xytext=(6, 5 + lift), textcoords="offset points", fontsize=8)


def lifted(labels):
    """Return how much higher (points) each label must be so that none covers another.

    labels: list of (left, bottom, width), in points.
    """
    lifts, done = [0.0] * len(labels), []
    for place in sorted(range(len(labels)), key=lambda place: labels[place][1]):
        left, bottom, width = labels[place]
        for other, low, wide in sorted(done, key=lambda label: label[1]):
            if left < other + wide and other < left + width and low - LINE < bottom < low + LINE:
                bottom = low + LINE
        lifts[place] = bottom - labels[place][1]
        done.append((left, bottom, width))
    return lifts


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--policies", nargs="+", required=True, help="their names, in the order of --drift")
    parser.add_argument("--drift", nargs="+", required=True, help="what measure_drift wrote (json)")
    parser.add_argument("--start", required=True, help="the start policy's name")
    parser.add_argument("--winrate", required=True, help="win rates, as compute_winrate writes them (json)")
    parser.add_argument("--out", required=True, help="the picture (png)")
    args = parser.parse_args(argv)

    drifts = [files.read_json(path) for path in args.drift]
    figure = draw(args.policies, drifts, args.start, files.read_json(args.winrate))
    pictures.save(figure, args.out)


if __name__ == "__main__":
    errors.run(main)
