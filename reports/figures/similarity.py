"""Similarity of the teachers of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reports.figures.squares import draw_square
from reports.figures.style import axes_grid, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_NUMBERED = 16
"""Pools of more teachers are drawn without a number in each square."""


@dataclass(frozen=True)
class Similarity:
    """Similarity of the teachers of a pool by shown names: (N, N), 1 on the diagonal."""

    pool: str
    names: list[str]
    values: np.ndarray


def similarity_figure(found: Sequence[Similarity]) -> Figure:
    """Draw the linear CKA of each pair of teachers, one panel per pool, 0 (white) to 1 (dark)."""
    side = min(1.8 + 0.3 * max(len(one.names) for one in found), 7.0)
    with look():
        figure, panels = axes_grid(len(found), side + 0.6, side)
        for axes, one in zip(panels, found, strict=True):
            texts = _texts(one.values) if len(one.names) <= MAX_NUMBERED else None
            fields = draw_square(axes, one.values, one.names, "Blues", (0, 1), texts, 6.5)
            bar = figure.colorbar(fields, ax=axes, label="linear CKA", shrink=0.8)
            bar.outline.set_visible(False)
            axes.set(title=one.pool, xlabel="teacher", ylabel="teacher")
            axes.tick_params(labelsize=7)
    return figure


def _texts(values: np.ndarray) -> np.ndarray:
    """Return two digits per field, without the leading zero and without the diagonal."""
    texts = np.array([[f"{value:.2f}".replace("0.", ".", 1) for value in row] for row in values])
    texts[np.diag_indices(len(values))] = ""
    return texts
