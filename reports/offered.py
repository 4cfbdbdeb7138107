"""Tables and figures of other packages: functions of the record frame, found by entry points.

An entry point of the group `purer_bench.tables` names a function from the frame of
`bench.results.frame.record_frame` to a data frame whose columns are the table's; one of
`purer_bench.figures` a function to a figure of matplotlib. None means that there is nothing to
show. The first line of the docstring is the title, the rest the caption. One that fails is left
out, with a line that says so.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from bench import registry
from bench.errors import BenchError
from bench.results.files import content_hash
from reports.figures.drawing import Drawing
from reports.tables.table import Column, Entry, Section, Table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

Kind = Literal["table", "figure"]
Row = dict[str, Any]
"""A record as `bench.results.frame.record_row` has it."""
PREFIX = "offered-"
"""What the files of such figures begin with."""

T = TypeVar("T")
LeaveOut = Callable[[str], object]
"""Called with one line for each table or figure that failed."""


def warn(line: str) -> None:
    """Warn of what was left out."""
    warnings.warn(f"left out: {line}", stacklevel=2)


def offered_tables(
    rows: Sequence[Row], leave_out: LeaveOut, names: Sequence[str] | None = None
) -> list[Table]:
    """Return the tables that other packages make of some records.

    Args:
        rows: of `record_row`, one for each record.
        leave_out: told what failed.
        names: registered names, in this order; None takes all.
    """
    wanted = registry.names("table") if names is None else names
    if not wanted:
        return []  # without pandas
    from pandas import DataFrame

    made = [_made("table", DataFrame, name, rows, leave_out) for name in wanted]
    return [_table(one) for one in made if one is not None and len(one.result)]


def offered_drawings(rows: Sequence[Row], leave_out: LeaveOut) -> list[Drawing]:
    """Return the figures that other packages draw from some records; see `offered_tables`."""
    names = registry.names("figure")
    if not names:
        return []
    from matplotlib.figure import Figure

    made = [_made("figure", Figure, name, rows, leave_out) for name in names]
    return [_drawing(one) for one in made if one is not None]


def offered_key(rows: Sequence[Row], drawings: Sequence[Drawing]) -> str:
    """Return a digest of what such figures follow from: the records, and the code that draws."""
    functions = [registry.load("figure", one.name.removeprefix(PREFIX)) for one in drawings]
    sources = [inspect.getsource(inspect.getmodule(one) or one) for one in functions]
    return content_hash([list(rows), sources])


@dataclass(frozen=True)
class _Made(Generic[T]):
    """What a function of another package made of the record frame."""

    name: str
    title: str
    caption: str
    result: T


def _made(
    kind: Kind, expected: type[T], name: str, rows: Sequence[Row], leave_out: LeaveOut
) -> _Made[T] | None:
    """Return what a function makes of the record frame; None where that is nothing, or it fails."""
    import pandas

    try:
        function = registry.load(kind, name)
        result = function(pandas.DataFrame(list(rows)))
        if result is not None and not isinstance(result, expected):
            kinds = f"{expected.__name__} or None"
            raise TypeError(f"it returned a {type(result).__name__}, not a {kinds}")
    except BenchError as error:
        leave_out(str(error))
        return None
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        where = registry.entry(kind, name).value
        leave_out(f"{kind} '{name}' ({where}) failed with {type(error).__name__}: {line}")
        return None
    title, _, caption = (inspect.getdoc(function) or name).partition("\n")
    words = " ".join(caption.split())
    return None if result is None else _Made(name, title.rstrip("."), words, result)


def _drawing(made: _Made[Figure]) -> Drawing:
    text = f"{made.title}. {made.caption}"
    return Drawing(f"{PREFIX}{made.name}", made.title, made.caption, text, lambda: made.result)


def _table(made: _Made[pandas.DataFrame]) -> Table:
    """Return a data frame as a table: its columns, its rows in order, without its index."""
    from pandas.api.types import is_numeric_dtype

    frame = made.result
    columns = [Column(str(name), numeric=is_numeric_dtype(frame[name])) for name in frame.columns]
    rows = [[Entry(_text(value)) for value in row] for row in frame.itertuples(index=False)]
    return Table(made.name, made.title, columns, [Section("", rows)], made.caption)


def _text(value: object) -> str:
    """Return a value as shown: numbers to four digits, a dash for none."""
    if isinstance(value, float):
        return f"{value:.4g}" if value == value else "–"
    return "–" if value is None else str(value)
