"""A matrix of numbers as coloured fields.

As seaborn's heat map, which draws the whole figure again for each of its panels to see whether
labels overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

LIGHT = 0.408
"""Relative luminance above which a field has dark text."""


def draw_square(
    axes: Axes,
    values: np.ndarray,
    names: Sequence[str],
    palette: str,
    span: tuple[float, float],
    texts: np.ndarray | None = None,
    font_size: float = 7,
) -> QuadMesh:
    """Draw a square of fields, the first row on top, and return them for a colour bar.

    Args:
        axes: where.
        values: (n, n); a field that is not a number stays empty.
        names: of the n rows and columns.
        palette: a seaborn palette.
        span: the values of its two ends.
        texts: (n, n), what stands in the fields; None leaves them without text and edges.
        font_size: of the texts, points.
    """
    import seaborn
    from seaborn.utils import relative_luminance

    fields = axes.pcolormesh(
        np.ma.masked_invalid(values), cmap=seaborn.color_palette(palette, as_cmap=True),
        vmin=span[0], vmax=span[1], edgecolors="none" if texts is None else "white",
        linewidth=0 if texts is None else 0.5,
    )  # fmt: skip
    places = range(len(names))
    axes.set(aspect="equal", xlim=(0, len(names)), ylim=(len(names), 0))
    axes.set_xticks([place + 0.5 for place in places], names, rotation=90)
    axes.set_yticks([place + 0.5 for place in places], names)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if texts is None:
        return fields
    for row, column in np.argwhere(np.isfinite(values)):
        light = relative_luminance(fields.to_rgba(values[row, column])) > LIGHT
        axes.text(
            column + 0.5, row + 0.5, str(texts[row, column]), ha="center", va="center",
            fontsize=font_size, color="#262626" if light else "white",
        )  # fmt: skip
    return fields
