"""Tables and prose keep to the columns that COLUMNS says; only places and commands are longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from bench.cli.folding import print_folded
from bench.cli.main import main
from bench.execute.progress import Progress, announced

RESULTS = Path(__file__).parents[2] / "results"


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    return capsys.readouterr().out.splitlines()


def is_a_place(line: str) -> bool:
    """Tell whether a line is a path after at most one word, or a command."""
    words = line.split()
    return len(words) <= 2 or any(word.endswith("bench") for word in words[:2])


@pytest.mark.parametrize("width", [60, 80])
def test_nothing_but_places_is_wider_than_the_columns(
    width: int,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    places = [f"--runs={tmp_path}/runs", f"--cache={cache}", f"--data={tmp_path}"]
    report = ["report", str(RESULTS / "glyphs"), f"--output={tmp_path}/out", "--no-figures"]
    label = "purer · protonet · glyphs 5-way 1-shot · seed 0"
    with announced(tmp_path / "runs" / "glyphs", "bench run glyphs --seeds 3", {"h": label}):
        progress = Progress()
        (tmp_path / "runs" / "glyphs" / "h").mkdir()
        progress.begin(tmp_path / "runs" / "glyphs" / "h", label)
        progress("fit", 1, 2)
        commands = [
            ["status", f"{tmp_path}/runs"],
            ["plan", "glyphs", "--device=cpu", *places],
            ["plan", "hazards", "--device=cpu", *places],  # of missing data
            [*report, "--tables=all" if width < 70 else "--tables=screen"],
            ["list", "methods"],
            ["data", "list", f"--data={tmp_path}"],
        ]
        for words in commands:
            lines = printed(words, capsys)
            wide = [line for line in lines if cell_len(line) > width]
            assert len(lines) > 1
            assert [line for line in wide if not is_a_place(line)] == [], words


def test_what_is_longer_than_a_line_stays_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    print_folded(f"see the folder /{'x' * 30} for it", "name", 6)
    first, place, last = capsys.readouterr().out.splitlines()
    assert (first, place, last) == ("name  see the folder", f"      /{'x' * 30}", "      for it")
    print_folded("")
    assert capsys.readouterr().out == "\n"
