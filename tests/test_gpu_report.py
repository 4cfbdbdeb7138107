"""The summary of a GPU, on a machine that needs none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli.main import main as bench
from bench.results.store import read_record
from tests.perf import gpu_report
from tests.perf.gpu_report import cell_words, described, run_tests

ROOT = Path(__file__).resolve().parents[1]
ENDINGS = """
import pytest
@pytest.mark.cuda
def test_right(): pass
@pytest.mark.cuda
def test_wrong(): assert 0
@pytest.mark.cuda
def test_absent(): pytest.skip("no CUDA device")
def test_other(): assert 0
"""


def test_tests_are_counted_by_how_they_end(tmp_path: Path) -> None:
    (tmp_path / "test_endings.py").write_text(ENDINGS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = cuda\n")
    found = run_tests(str(tmp_path / "test_endings.py"), tmp_path)
    assert found == {"passed": 1, "skipped": 1, "failed": ["test_endings::test_wrong"]}


def options(*words: str) -> Any:
    made = gpu_report._parser().parse_args(words)
    made.device = made.device or "cpu"
    return made


def test_the_cell_is_one_and_long(cache: Path, tmp_path: Path, capsys: Any) -> None:
    words = [*cell_words(options()), "--cache", str(cache), "--runs", str(tmp_path), "--json"]
    with pytest.raises(SystemExit) as end:
        bench(["plan", *words])
    assert end.value.code == 0
    (cell,) = json.loads(capsys.readouterr().out)
    assert (cell["method"], cell["k_shot"], cell["teachers"]) == ("purer", 1, 13)
    assert "budget=long" in words


def test_with_real_images_the_cell_is_that_of_cifar_fs() -> None:
    words = cell_words(options("--data", "images"))
    assert words[0] == "cifar_fs_ss"
    assert words[-4:] == ["--data", "images", "--device", "cpu"]


def test_a_record_is_told_by_speed_and_accuracy() -> None:
    folder = next((ROOT / "results").glob("*/*/record.json")).parent
    stored = read_record(folder)
    found = described(stored)
    assert found["cell_hash"] == stored.record.cell_hash
    assert found["accuracy"]["mean"] == stored.record.accuracy.mean


@pytest.mark.parametrize(
    ("failed", "status", "code"), [([], "done", 0), (["one"], "done", 1), ([], "failed", 1)]
)
def test_the_summary_holds_all_and_the_status_tells_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: list[str], status: str, code: int
) -> None:
    tests = {"passed": 3, "skipped": 0, "failed": failed}
    monkeypatch.setattr(gpu_report, "run_tests", lambda where, folder: tests)
    monkeypatch.setattr(gpu_report, "run_cell", lambda options: {"status": status})
    if code:  # what is measured has nothing to do with the exit status
        times = {"reference_s": 3.0, "ours_s": 2.0, "ratio": 1.5, "backend": "fused"}
        monkeypatch.setattr(gpu_report, "ratio", lambda k_shot, options: times)
    words = ["--device", "cpu", "--out", str(tmp_path), "--rounds", "1", "--teachers", "1"]
    assert gpu_report.main([*words, "--k-shot", "1"]) == code
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["tests"] == tests
    assert summary["cell"] == {"status": status}
    assert summary["device"]["type"] == "cpu"
    assert summary["environment"]["packages"]["torch"]
    compared = summary["meta_iteration"]["1 shot"]
    assert compared["backend"] == "fused"
    expected = compared["reference_s"] / compared["ours_s"]
    assert compared["ratio"] == pytest.approx(expected, rel=0.01, abs=0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize(
    ("words", "line"),
    [([], "no accelerator; name one with --device"), (["--device", "gpu"], "unknown device 'gpu'")],
)
def test_without_a_device_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: list[str], line: str
) -> None:
    monkeypatch.setattr(gpu_report, "accelerators", list)
    assert gpu_report.main([*words, "--out", str(tmp_path / "out")]) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
