"""Where the texts of a picture are drawn: none over another, and all on the paper."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def places(figure):
    """Return [(text, its box)] of a figure's texts, less those at an angle: their boxes are too large."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and not text.get_rotation()
    ]


def check(figure, boxes=None):
    """Assert that no text of a figure overlaps another or leaves the paper; return how many there are.

    boxes: as of `places`, which finds them by default.
    """
    boxes = places(figure) if boxes is None else boxes
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), f"{one!r} overlaps {other!r}"
    return len(boxes)
