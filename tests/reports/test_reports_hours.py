"""The table of device-hours: shared fits count once, kinds of devices stand apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_records import standard_suite

from bench.results.record import FitSummary
from bench.results.select import load_records
from bench.results.store import StoredRecord
from reports.tables.build import build_tables
from reports.tables.collection import compute
from reports.tables.hours import hours, hours_tables


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[StoredRecord]:
    folder = tmp_path_factory.mktemp("runs")
    standard_suite(folder)
    return [one for one in load_records(folder) if one.record.status == "done"][:2]


def timed(
    one: StoredRecord, fit: str, fit_s: float, suite: str = "s", **changes: object
) -> StoredRecord:
    timing = one.record.timing.model_copy(update={"fit_s": fit_s, "test_s": 900.0})
    values = {"method": "a", "suite": suite, "timing": timing, **changes}
    values["fit"] = FitSummary(sha256=fit, reused=False)
    return StoredRecord(one.record.model_copy(update=values), one.folder)


def rows(table) -> dict[str, dict[str, list[str]]]:
    return {
        part.heading: {row[0].text: [one.text for one in row[1:]] for row in part.rows}
        for part in table.sections
    }


def test_a_fit_that_cells_share_counts_once(stored):
    """Worked by hand: 2 h of one fit for two cells, 1 h for another, a quarter hour per test."""
    one = stored[0]
    cells = [
        timed(one, "f", 7200.0),
        timed(one, "f", 7200.0),
        timed(one, "g", 3600.0, "t"),
        timed(one, "h", 0.0, "t", method="b"),
    ]
    (table,) = hours_tables(cells)
    assert [column.title for column in table.columns][-1] == "device-hours"
    assert rows(table) == {
        "all suites, cpu": {
            "a": ["3", "2", "3.00", "0.75", "3.75"],
            "b": ["1", "1", "0", "0.25", "0.25"],
            "all methods": ["4", "3", "3.00", "1.00", "4.00"],
        },
        "s, cpu": {"a": ["2", "1", "2.00", "0.50", "2.50"]},
        "t, cpu": {
            "a": ["1", "1", "1.00", "0.25", "1.25"],
            "b": ["1", "1", "0", "0.25", "0.25"],
            "all methods": ["2", "2", "1.00", "0.50", "1.50"],
        },
    }


def test_energy_and_kinds_of_devices_stand_apart(stored):
    one = stored[0]
    gpu = one.record.device.model_copy(update={"type": "cuda", "name": "A GPU"})
    cells = [
        timed(one, "f", 36.0),
        timed(one, "g", 1.0, device=gpu, energy_j=1.8e6),
        timed(one, "h", 1.0, device=gpu, energy_j=5.4e6),
    ]
    (table,) = hours_tables(cells)
    assert rows(table) == {
        "s, cpu": {"a": ["1", "1", "0.01", "0.25", "0.26", "–"]},
        "s, cuda": {"a": ["2", "2", "<0.01", "0.50", "0.50", "2"]},
    }
    assert "cuda (A GPU)" in table.caption
    assert "kWh" in table.caption
    assert hours(0) == "0"


def test_it_is_a_kind_of_table_and_part_of_a_report(stored):
    (table,) = build_tables(stored, ["hours"])
    assert [one.kind for one in compute(stored).all_tables if one.kind == "hours"] == ["hours"]
    assert table.title == "Device-hours per suite and method"
    assert "hours" not in {one.kind for one in build_tables(stored)}
    assert hours_tables([]) == []


def test_a_report_shows_it(tmp_path: Path, stored):
    from reports.report import PAGE, write_report

    write_report(compute(stored), tmp_path, formats=())
    assert "Device-hours per suite and method" in (tmp_path / PAGE).read_text(encoding="utf-8")
