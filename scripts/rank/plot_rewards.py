"""Draw what a policy's rewards and pairs look like: is there anything to learn, and is it length alone?

The upper part shows the distribution of rewards (all completions, chosen, rejected), and the reward by
length: darker hexagons hold more completions, and lines are the mean and the quartiles of equal groups. The
lower part shows how many tokens longer the chosen completion of a pair is, and the counts. Long tails are cut
off and drawn at the ends of the axes.

    python -m scripts.rank.plot_rewards --policy sft --ranked results/samples/sft/ranked.parquet \\
        --metrics results/samples/sft/preferences.json --out results/samples/sft/rewards.png
"""

import numpy as np
import pyarrow.compute as pc

from prefline import errors, files
from prefline.config import section
from prefline.data import tables
from prefline.reporting import pictures
from prefline.reporting.pictures import COLOURS, GRID, INK, LEGEND, MUTED, PALE, STYLE, shortened

CHOSEN, REJECTED = COLOURS[:2]

# Inches.
WIDTH, HEIGHT = 9.0, 6.7
LEFT, EDGE, BETWEEN = 0.65, 0.2, 0.85  # at the sides, between the panels abreast
TOP, BELOW, BOTTOM = 1.25, 1.15, 0.6  # over the upper panels, to the lower ones, under these
ROW = 0.168  # of the counts

BARS = 40  # at most
HEXAGONS = 36  # across
GROUPS, MIN_GROUP = 10, 5  # of completions of similar length


def span(values):
    """Return (low, high) of an axis for an array of numbers: all of them, or all but long tails."""
    low, high = np.quantile(values, 0.01, method="lower"), np.quantile(values, 0.99, method="higher")
    # Where almost all are equal, the others are what there is to see.
    room = (high - low) / 2 if low < high else np.inf
    low, high = max(values.min(), low - room), min(values.max(), high + room)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def bars(values):
    """Return edges of the bars of whole numbers: a bar holds equally many of them."""
    low, high = (round(end) for end in span(values))
    # Odd, so that zero is a middle: pairs of equal length are on neither side.
    step = -(-(high - low + 1) // BARS) | 1
    return np.arange((low + step // 2) // step * step - step / 2, high + step, step)


def by_length(lengths, rewards):
    """Return [(mean length, mean reward, lower quartile, upper quartile)] of completions grouped by length.

    Completions of one length are in one group, so that there may be fewer groups than GROUPS.
    """
    number = min(GROUPS, max(1, len(lengths) // MIN_GROUP))
    ends = np.unique(np.quantile(lengths, np.arange(1, number + 1) / number, method="higher"))
    groups = np.searchsorted(ends, lengths)
    found = [(lengths[groups == group], rewards[groups == group]) for group in range(len(ends))]
    return [(some.mean(), of.mean(), *np.quantile(of, [0.25, 0.75])) for some, of in found if len(some)]


def gaps(ranked):
    """Return tokens by which chosen is longer than rejected (int array [pairs]); ranked: of tables.RANKED."""
    lengths = {"chosen": {}, "rejected": {}}
    for role, found in lengths.items():
        rows = ranked.filter(pc.field("role") == role)
        found.update(zip(rows["prompt_id"].to_pylist(), rows["length"].to_pylist(), strict=True))
    return np.array([length - lengths["rejected"][one] for one, length in lengths["chosen"].items()])


def draw(policy, ranked, metrics):
    """Return the figure. policy: its name; ranked: a table of tables.RANKED; metrics: of rank_metrics."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    scored = ranked.filter(ranked["reward"].is_valid())
    rewards = scored["reward"].to_numpy().astype(np.float64)
    lengths = scored["length"].to_numpy()
    roles = np.array(scored["role"].to_pylist())
    width = (WIDTH - LEFT - EDGE - BETWEEN) / 2
    tall = (HEIGHT - TOP - BELOW - BOTTOM) / 2
    right, lower = LEFT + width + BETWEEN, TOP + tall + BELOW

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT))

        def panel(x, top):
            """Return Axes; x from the figure's left and top from its upper edge."""
            return figure.add_axes([x / WIDTH, 1 - (top + tall) / HEIGHT, width / WIDTH, tall / HEIGHT])

        def write(x, top, text, **style):
            figure.text(x / WIDTH, 1 - top / HEIGHT, text, va="baseline", **style)

        def head(x, top, title, note):
            write(x, top - 0.3, title, fontweight="bold")
            write(x, top - 0.12, note, color=MUTED, fontsize=8)

        title = f"Rewards of completions by {shortened(policy)}"
        write(EDGE, 0.35, title, fontsize=13, fontweight="bold")
        kept = sum(counts["kept"] for counts in metrics["splits"].values())
        write(EDGE, 0.58, f"{len(rewards):,} completions with a reward, {kept:,} pairs", color=MUTED)

        write(LEFT, TOP - 0.3, "Rewards", fontweight="bold")
        draw_rewards(panel(LEFT, TOP), rewards, roles)
        correlation = metrics["length_reward_correlation"]
        said = "undefined" if correlation is None else number_text(round(correlation, 2))
        head(right, TOP, f"Reward by length: correlation {said}", "mean and quartiles of equal groups")
        draw_by_length(panel(right, TOP), lengths, rewards)
        longer = gaps(ranked)
        gap = metrics["length_gap"]
        said = f"Chosen is {abs(gap):,.1f} tokens {'longer' if gap >= 0 else 'shorter'} on average"
        share = f"in {(longer > 0).mean():.0%} of the pairs longer, in {(longer < 0).mean():.0%} shorter"
        head(LEFT, lower, said, share)
        draw_gaps(panel(LEFT, lower), longer, gap)
        write(right, lower - 0.3, "Counts", fontweight="bold")
        for row, (what, *numbers) in enumerate(counts_in_words(metrics)):
            style = {"color": INK if what else MUTED, "fontsize": 8}
            write(right, lower - 0.12 + ROW * row, what, **style)
            for x, number in zip((width - 0.75, width), numbers, strict=True):
                write(right + x, lower - 0.12 + ROW * row, number, ha="right", **style)
    return figure


def draw_rewards(axes, rewards, roles):
    """Draw the share of all completions, of the chosen and of the rejected in each bar of rewards."""
    (low, high), count = span(rewards), min(BARS, max(5, round(2 * len(rewards) ** 0.5)))
    kinds = {
        "all": (rewards, {"histtype": "stepfilled", "color": PALE}),
        "chosen": (rewards[roles == "chosen"], {"histtype": "step", "color": CHOSEN, "linewidth": 1.5}),
        "rejected": (rewards[roles == "rejected"], {"histtype": "step", "color": REJECTED, "linewidth": 1.5}),
    }
    for name, (values, style) in kinds.items():
        weights = np.full(len(values), 1 / len(values))
        axes.hist(np.clip(values, low, high), count, range=(low, high), weights=weights, label=name, **style)
    axes.legend(fontsize=8, **LEGEND)
    axes.set_xlabel("reward")
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(number_text)
    set_shares(axes)


def draw_by_length(axes, lengths, rewards):
    """Draw all completions as hexagons, and the mean reward of short to long ones with its quartiles."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    (left, right), (low, high) = span(lengths), span(rewards)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    hexagons = axes.hexbin(
        np.clip(lengths, left, right),
        np.clip(rewards, low, high),
        gridsize=(HEXAGONS, HEXAGONS // 2),
        extent=(left, right, low, high),
        mincnt=1,
        linewidths=0.1,
        cmap=LinearSegmentedColormap.from_list("", [PALE, MUTED]),
    )
    hexagons.set_norm(LogNorm(1, max(2, hexagons.get_array().max())))
    for length, mean, lower, upper in by_length(lengths, rewards):
        axes.plot([length, length], [lower, upper], color=CHOSEN, linewidth=1.8)
        axes.plot(length, mean, marker="o", color=CHOSEN, markeredgecolor="white", markeredgewidth=0.8)
    # Half a hexagon more, so that those at the ends are whole.
    across, up = (right - left) / HEXAGONS, (high - low) / HEXAGONS * 2
    axes.set(xlim=(left - across, right + across), ylim=(low - up, high + up))
    axes.set_xlabel("completion tokens")
    axes.set_ylabel("reward")
    axes.yaxis.set_major_formatter(number_text)


def draw_gaps(axes, longer, mean):
    """Draw the share of the pairs in each bar of differences in length."""
    edges = bars(longer)
    weights = np.full(len(longer), 1 / len(longer))
    inside = np.clip(longer, edges[0], edges[-1])
    axes.hist(inside, edges, weights=weights, color=PALE)
    axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.axvline(mean, color=CHOSEN, linewidth=1.8)
    axes.set_xlabel("tokens of chosen minus tokens of rejected; blue: mean")
    set_shares(axes)


def number_text(value, _=None):
    """Return a number as text with a real minus sign; matplotlib would put the exponent into the title."""
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")


def set_shares(axes):
    """Label the vertical axis in percent."""
    from matplotlib.ticker import MaxNLocator

    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")


def counts_in_words(metrics):
    """Return the rows of the counts: a label and two numbers, as texts; no label makes a heading."""
    train, test = metrics["splits"]["train"], metrics["splits"]["test"]

    def both(what, read):
        return what, f"{read(train):,}", f"{read(test):,}"

    counts, margin, ties = metrics["completions"], metrics["margin"], metrics["tie_rate"]
    rows = [("", "train", "test"), both("prompts", lambda split: split["prompts"])]
    rows.append(both("pairs", lambda split: split["kept"]))
    for reason in train["dropped"]:
        said = f"no pair: {reason.replace('_', ' ')}"
        rows.append(both(said, lambda split, reason=reason: split["dropped"][reason]))
    rows += [("", "", "all"), ("completions", "", f"{counts['total']:,}")]
    rows += [(f"   {what.replace('_', ' ')}", "", f"{counts[what]:,}") for what in counts if what != "total"]
    rows.append(("prompts with equal rewards", "", f"{ties:.1%}"))
    rows += [(f"margin of the pairs, {what}", "", f"{margin[what]:.3g}") for what in ("mean", "median")]
    return rows


def main(argv=None):
    parser = section.parser(__doc__)
    parser.add_argument("--policy", required=True, help="its name, for the title")
    parser.add_argument("--ranked", required=True, help="its completions as they were ranked (parquet)")
    parser.add_argument("--metrics", required=True, help="what build_preferences counted (json)")
    parser.add_argument("--out", required=True, help="the picture (png)")
    args = parser.parse_args(argv)

    ranked = tables.read(args.ranked, tables.RANKED)
    pictures.save(draw(args.policy, ranked, files.read_json(args.metrics)), args.out)


if __name__ == "__main__":
    errors.run(main)
