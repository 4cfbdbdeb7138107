"""Finding records: what is damaged is left out with a line that names it; links are followed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.results.files import write_json, write_parquet
from bench.results.find import Reading, RecordWarning, find_records, holds_cells
from bench.results.record import SCHEMA
from bench.results.store import mark_done, read_record

RESULTS = Path(__file__).parents[2] / "results"


def stored_cell() -> Path:
    """Return a stored cell that has a result and a pool."""
    for path in sorted(RESULTS.glob("glyphs/*/record.json")):
        record = read_record(path.parent).record
        if record.status == "done" and record.pool:
            return path.parent
    raise AssertionError("no stored cell has a result and a pool")


def make_cell(folder: Path, finished: bool = True) -> Path:
    """Make a cell as a run leaves it, or as `results/` holds it, and return its folder."""
    shutil.copytree(stored_cell(), folder)
    if finished:
        write_json(folder / "config.json", {})
        a, b = np.triu_indices(read_record(folder).record.pool.n, k=1)
        cka = np.full(len(a), 0.5)
        write_parquet(folder / "similarity.parquet", {"a": a, "b": b, "cka": cka})
        write_parquet(folder / "curve.parquet", {"step": [1], "name": ["loss"], "value": [0.1]})
        mark_done(folder)
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


FAULTS: list[Callable[[Path], None]] = [flip, cut, empty, Path.unlink]
FILES = ("DONE", "record.json", "tasks.parquet", "config.json", "similarity.parquet")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", [*FILES, "curve.parquet"])
def test_a_damaged_finished_cell_is_left_out_and_named(
    tmp_path: Path, name: str, fault: Callable[[Path], None]
) -> None:
    good, bad = (make_cell(tmp_path / "suite" / one) for one in ("good", "bad"))
    fault(bad / name)
    reading = Reading()
    assert [one.folder for one in find_records(tmp_path, reading)] == [good]
    (line,) = reading.lines()
    assert line.startswith(f"left out: {bad}")
    assert name in line or (name, fault) == ("DONE", flip)
    with pytest.warns(RecordWarning, match="bad"):
        find_records(tmp_path)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", ["record.json", "tasks.parquet"])
def test_a_damaged_stored_result_is_left_out_and_named(
    tmp_path: Path, name: str, fault: Callable[[Path], None]
) -> None:
    bad = make_cell(tmp_path / "bad", finished=False)
    if (name, fault) == ("tasks.parquet", flip):
        values = {"task": np.arange(3, dtype=np.int32), "accuracy": np.full(3, np.nan)}
        write_parquet(bad / name, values)
    elif (name, fault) == ("record.json", flip):
        (bad / name).write_text((bad / name).read_text().replace('"status": "', '"status": "_'))
    else:
        fault(bad / name)
    reading = Reading()
    assert find_records(tmp_path, reading) == []
    assert len(reading.left_out) == ((name, fault) != ("record.json", Path.unlink))
    assert all(f"{bad}" in line and name in line for line in reading.left_out)


@pytest.mark.parametrize("fault", [cut, empty], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("name", ["similarity.parquet", "curve.parquet"])
def test_a_record_is_used_without_a_table_that_was_damaged_before_it_was_finished(
    tmp_path: Path, name: str, fault: Callable[[Path], None]
) -> None:
    folder = make_cell(tmp_path / "cell")
    fault(folder / name)
    mark_done(folder)
    reading = Reading()
    (stored,) = find_records(tmp_path, reading)
    assert not stored.has(name)
    assert (stored.similarity() is None) == (name == "similarity.parquet")
    (line,) = reading.lines()
    assert str(folder) in line
    assert name in line


def test_a_table_of_another_pool_is_not_taken(tmp_path: Path) -> None:
    folder = make_cell(tmp_path / "cell")
    write_parquet(folder / "similarity.parquet", {"a": [0], "b": [99], "cka": [0.5]})
    mark_done(folder)
    reading = Reading()
    (stored,) = find_records(tmp_path, reading)
    assert stored.similarity() is None
    assert "does not hold the pairs" in reading.left_out[0]


def test_a_cell_that_is_not_finished_is_named(tmp_path: Path) -> None:
    (make_cell(tmp_path / "cell") / "DONE").unlink()
    (tmp_path / "begun").mkdir()
    write_json(tmp_path / "begun" / "config.json", {})
    reading = Reading()
    assert find_records(tmp_path, reading) == []
    assert reading.lines() == [
        f"left out: {tmp_path / 'cell'}: it is not finished: DONE is missing; run the cell again"
    ]


def test_unknown_fields_are_one_line_for_all_records(tmp_path: Path) -> None:
    for name, field in (("a", "later"), ("b", "later"), ("c", "still_later")):
        path = make_cell(tmp_path / name, finished=False) / "record.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: 1}))
    reading = Reading()
    for _ in range(2):
        assert len(find_records(tmp_path, reading)) == 3
    (line,) = reading.lines()
    assert line.startswith("3 records have fields that this version does not know: later, still")
    assert not reading.left_out


def test_a_newer_record_is_left_out(tmp_path: Path) -> None:
    path = make_cell(tmp_path / "new", finished=False) / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": SCHEMA + 1}))
    reading = Reading()
    assert find_records(tmp_path, reading) == []
    (line,) = reading.lines()
    assert "update purer-bench" in line
    assert "run the cell again" not in line


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    runs, disk = tmp_path / "runs", tmp_path / "disk"
    cell = make_cell(disk / "suite" / "cell")
    runs.mkdir()
    (runs / "suite").symlink_to(disk / "suite")
    assert [one.folder for one in find_records(runs)] == [runs / "suite" / "cell"]
    (disk / "suite" / "up").symlink_to(disk)
    (disk / "suite" / "again").symlink_to(cell)
    (disk / "suite" / "nowhere").symlink_to(tmp_path / "missing")
    assert [one.folder for one in find_records(runs)] == [runs / "suite" / "cell"]
    assert [one.folder for one in find_records(disk)] == [cell]
    (tmp_path / "root").symlink_to(disk)
    assert len(find_records(tmp_path / "root")) == 1


def test_copies_in_the_mlflow_store_are_passed_over(tmp_path: Path) -> None:
    for place in ("suite/cell", "mlartifacts/1/run/artifacts"):
        make_cell(tmp_path / place, finished=False)
    (found,) = find_records(tmp_path)
    assert found.folder == tmp_path / "suite" / "cell"
    assert len(find_records(tmp_path / "mlartifacts")) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="not a folder"):
        find_records(tmp_path / "none")
    assert not holds_cells(tmp_path / "none")


def test_a_fit_in_the_cache_is_no_cell(tmp_path: Path) -> None:
    write_json(tmp_path / "fits" / "x" / "fit.json", {})
    mark_done(tmp_path / "fits" / "x")
    assert not holds_cells(tmp_path)
    (make_cell(tmp_path / "cell") / "record.json").unlink()
    assert holds_cells(tmp_path)
