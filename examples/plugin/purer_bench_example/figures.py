"""A figure, drawn from the frame of all records."""

from __future__ import annotations

import pandas
from matplotlib.figure import Figure


def fit_time(frame: pandas.DataFrame) -> Figure | None:
    """Accuracy against the time of the fit.

    One point per cell; the axis of time is logarithmic.
    """
    done = frame[(frame["status"] == "done") & (frame["fit_s"] > 0)]
    if done.empty:
        return None
    figure = Figure(figsize=(4.5, 3))
    axes = figure.add_subplot()
    for method, cells in done.groupby("method"):
        axes.plot(cells["fit_s"], 100 * cells["accuracy_mean"], "o", label=method)
    axes.set(xscale="log", xlabel="fit, seconds", ylabel="accuracy, percent")
    axes.legend()
    return figure
