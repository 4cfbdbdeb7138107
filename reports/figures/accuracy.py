"""Accuracy with intervals, and accuracy against a varied setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.figures.names import FONT, HEIGHT, spread_out
from reports.figures.style import KNOWLEDGE, MARKERS, axes_grid, knowledge_legend, labels, look

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AGAINST = {
    "k_shot": "shots (support images a class)",
    "teachers": "teachers in the pool",
    "meta_iterations": "meta-iterations",
}


def accuracy_figure(frame: pandas.DataFrame) -> Figure:
    """Draw each method's accuracy in percent with its 95 % interval, one panel per setting.

    Thin lines reach over other test classes where that interval is known. A dotted line marks
    guessing.

    Args:
        frame: rows of `reports.tables.build.summary.summary_rows` of one group.
    """
    frame = frame.assign(label=labels(frame))
    order = list(frame.groupby("label")["mean"].mean().sort_values().index)
    settings = list(dict.fromkeys(frame["setting"]))
    with look():
        figure, panels = axes_grid(len(settings), 4.2, 0.9 + 0.26 * len(order), sharey=True)
        for axes, setting in zip(panels, settings, strict=True):
            part = frame[frame["setting"] == setting]
            for row in part.itertuples():
                y, colour = order.index(row.label), KNOWLEDGE[row.knowledge]
                if row.open_low == row.open_low and row.open_low is not None:
                    axes.plot([100 * row.open_low, 100 * row.open_high], [y, y], color=colour, lw=1)
                half = 100 * row.ci95
                axes.errorbar(
                    100 * row.mean, y, xerr=half, fmt=MARKERS[row.knowledge], color=colour,
                    markersize=5, elinewidth=2.4,
                )  # fmt: skip
            axes.axvline(100 / part["n_way"].iloc[0], color="#555555", linestyle=":", linewidth=1)
            axes.set(title=setting, xlabel="accuracy %", yticks=range(len(order)))
            axes.set_yticklabels(order)
            axes.grid(axis="y", visible=False)
        knowledge_legend(figure, list(frame["knowledge"]))
    return figure


def against_figure(frame: pandas.DataFrame, x: str) -> Figure:
    """Draw accuracy in percent against a varied setting: a line per method, a panel per data set.

    Colours and markers say the kind of knowledge; the names stand at the lines' ends.

    Args:
        frame: rows of `summary_rows` with the name to show, `label`, and at least two values of
            `x` for each line.
        x: a key of `AGAINST`.
    """
    panels_of = list(dict.fromkeys(zip(frame["dataset"], frame["n_way"], strict=True)))
    most = max(part["label"].nunique() for _, part in frame.groupby(["dataset", "n_way"]))
    height = max(3.4, 1.0 + 0.15 * most)
    with look():
        figure, panels = axes_grid(len(panels_of), 5.2, height)
        for axes, (dataset, n_way) in zip(panels, panels_of, strict=True):
            part = frame[(frame["dataset"] == dataset) & (frame["n_way"] == n_way)]
            lines = [line.sort_values(x) for _, line in part.groupby("label", sort=False)]
            for line in lines:
                kind = line["knowledge"].iloc[0]
                axes.errorbar(
                    line[x], 100 * line["mean"], yerr=100 * line["ci95"], color=KNOWLEDGE[kind],
                    marker=MARKERS[kind], markersize=4, capsize=2, lw=1.2,
                    linestyle="--" if kind == "real_data" else "-",
                )  # fmt: skip
            axes.set(title=f"{dataset} {n_way}-way", xlabel=AGAINST[x], ylabel="accuracy %")
            axes.set_xticks(sorted(set(part[x])))
            _name_ends(axes, lines, x, height - 0.9)
        knowledge_legend(figure, list(frame["knowledge"]))
    return figure


def _name_ends(axes: Axes, lines: Sequence[pandas.DataFrame], x: str, height: float) -> None:
    """Write each line's name right of its end, in its colour; `height` of the axes in inches."""
    low, high = axes.get_ylim()
    ends = [line.iloc[-1] for line in lines]
    heights = [100 * end["mean"] for end in ends]
    places = spread_out(heights, (high - low) * HEIGHT / (72 * height))
    for end, mean, place in zip(ends, heights, places, strict=True):
        axes.annotate(
            end["label"], (end[x], mean), xytext=(1.03, place),
            textcoords=axes.get_yaxis_transform(), fontsize=FONT, va="center",
            color=KNOWLEDGE[end["knowledge"]],
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "#999999", "relpos": (0, 0.5)},
        )  # fmt: skip
