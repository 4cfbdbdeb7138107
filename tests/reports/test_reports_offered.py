"""Tables and figures that another package offers stand in the report after the built-in ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from report_records import accuracies, make_record

from bench.errors import BenchError
from bench.results.select import load_records
from reports.cli import report
from reports.tables.build import build_tables
from tests.plug_ins import installed

FILES = {
    "other/__init__.py": "",
    "other/shown.py": '''
import pandas
from matplotlib.figure import Figure


def learners(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Accuracy by learner.

    Mean over cells,
    in percent.
    """
    means = 100 * frame.groupby("learner")["accuracy_mean"].mean()
    return pandas.DataFrame({"learner": means.index, "accuracy %": means.values})


def empty(frame):
    """Nothing."""
    return frame[:0]


def wrong(frame):
    """A list."""
    return [1]


def broken(frame):
    """A wrong column."""
    return frame[["colour"]]


def points(frame):
    """Every cell.

    One point per cell.
    """
    figure = Figure(figsize=(3, 2))
    figure.add_subplot().plot(frame["accuracy_mean"], "o")
    return figure


def nothing(frame):
    """No figure."""
''',
}
SOUND = """
[purer_bench.tables]
learners = other.shown:learners
empty = other.shown:empty
[purer_bench.figures]
points = other.shown:points
nothing = other.shown:nothing
"""
BROKEN = """
[purer_bench.tables]
wrong = other.shown:wrong
broken = other.shown:broken
lost = other.shown:lost
[purer_bench.figures]
broken = other.shown:broken
gone = other.gone:gone
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of two records: few figures of our own are drawn beside those that are offered."""
    for method, mean in (("random", 0.3), ("average", 0.31)):
        make_record(tmp_path / "runs", method, accuracies(mean, method))
    return tmp_path / "runs"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[None]:
    """The other package, installed."""
    with installed(tmp_path / "site", FILES, SOUND):
        yield


def test_they_are_shown_after_the_built_in_ones(runs: Path, tmp_path: Path, other: None) -> None:
    result = CliRunner().invoke(report, [str(runs), "--tables", "all"], catch_exceptions=False)
    assert result.exit_code == 0
    shown = result.output
    assert shown.index("Accuracy by learner") > shown.index("Paired differences: SS")
    assert "Mean over cells, in percent." in " ".join(shown.split())
    text = (runs / "report" / "report.html").read_text(encoding="utf-8")
    section = text.partition('<section id="offered"')[2]
    assert "Accuracy by learner" in section
    assert 'id="figure-offered-points"' in section
    assert 'alt="Every cell. One point per cell."' in section
    assert "Nothing" not in section
    assert "Accuracy by learner" in (runs / "report" / "tables.md").read_text(encoding="utf-8")
    figures = {path.name for path in (runs / "report" / "figures").glob("offered*")}
    assert figures == {"offered-points.svg"}


def test_a_table_can_be_asked_for_by_name(runs: Path, other: None) -> None:
    stored = load_records(runs)
    (table,) = build_tables(stored, ["learners"])
    assert (table.kind, table.title) == ("learners", "Accuracy by learner")
    assert [column.numeric for column in table.columns] == [False, True]
    assert "learners" not in {one.kind for one in build_tables(stored)}


def test_what_fails_is_left_out_and_said(runs: Path, tmp_path: Path) -> None:
    with installed(tmp_path / "site", FILES, BROKEN):
        result = CliRunner().invoke(report, [str(runs), "--strict"], catch_exceptions=False)
        assert result.exit_code == 1
        lines = [line for line in result.stderr.splitlines() if line.startswith("left out: ")]
        assert len(lines) == 5
        for words in (
            "table 'wrong' (other.shown:wrong) failed with TypeError: it returned a list, not a",
            "table 'broken' (other.shown:broken) failed with KeyError",
            "table 'lost' (other.shown:lost) cannot be imported",
            "figure 'broken' (other.shown:broken) failed with KeyError",
            "figure 'gone' (other.gone:gone) cannot be imported",
        ):
            assert sum(words in line for line in lines) == 1, words
        assert CliRunner().invoke(report, [str(runs), "--no-figures"]).exit_code == 0
        with pytest.raises(BenchError, match="table 'wrong'"):
            build_tables(load_records(runs), ["wrong"])


def test_without_other_packages_there_is_no_section(runs: Path) -> None:
    result = CliRunner().invoke(report, [str(runs), "--json"], catch_exceptions=False)
    assert json.loads(result.output)["files"]
    assert 'id="offered"' not in (runs / "report" / "report.html").read_text(encoding="utf-8")
