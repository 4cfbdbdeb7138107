"""The main job end to end, as a user runs it: in processes of its own, on built-in data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.execute.progress import PROGRESS, read
from bench.results.files import content_hash
from bench.results.find import find_records
from bench.results.record import check_hash
from bench.results.store import StoredRecord, is_finished
from tests import processes
from tests.folders import copy_cache
from tests.processes import Process

TINY = [
    "--set=budget.teacher_epochs=1",
    "--set=budget.max_teachers=2",
    "--set=budget.meta_iterations=4",
    "--set=budget.oracle_iterations=4",
    "--set=budget.validate_every=2",
    "--set=budget.n_val_tasks=4",
    "--set=n_query=5",
    "--set=n_test_tasks=12",
    "--device=cpu",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def arguments(cache: Path, runs: Path, *more: str) -> list[str]:
    folders = [f"--cache={cache}", f"--runs={runs}"]
    return ["run", "micro", "--no-figures", "--jobs=1", *folders, *TINY, *more]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return processes.run(words, env=ENVIRONMENT)


def by_method(runs: Path) -> dict[str, StoredRecord]:
    return {stored.record.method: stored for stored in find_records(runs)}


def test_first_run_second_run_and_mlflow(cache: Path, empty_store: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first = bench(*arguments(cache, runs))
    assert first.returncode == 0, first.stderr
    stored = by_method(runs)
    assert set(stored) == {"random", "average", "ensemble_centroids", "purer", "oracle_protonet"}
    for one in stored.values():
        record = one.record
        assert record.status == "done", record.reason
        assert is_finished(one.folder)
        assert check_hash(record) is True
        assert content_hash(record.identity)[:16] == record.cell_hash == one.folder.name
        accuracies = one.accuracies()
        assert len(accuracies) == record.accuracy.n == 12
        assert record.accuracy.mean == pytest.approx(accuracies.mean())
        assert record.timing.test_tasks_per_s > 0
        assert record.timing.peak_memory_bytes > 0
        assert record.cost.params > 0
        assert record.cost.macs_per_query_image > 0
        assert record.device.type == "cpu"
        assert "only 12 test tasks" in record.warnings
    assert len({one.record.task_list_sha256 for one in stored.values()}) == 1
    assert stored["purer"].record.selection == "val"
    assert stored["purer"].record.timing.pseudo_images_per_s > 0
    assert stored["purer"].record.pool.n == 2
    assert stored["oracle_protonet"].record.timing.train_tasks_per_s > 0
    assert stored["random"].record.pool is None
    assert (stored["purer"].folder / "curve.parquet").exists()
    assert "ensemble_centroids" in first.stdout
    assert f"mlflow ui --backend-store-uri sqlite:///{runs}" in first.stdout
    _check_mlflow(runs, stored, empty_store)

    ended = {name: one.record.ended for name, one in stored.items()}
    second = subprocess.run(
        [sys.executable, "-c", SECOND_RUN, *arguments(cache, runs)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=60,
    )
    assert second.returncode == 0, second.stderr
    assert "ensemble_centroids" in second.stdout
    assert second.stdout.splitlines()[-1] == "heavy: []"
    assert {name: one.record.ended for name, one in by_method(runs).items()} == ended


SECOND_RUN = """
import sys
from bench.cli.main import main
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
print("heavy:", sorted({"torch", "mlflow"} & set(sys.modules)))
"""


def _check_mlflow(runs: Path, stored: dict[str, StoredRecord], empty_store: Path) -> None:
    from bench.results.mlflow import Tracker
    from bench.results.mlflow_store import Store

    tracker = Tracker(Store(runs))
    found = tracker.runs("tags.kind = 'cell'")
    assert {run.data.tags["method"] for run in found} == set(stored)
    parents = tracker.runs("tags.kind = 'suite'")
    assert [run.data.tags["suite"] for run in parents] == ["micro"]
    report = {one.path for one in tracker.client.list_artifacts(parents[0].info.run_id, "report")}
    assert report >= {f"report/{name}" for name in ("report.html", "tables.md", "tables.tex")}
    drawn = runs.parent / "drawn"
    for name in ("figures/a.svg", "figures/.a.key", ".resampled.json"):
        (drawn / name).parent.mkdir(parents=True, exist_ok=True)
        (drawn / name).write_text("as written")
    tracker.attach_report("micro", drawn)
    again = {one.path for one in tracker.client.list_artifacts(parents[0].info.run_id, "report")}
    assert again == {*report, "report/figures"}
    (figure,) = tracker.client.list_artifacts(parents[0].info.run_id, "report/figures")
    assert figure.path == "report/figures/a.svg"
    for run in found:
        record = stored[run.data.tags["method"]].record
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert run.data.metrics["accuracy"] == pytest.approx(record.accuracy.mean)
        assert run.data.params["k_shot"] == "1"
        names = {artifact.path for artifact in tracker.client.list_artifacts(run.info.run_id)}
        assert {"tasks.parquet", "record.json", "config.json"} <= names
        assert ("similarity.parquet" in names) == (record.pool is not None)
    purer = next(run for run in found if run.data.tags["method"] == "purer")
    curve = tracker.client.get_metric_history(purer.info.run_id, "curve/outer_loss")
    assert sorted(point.step for point in curve) == [1, 2, 3, 4]
    shown = {one.path for one in tracker.client.list_artifacts(purer.info.run_id, "images")}
    assert shown == {f"images/pseudo-images-{when}.png" for when in ("start", "middle", "end")}
    curves = {name.removeprefix("curve/") for name in purer.data.metrics if "curve/" in name}
    assert curves >= {"inversion", "cross_entropy", "bn_statistics", "total_variation", "l2"}
    assert curves >= {"outer_loss", "query_accuracy", "val_accuracy", "adversarial", "armed"}

    shutil.copy(empty_store, runs / "mlflow.db")  # what was shown is lost
    again = bench("ingest", f"--runs={runs}")
    assert again.returncode == 0, again.stderr
    assert f"5 of 5 records written to sqlite:///{runs}" in again.stdout
    moved = Path(shutil.copytree(runs, runs.parent / "moved"))  # no connections from before
    tracker = Tracker(Store(moved))
    (parent,) = tracker.runs("tags.kind = 'suite'")
    assert tracker.client.list_artifacts(parent.info.run_id, "report")
    assert "0 of 5" in bench("ingest", f"--runs={runs}").stdout


def test_a_store_that_cannot_be_opened_is_one_line_and_stops_no_run(
    cache: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "mlflow.db").write_text("junk\n")
    result = bench(*arguments(cache, runs, "--only=method=random"))
    assert (result.returncode, result.stderr.count("\n")) == (0, 1)
    assert "cannot be opened" in result.stderr
    assert f"bench ingest --runs {runs} writes what is missing" in result.stderr
    assert (runs / "mlflow.db").read_text() == "junk\n"
    assert len(find_records(runs)) == 1


@pytest.mark.faults
def test_kill_and_run_again_is_the_undisturbed_run(trained_cache: Path, tmp_path: Path) -> None:
    """Killed within a fit; the kills of `tests/faults/test_kills.py` come at any moment."""
    only = ["--only=method=random", "--only=method=purer", "--no-mlflow", "--jobs=1"]
    only += ["--set=budget.meta_iterations=8", "--checkpoint-every=0.01"]
    only += ["--set=protocol.selection=last"]  # the best may be the start, whatever became of it
    runs, other, cache, fresh = (tmp_path / name for name in ("runs", "other", "cache", "fresh"))
    copy_cache(trained_cache, fresh)
    process = Process(arguments(cache, runs, *only), env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while not list(cache.glob("fits/*/checkpoint-*.pt")) and time.monotonic() < deadline:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(find_records(runs)) < 2
    assert bench(*arguments(cache, runs, *only)).returncode == 0

    assert bench(*arguments(fresh, other, *only)).returncode == 0
    ours, theirs = by_method(runs), by_method(other)
    assert set(ours) == set(theirs) == {"random", "purer"}
    for name in ours:
        assert ours[name].record.cell_hash == theirs[name].record.cell_hash
        np.testing.assert_array_equal(ours[name].accuracies(), theirs[name].accuracies())
        key = ours[name].record.fit.sha256
        for file in ("fit.safetensors", "curve.parquet"):
            pair = [folder / "fits" / key / file for folder in (cache, fresh)]
            assert [path.exists() for path in pair] in ([True, True], [False, False])
            assert not pair[0].exists() or pair[0].read_bytes() == pair[1].read_bytes()
    images = [sorted((one["purer"].folder / "images").iterdir()) for one in (ours, theirs)]
    assert [path.name for path in images[0]] == [path.name for path in images[1]]
    assert [path.read_bytes() for path in images[0]] == [path.read_bytes() for path in images[1]]


def fitting(runs: Path) -> list[int]:
    """Return the processes that are some steps into a fit, of cells that run."""
    facts = [read(path) for path in runs.glob(f"micro/*/{PROGRESS}")]
    return [one["pid"] for one in facts if one and one["stage"] == "fit" and one["done"] > 3]


def test_ctrl_c_says_what_was_kept(trained_cache: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    only = ("--only=method=random", "--only=method=purer")
    words = arguments(trained_cache, runs, "--no-mlflow", *only)
    process = Process([*words, "--set=budget.meta_iterations=100000"], env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + 400
        while not fitting(runs) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "SIGINT: ends after the step under way" in errors
    assert "interrupted: kept fit of purer" in errors
    assert "1 of 2 cells are finished in" in errors
    assert "Traceback" not in errors


def test_a_failing_cell_leaves_its_reason_and_the_others_go_on(
    trained_cache: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    only = ("--only=method=random", "--only=method=purer", "--only=method=average")
    words = ("--no-mlflow", "--set=purer.pixel_lr=1e38", *only)
    result = bench(*arguments(trained_cache, runs, *words))
    assert result.returncode == 1
    stored = by_method(runs)
    assert len(stored) == 3
    assert stored["purer"].record.status == "failed"
    assert "pixel_lr" in stored["purer"].record.reason
    assert all(one.record.status == "done" for n, one in stored.items() if n != "purer")
    assert "failed: purer" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_method_that_cannot_is_skipped_with_the_reason(cache: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    words = ["--no-mlflow", "--set=architectures=[conv4, resnet10]", "--only=method=average"]
    result = bench(*arguments(cache, runs, *words))
    assert result.returncode == 0, result.stderr
    record = by_method(runs)["average"].record
    assert record.status == "skipped"
    assert "one architecture" in record.reason
    assert "one architecture" in result.stdout


def test_plan_and_json(cache: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    words = [
        w for w in arguments(cache, runs, "--json") if w not in ("run", "--no-figures", "--jobs=1")
    ]
    rows = json.loads(bench("plan", *words).stdout)
    assert [row["status"] for row in rows] == ["to do"] * 5
    assert all(row["seconds"] >= 0 for row in rows)
    purer = next(row for row in rows if row["method"] == "purer")
    assert (purer["teachers"], purer["teachers_stored"]) == (2, 0)
    result = bench(*arguments(cache, runs, "--json", "--no-mlflow", "--only=method=random"))
    assert [row["method"] for row in json.loads(result.stdout)] == ["random"]
    rows = json.loads(bench("plan", *words).stdout)
    assert [row["status"] for row in rows if row["method"] == "random"] == ["done"]
    table = bench("plan", *[w for w in words if w != "--json"])
    assert "5 cells, 1 finished" in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 100


@pytest.mark.cuda
def test_the_micro_suite_runs_on_a_gpu(cuda: object, cache: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    words = [w for w in arguments(cache, runs, "--no-mlflow") if w != "--device=cpu"]
    result = bench(*words)
    assert result.returncode == 0, result.stderr
    for one in by_method(runs).values():
        assert one.record.status == "done", one.record.reason
        assert one.record.device.type == "cuda"
        assert one.record.timing.peak_memory_bytes > 0


MODULES_LOADED = 90
"""Modules of this project that an `average` cell loads, 14 of them folders."""


def test_a_cell_loads_no_more_modules_than_it_did(cache: Path, tmp_path: Path) -> None:
    """Methods that `--only` leaves out are not imported, nor are readers that no data needs."""
    code = (
        "import sys\n"
        "from bench.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "packages = ('bench', 'baselines', 'purer', 'reports')\n"
        "print(*(name for name in sys.modules if name.partition('.')[0] in packages))"
    )
    words = arguments(cache, tmp_path, "--only=method=average", "--no-mlflow", "--jobs=1", "--json")
    done = processes.run(words, code, env=ENVIRONMENT, fresh=True)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1].split()
    assert "baselines.merging.average" in loaded
    assert len(loaded) <= MODULES_LOADED, loaded
