"""A real disk, too small at first, that grows: one line each time, and nothing is lost."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.execute.integrity import damaged
from tests.faults.left_by_a_run import Left

STEP = 300_000
"""Bytes by which the disk grows."""
pytestmark = pytest.mark.faults


def used(*folders: Path) -> int:
    """Return the bytes that the files of folders take, in whole pages."""
    sizes = [p.stat().st_size for one in folders for p in one.rglob("*") if p.is_file()]
    return sum(-(-size // 4096) * 4096 for size in sizes)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_run_on_a_disk_that_grows_ends_like_any_other(
    left: Left, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(left.suite, disk)
    mine = Left(disk / left.suite.name, disk / "runs", disk / "cache")
    data = used(left.cache / "data")
    sizes = [65536, data // 2, *range(data + 50_000, 4 * used(left.cache, left.runs), STEP)]
    ends = []
    for size in sizes:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
        capsys.readouterr()
        ends.append(mine.run())
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        if ends[-1] == 0:
            break
        (line,) = captured.err.splitlines()
        assert line.startswith("Error: ")
        assert "No space left on device" in line, line
        assert str(disk) in line, line
    assert ends[-1] == 0
    assert ends[0] == 2
    assert ends.count(1) >= 3, ends
    assert mine.results() == left.results()
    assert damaged(mine.cache, mine.runs) == []
    assert not [*disk.rglob("*.tmp")]
