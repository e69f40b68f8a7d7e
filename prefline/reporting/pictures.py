"""What all pictures share: letters, colours, and how they are saved."""

from prefline import files

# Okabe and Ito (2008), without black and yellow: yellow is too pale for points on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"]
INK, MUTED, GRID, PALE = "#222222", "#666666", "#E6E6E6", "#E3E3E3"
MAX_NAME = 24  # characters of a policy's name

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "axes.axisbelow": True,
}
# Of three shares, in a line over the upper left corner of their axes.
LEGEND = {
    "loc": "lower left",
    "bbox_to_anchor": (0, 1),
    "borderaxespad": 0.15,
    "borderpad": 0,
    "ncols": 3,
    "frameon": False,
    "handlelength": 0.9,
    "handleheight": 0.9,
    "handletextpad": 0.4,
    "columnspacing": 1.2,
}


def shortened(name):
    """A policy's name (str), its middle left out where it is long."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}…{name[-8:]}"


def save(figure, path):
    """Write a figure as the png file `path`: a function of its numbers, without matplotlib's version."""
    with files.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200, metadata={"Software": None})
