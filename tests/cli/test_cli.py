"""Wrong requests: one clear line with value, rule and remedy, exit status 2, nothing started."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.cli.main import main
from tests.helpers import write_birds


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command line, expect exit status 2 and one line, and return the line."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("Error: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rnu", "micro"], ["rnu", "run"]),
        (["run", "mirco"], ["mirco", "micro"]),
        (["run", "micro", "--set", "methd=x"], ["methd"]),
        (["run", "micro", "--set", "purer.pixel=1"], ["pixel", "pixel_lr"]),
        (["run", "micro", "--only", "method=purr"], ["purr", "purer"]),
        (["run", "micro", "--set", "datasets=glyfs"], ["glyfs", "glyphs"]),
        (["run", "micro", "--seeds", "0"], ["0"]),
        (["run", "micro", "--dataset-dir", "cifar_fs"], ["NAME=PATH"]),
        (["run", "micro", "--dataset-dir", "cifar=x"], ["cifar", "cifar_fs"]),
        (["run", "micro", "--dataset-dir", "birds=x"], ["'micro'", "datasets=birds", "suite own"]),
        (["data", "list", "--data", "/nonexistent"], ["/nonexistent", "--data DIR"]),
        (["data", "list", "--dataset-dir", "cub=/nonexistent"], ["/nonexistent", "cub=PATH"]),
        (["run", "micro", "--frobnicate"], ["--frobnicate"]),
        (["list", "things"], ["things", "methods"]),
        (["ingest", "--runs", "/nonexistent"], ["/nonexistent", "--runs"]),
        (["report", "/nonexistent"], ["/nonexistent"]),
    ],
)
def test_wrong_requests(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], expected: list[str]
) -> None:
    if words[0] == "run":
        words = [*words, "--cache", str(tmp_path)]
    line = refused(capsys, *words)
    assert all(word in line for word in expected), line


@pytest.mark.parametrize("group", [[], ["data"], ["teachers"]])
def test_a_group_alone_prints_its_help(
    capsys: pytest.CaptureFixture[str], group: list[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(group)
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(['bench', *group])} ")
    assert "Commands:" in lines


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu0"])
def test_wrong_devices(
    capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path, device: str
) -> None:
    words = ["--cache", str(cache), "--runs", str(tmp_path / "runs"), "--device", device]
    with pytest.raises(SystemExit) as end:
        main(["run", "micro", *words])
    assert end.value.code == 2
    assert device in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def run_cifar(capsys: pytest.CaptureFixture[str], place: Path, tmp_path: Path, *more: str) -> str:
    words = ["--data", str(place), "--cache", str(tmp_path / "c"), "--runs", str(tmp_path / "r")]
    line = refused(capsys, "run", "cifar_fs_ss", *words, *more)
    assert not list((tmp_path / "r").glob("**/config.json"))
    return line


def test_missing_data_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = run_cifar(capsys, tmp_path / "nowhere", tmp_path)
    assert "nowhere" in line


def test_data_not_in_the_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = run_cifar(capsys, tmp_path, tmp_path)
    assert "cifar_fs" in line
    assert str(tmp_path) in line


def test_a_folder_of_another_layout(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "cifar_fs" / "apple").mkdir(parents=True)
    line = run_cifar(capsys, tmp_path, tmp_path)
    assert "train" in line


def test_a_web_page_instead_of_a_zip(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "cifar_fs.zip").write_text("<!DOCTYPE html><html>quota exceeded</html>")
    assert "cifar_fs.zip" in run_cifar(capsys, tmp_path, tmp_path)


def test_a_corrupted_image_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.data.sets.cifar_fs import CifarFs

    monkeypatch.setattr(CifarFs, "expected", dict.fromkeys(("train", "val", "test"), (6, 20)))
    monkeypatch.setattr(CifarFs, "official", None)
    root = write_birds(tmp_path / "cifar_fs", n_classes=6)
    broken = root / "val" / "val1" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    line = run_cifar(capsys, tmp_path, tmp_path)
    assert "val1/3.png" in line
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for path in sorted(root.rglob("*.png")):
            archive.write(path, path.relative_to(root))
    more = ["--dataset-dir", f"cifar_fs={tmp_path / 'packed.zip'}"]
    assert "val1/3.png" in run_cifar(capsys, tmp_path, tmp_path, *more)


def test_a_class_with_too_few_images(
    capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path
) -> None:
    words = ["--cache", str(cache), "--runs", str(tmp_path / "r"), "--set", "n_query=180"]
    line = refused(capsys, "run", "micro", *words)
    assert "k_shot + n_query = 181 exceeds the 180 images of class" in line
    assert "lower n_query" in line


def test_more_ways_than_classes(
    capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path
) -> None:
    words = ["--cache", str(cache), "--runs", str(tmp_path / "r"), "--set", "n_way=44"]
    line = refused(capsys, "run", "micro", *words)
    assert "n_way 44 exceeds the 43 classes" in line


def test_a_set_of_other_counts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_birds(tmp_path / "cifar_fs", 3, n_classes=2)
    line = run_cifar(capsys, tmp_path, tmp_path)
    assert "cifar_fs" in line


@pytest.mark.parametrize("option", ["--runs", "--cache"])
def test_a_folder_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path, option: str
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    places = {"--runs": tmp_path / "runs", "--cache": cache, option: blocked / "below"}
    words = [str(word) for pair in places.items() for word in pair]
    line = refused(capsys, "run", "micro", *words)
    assert str(blocked) in line


def test_lists_and_doctor_answer_in_json(
    capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path
) -> None:
    def answer(*words: str) -> object:
        with pytest.raises(SystemExit) as end:
            main([*words, "--json"])
        assert end.value.code == 0
        return json.loads(capsys.readouterr().out)

    listed = {kind: {row["name"] for row in answer("list", kind)} for kind in ("methods", "nets")}
    assert {"purer", "average"} <= listed["methods"]
    assert {"conv4", "conv4_pooled", "resnet10", "resnet18"} <= listed["nets"]
    found = answer("doctor", "--cache", str(cache))
    assert found["torch"]
    rows = answer("data", "list", "--data", str(tmp_path))
    assert {row["name"] for row in rows if row["found"]} == {"glyphs"}
    assert {row["name"] for row in rows} >= {"cifar_fs", "mini_imagenet", "cub", "omniglot"}
    assert all(row["licence"] and row["how_to_get"] for row in rows)


def test_doctor_and_data_list_stand_in_columns(
    capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    texts = []
    for words in (["doctor", "--cache", str(cache)], ["data", "list"]):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0
        texts.append(capsys.readouterr().out)
    for text, longest in zip(texts, ("data cub_subset_cropped", "cub_subset_cropped"), strict=True):
        lines = text.splitlines()
        width = max(len(line.split("  ")[0]) for line in lines)
        assert width >= len(longest)
        assert all(line[width : width + 2] == "  " for line in lines)
        assert all(line[width + 2] != " " for line in lines)
    assert "compile" not in texts[0]


def test_verify_says_what_differs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_birds(tmp_path / "cifar_fs", n_classes=6)
    words = ["data", "verify", "cifar_fs", "--data", str(tmp_path), "--cache", str(tmp_path / "c")]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 1
    assert "PROBLEM" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    """What keeps `bench --help` quick, third parties' verbs included."""
    code = (
        "import sys; sys.argv = ['bench', '--help']\n"
        "from bench.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pydantic', 'torch', 'mlflow', 'pandas', 'scipy', 'matplotlib'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "reproduce" in done.stdout
