"""The table that fills while a run goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, Group

from bench.cli.display import LiveDisplay
from bench.cli.filling import PENDING, FillingTable
from bench.suites.cell import Cell
from bench.suites.expand import expand
from bench.suites.suite import read_suite


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return expand(*read_suite("glyphs", []))


def shown(table: FillingTable, room: int) -> list[str]:
    console = Console(width=100, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(table.rendered(room))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_every_cell_has_its_field_and_fills_it(cells: list[Cell]) -> None:
    table = FillingTable(cells)
    assert len(table.rows) * len(table.columns) == len(cells)
    assert " ".join(shown(table, 50)).count(PENDING) - len(table.rows) - 1 == len(cells)
    for number, cell in enumerate(cells):
        table.fill(cell.label, f"{20 + number}.0 ± 0.5 %, fit 1.0 s, test 2.0 s")
    text = " ".join(shown(table, 50))
    assert all(f"{20 + number}.0 ± 0.5" in text for number in range(len(cells)))
    assert "fit" not in text


def test_where_rows_are_too_many_those_filled_last_are_shown(cells: list[Cell]) -> None:
    table = FillingTable(cells)
    table.fill(cells[-1].label, "70.0 ± 1.0 %, fit reused")
    lines = shown(table, 3)
    assert len(lines) == 4
    assert "70.0 ± 1.0" in lines[-1]
    for cell in cells[:6]:
        table.fill(cell.label, "30.0 ± 1.0 %")
    assert "70.0" not in " ".join(shown(table, 3))


def test_seeds_share_a_field_and_a_failure_is_said_in_a_word(cells: list[Cell]) -> None:
    more = [cells[0], cells[0].model_copy(update={"seed": 1}), cells[1]]
    table = FillingTable(more)
    assert len(table.rows) == 1
    table.fill(more[0].label, "30.0 ± 1.0 %")
    table.fill(more[1].label, "31.0 ± 1.0 %")
    table.fill(more[2].label, "failed: the loss is not finite at step 3; lower the rate")
    table.fill("a cell of another run", "1.0 %")
    (line,) = shown(table, 9)[1:]
    assert "31.0 ± 1.0 (2)" in line
    assert line.endswith("failed")


def test_the_live_display_shows_it_and_prints_only_what_it_cannot_hold(cells: list[Cell]) -> None:
    file = io.StringIO()
    console = Console(width=100, height=40, file=file, force_terminal=True, color_system=None)
    display = LiveDisplay(len(cells), print, console, cells)
    display.start_cell(cells[1].label)
    display.end_cell(cells[0].label, "24.0 ± 0.5 %, fit 0.0 s, test 1.0 s")
    display.end_cell(cells[2].label, "failed: the loss is not finite")
    with console.capture() as capture:
        console.print(Group(*display._bars.get_renderables()))
    assert " 24.0 ± 0.5 " in capture.get()
    assert "24.0 ± 0.5" not in file.getvalue()
    assert f"[2/{len(cells)}] {cells[2].label}: failed: the loss is not finite" in file.getvalue()
    console.height = 8
    with console.capture() as capture:
        console.print(Group(*display._bars.get_renderables()))
    assert "24.0 ± 0.5" not in capture.get(), "a low terminal has no room for the table"
