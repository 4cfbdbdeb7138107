"""A disk that is full, closed or another user's: the right line and status, and nothing lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from bench.execute.integrity import damaged
from bench.results import files
from tests.faults.left_by_a_run import Left
from tests.folders import copy_cache

ONLY_REMEMBERED = re.compile(r"plans|similarity|digests\.json|\.resampled|\.key$")


def kind(path: Path) -> str:
    """Return the kind of a file by its name and its folder's."""
    folder = re.sub(r"^\.?[0-9a-f]{8,}.*", "#", path.parent.name)
    return f"{folder}/{re.sub(r'[0-9a-f]{8,}', '#', path.name)}"


def test_a_disk_that_is_full_at_the_first_write_of_each_kind_stops_the_run_and_loses_nothing(
    left: Left,
    glyphs_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One chain: each run goes on where the one before stopped, at the next kind in order."""
    mine = Left(left.suite, tmp_path / "runs", tmp_path / "cache")
    copy_cache(glyphs_cache, mine.cache)
    make, written, stopped = files._temporary, set[str](), list[str]()

    def full(path: Path) -> Path:
        name = kind(path)
        if name not in written and not ONLY_REMEMBERED.search(str(path)):
            written.add(name)
            stopped.append(str(path))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return make(path)

    monkeypatch.setattr(files, "_temporary", full)
    status = 1
    while status == 1:
        before = len(stopped)
        status = mine.run("--checkpoint-every=0")
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        if status == 1:
            assert len(stopped) == before + 1, captured
            lines = captured.err.splitlines()
            assert len(lines) == 1, lines
            assert lines[0].startswith(f"Error: {stopped[-1]}: No space left on device; free space")
            assert lines[0].endswith("run the same command again to go on")
    assert status == 0
    assert len(written) >= 12, written
    assert mine.results() == left.results()
    assert damaged(mine.cache, mine.runs) == []
    assert not [path for path in tmp_path.rglob("*.tmp") if path.suffix == files.TEMPORARY]


def test_what_is_only_remembered_needs_no_disk(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file where a folder should be")
    files.remember(tmp_path / "plans" / "x.json", {"a": 1})
    assert files.recall(tmp_path / "plans" / "x.json") == {}


def test_a_cache_that_is_another_users_and_read_only_is_used(
    left: Left,
    tmp_path: Path,
    read_only: Callable[[Path], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine = left.copied(tmp_path)
    shutil.rmtree(mine.runs)
    mine.runs.mkdir()
    mine.runs.chmod(0o777)
    with read_only(mine.cache):
        assert mine.run() == 0, capsys.readouterr()
        assert mine.run("--set=budget.teacher_epochs=2") == 2
    assert "is not writable" in capsys.readouterr().err
    assert mine.results() == left.results()


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_files_have_the_mode_that_the_umask_leaves(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        files.write_json(tmp_path / "x.json", [1])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == mode


def test_what_a_killed_write_left_goes_with_the_next_write_and_anothers_stays(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys; from pathlib import Path; from bench.results import files;"
        "files._temporary(Path(sys.argv[1])); os._exit(9)"
    )
    path = tmp_path / "x.json"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    mine, theirs = files._temporary(path), left.with_name(f".x.json.1.0.elsewhere{files.TEMPORARY}")
    theirs.touch()
    files.write_json(path, [1])
    assert sorted(tmp_path.iterdir()) == sorted([mine, theirs, path])
    os.utime(theirs, (0, 0))
    files.write_json(path, [2])
    assert sorted(tmp_path.iterdir()) == sorted([mine, path])
