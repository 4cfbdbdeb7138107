"""Accuracy against the operations of a prediction: the first picture of README and page."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bench.results.record import Record
from bench.results.store import StoredRecord
from reports.figures.drawing import Drawing
from reports.figures.names import BOLD, FONT, spread_out
from reports.figures.names import HEIGHT as LINE
from reports.figures.names import WIDTH as LETTER
from reports.figures.style import (
    KNOWLEDGE,
    MARKERS,
    axes_grid,
    knowledge_legend,
    look,
    show_a_decade,
)
from reports.rows.groups import Group, make_groups, on_common_seeds
from reports.tables.cost import pareto_front
from reports.tables.summary import summary_rows

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

COST = "macs_per_query_image"
PROTOCOL, BUDGET = "cvpr23", "short"
PRESETS = ("released", "tuned")
PANELS = 2
"""Settings of a group that are drawn."""
WIDTH, HEIGHT = 4.5, 4.1
"""Inches of a panel: two side by side are read at 800 pixels."""
AXES_HEIGHT = 3.0
"""Inches of a panel that its axes take, less than they do."""
SCALE = 0.6
"""Inches left of the axes."""
ALIKE = 1.25
"""Operations of the methods that are named together, in times of the cheapest one's."""
REACH, MOST = 36, 0.6
"""Points from their names to them; and the most that both may take, as a share of the axes."""
DARK_KNOWLEDGE = {
    "parameters": "#4aa8e0",
    "inversion": "#f0883e",
    "features": "#3fc79a",
    "real_data": "#a5adb6",
}
"""The colours of `KNOWLEDGE`, lighter, for a dark page."""
_INK, _PAPER = "#e6edf3", "#0d1117"
_DARK: dict[RcKeyType, object] = {
    "figure.facecolor": _PAPER,
    "axes.facecolor": _PAPER,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": "#30363d",
}


def shown_records(stored: Sequence[StoredRecord], dataset: str) -> list[StoredRecord]:
    """Return the records that the picture of a data set is made of: of the largest group."""
    groups = make_groups([one for one in stored if _is_shown(one.record, dataset)])
    return max((group.stored for group in groups), key=len, default=[])


def _is_shown(record: Record, dataset: str) -> bool:
    p = record.protocol
    plain = p["name"] == PROTOCOL and not record.variant and record.budget["name"] == BUDGET
    usual = p.get("precision", "float32") == "float32" and not p.get("shared_initialisation")
    trained = p["teachers"] == "trained" and record.preset in PRESETS
    where = (record.scenario, record.datasets) == ("SS", [dataset])
    return plain and usual and trained and where and record.status == "done"


def frontier_drawing(stored: Sequence[StoredRecord], dark: bool) -> Drawing | None:
    """Return the picture of some records; None where nothing is to be drawn.

    Args:
        stored: records, see `shown_records`.
        dark: for a dark page.
    """
    return _drawing(make_groups(stored), "frontier-dark" if dark else "frontier", dark)


def group_frontier(group: Group, prefix: str) -> Drawing | None:
    """Return the picture of the first settings of a group; None where nothing is to be drawn.

    Args:
        group: records that share tables.
        prefix: beginning of the file name.
    """
    return _drawing([group], f"{prefix}-frontier", False)


def _rows(group: Group) -> list[dict[str, Any]]:
    """Return the rows of the first settings of a group."""
    names = [group.setting_name(setting) for setting in group.settings[:PANELS]]
    return [row for row in summary_rows(group) if row["setting"] in names]


def _drawing(groups: Sequence[Group], name: str, dark: bool) -> Drawing | None:
    import pandas

    groups, seeds = on_common_seeds(groups)
    known = [row for group in groups for row in _rows(group) if row[COST]]
    if len({row["method"] for row in known if row["knowledge"] != "real_data"}) < 2:
        return None
    frame = best_of_each_method(pandas.DataFrame(known))
    front = "; ".join(
        f"{setting}: "
        + ", ".join(f"{one.method} {100 * one.mean:.1f} % at {one.macs / 1e6:.3g}M" for one in ones)
        for setting, ones in _fronts(frame).items()
    )
    return Drawing(
        name,
        "Accuracy against multiply-accumulates",
        "Percent with 95 % interval over test tasks, the best learner of each method, an "
        "inductive one without calibration where there is one. The line "
        f"joins data-free methods that no other beats in both.{seeds}",
        f"Accuracy against multiply-accumulates per query image.{seeds} Pareto front, {front}.",
        lambda: frontier_figure(frame, dark),
    )


def best_of_each_method(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Return the row of each method's best learner in each setting.

    Of a method with inductive rows, no transductive ones, to which a head would turn it; of one
    with uncalibrated rows, no calibrated ones, which are more than the method.
    """
    for plain in (
        frame["inference"] == "inductive",
        ~frame["learner"].str.contains("+", regex=False),
    ):
        kept = plain.loc[frame.index]
        frame = frame[kept | ~kept.groupby(frame["method"]).transform("any")]
    return frame.loc[sorted(frame.groupby(["setting", "method"])["mean"].idxmax())]


def _fronts(frame: pandas.DataFrame) -> Mapping[str, list[Point]]:
    """Return the points of each setting's front, cheapest first."""
    return {
        str(setting): [points[i] for i in front_of(points)]
        for setting, part in frame.groupby("setting", sort=False)
        if (points := points_of(part))
    }


class Point:
    """A method's place: accuracy and half-width, fractions; operations of one query image."""

    def __init__(self, method: str, knowledge: str, mean: float, ci95: float, macs: float) -> None:
        self.method, self.knowledge = method, knowledge
        self.mean, self.ci95, self.macs = mean, ci95, macs


def points_of(part: pandas.DataFrame) -> list[Point]:
    """Return the points of the rows of one setting."""
    rows = part.to_dict("records")
    return [Point(*(row[k] for k in ("method", "knowledge", "mean", "ci95", COST))) for row in rows]


def front_of(points: Sequence[Point]) -> list[int]:
    """Return the numbers of the data-free points that no other beats in both, cheapest first."""
    free = np.array([i for i, one in enumerate(points) if one.knowledge != "real_data"], dtype=int)
    x, y = (np.array([getattr(points[i], key) for i in free]) for key in ("macs", "mean"))
    return [int(free[i]) for i in pareto_front(x, y)]


def frontier_figure(frame: pandas.DataFrame, dark: bool = False) -> Figure:
    """Draw accuracy in percent against operations on a log axis, one panel per setting.

    Args:
        frame: rows of `summary_rows` of one group, one per method and setting.
        dark: light ink on dark paper.
    """
    settings = list(dict.fromkeys(frame["setting"]))
    with _look(dark):
        figure, panels = axes_grid(len(settings), WIDTH, HEIGHT)
        for axes, setting in zip(panels, settings, strict=True):
            _draw(axes, points_of(frame[frame["setting"] == setting]), dark)
            axes.set_title(setting)
        knowledge_legend(figure, list(frame["knowledge"]), DARK_KNOWLEDGE if dark else KNOWLEDGE)
    return figure


@contextmanager
def _look(dark: bool) -> Iterator[None]:
    import matplotlib

    with look(), matplotlib.rc_context(_DARK if dark else {}):
        yield


def _draw(axes: Axes, points: Sequence[Point], dark: bool) -> None:
    from matplotlib.ticker import EngFormatter

    colours = DARK_KNOWLEDGE if dark else KNOWLEDGE
    front = front_of(points)
    line = [(points[i].macs, 100 * points[i].mean) for i in front]
    axes.plot(*zip(*line, strict=True), color=_INK if dark else "#333333", lw=1, zorder=1)
    for one in points:
        axes.errorbar(
            one.macs, 100 * one.mean, yerr=100 * one.ci95, fmt=MARKERS[one.knowledge],
            color=colours[one.knowledge], markersize=5.5, elinewidth=1.2, zorder=4,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="multiply-accumulates per query image", ylabel="accuracy %")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.12, y=0.12)
    show_a_decade(axes)
    axes.minorticks_off()
    _name(axes, points, front)


def _name(axes: Axes, points: Sequence[Point], front: Collection[int]) -> None:
    """Write names in two columns: left of the cheapest points, and right of the axes."""
    least = min(one.macs for one in points) * ALIKE
    cheap = [i for i, one in enumerate(points) if one.macs <= least]
    costly = [i for i, one in enumerate(points) if one.macs > least]
    beside = max((_width(points[i].method, i in front) for i in costly), default=0.0)
    width = max(_width(points[i].method, i in front) for i in cheap)
    axes_width = 72 * (WIDTH - SCALE) - beside
    _make_room(axes, min((width + REACH) / axes_width, MOST))
    edge = min(width / axes_width, MOST - 0.1)
    _write_column(axes, [(points[i], i in front) for i in cheap], edge, "right")
    _write_column(axes, [(points[i], i in front) for i in costly], 1.02, "left")


def _width(name: str, bold: bool) -> float:
    """Return about how many points a name is wide."""
    return len(name) * LETTER * (BOLD if bold else 1)


def _make_room(axes: Axes, share: float) -> None:
    """Widen a log axis to the left until what is added is a share of its width."""
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    axes.set_xlim(high * (low / high) ** (1 / (1 - share)), high)
    axes.set_xticks(ticks)


def _write_column(
    axes: Axes, named: Sequence[tuple[Point, bool]], x: float, ha: Literal["left", "right"]
) -> None:
    """Write names in a column, each with a line to its point.

    Args:
        axes: where the points are drawn.
        named: each point, and whether its name is bold.
        x: where the names begin or end, as a share of the axes' width.
        ha: the side of the names that is aligned there.
    """
    low, high = axes.get_ylim()
    apart = (high - low) * 0.9 * LINE / (72 * AXES_HEIGHT)
    places = spread_out([100 * one.mean for one, _ in named], apart)
    paper = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
    end = {"left": 0, "right": 1}[ha]
    for (one, bold), place in zip(named, places, strict=True):
        axes.annotate(
            one.method, (one.macs, 100 * one.mean), xytext=(x, place),
            textcoords=axes.get_yaxis_transform(), fontsize=FONT, ha=ha, va="center",
            weight="bold" if bold else "normal", bbox=paper,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "#8b949e", "relpos": (end, 0.5)},
        )  # fmt: skip
