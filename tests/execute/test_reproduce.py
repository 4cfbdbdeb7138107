"""`bench reproduce`: a stored cell again, bitwise here; and what stands in its way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.cli.main import main
from bench.errors import BenchError
from bench.execute.reproduce import as_row, cell_of, find_cell, fresh_cache, judge, sentences
from bench.results.files import write_json
from bench.results.record import Record, summarise
from bench.results.store import StoredRecord, read_record, write_tasks
from bench.teachers.transfer import export_pool
from tests.folders import copy_cache
from tests.helpers import tiny_pool

TINY = ["--set=n_test_tasks=8", "--set=budget.teacher_epochs=1", "--set=budget.max_teachers=2"]


def run(*words: str | Path) -> int:
    """Run the command line and return its exit status."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


def changed(
    stored: StoredRecord, folder: Path, values: np.ndarray, **fields: object
) -> StoredRecord:
    """Write a record with other task accuracies into a folder."""
    content = stored.record.model_dump(mode="json") | fields
    content["accuracy"] = summarise(values).model_dump()
    content["n_test_tasks"] = len(values)
    folder.mkdir(parents=True)
    write_tasks(folder / "tasks.parquet", values)
    write_json(folder / "record.json", Record.model_validate(content).model_dump(mode="json"))
    return read_record(folder)


@pytest.fixture(scope="module")
def place(glyphs_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A runs folder with one averaged pool of two teachers, and its cache."""
    root = tmp_path_factory.mktemp("reproduce")
    copy_cache(glyphs_cache, root / "cache")
    words = [f"--runs={root / 'runs'}", f"--cache={root / 'cache'}", "--only=method=average"]
    assert run("run", "micro", *words, *TINY, "--no-mlflow", "--no-figures", "--json") == 0
    return root / "runs", root / "cache"


def test_a_cell_from_its_record_alone_agrees_bitwise(place, tmp_path, capsys):
    """Only record and task table are left of the cell, as in results/; nothing else is reused."""
    runs, cache = place
    (folder,) = runs.glob("micro/*/")
    alone = tmp_path / "results" / folder.name
    alone.mkdir(parents=True)
    for name in ("record.json", "tasks.parquet"):
        shutil.copy(folder / name, alone)
    teachers = sorted((cache / "teachers").rglob("*"))
    capsys.readouterr()
    status = run("reproduce", alone, f"--cache={cache}", "--json", "-o", tmp_path / "again")
    row = json.loads(capsys.readouterr().out)
    assert status == 0
    assert (row["verdict"], row["tasks"], row["tasks_equal"]) == ("bitwise", 8, 8)
    assert row["surroundings"] == {}
    assert sorted((cache / "teachers").rglob("*")) == teachers
    (again,) = (tmp_path / "again" / "micro").glob("*/record.json")
    assert read_record(again.parent).record.fit.reused is False


def test_a_folder_that_holds_the_cell_is_no_repetition(place, tmp_path, capsys):
    runs, cache = place
    (folder,) = runs.glob("micro/*/")
    before = (folder / "DONE").stat().st_mtime_ns
    capsys.readouterr()
    assert run("reproduce", folder, f"--cache={cache}", "-o", runs) == 2
    errors = capsys.readouterr().err
    assert f"holds cell {folder.name} already" in errors
    assert errors.count("\n") == 1
    assert (folder / "DONE").stat().st_mtime_ns == before


def test_a_cell_of_own_images_and_an_imported_pool(tmp_path, capsys):
    generator = np.random.default_rng(0)
    for number in range(30):
        folder = tmp_path / "birds" / f"c{number:02}"
        folder.mkdir(parents=True)
        for image in range(20):
            pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.png")
    pool = tiny_pool(["conv4", "conv4"], 5, 32, torch.Generator().manual_seed(0))
    export_pool(list(pool), "mine", "made here", tmp_path / "exported")
    cache = f"--cache={tmp_path / 'cache'}"
    assert run("teachers", "import", "mine", tmp_path / "exported", cache) == 0
    assert capsys.readouterr().out.startswith("pool mine: 2 teachers, digest ")
    birds = f"--dataset-dir=birds={tmp_path / 'birds'}"
    words = [f"--runs={tmp_path / 'runs'}", cache, birds, "--pool=mine", "--set=n_test_tasks=8"]
    few = ["--only=method=ensemble_centroids", "--only=k_shot=1", "--no-mlflow", "--no-figures"]
    assert run("run", "own", *words, *few, "--json") == 0
    (folder,) = (tmp_path / "runs").glob("own/*/DONE")
    capsys.readouterr()
    assert run("reproduce", folder.parent, cache, birds) == 0
    assert "agrees bitwise" in capsys.readouterr().out


def test_by_hash_with_the_kept_fit_and_in_words(place, capsys):
    runs, cache = place
    (folder,) = runs.glob("micro/*/")
    words = ["--runs", runs, "--cache", cache, "--keep", "fit"]
    assert run("reproduce", folder.name[:6], *words) == 0
    output = capsys.readouterr().out
    assert "agrees bitwise" in output
    assert "8 of 8 tasks equal" in output


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "within the interval"), (0.1, "different")])
def test_what_is_not_equal_is_judged_by_its_paired_interval(place, tmp_path, shift, verdict):
    runs, _ = place
    (folder,) = runs.glob("micro/*/")
    stored = read_record(folder)
    generator = np.random.default_rng(0)
    first = generator.uniform(0.3, 0.6, 100)
    noise = generator.normal(0, 0.02, 100)
    again = changed(stored, tmp_path / "b", first + noise - noise.mean() + shift)
    outcome = judge(changed(stored, tmp_path / "a", first), again)
    assert outcome.verdict == verdict
    assert outcome.interval.mean == pytest.approx(shift, abs=1e-9)
    assert outcome.surroundings == {}
    json.dumps(as_row(outcome), allow_nan=False)


def test_other_tasks_are_not_judged(place, tmp_path):
    runs, _ = place
    (folder,) = runs.glob("micro/*/")
    stored = read_record(folder)
    other = changed(stored, tmp_path / "x", stored.accuracies(), task_list_sha256="0" * 64)
    with pytest.raises(BenchError, match="other test tasks"):
        judge(stored, other)


def test_a_repetition_by_other_code_names_the_module(place, tmp_path):
    runs, _ = place
    (folder,) = runs.glob("micro/*/")
    stored = read_record(folder)
    code = stored.record.code.model_dump()
    code |= {"digest": "0" * 64, "files": code["files"] | {"bench/seeds.py": "0" * 12}}
    outcome = judge(changed(stored, tmp_path / "x", stored.accuracies(), code=code), stored)
    assert sentences(outcome)[-1] == "  code changed since: bench/seeds.py → none"


def test_what_stands_in_the_way_is_one_line(place, tmp_path, capsys):
    runs, cache = place
    (folder,) = runs.glob("micro/*/")
    stored = read_record(folder)
    for name, where, words in (
        ("zzzz", runs, "no cell below"),
        ("zzzz", tmp_path / "none", "no folder of runs"),
    ):
        with pytest.raises(BenchError, match=words):
            find_cell(name, where)
    with pytest.raises(BenchError, match="hashes to"):
        cell_of(stored.record.model_copy(update={"seed": 7}))
    with pytest.raises(BenchError, match="only a finished cell"):
        cell_of(stored.record.model_copy(update={"status": "skipped", "reason": "no"}))
    with pytest.raises(BenchError, match="not one of this version"):
        cell_of(stored.record.model_copy(update={"budget": {"name": "short"}}))
    digests = {"dataset_digests": {"glyphs": "0" * 64}}
    other = changed(stored, tmp_path / "other", stored.accuracies(), **digests)
    capsys.readouterr()
    assert run("reproduce", other.folder, f"--cache={cache}") == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1


def test_a_fresh_cache_shares_what_it_is_told(tmp_path):
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers" / "x").write_text("kept")
    with fresh_cache(tmp_path, "nothing") as fresh:
        assert not list(fresh.iterdir())
    (tmp_path / "pools").mkdir()
    with fresh_cache(tmp_path, "nothing") as fresh:
        assert [path.name for path in fresh.iterdir()] == ["pools"]
    (tmp_path / "pools").rmdir()
    with fresh_cache(tmp_path, "teachers") as fresh:
        assert [path.name for path in fresh.iterdir()] == ["teachers"]
        assert (fresh / "teachers" / "x").read_text() == "kept"
    assert (tmp_path / "teachers" / "x").exists()
