"""Progress is readable at the width of the terminal, whatever the cell is called."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, Group

from bench.cli.display import LiveDisplay
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
    display.stage(Standing(stage, 0, 38400))
    display.stage(Standing(stage, 12345, 38400, 3.14159, 0.4123))
    cell, cells, under_way, notes, *below = lines_of(display, console)
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
    display.stage(Standing("fit [red]", 1, 2))
    cell, _, under_way, *_ = lines_of(display, console)
    assert cell == "mine[/bold]"
    assert under_way.startswith("fit [red]")
