"""Accuracy against cost, with the Pareto front, and throughput."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reports.figures.names import name_points
from reports.figures.style import (
    KNOWLEDGE,
    MARKERS,
    axes_grid,
    knowledge_legend,
    labels,
    look,
    show_a_decade,
)
from reports.tables.cost import pareto_front

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

LEAST_FIT = 0.01
"""Fits below this many seconds are drawn there: nothing was trained."""
COSTS = {
    "macs_per_query_image": "multiply-accumulates a query image",
    "fit_s": f"fit, seconds (at least {LEAST_FIT:g})",
}
FRONTS = {"inductive": "-", "transductive": "--"}
"""Lines of the Pareto fronts."""
RATES = {
    "train_tasks_per_s": "meta-training tasks/s",
    "pseudo_images_per_s": "pseudo images/s",
    "test_tasks_per_s": "test tasks/s",
}


def pareto_figure(frame: pandas.DataFrame, cost: str) -> Figure:
    """Draw accuracy in percent against a cost, one panel per setting, with the Pareto front.

    Inductive and transductive rows each have a front, the latter dashed. Oracles stand outside.

    Args:
        frame: rows of `reports.tables.summary.summary_rows` of one group, with the cost known.
        cost: a key of `COSTS`.
    """
    from matplotlib.ticker import EngFormatter, LogLocator

    frame = frame.assign(label=labels(frame))
    if cost == "fit_s":
        frame = frame.assign(fit_s=frame["fit_s"].clip(lower=LEAST_FIT))
    settings = list(dict.fromkeys(frame["setting"]))
    with look():
        figure, panels = axes_grid(len(settings), 4.4, 3.4)
        for axes, setting in zip(panels, settings, strict=True):
            part = frame[frame["setting"] == setting]
            x, y = part[cost].to_numpy(float), 100 * part["mean"].to_numpy(float)
            free = (part["knowledge"] != "real_data").to_numpy()
            front: list[int] = []
            for inference, line in FRONTS.items():
                mine = np.flatnonzero(free & (part["inference"] == inference).to_numpy())
                best = mine[pareto_front(x[mine], y[mine])]
                axes.plot(x[best], y[best], line, color="#333333", lw=1, zorder=1)
                front += best.tolist()
            for row in part.itertuples():
                axes.errorbar(
                    getattr(row, cost), 100 * row.mean, yerr=100 * row.ci95,
                    fmt=MARKERS[row.knowledge], color=KNOWLEDGE[row.knowledge], markersize=5,
                )  # fmt: skip
            axes.set(title=setting, xlabel=COSTS[cost], ylabel="accuracy %", xscale="log")
            axes.margins(x=0.33, y=0.12)
            show_a_decade(axes)
            few = x.max() / x.min() < 100
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if few else (1,)))
            axes.xaxis.set_major_formatter(EngFormatter(sep="") if cost != "fit_s" else "{x:g}")
            axes.minorticks_off()
            name_points(axes, x, y, list(part["label"]), front)
        knowledge_legend(figure, list(frame["knowledge"]))
    return figure


def throughput_figure(frame: pandas.DataFrame) -> Figure:
    """Draw the rates of fits and tests on a log axis, one panel per rate, mean over the rows.

    Args:
        frame: rows of `reports.tables.build.summary.rate_rows` of one group.
    """
    from matplotlib.ticker import EngFormatter, LogLocator

    frame = frame.assign(label=labels(frame))
    shown = [rate for rate in RATES if frame[rate].notna().any()]
    kinds = frame.groupby("label")["knowledge"].first()
    with look():
        order = list(frame.groupby("label")["test_tasks_per_s"].mean().sort_values().index)
        figure, panels = axes_grid(len(shown), 3.8, 0.9 + 0.26 * len(order), sharey=True)
        for axes, rate in zip(panels, shown, strict=True):
            means = frame.groupby("label")[rate].mean().dropna()
            for name, value in zip(means.index, means, strict=True):
                y, kind = order.index(name), kinds[name]
                axes.plot([value], [y], MARKERS[kind], color=KNOWLEDGE[kind])
                axes.annotate(
                    f"{value:.3g}" if value < 1000 else f"{value:.0f}",
                    (value, y), xytext=(7, -3), textcoords="offset points", fontsize=7,
                )  # fmt: skip
            axes.set(xscale="log", xlabel=RATES[rate], yticks=range(len(order)))
            axes.set_yticklabels(order)
            axes.set_xlim(means.min() / 2, means.max() * 4)
            axes.xaxis.set_major_locator(LogLocator())
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.minorticks_off()
    return figure
