"""Accuracy against meta-iterations, over budgets: how far a method gets with how much work."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.results.files import read_parquet
from bench.results.record import Record
from bench.results.store import CURVE, StoredRecord
from reports.figures.curves import hard_steps
from reports.figures.drawing import Drawing
from reports.figures.names import FONT, spread_out
from reports.figures.names import HEIGHT as LINE
from reports.figures.style import KNOWLEDGE, axes_grid, look
from reports.rows.groups import Group, make_groups, on_common_seeds
from reports.tables.chance import meta_iterations

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHOD, PRESETS = "purer", ("released", "tuned")
CALIBRATIONS = ("none", "icfil")
"""The paper's; a transductive head is another question, and was run with one budget."""
PROTOCOL, N_WAY = "cvpr23", 5
REFERENCES = {
    "ensemble_centroids": "centroids",
    "best_teacher": "protonet",
    "average": "maml",
    "random": "maml",
}
"""Rows that cost no meta-iteration, with the learner that is shown."""
MARKERS = "oDs^vP*X"
TICKS = (100, 400, 6_000, 60_000)
"""The meta-iterations of the budgets, of which the last is the published one."""
MARKS_PER_DECADE = 200
"""Of the steps of the gradient switch, as many as can be told apart."""
HEIGHT = 3.8
"""Inches of a panel."""


def budgets_drawing(stored: Sequence[StoredRecord], dataset: str) -> Drawing | None:
    """Return PURER's accuracy against meta-iterations on one data set.

    None where the records have fewer than two numbers of meta-iterations.

    Args:
        stored: records, one for each cell, see `shown_records`.
        dataset: whose test tasks were scored.
    """
    import pandas

    groups, seeds = on_common_seeds(make_groups(stored))
    lines = pandas.DataFrame([row for g in groups for row in _rows(g, METHOD)])
    if lines.empty or lines["meta_iterations"].nunique() < 2:
        return None
    references = pandas.DataFrame(
        [
            row | {"method": name}
            for name, learner in REFERENCES.items()
            for g in groups
            for row in _rows(g, name)
            if row["learner"] == learner and row["preset"] == "released"
        ]
    )
    curves = _curves(groups)
    points = "; ".join(
        f"{row['line']} {row['k_shot']}-shot after {row['meta_iterations']}: "
        f"{100 * row['mean']:.1f} %"
        for row in lines.sort_values(["k_shot", "line", "meta_iterations"]).to_dict("records")
    )
    return Drawing(
        "budgets",
        "Accuracy against meta-iterations",
        "Test accuracy in percent with its 95 % interval over tasks, one point per budget; "
        "horizontal lines: rows that need no meta-iteration. Thin: validation accuracy during the "
        "longest stored run, with ticks where the gradient switch made a pixel step adversarial."
        f"{seeds}",
        f"Accuracy of PURER on {dataset} against the number of meta-iterations.{seeds} {points}.",
        lambda: budgets_figure(lines, references, curves),
    )


def shown_records(stored: Sequence[StoredRecord], dataset: str) -> list[StoredRecord]:
    """Return the records that the figure of a data set is made of."""
    return [one for one in stored if _is_shown(one.record, dataset)]


def _is_shown(record: Record, dataset: str) -> bool:
    plain = record.protocol["name"] == PROTOCOL and not record.variant
    trained = record.protocol["teachers"] == "trained"
    named = record.method in REFERENCES or (record.method == METHOD and record.preset in PRESETS)
    named = named and record.calibration in CALIBRATIONS
    where = (record.scenario, record.datasets, record.n_way) == ("SS", [dataset], N_WAY)
    return plain and trained and named and where


def _rows(group: Group, method: str) -> list[dict[str, Any]]:
    """Return the results of a method in a group as rows; fractions."""
    return [
        {
            "line": f"{row.name} · {row.head}",
            "preset": row.preset,
            "learner": row.head,
            "k_shot": setting.k_shot,
            "meta_iterations": meta_iterations(result.done[0].record),
            "mean": result.mean,
            "ci95": result.ci95,
        }
        for (row, setting), result in group.results.items()
        if row.method == method and not row.variant and result.done
    ]


def _curves(groups: Sequence[Group]) -> dict[int, pandas.DataFrame]:
    """Return the curve of the longest fit of which one is stored, by k_shot."""
    import pandas

    found: dict[int, tuple[int, pandas.DataFrame]] = {}
    for one in (one for group in groups for one in group.stored):
        record, path = one.record, one.folder / CURVE
        if record.method == METHOD and record.preset == "released" and path.exists():
            iterations = record.budget["meta_iterations"]
            if iterations > found.get(record.k_shot, (0, None))[0]:
                found[record.k_shot] = iterations, pandas.DataFrame(read_parquet(path))
    return {k_shot: curve for k_shot, (_, curve) in found.items()}


def budgets_figure(
    lines: pandas.DataFrame, references: pandas.DataFrame, curves: dict[int, pandas.DataFrame]
) -> Figure:
    """Draw accuracy in percent against meta-iterations on a log axis, a panel per k_shot.

    Args:
        lines: columns line, k_shot, meta_iterations, mean, ci95; fractions.
        references: columns method, k_shot, mean.
        curves: by k_shot, a curve as in `curve.parquet`.
    """
    import seaborn

    names = list(dict.fromkeys(lines["line"]))
    palette = seaborn.color_palette("colorblind", len(names))
    colours = dict(zip(names, palette, strict=True))
    shots = sorted(set(lines["k_shot"]))
    with look():
        figure, panels = axes_grid(len(shots), 5.6, HEIGHT)
        for axes, k_shot in zip(panels, shots, strict=True):
            own = references[references["k_shot"] == k_shot] if len(references) else references
            _draw_references(axes, own)
            if k_shot in curves:
                _draw_curve(axes, curves[k_shot])
            for name, marker in zip(names, itertools.cycle(MARKERS), strict=False):
                line = lines[(lines["line"] == name) & (lines["k_shot"] == k_shot)]
                line = line.sort_values("meta_iterations")
                axes.errorbar(
                    line["meta_iterations"], 100 * line["mean"], yerr=100 * line["ci95"],
                    color=colours[name], marker=marker, markersize=4, capsize=2, lw=1.2,
                    label=name,
                )  # fmt: skip
            axes.set(
                xscale="log",
                xlabel="meta-iterations",
                ylabel="accuracy %",
                title=f"{N_WAY}-way {k_shot}-shot",
                xlim=(TICKS[0] / 2, TICKS[-1] * 1.5),
            )
            ticks = sorted({*TICKS, *lines["meta_iterations"]})
            axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        handles, texts = panels[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=3)
    return figure


def _draw_references(axes: Axes, references: pandas.DataFrame) -> None:
    """Draw horizontal lines, named right of the axes, no name over another."""
    rows = references.drop_duplicates("method").to_dict("records")
    means = [100 * row["mean"] for row in rows]
    for mean in means:
        axes.axhline(mean, color=KNOWLEDGE["real_data"], lw=0.9, ls="--")
    low, high = axes.get_ylim()
    places = spread_out(means, (high - low) * LINE / (72 * HEIGHT))
    for row, place in zip(rows, places, strict=True):
        axes.annotate(
            str(row["method"]), (1.01, place), va="center", fontsize=FONT, color="#555555",
            xycoords=axes.get_yaxis_transform(), annotation_clip=False,
        )  # fmt: skip


def _draw_curve(axes: Axes, curve: pandas.DataFrame) -> None:
    validation = curve[(curve["name"] == "val_accuracy") & (curve["step"] > 0)].sort_values("step")
    axes.plot(validation["step"], 100 * validation["value"], color="#999999", lw=0.8)
    marks = {round(MARKS_PER_DECADE * math.log10(step)): step for step in hard_steps(curve)}
    steps = list(marks.values())
    axes.plot(
        steps, [1.0] * len(steps), "|", color="#999999", markersize=4, alpha=0.4,
        transform=axes.get_xaxis_transform(), clip_on=False,
    )  # fmt: skip
