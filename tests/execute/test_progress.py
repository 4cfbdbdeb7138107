"""How far work is: rates and times left, the files beside it, and who wrote them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.execute.progress import (
    PROGRESS,
    RUN_FILES,
    Progress,
    Standing,
    announced,
    holder,
    read,
)


class Clock:
    """Seconds that pass only where a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rate_and_time_left_count_from_the_first_report_of_a_stage() -> None:
    """A fit that goes on from step 100 has not made those in this process."""
    clock, seen = Clock(), []
    progress = Progress(seen.append, clock)
    progress("fit", 100, 400)
    clock.now = 20
    progress.validated(0.412)
    progress("fit", 140, 400)
    assert seen[0].rate is seen[0].seconds_left is None
    assert (seen[1].rate, seen[1].seconds_left) == (2, 130)
    assert seen[1].text == "fit 140/400, 2/s, 2 min left, validation 41.2 %"
    progress("test tasks", 32, 600)
    assert seen[2].rate is None


@pytest.mark.parametrize(
    ("standing", "text"),
    [
        (Standing("fit", 1, 10), "fit 1/10"),
        (Standing("fit", 1, 10, 3.14159), "fit 1/10, 3.14/s, 3 s left"),
        (Standing("fit", 1, 10, 0.01), "fit 1/10, 0.6/min, 15 min left"),
        (Standing("fit", 1, 10, None, 0.5), "fit 1/10, validation 50.0 %"),
    ],
)
def test_a_standing_in_words(standing: Standing, text: str) -> None:
    assert standing.text == text


def test_the_file_is_written_once_a_second_and_goes_with_the_cell(tmp_path: Path) -> None:
    clock = Clock()
    progress = Progress(clock=clock)
    progress.begin(tmp_path, "a cell")
    for step, now in enumerate((0.0, 0.5, 0.9, 1.0), 1):
        clock.now = now
        progress("fit", step, 10)
        facts = read(tmp_path / PROGRESS)
        assert facts is not None
        assert facts["done"] == (4 if now == 1.0 else 1)
    assert (facts["label"], holder(facts)) == ("a cell", "there")
    assert [path.name for path in tmp_path.iterdir()] == [PROGRESS]
    progress.end()
    assert not list(tmp_path.iterdir())


def test_a_run_is_announced_until_it_ends_as_it_should(tmp_path: Path) -> None:
    with announced(tmp_path, "bench run x", {"h": "a cell"}):
        (path,) = tmp_path.glob(RUN_FILES)
        found = read(path)
        assert found is not None
        assert (found["command"], found["cells"]) == ("bench run x", {"h": "a cell"})
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), announced(tmp_path, "bench run x", {}):
        raise KeyboardInterrupt
    assert len(list(tmp_path.glob(RUN_FILES))) == 1


def left_by_a_process_that_is_gone(folder: Path) -> None:
    """Announce a run and begin a cell of it, as a process that is then killed."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from bench.execute.progress import Progress, announced\n"
        "suite = Path(sys.argv[1])\n"
        "(suite / 'h').mkdir(parents=True)\n"
        "with announced(suite, 'bench run x', {'h': 'cell h', 'i': 'cell i'}):\n"
        "    progress = Progress()\n"
        "    progress.begin(suite / 'h', 'cell h')\n"
        "    progress.validated(0.25)\n"
        "    progress('fit', 7, 10)\n"
        "    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=False)


def test_status_tells_what_runs_from_what_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left_by_a_process_that_is_gone(tmp_path / "x")
    (tmp_path / "y").mkdir()
    progress = Progress()
    progress.begin(tmp_path / "y", "cell y")
    progress("fit", 1, 2)
    with pytest.raises(SystemExit) as end:
        main(["status", str(tmp_path), "--json"])
    assert end.value.code == 0
    run, gone, there = json.loads(capsys.readouterr().out)
    assert (run["kind"], run["state"], run["left"]) == ("run", "stopped", ["cell h", "cell i"])
    assert (gone["state"], gone["done"], gone["total"]) == ("stopped", 7, 10)
    assert (there["state"], there["label"]) == ("running", "cell y")
    with pytest.raises(SystemExit):
        main(["status", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    text = " ".join(" ".join(lines).split())
    assert "0 of 2 cells are finished, 2 left" in text
    assert "fit 7/10, validation 25.0 %" in text
    assert "goes on when the same command is run again" in text
    assert [line.split()[0] for line in lines if line[0] != " "] == ["stopped"] * 2 + ["running"]


def test_the_next_run_clears_what_a_killed_one_announced(tmp_path: Path) -> None:
    left_by_a_process_that_is_gone(tmp_path / "x")
    with announced(tmp_path / "x", "bench run x", {}):
        assert len(list((tmp_path / "x").glob(RUN_FILES))) == 1


def test_another_machine_s_process_is_not_judged(tmp_path: Path) -> None:
    progress = Progress()
    progress.begin(tmp_path, "a cell")
    progress("fit", 1, 2)
    facts = read(tmp_path / PROGRESS)
    assert facts is not None
    assert holder({**facts, "host": "some other machine"}) == "elsewhere"
    assert holder({**facts, "process_started": 0.0}) == "gone"


def test_a_torn_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / PROGRESS).write_text('{"pid": ')
    assert read(tmp_path / PROGRESS) is None
    assert read(tmp_path / "absent") is None


def test_status_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from bench.cli.main import main\n"
        "try: main(['status', sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        f"nothing runs in {tmp_path}, and nothing was stopped there",
        "False",
    ]
