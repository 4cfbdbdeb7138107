"""Accuracy with intervals, and accuracy against what is varied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.figures.style import KNOWLEDGE, MARKERS, axes_grid, knowledge_legend, labels, look

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

AGAINST = {
    "k_shot": "shots (support images a class)",
    "teachers": "teachers in the pool",
    "meta_iterations": "meta-iterations",
}


def accuracy_figure(frame: pandas.DataFrame) -> Figure:
    """Draw each method's accuracy in percent with its 95 % interval over tasks, a panel a setting.

    Thin lines reach over other test classes where that interval is known. A dotted line marks
    guessing.

    Args:
        frame: rows of `reports.summary.summary_rows` of one group.
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
        kinds = list(frame["knowledge"])
        knowledge_legend(panels[-1], kinds, loc="lower right")
    return figure


def against_figure(frame: pandas.DataFrame, x: str) -> Figure:
    """Draw accuracy in percent against what is varied, a line a method, a panel a data set.

    Args:
        frame: rows of `summary_rows`, with at least two values of `x` for each line.
        x: a key of `AGAINST`.
    """
    import seaborn

    frame = frame.assign(label=labels(frame))
    order = list(frame.groupby("label")["mean"].mean().sort_values(ascending=False).index)
    colours = dict(zip(order, seaborn.color_palette("colorblind", len(order)), strict=True))
    panels_of = list(dict.fromkeys(zip(frame["dataset"], frame["n_way"], strict=True)))
    with look():
        figure, panels = axes_grid(len(panels_of), 4.2, 3.4)
        for axes, (dataset, n_way) in zip(panels, panels_of, strict=True):
            part = frame[(frame["dataset"] == dataset) & (frame["n_way"] == n_way)]
            for label in order:
                line = part[part["label"] == label].sort_values(x)
                if len(line):
                    kind = line["knowledge"].iloc[0]
                    axes.errorbar(
                        line[x], 100 * line["mean"], yerr=100 * line["ci95"],
                        label=label, color=colours[label], marker=MARKERS[kind], markersize=4,
                        capsize=2, linestyle="--" if kind == "real_data" else "-",
                    )  # fmt: skip
            axes.set(title=f"{dataset} {n_way}-way", xlabel=AGAINST[x], ylabel="accuracy %")
            axes.set_xticks(sorted(set(part[x])))
        panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
