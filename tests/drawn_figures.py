"""What a figure shows, and whether anything in it overlaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from headstrong.figures import style


def words_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def assert_tidy(figure: Figure, look: Mapping[str, Any]) -> None:
    """Panels, legends and the heading lie within the figure and beside each other, drawn with these settings."""
    with style.context(look):
        figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    parts = [axis for axis in figure.axes if axis.get_visible()] + [*figure.legends, figure._suptitle]
    boxes = [part.get_tightbbox(renderer) for part in parts]
    for number, box in enumerate(boxes):
        assert min(box.x0, box.y0) >= -1, parts[number]
        assert box.x1 <= figure.bbox.x1 + 1, parts[number]
        assert box.y1 <= figure.bbox.y1 + 1, parts[number]
        for other in boxes[:number]:
            shared = Bbox.intersection(box, other)
            assert shared is None or min(shared.width, shared.height) < 1, (parts[number], box, other)
