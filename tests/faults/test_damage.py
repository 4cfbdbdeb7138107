"""Whatever a run leaves: damaged, it is noticed and made again, and never used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.execute.integrity import damaged
from tests.faults.left_by_a_run import DAMAGES, Left, empty, flip, kinds, lose

FOUND_OUT_AGAIN = ("cache/plans/", "cache/similarity/", "cache/digests.json", "report/.resampled")
"""Kinds that a run makes again where they are missing; nothing else says that they were there."""
ENDS = ("DONE", "cache/teachers/#/teacher.json")
"""Kinds without which the others of their folder count as not finished."""


@pytest.mark.parametrize(
    "every",
    [pytest.param(True, marks=pytest.mark.faults, id="every"), pytest.param(False, id="two")],
)
def test_every_kind_of_file_that_is_damaged_is_named(few: Left, every: bool) -> None:
    """Each by a flipped bit with its size and time put back, so that only the content tells.

    And by every other damage, or by one of them, in turn.
    """
    found = kinds(few)
    assert len(found) >= 15, sorted(found)
    for number, (name, path) in enumerate(found.items()):
        others = DAMAGES[1:] if every else DAMAGES[1 + number % 3 :][:1]
        intact, before = path.read_bytes(), path.stat()
        for damage in (flip, *others):
            damage(path)
            if damage is flip:
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            lines = damaged(few.cache, few.runs)
            path.write_bytes(intact)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            if damage is lose and any(one in name for one in FOUND_OUT_AGAIN):
                assert lines == []
            elif not (damage is lose and name.endswith(ENDS)):
                assert len(lines) == 1, (name, damage.__name__, lines)
                assert path.name in lines[0] or str(path.parent) in lines[0]
                assert "\n" not in lines[0]
    assert damaged(few.cache, few.runs) == []


@pytest.mark.parametrize(
    "where", [0.35, *(pytest.param(at, marks=pytest.mark.faults) for at in (0.0, 0.1, 0.9, 1.0))]
)
def test_a_bit_anywhere_in_what_is_json_is_noticed(few: Left, where: float) -> None:
    for name, path in kinds(few).items():
        if path.suffix == ".json" and path.stat().st_size < 100_000:
            intact, before = path.read_bytes(), path.stat()
            flip(path, where)
            lines = damaged(few.cache, few.runs)
            path.write_bytes(intact)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            harmless = where == 1.0  # the line break at the end
            assert len(lines) == 1 or harmless, (name, lines)


def test_doctor_names_what_is_damaged_and_exits_with_1(
    few: Left, capsys: pytest.CaptureFixture[str]
) -> None:
    def doctor() -> tuple[object, list[str]]:
        with pytest.raises(SystemExit) as end:
            main(["doctor", "--deep", f"--cache={few.cache}", f"--runs={few.runs}"])
        return end.value.code, capsys.readouterr().out.splitlines()

    assert doctor()[0] == 0
    path = next(few.cache.glob("teachers/*/teacher.json"))
    intact = path.read_bytes()
    flip(path)
    status, lines = doctor()
    path.write_bytes(intact)
    assert status == 1
    assert f"damaged: {path} is damaged: it is not what was written" in lines


@pytest.mark.parametrize("damage", [flip, pytest.param(empty, marks=pytest.mark.faults)])
def test_a_run_over_nothing_but_damaged_files_ends_with_the_same_results(
    few: Left, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    mine = few.copied(tmp_path)
    for path in [*mine.runs.rglob("*"), *mine.cache.rglob("*")]:
        if path.is_file() and path.stat().st_size and path.suffix != ".lease":
            damage(path)
    capsys.readouterr()
    assert mine.run() == 0
    captured = capsys.readouterr()
    assert mine.results() == few.results()
    assert damaged(mine.cache, mine.runs) == []
    assert "running the cell again" in captured.out
    assert "training it again" in captured.out
    assert "fitting again" in captured.out
    assert "Traceback" not in captured.out + captured.err


@pytest.mark.faults
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_each_kind_alone_is_noticed_or_made_again_by_a_run(
    few: Left, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    """Of what the cache holds with the records gone, so that it is used.

    Of a teacher the best and the last epoch are kept; the one that is not used stays damaged.
    """
    for number, name in enumerate(kinds(few)):
        folder = tmp_path / str(number)
        mine = few.copied(folder)
        path = kinds(mine)[name]
        damage(path)
        if name.startswith("cache/"):
            shutil.rmtree(mine.runs)
        assert mine.run() == 0, (name, capsys.readouterr())
        assert mine.results() == few.results(), name
        left_over = damaged(mine.cache, mine.runs)
        if "/teachers/" not in name or len(left_over) != 1 or str(path) not in left_over[0]:
            assert left_over == [], name
        shutil.rmtree(folder)
