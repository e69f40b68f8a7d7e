"""Set fonts and colours of all pictures, and save them."""

import io

from prefline import files

# Okabe and Ito (2008), without black and yellow: yellow is too pale for points on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"]
INK, MUTED, GRID, PALE = "#222222", "#666666", "#E6E6E6", "#E3E3E3"
MAX_NAME = 24  # characters of a name

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9,
    "text.parse_math": False,  # `$` in a name is a dollar
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


def shortened(name, most=MAX_NAME):
    """Return a name (str) in one line of printable characters, its middle left out beyond `most` of them."""
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    after = most // 3
    return name if len(name) <= most else f"{name[: most - after - 1]}…{name[-after:]}"


def labels(names):
    """Return names (list of str) shortened; those that would then be the same are whole, in two lines."""
    short = [shortened(name) for name in names]
    return [
        _in_two_lines(name) if short.count(each) > 1 and each != name else each
        for name, each in zip(names, short, strict=True)
    ]


def _in_two_lines(name):
    breaks = [place + 1 for place, letter in enumerate(name) if letter in "_-"] or [len(name) // 2]
    place = min(breaks, key=lambda place: abs(place - len(name) / 2))
    return f"{name[:place]}\n{name[place:]}"


def save(figure, path):
    """Write a figure as the png file `path`: a function of its numbers, without matplotlib's version.

    256 colours differ by at most 4 of 255 from all, and take a third of the room.
    """
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=200, pil_kwargs={"compress_level": 1})
    few = Image.open(drawn).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE)
    with files.atomic(path) as temporary:
        few.save(temporary, format="png", compress_level=9, dpi=(200, 200))
