"""A damaged record stops neither report nor comparison: it is named, and `--strict` exits 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_records import accuracies, make_record, standard_suite

from bench.cli.main import main
from bench.results.store import RECORD, SIMILARITY, TASKS, mark_done


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Return the exit status of a command, and what it printed."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code, *capsys.readouterr()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two cells of one suite, the second of which is damaged: one bit of its task table."""
    make_record(tmp_path / "runs" / "x", "average", accuracies(0.4, "a"))
    damaged = make_record(tmp_path / "runs" / "x", "random", accuracies(0.3, "b"))
    flip(damaged / TASKS)
    return tmp_path / "runs"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_report_is_made_without_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("report", runs, "--no-figures")
    status, out, err = run(capsys, *command)
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith("left out: ")
    assert f"{TASKS} has changed since the cell was finished" in err
    assert "average" in out
    assert "random" not in out.split("Cost")[0]
    assert run(capsys, *command, "--strict")[0] == 1
    status, out, _ = run(capsys, *command, "--json")
    assert [row["method"] for row in json.loads(out)["results"]] == ["average"]


def test_an_intact_folder_passes_strictly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_record(tmp_path / "x", "average", accuracies(0.4, "a"))
    status, _, err = run(capsys, "report", tmp_path, "--no-figures", "--strict")
    assert (status, err) == (0, "")


def test_only_damaged_records_are_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(make_record(tmp_path / "x", "average", accuracies(0.4, "a")) / RECORD)
    status, out, err = run(capsys, "report", tmp_path, "--no-figures")
    assert (status, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("left out: ")
    assert second.startswith("Error: no finished record")


def test_a_markdown_file_is_updated_without_it(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = runs.parent / "page.md"
    blocks = "<!-- results: x accuracy -->\n<!-- /results -->\n" * 2
    page.write_text(blocks)
    status, _, err = run(capsys, "report", runs, "--update", page, "--strict")
    assert (status, err.count("left out")) == (1, 1)
    assert "average" in page.read_text()
    assert run(capsys, "report", runs, "--update", page, "--check")[0] == 0


def test_a_report_does_without_a_similarity_that_was_empty_from_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_record(tmp_path / "x", "average", accuracies(0.4, "a"))
    (folder / SIMILARITY).write_bytes(b"")
    mark_done(folder)
    status, out, err = run(capsys, "report", tmp_path)
    assert status == 0
    assert "average" in out
    assert f"{folder}: {SIMILARITY} is not a readable table" in err
    assert err.endswith("the record is used without it\n")
    assert not list((tmp_path / "report").rglob("*similarity*"))
    assert run(capsys, "report", tmp_path, "--no-figures", "--strict")[0] == 1


def test_a_comparison_is_made_without_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = runs.parent / "other"
    for method in ("average", "random"):
        make_record(other / "x", method, accuracies(0.4, method))
    status, out, err = run(capsys, "compare", other, runs)
    assert (status, err.count("left out: ")) == (0, 1)
    assert "average" in out
    assert "only in A: random" in out
    assert run(capsys, "compare", other, runs, "--strict")[0] == 1
    assert run(capsys, "compare", other, other, "--strict")[0] == 0
    assert run(capsys, "compare", other, runs, "--fail-if", "changed")[0] == 1


def test_a_linked_suite_is_reported_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standard_suite(tmp_path / "disk" / "own")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "own").symlink_to(tmp_path / "disk" / "own")
    status, out, err = run(capsys, "report", tmp_path / "runs", "--no-figures")
    assert (status, err) == (0, "")
    assert "ensemble_centroids" in out
    status, out, _ = run(capsys, "compare", tmp_path / "runs", tmp_path / "disk")
    assert status == 0
    assert "same" in out
