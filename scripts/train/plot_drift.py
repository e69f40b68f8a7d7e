"""Draw what policies got for going away from the start policy: over-optimization, at a glance.

One point for each policy, by its Kullback-Leibler divergence from the start policy on its own samples: its
win rate, the mean of each cheap reward, and the length of its completions; dashed is the start policy.
A policy to the right whose reward rises while its win rate falls, or whose answers only grow, has learnt the
reward and not what it stands for (Gao et al. 2022, arXiv 2210.10760). Bars are 95 % intervals.

    python -m scripts.train.plot_drift --policies dpo-1 --drift results/training/dpo-1/drift.json \\
        --start sft --winrate results/winrate.json --out results/drift.png
"""

from prefline import errors, files
from prefline.config import section
from prefline.reporting import pictures
from prefline.reporting.pictures import COLOURS, GRID, MUTED, STYLE, shortened

# Inches.
WIDTH, TALL = 9.0, 2.1  # of the paper, of a panel
LEFT, EDGE, BETWEEN = 0.75, 0.25, 0.85  # at the sides, between panels abreast
TOP, BELOW, BOTTOM = 1.1, 0.85, 0.6  # over the upper panels, to those below, under the last
Z = 1.96  # standard errors in half a 95 % interval


def panels(policies, drifts, winrate):
    """[(title, the start policy's value, [(value, low, high) of each policy])] of what there is to draw.

    drifts: one dict of measure_drift for each of `policies`; winrate: as compute_winrate writes it.
    """
    rates = [winrate["win_rates"][policy]["overall"] for policy in policies]
    won = [(rate["win_rate_adjusted"], rate["ci_low"], rate["ci_high"]) for rate in rates]
    made = [("Win rate against the start policy", 0.5, won)]
    for name in drifts[0]["rewards"]:
        means = [drift["rewards"][name] for drift in drifts]
        made.append((f"Mean of the reward {name}", means[0]["start"], [(m["policy"],) * 3 for m in means]))
    tokens = [drift["completion_tokens"] for drift in drifts]
    made.append(("Tokens of a completion", tokens[0]["start"], [(one["policy"],) * 3 for one in tokens]))
    return made


def draw(policies, drifts, start, winrate):
    """The figure; start: the start policy's name, the others as `panels` takes them."""
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

        title = f"What policies got for leaving {shortened(start)}"
        write(EDGE, 0.35, title, fontsize=13, fontweight="bold")
        of = f"{drifts[0]['prompts']:,} held-out prompts, each policy's own samples; lines: 95 % intervals"
        write(EDGE, 0.58, of, color=MUTED)
        for number, (title, at_start, values) in enumerate(shown):
            band, place = divmod(number, 2)
            x, top = LEFT + place * (width + BETWEEN), TOP + band * (TALL + BELOW)
            axes = figure.add_axes([x / WIDTH, 1 - (top + TALL) / height, width / WIDTH, TALL / height])
            write(x, top - 0.14, title, fontweight="bold")
            draw_points(axes, policies, kl, values, at_start)
            if number + 2 >= len(shown):
                axes.set_xlabel(f"KL to {shortened(start)}, nats a completion")
    return figure


def draw_points(axes, policies, kl, values, at_start):
    """Each policy at its divergence, the policies of a run joined, and the start policy's value dashed."""
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.axhline(at_start, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    runs = list(dict.fromkeys(policy.rsplit("-", 1)[0] for policy in policies))
    for number, run in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        own = [place for place, policy in enumerate(policies) if policy.rsplit("-", 1)[0] == run]
        own = [place for place in own if values[place][0] is not None]
        at = [kl[place]["nats_per_sequence"] for place in own]
        axes.plot(at, [values[place][0] for place in own], color=colour, linewidth=1.0)
        for place, x in zip(own, at, strict=True):
            value, low, high = values[place]
            error = Z * kl[place]["standard_error_per_sequence"]
            axes.plot([x, x], [low, high], color=colour, linewidth=1.6)
            axes.plot([x - error, x + error], [value, value], color=colour, linewidth=1.6)
            axes.plot(x, value, "o", color=colour, markersize=6, markeredgecolor="white")
            axes.annotate(
                shortened(policies[place]), (x, value), xytext=(6, 5), textcoords="offset points", fontsize=8
            )
    axes.margins(x=0.14, y=0.18)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, 0), right)


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
