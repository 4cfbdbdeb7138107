"""Training curves, with the adversarial steps of the curriculum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.figures.style import axes_grid, look

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

SWITCH = "adversarial"
PANELS = {
    "val_accuracy": "validation accuracy %",
    "query_accuracy": "training query accuracy %",
    "outer_loss": "outer loss",
}
SMOOTH = 25
"""Points over which training curves are averaged; validation is shown as it is."""


def curves_figure(frame: pandas.DataFrame) -> Figure:
    """Draw validation and training curves, one line per fit; ticks above mark adversarial steps.

    Args:
        frame: columns fit (shown name), step, name, value, as in `curve.parquet`.
    """
    import seaborn

    fits = list(dict.fromkeys(frame["fit"]))
    colours = dict(zip(fits, seaborn.color_palette("colorblind", len(fits)), strict=True))
    shown = [name for name in PANELS if (frame["name"] == name).any()]
    with look():
        figure, panels = axes_grid(len(shown), 4.4, 3.2)
        for axes, name in zip(panels, shown, strict=True):
            for place, fit in enumerate(fits):
                own = frame[frame["fit"] == fit]
                line = own[own["name"] == name].sort_values("step")
                values = line["value"] * (100 if "accuracy" in name else 1)
                if name != "val_accuracy":
                    values = values.rolling(SMOOTH, min_periods=1).mean()
                axes.plot(line["step"], values, color=colours[fit], lw=1.2, label=fit)
                if steps := hard_steps(own):
                    axes.plot(
                        steps, [1.02 + 0.025 * place] * len(steps), "|", color=colours[fit],
                        markersize=5, transform=axes.get_xaxis_transform(), clip_on=False,
                    )  # fmt: skip
            axes.set(xlabel="meta-iteration", ylabel=PANELS[name])
            if name == "outer_loss" and _spans_decades(frame[frame["name"] == name]["value"]):
                axes.set_yscale("log")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _spans_decades(values: pandas.Series) -> bool:
    """Tell whether values are better drawn on a log axis: all positive, and far apart."""
    return bool(values.min() > 0 and values.max() > 100 * values.min())


def hard_steps(curve: pandas.DataFrame) -> list[int]:
    """Return the steps in which the curriculum's switch was on, in order."""
    switch = curve[(curve["name"] == SWITCH) & (curve["value"] > 0.5)]
    return sorted(switch["step"].tolist())
