"""Paired differences in one setting, and mean ranks over several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reports.figures.squares import draw_square
from reports.figures.style import axes_grid, labels, look

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

MIN_SETTINGS = 5
"""Fewer settings give no critical-difference diagram: ranks say little then."""
LETTER = 0.075
"""Inches that a letter of a name or title takes, so that none is cut."""


class Difference(NamedTuple):
    """The paired difference row minus column in one setting, a fraction; rows by shown name.

    `two_pools` where their teachers differ, though no setting does.
    """

    setting: str
    row: str
    column: str
    difference: float
    low: float
    high: float
    two_pools: bool = False


def difference_figure(found: Sequence[Difference]) -> Figure:
    """Draw the paired differences row minus column in points, one panel per setting.

    A number in brackets is not told from zero: its 95 % t interval contains it.

    Args:
        found: of all ordered pairs of rows, the best row first.
    """
    settings = list(dict.fromkeys(one.setting for one in found))
    order = list(dict.fromkeys(one.row for one in found))
    limit = 100 * max(abs(one.difference) for one in found)
    side = 0.5 + LETTER * max(map(len, order)) + 0.42 * len(order)
    width = max(side, 0.3 + LETTER * max(map(len, settings)))
    with look():
        figure, panels = axes_grid(len(settings), width, side, sharey=True)
        for axes, setting in zip(panels, settings, strict=True):
            values, texts = _square([one for one in found if one.setting == setting], order)
            draw_square(axes, values, order, "vlag", (-limit, limit), texts)
            axes.set(title=setting)
    return figure


def _square(part: Sequence[Difference], order: list[str]) -> tuple[np.ndarray, np.ndarray]:
    values = np.full((len(order), len(order)), np.nan)
    texts = np.full(values.shape, "", dtype=object)
    for one in part:
        place = order.index(one.row), order.index(one.column)
        values[place] = 100 * one.difference
        text = f"{values[place]:+.0f}" if abs(values[place]) >= 9.95 else f"{values[place]:+.1f}"
        texts[place] = f"({text})" if one.low <= 0 <= one.high else text
    return values, texts


def critical_difference(n_rows: int, n_settings: int, alpha: float = 0.05) -> float:
    """Return the critical difference of mean ranks: q_α √(k (k + 1) / 6N).

    Source: Nemenyi's test as in Demšar (JMLR 2006), q_α the studentised range over √2.
    """
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - alpha, n_rows, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(n_rows * (n_rows + 1) / (6 * n_settings))


def mean_ranks(frame: pandas.DataFrame) -> pandas.Series:
    """Return the mean rank of each row over the settings in which every row has a result."""
    frame = frame.assign(label=labels(frame))
    table = frame.pivot_table(index="setting", columns="label", values="mean")
    complete = table.dropna(axis="columns")
    return complete.rank(axis="columns", ascending=False).mean().sort_values()


def ranks_figure(frame: pandas.DataFrame) -> Figure:
    """Draw the critical-difference diagram: mean ranks, with bars over indistinguishable rows.

    Args:
        frame: rows of `summary_rows` of one group without oracles, over `MIN_SETTINGS` settings
            or more; a row that lacks a setting is left out.
    """
    ranks = mean_ranks(frame)
    n_settings = frame["setting"].nunique()
    distance = critical_difference(len(ranks), n_settings)
    with look():
        figure, (axes,) = axes_grid(1, 7.0, 1.2 + 0.26 * len(ranks))
        for y, (name, rank) in enumerate(ranks.items()):
            axes.plot([rank], [y], "o", color="#0173b2")
            axes.annotate(
                f"{name}  {rank:.2f}", (rank, y), xytext=(8, -3), textcoords="offset points"
            )
        for place, (first, last) in enumerate(cliques(ranks.to_numpy(), distance)):
            x = ranks.iloc[first] - 0.08 - 0.06 * place
            axes.plot([x, x], [first - 0.2, last + 0.2], color="#333333", lw=3)
        axes.plot([1, 1 + distance], [-1, -1], color="#d55e00", lw=2)
        axes.annotate(f"critical difference {distance:.2f}", (1 + distance, -1), xytext=(6, -3),
                      textcoords="offset points")  # fmt: skip
        axes.set(xlabel=f"mean rank over {n_settings} settings", yticks=[])
        axes.set_xlim(0.5, len(ranks) + 2.5)
        axes.set_ylim(len(ranks) - 0.4, -1.6)
        axes.spines["left"].set_visible(False)
    return figure


def cliques(ranks: np.ndarray, distance: float) -> list[tuple[int, int]]:
    """Return the longest runs (first, last) of sorted ranks within the critical distance."""
    runs: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = int(np.searchsorted(ranks, ranks[first] + distance, side="right")) - 1
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs
