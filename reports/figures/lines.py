"""Accuracy against a quantity that a suite varies: a panel per k_shot, a line per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.results.record import Record
from bench.results.store import StoredRecord
from reports.figures.style import axes_grid, look
from reports.rows.groups import make_groups, on_common_seeds
from reports.rows.results import Row

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "oDs^vP*X"
HEIGHT = 3.8
"""Inches of a panel."""
GREY = "#555555"


def line_rows(
    stored: Sequence[StoredRecord],
    line: Callable[[Row, Record], str],
    x: Callable[[Record], float | None],
) -> list[dict[str, Any]]:
    """Return one dict per result: line, x, k_shot, n_way, and the fractions mean and ci95.

    Of the seeds that all have, where there are some.

    Args:
        stored: records, one for each cell.
        line: the name of the line that a row of tables belongs to.
        x: the quantity that is varied, None where a record has none.
    """
    return [
        {
            "line": line(row, result.done[0].record),
            "x": x(result.done[0].record),
            "k_shot": setting.k_shot,
            "n_way": setting.n_way,
            "mean": result.mean,
            "ci95": result.ci95,
        }
        for group in on_common_seeds(make_groups(stored))[0]
        for (row, setting), result in group.results.items()
        if result.done
    ]


def seeds_said(stored: Sequence[StoredRecord]) -> str:
    """Return of which seeds `line_rows` are, for a caption; nothing where all have the same."""
    return on_common_seeds(make_groups(stored))[1]


def in_words(lines: pandas.DataFrame, place: str) -> str:
    """Return all points in words, for who cannot see the figure.

    Args:
        lines: as `lines_figure` takes them.
        place: how x is said, as `at {:.0f} %`.
    """
    return "; ".join(
        f"{row['line']} {row['k_shot']}-shot {place.format(row['x'])}: {100 * row['mean']:.1f} %"
        for row in lines.sort_values(["k_shot", "line", "x"]).to_dict("records")
    )


def lines_figure(
    lines: pandas.DataFrame,
    label: str,
    chance: bool = False,
    ticks: Mapping[float, str] | None = None,
    references: pandas.DataFrame | None = None,
) -> Figure:
    """Draw accuracy in percent with its interval; the lines in the order of their best accuracy.

    Args:
        lines: columns line, x, k_shot, n_way, mean, ci95; the last two are fractions.
        label: of the x axis.
        chance: whether guessing is drawn, dotted.
        ticks: the marked places of a log axis, with their words; None: a linear axis.
        references: rows without x, drawn as dashed lines with their names: columns line, k_shot,
            mean.
    """
    import seaborn

    names = list(lines.groupby("line")["mean"].max().sort_values(ascending=False).index)
    colours = seaborn.color_palette("colorblind", len(names))
    shots = sorted(set(lines["k_shot"]))
    with look():
        figure, panels = axes_grid(len(shots), 5.6, HEIGHT)
        for axes, k_shot in zip(panels, shots, strict=True):
            panel = lines[lines["k_shot"] == k_shot]
            for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
                line = panel[panel["line"] == name].sort_values("x")
                axes.errorbar(
                    line["x"], 100 * line["mean"], yerr=100 * line["ci95"],
                    color=colour, marker=MARKERS[number % len(MARKERS)], markersize=4,
                    capsize=2, lw=1.2, label=name,
                )  # fmt: skip
            n_way = panel["n_way"].iloc[0]
            if chance:
                axes.axhline(100 / n_way, color=GREY, lw=0.9, ls=":")
            if ticks:
                axes.set_xscale("log")
                axes.set_xticks([*ticks], [*ticks.values()], minor=False)
                axes.set_xticks([], minor=True)
            if references is not None:
                _draw_references(axes, references[references["k_shot"] == k_shot])
            axes.set(xlabel=label, ylabel="accuracy %", title=f"{n_way}-way {k_shot}-shot")
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=3)
    return figure


def _draw_references(axes: Axes, references: pandas.DataFrame) -> None:
    for name, mean in zip(references["line"], references["mean"], strict=True):
        axes.axhline(100 * mean, color=GREY, lw=0.9, ls="--")
        axes.annotate(
            name, (1, 100 * mean), xycoords=axes.get_yaxis_transform(), xytext=(-2, 2),
            textcoords="offset points", ha="right", va="bottom", fontsize=7.5, color=GREY,
        )  # fmt: skip
