"""How alike the teachers of a pool are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reports.figures.squares import draw_square
from reports.figures.style import axes_grid, look

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

MAX_NUMBERED = 16
"""Pools of more teachers are drawn without a number in each square."""


def similarity_figure(frame: pandas.DataFrame) -> Figure:
    """Draw the linear CKA of each pair of teachers, a panel a pool, from 0 (white) to 1 (dark).

    Args:
        frame: columns pool (shown name), a, b (shown names of teachers, in the pool's order), cka;
            a row an ordered pair, with itself too.
    """
    pools = list(dict.fromkeys(frame["pool"]))
    largest = max(part["a"].nunique() for _, part in frame.groupby("pool"))
    side = min(1.8 + 0.3 * largest, 7.0)
    with look():
        figure, panels = axes_grid(len(pools), side + 0.6, side)
        for axes, pool in zip(panels, pools, strict=True):
            part = frame[frame["pool"] == pool]
            names = list(dict.fromkeys(part["a"]))
            values = part["cka"].to_numpy(float).reshape(len(names), len(names))
            numbered = len(names) <= MAX_NUMBERED
            texts = _texts(values) if numbered else None
            fields = draw_square(axes, values, names, "Blues", (0, 1), texts, 6.5)
            figure.colorbar(fields, ax=axes, label="linear CKA", shrink=0.8).outline.set_visible(
                False
            )
            axes.set(title=pool, xlabel="teacher", ylabel="teacher")
            axes.tick_params(labelsize=7)
    return figure


def _texts(values: np.ndarray) -> np.ndarray:
    """Return two digits a square, without the leading zero and without the diagonal's ones."""
    texts = np.array([[f"{value:.2f}".replace("0.", ".", 1) for value in row] for row in values])
    texts[np.diag_indices(len(values))] = ""
    return texts
