"""Style and file formats of figures: SVG and PDF for papers, PNG for slides."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

FORMATS = ("svg", "pdf", "png")
PNG_DPI = 150
KNOWLEDGE = {
    "parameters": "#0173b2",
    "inversion": "#d55e00",
    "features": "#029e73",
    "real_data": "#949494",
}
"""Colours of the kinds of knowledge, of seaborn's colour-blind palette; markers say it again."""
MARKERS = {"parameters": "o", "inversion": "D", "features": "s", "real_data": "^"}
WORDS = {
    "parameters": "parameters",
    "inversion": "inversion",
    "features": "features",
    "real_data": "oracle (real data)",
}

_LOOK: dict[RcKeyType, object] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "purer-bench",
    "pdf.fonttype": 42,
}


@contextmanager
def look() -> Iterator[None]:
    """Apply the style within the block; matplotlib's settings outside do not change."""
    import matplotlib

    with matplotlib.rc_context(_LOOK):
        yield


MAX_WIDTH = 13.5
"""Inches; wider figures become too small on a page, so that further panels go below."""


def axes_grid(
    n: int, width: float, height: float, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure of n axes side by side, at most three per row, with inches per panel."""
    from matplotlib.figure import Figure

    columns = max(1, min(n, 3, int(MAX_WIDTH // width)))
    rows = -(-n // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=sharey, squeeze=False).ravel()
    for spare in axes[n:]:
        spare.set_visible(False)
    return figure, list(axes[:n])


def show_a_decade(axes: Axes) -> None:
    """Widen a log axis of x, once its points are drawn, to a factor of ten at the least.

    Costs that are nearly equal would otherwise fill the axis with digits of one number.
    """
    low, high = axes.get_xlim()
    if high < 10 * low:
        middle = (low * high) ** 0.5
        axes.set_xlim(middle / 10**0.5, middle * 10**0.5)


def laid_out(figure: Figure) -> Figure:
    """Return the figure with its layout computed once for all formats."""
    engine = figure.get_layout_engine()
    if engine is not None:
        with look():
            engine.execute(figure)
            figure.set_layout_engine(None)  # "none" would leave a placeholder, and a second draw
    return figure


def as_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as a file of one of `FORMATS`; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with look():
        figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=metadata)
    return buffer.getvalue()


def labels(frame: pandas.DataFrame) -> list[str]:
    """Return the names of rows: the method, with its learner if a method has several."""
    names = frame["method"]
    several = frame.groupby("method")["learner"].transform("nunique") > 1
    return [
        f"{method} · {learner}" if many else method
        for method, learner, many in zip(names, frame["learner"], several, strict=True)
    ]


def knowledge_legend(
    figure: Figure, kinds: Sequence[str], colours: Mapping[str, str] = KNOWLEDGE
) -> None:
    """Explain below a figure the colours and markers of the kinds of knowledge that occur."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colours[k], marker=MARKERS[k], linestyle="none", label=WORDS[k])
        for k in KNOWLEDGE
        if k in kinds
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
