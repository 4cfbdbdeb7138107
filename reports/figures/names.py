"""Names beside points, none over another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FONT = 7
"""Points."""
WIDTH, HEIGHT = 0.58 * FONT, 1.25 * FONT
"""Of a letter and of a line, points: a little more than they are."""
MARKER = 4
"""Half the side of a marker, points."""


class Box(NamedTuple):
    """A rectangle in points from the lower left of the axes."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Tell whether two rectangles overlap."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.top <= other.bottom or other.top <= self.bottom)


def name_points(
    axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], first: Sequence[int]
) -> None:
    """Write names beside points where there is room: those of `first` in bold, before the rest.

    Scales and margins of the axes must be set; a name without room on any side is left out, unless
    it is one of `first`.

    Args:
        axes: where the points are drawn.
        x, y: (n,) data coordinates.
        names: n names.
        first: indices that are always named.
    """
    axes.autoscale_view()  # transforms do not follow pending limits
    size = axes.get_window_extent().size * 72 / axes.figure.dpi
    inside = axes.transAxes.inverted().transform(axes.transData.transform(np.stack([x, y], 1)))
    centres = inside * size
    taken = [Box(cx - MARKER, cy - MARKER, cx + MARKER, cy + MARKER) for cx, cy in centres]
    for index in sorted(range(len(x)), key=lambda i: (i not in first, -y[i])):
        bold = index in first
        places = _places(*centres[index], len(names[index]) * WIDTH * (1.12 if bold else 1))
        fits = [p for p in places if _within(p, size) and not any(map(p.meets, taken))]
        if not fits and not bold:
            continue
        box = (fits or places)[0]
        taken.append(box)
        axes.annotate(
            names[index], (x[index], y[index]), textcoords="offset points", va="bottom",
            xytext=np.array(box[:2]) - centres[index], fontsize=FONT,
            weight="bold" if bold else "normal",
        )  # fmt: skip


def _places(x: float, y: float, width: float) -> list[Box]:
    """Return where a name may stand: right, left, above and below of a point."""
    gap = MARKER + 1
    corners = [
        (x + gap, y - HEIGHT / 2),
        (x - gap - width, y - HEIGHT / 2),
        (x - width / 2, y + gap),
        (x - width / 2, y - gap - HEIGHT),
        (x + gap, y + 2),
        (x + gap, y - 2 - HEIGHT),
    ]
    return [Box(left, bottom, left + width, bottom + HEIGHT) for left, bottom in corners]


def _within(box: Box, size: np.ndarray) -> bool:
    return box.left >= 0 and box.bottom >= 0 and box.right <= size[0] and box.top <= size[1]


def spread_out(values: Sequence[float], least: float) -> np.ndarray:
    """Return places near the values (n,), in their order, that lie at least `least` apart.

    Neighbours that are too close are pushed apart around their common centre.
    """
    order = np.argsort(values, kind="stable")
    groups: list[list[float]] = []  # of sorted values, each: centre, count
    for value in np.asarray(values, dtype=float)[order]:
        groups.append([float(value), 1])
        while len(groups) > 1 and _close(groups[-2], groups[-1], least):
            (a, m), (b, n) = groups[-2:]
            groups[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    places = [c + least * (i - (n - 1) / 2) for c, n in groups for i in range(int(n))]
    found = np.empty(len(places))
    found[order] = places
    return found


def _close(low: Sequence[float], high: Sequence[float], least: float) -> bool:
    return high[0] - low[0] < least * (low[1] + high[1]) / 2
