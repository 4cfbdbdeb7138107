"""Accuracy against the share of a pool's teachers that cannot be trusted, a line per method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.results.record import Record
from bench.results.store import StoredRecord
from reports.figures.drawing import Drawing
from reports.figures.style import axes_grid, look
from reports.rows.groups import Group, make_groups

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

SHARE, KIND = "untrustworthy_share", "untrustworthy_kind"
SUITE = "untrustworthy"
MARKERS = "oDs^vP*X"
HEIGHT = 3.8
"""Inches of a panel."""


def shown_records(stored: Sequence[StoredRecord], dataset: str) -> list[StoredRecord]:
    """Return the records that the figure of a data set is made of."""
    return [one for one in stored if _is_shown(one.record, dataset)]


def _is_shown(record: Record, dataset: str) -> bool:
    trained = record.protocol["teachers"] == "trained" and record.protocol[KIND] == "accuracy"
    return record.suite == SUITE and trained and record.datasets == [dataset]


def untrustworthy_drawing(stored: Sequence[StoredRecord], dataset: str) -> Drawing | None:
    """Return accuracy against the share of untrustworthy teachers; None for a single share.

    Args:
        stored: records, one for each cell, see `shown_records`.
        dataset: whose test tasks were scored.
    """
    import pandas

    lines = pandas.DataFrame([row for group in make_groups(stored) for row in _rows(group)])
    if lines.empty or lines["share"].nunique() < 2:
        return None
    points = "; ".join(
        f"{row['line']} {row['k_shot']}-shot at {row['share']:.0%}: {100 * row['mean']:.1f} %"
        for row in lines.sort_values(["k_shot", "line", "share"]).to_dict("records")
    )
    return Drawing(
        "untrustworthy",
        "Accuracy against the share of untrustworthy teachers",
        "Test accuracy in percent with its 95 % interval over tasks; the untrustworthy teachers "
        "have random weights and report 99 % held-out accuracy. Dotted: guessing.",
        f"Accuracy on {dataset} against the share of untrustworthy teachers. {points}.",
        lambda: untrustworthy_figure(lines),
    )


def _rows(group: Group) -> list[dict[str, Any]]:
    """Return the results of a group as rows; fractions."""
    return [
        {
            "line": f"{row.method}{f' ({row.preset})' * (row.preset != 'released')} · {row.head}",
            "share": group.first.protocol[SHARE],
            "k_shot": setting.k_shot,
            "n_way": setting.n_way,
            "mean": result.mean,
            "ci95": result.ci95,
        }
        for (row, setting), result in group.results.items()
        if result.done
    ]


def untrustworthy_figure(lines: pandas.DataFrame) -> Figure:
    """Draw accuracy in percent against the share in percent, a panel per k_shot.

    Args:
        lines: columns line, share, k_shot, n_way, mean, ci95; fractions.
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
                line = panel[panel["line"] == name].sort_values("share")
                axes.errorbar(
                    100 * line["share"], 100 * line["mean"], yerr=100 * line["ci95"],
                    color=colour, marker=MARKERS[number % len(MARKERS)], markersize=4,
                    capsize=2, lw=1.2, label=name,
                )  # fmt: skip
            n_way = panel["n_way"].iloc[0]
            axes.axhline(100 / n_way, color="#555555", lw=0.9, ls=":")
            axes.set(
                xlabel="untrustworthy teachers, % of the pool",
                ylabel="accuracy %",
                title=f"{n_way}-way {k_shot}-shot",
            )
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=3)
    return figure
