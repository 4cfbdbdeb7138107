"""Records: their numbers, their files, and that nothing half-written passes for finished."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.results import files, record, store
from bench.results.migrations import parse_record


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_summary_is_the_fields_convention(values: list[float]) -> None:
    summary = record.summarise(values)
    assert summary.n == len(values)
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.std == pytest.approx(np.std(values))
    assert summary.ci95 == pytest.approx(1.96 * np.std(values) / np.sqrt(len(values)))


def test_summary_by_hand() -> None:
    summary = record.summarise([0.2, 0.4, 0.6, 0.8])
    assert summary.mean == pytest.approx(0.5)
    assert summary.std == pytest.approx(0.05**0.5)
    assert summary.ci95 == pytest.approx(0.98 * 0.05**0.5)


@pytest.mark.parametrize("values", [[], [0.5, 47.6], [0.5, float("nan")]])
def test_summary_refuses_what_is_no_fraction(values: list[float]) -> None:
    with pytest.raises(BenchError, match="within"):
        record.summarise(values)


def test_content_hash_ignores_key_order_only() -> None:
    assert files.content_hash({"a": 1, "b": [2]}) == files.content_hash({"b": [2], "a": 1})
    assert files.content_hash({"a": 1}) != files.content_hash({"a": 2})


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"old": 1})

    def interrupted() -> None:
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert json.loads(path.read_text()) == {"old": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["x.json"]


def _cell(folder: Path) -> Path:
    store.write_tasks(folder / "tasks.parquet", np.linspace(0.2, 0.8, 7))
    files.write_json(folder / "config.json", {})
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(b"png")
    store.mark_done(folder)
    return folder


def test_a_finished_folder_is_finished(tmp_path: Path) -> None:
    assert store.is_finished(_cell(tmp_path))


@pytest.mark.parametrize("name", ["tasks.parquet", "config.json", "images/a.png", "DONE"])
def test_a_missing_or_changed_file_is_not_finished(tmp_path: Path, name: str) -> None:
    path = _cell(tmp_path) / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not store.is_finished(tmp_path)
    path.unlink()
    assert not store.is_finished(tmp_path)


def test_tasks_round_trip(tmp_path: Path) -> None:
    values = np.array([0.1, 0.7, 0.3])
    store.write_tasks(tmp_path / "tasks.parquet", values)
    columns = files.read_parquet(tmp_path / "tasks.parquet")
    assert columns["task"].dtype == np.int32
    assert columns["accuracy"].dtype == np.float64
    np.testing.assert_array_equal(columns["accuracy"], values)


def test_classes_of_tasks_round_trip_in_task_order(tmp_path: Path) -> None:
    classes = np.array([[4, 0], [2, 7], [1, 3]])
    store.write_tasks(tmp_path / "tasks.parquet", np.array([0.1, 0.7, 0.3]), classes)
    columns = files.read_parquet(tmp_path / "tasks.parquet")
    assert columns["class_1"].dtype == np.int32
    backwards = {name: column[::-1] for name, column in columns.items()}
    files.write_parquet(tmp_path / "tasks.parquet", backwards)
    kept = SimpleNamespace(n_way=2, accuracy=record.summarise([0.1, 0.7, 0.3]))
    values, members = store.StoredRecord(kept, tmp_path).tasks()
    np.testing.assert_array_equal(values, [0.1, 0.7, 0.3])
    np.testing.assert_array_equal(members, classes)
    store.write_tasks(tmp_path / "tasks.parquet", values)
    assert store.StoredRecord(kept, tmp_path).tasks()[1] is None


def test_an_older_record_has_what_was_added_since_at_its_default() -> None:
    path = sorted((Path(__file__).parents[2] / "results").glob("*/*/record.json"))[0]
    written = json.loads(path.read_text(encoding="utf-8"))
    older = {**written, "protocol": {**written["protocol"]}}
    for name in ("precision", "teachers"):
        older["protocol"].pop(name, None)
    newer = {**written, "protocol": {**older["protocol"], "precision": "bfloat16"}}
    read, _ = parse_record(older)
    assert (read.protocol["precision"], read.protocol["teachers"]) == ("float32", "trained")
    assert parse_record(newer)[0].protocol["precision"] == "bfloat16"


def test_a_hash_is_checked_from_the_record_alone() -> None:
    path = sorted((Path(__file__).parent.parent.parent / "results").glob("*/*/record.json"))[0]
    written, _ = parse_record(json.loads(path.read_text(encoding="utf-8")))
    identity = {"cell": {"method": "foreign", "rate": 0.1}, "datasets": {"a": "b"}, "schema": 1}
    update = {"identity": identity, "cell_hash": files.content_hash(identity)[:16]}
    kept = written.model_copy(update=update)
    assert record.check_hash(written.model_copy(update={"identity": None})) is None
    assert record.check_hash(kept) is True
    assert record.check_hash(record.Record.model_validate_json(kept.model_dump_json())) is True
    forged = kept.model_copy(update={"identity": {**identity, "cell": {"method": "ours"}}})
    assert record.check_hash(forged) is False
