"""Training curves, with the spans in which the curriculum made tasks harder."""

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
    """Draw validation and training curves, a line a fit; shaded: the curriculum's hard phases.

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
            for fit in fits:
                own = frame[frame["fit"] == fit]
                line = own[own["name"] == name].sort_values("step")
                values = line["value"] * (100 if "accuracy" in name else 1)
                if name != "val_accuracy":
                    values = values.rolling(SMOOTH, min_periods=1).mean()
                axes.plot(line["step"], values, color=colours[fit], lw=1.2, label=fit)
                for low, high in hard_spans(own):
                    axes.axvspan(low, high, color=colours[fit], alpha=0.12, lw=0)
            axes.set(xlabel="meta-iteration", ylabel=PANELS[name])
        panels[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def hard_spans(curve: pandas.DataFrame) -> list[tuple[int, int]]:
    """Return the spans of steps (first, last) in which the curriculum's switch was on."""
    switch = curve[curve["name"] == SWITCH].sort_values("step")
    spans: list[tuple[int, int]] = []
    before = False
    for step, on in zip(switch["step"].tolist(), (switch["value"] > 0.5).tolist(), strict=True):
        if on:
            spans = [*spans[:-1], (spans[-1][0], step)] if before else [*spans, (step, step)]
        before = on
    return spans
