"""Progress is readable at the width of the terminal, whatever the cell is called."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, Group

from bench.cli.display import MOST_SHOWN, LiveDisplay, PlainDisplay
from bench.execute.progress import Standing

LONG = " · ".join(["ensemble_centroids", "centroids", "cub_subset_cropped 5-way 1-shot", "x" * 60])


def lines_of(display: LiveDisplay, console: Console) -> list[str]:
    with console.capture() as capture:
        console.print(Group(*display._bars.get_renderables()))
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("stage", ["fit", "teacher 12 of 13 (torchvision:vit_b_16, cub_subset)"])
def test_counts_are_seen_beside_long_names(width: int, stage: str) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    display = LiveDisplay(46, print, console)
    display.start_cell(LONG)
    display.end_cell("random", "24.0 ± 0.5 %")
    display.stage(LONG, Standing(stage, 0, 38400))
    display.stage(LONG, Standing(stage, 12345, 38400, 3.14159, 0.4123))
    cells, cell, under_way, notes, *below = lines_of(display, console)
    assert cell == LONG[:width] or (cell.endswith("…") and cell[:-1] == LONG[: width - 1])
    assert cells.startswith("cells")
    assert " 1/46 " in cells
    assert under_way[:3] == stage[:3]
    assert " 12345/38400 " in under_way
    assert max(map(len, (cell, cells, under_way))) <= width
    assert notes == "3.14/s, validation 41.2 %"
    assert below == [""]


def test_markup_in_a_name_is_printed_as_it_is() -> None:
    console = Console(width=100, file=io.StringIO(), force_terminal=True, color_system=None)
    display = LiveDisplay(1, print, console)
    display.start_cell("mine[/bold]")
    display.stage("mine[/bold]", Standing("fit [red]", 1, 2))
    _, cell, under_way, *_ = lines_of(display, console)
    assert cell == "mine[/bold]"
    assert under_way.startswith("fit [red]")


def test_several_cells_are_shown_and_go_when_they_end_or_are_left() -> None:
    console = Console(width=100, file=io.StringIO(), force_terminal=True, color_system=None)
    display = LiveDisplay(20, print, console)
    for number in range(MOST_SHOWN + 2):
        display.start_cell(f"cell {number}")
    display.stage("cell 1", Standing("fit", 3, 4))
    lines = lines_of(display, console)
    assert [line for line in lines if line.startswith("cell ")] == [
        f"cell {number}" for number in range(MOST_SHOWN)
    ]
    assert lines[lines.index("cell 1") + 1].startswith("fit ")
    assert lines[-2] == "and 2 more under way"
    display.leave_cell("cell 0")
    for number in range(1, MOST_SHOWN + 2):
        display.end_cell(f"cell {number}", "done")
    cells, *rest = lines_of(display, console)
    assert f" {MOST_SHOWN + 1}/20 " in cells
    assert rest == [""]


def test_plain_lines_come_every_ten_seconds_for_each_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [100.0], []
    monkeypatch.setattr("bench.cli.display.time.monotonic", lambda: now[0])
    display = PlainDisplay(2, lines.append)
    for label in ("a", "b"):
        display.start_cell(label)
    for at, label in ((105, "a"), (111, "a"), (112, "a"), (113, "b")):
        now[0] = float(at)
        display.stage(label, Standing("fit", at, 200))
    display.end_cell("a", "done")
    assert lines == ["        a: fit 111/200", "        b: fit 113/200", "[1/2] a: done"]
