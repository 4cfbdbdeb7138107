"""Names beside points, placed without overlap."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
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
BOLD = 1.12
"""How much wider bold letters are."""
AT_ONCE = 3
"""Names that are placed together: more would take long to try."""


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

    Scales and margins of the axes must be set. Names keep off the points, off one another and off
    the line through `first`; the highest come first, and one without room on any side is left out,
    unless it is one of `first`.

    Args:
        axes: where the points are drawn.
        x: (n,) data coordinates.
        y: (n,) the others.
        names: n names.
        first: indices that are always named, in the order of the line that joins them.
    """
    axes.autoscale_view()  # transforms do not follow pending limits
    size = np.asarray(axes.get_window_extent().size) * 72 / axes.figure.dpi
    inside = axes.transAxes.inverted().transform(axes.transData.transform(np.stack([x, y], 1)))
    centres = inside * size
    taken = [_around(centre, MARKER) for centre in centres]
    taken += [_around(point, 1.0) for point in _along(centres[list(first)])]

    order = [*first, *sorted(set(range(len(x))) - set(first), key=lambda i: -y[i])]
    boxes = _together(
        [_free(centres[i], names[i], i in first, size) for i in order[:AT_ONCE]], taken
    )
    for place, index in enumerate(order):
        bold = index in first
        choices = boxes[place : place + 1] or _free(centres[index], names[index], bold, size)
        box = min(choices, key=lambda one: _clashes(one, taken))
        if not bold and (_clashes(box, taken) or not _within(box, size)):
            continue
        taken.append(box)
        axes.annotate(
            names[index], (x[index], y[index]), textcoords="offset points", va="bottom",
            xytext=np.array(box[:2]) - centres[index], fontsize=FONT,
            weight="bold" if bold else "normal",
        )  # fmt: skip


def _free(centre: np.ndarray, name: str, bold: bool, size: np.ndarray) -> list[Box]:
    """Return the places of a name that lie within the axes; one outside where there is none."""
    places = _places(centre, len(name) * WIDTH * (BOLD if bold else 1))
    return [place for place in places if _within(place, size)] or places[:1]


def _clashes(box: Box, taken: Sequence[Box]) -> int:
    return sum(map(box.meets, taken))


def _together(choices: Sequence[Sequence[Box]], taken: Sequence[Box]) -> list[Box]:
    """Return one of the choices for each name, so that the fewest meet what is there or another."""
    alone = {box: _clashes(box, taken) for places in choices for box in places}

    def clashes(boxes: Iterable[Box]) -> int:
        pairs = itertools.combinations(boxes, 2)
        return sum(map(alone.__getitem__, boxes)) + sum(a.meets(b) for a, b in pairs)

    return list(min(itertools.product(*choices), key=clashes))


def _around(point: np.ndarray, reach: float) -> Box:
    x, y = point
    return Box(x - reach, y - reach, x + reach, y + reach)


def _along(corners: np.ndarray) -> np.ndarray:
    """Return points (m, 2) on the line through the corners (n, 2), about two points apart."""
    parts = [np.empty((0, 2))]
    for start, end in itertools.pairwise(corners):
        count = max(2, int(np.linalg.norm(end - start) / 2))
        parts.append(np.linspace(start, end, count))
    return np.concatenate(parts)


def _places(point: np.ndarray, width: float) -> list[Box]:
    """Return where a name may stand: right, left, above and below of a point."""
    x, y = point
    gap = MARKER + 1
    corners = [
        (x + gap, y - HEIGHT / 2),
        (x - gap - width, y - HEIGHT / 2),
        (x - width / 2, y + gap),
        (x - width / 2, y - gap - HEIGHT),
        (x + gap, y + 2),
        (x + gap, y - 2 - HEIGHT),
        (x - width / 3, y + gap),
        (x - width / 3, y - gap - HEIGHT),
        (x - width * 2 / 3, y + gap),
        (x - width * 2 / 3, y - gap - HEIGHT),
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
