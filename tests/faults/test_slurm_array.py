"""`bench run --executor slurm` with a queue of the test's: what is submitted, told, ended."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from bench.checkpoints import Keeping
from bench.cli import slurm_array
from bench.cli.options import resolve
from bench.cli.slurm import seconds_of
from bench.cli.slurm_array import Array
from bench.errors import BenchError, BrokenOff
from bench.execute.sharing import Order
from bench.stops import Stop, Stopped
from tests.execute.test_sharing import Shown
from tests.faults.left_by_a_run import SUITE, Left


class Queue:
    """Takes jobs as Slurm does; `work`, one call per job, is what the tasks of each do."""

    def __init__(self, *work: Callable[[], object]) -> None:
        self.work, self.calls, self.scripts = list(work), list[tuple[str, ...]](), list[str]()
        self.running = False

    def __call__(self, *words: str, script: str | None = None) -> CompletedProcess[str]:
        self.calls.append(words)
        if words[0] == "sbatch":
            assert script is not None
            self.scripts.append(script)
            self.running = True
            return CompletedProcess(words, 0, f"{len(self.scripts)};cluster\n", "")
        if words[0] == "squeue" and self.running:
            self.running = False
            self.work.pop(0)()
            return CompletedProcess(words, 0, "RUNNING\n", "")
        return CompletedProcess(words, 1, "", "slurm_load_jobs error: Invalid job id specified")


class Run:
    """A run of the small suite in a folder of its own."""

    def __init__(self, left: Left, folder: Path) -> None:
        suite = folder / "two.yaml"
        suite.write_text(SUITE)
        self.left, self.runs, self.stop = left, folder / "runs", Stop()
        words = {"suite": str(suite), "settings": (), "only": (), "seeds": None, "device": "cpu"}
        places = {"data_dir": None, "dataset_dirs": (), "cache": left.cache, "runs": self.runs}
        self.options = words | places | {"jobs": 3, "checkpoint_every": 5.0, "trust_stored": True}
        self.plan, self.request = resolve(dict(self.options), quiet=True)
        self.hashes = [cell.hash(self.plan.digests) for cell in self.plan.cells]
        self.shown = Shown()

    def finish(self, number: int) -> None:
        """Do what a task does that ends a cell."""
        name = f"two/{self.hashes[number]}"
        shutil.copytree(self.left.runs / name, self.runs / name)

    def __call__(self, limit: str | None = "1:00:00") -> list[str]:
        """Return the names of the folders that are told, in order."""
        keeping = Keeping(60, self.stop, self.shown.say)
        array = Array(self.options, limit)
        found = array(Order(self.plan, self.plan.cells, self.request, self.shown, keeping))
        return [folder.name for _, folder in found]


@pytest.fixture
def run(left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(slurm_array.shutil, "which", lambda name: name)
    monkeypatch.setattr(slurm_array, "LOOK_EVERY", 0.0)
    return Run(left, tmp_path)


def use(monkeypatch: pytest.MonkeyPatch, *work: Callable[[], object]) -> Queue:
    queue = Queue(*work)
    monkeypatch.setattr(slurm_array, "_call", queue)
    return queue


def test_cells_are_told_as_tasks_finish_them_and_what_is_left_is_submitted_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = use(monkeypatch, lambda: run.finish(1), lambda: run.finish(0))
    assert run() == [run.hashes[1], run.hashes[0]]
    assert [words[0] for words in queue.calls if words[0] == "sbatch"] == ["sbatch", "sbatch"]
    first, second = queue.scripts
    assert "#SBATCH --array=0-1" in first
    assert "#SBATCH --array=0-0" in second
    assert "--time=1:00:00" in first
    assert "--signal=B:USR1@120" in first
    command = first.splitlines()[-1]
    assert "-m bench run" in command
    assert command.endswith("--jobs=1 --no-mlflow --no-figures --checkpoint-every=5 --trust-stored")
    assert any(f"--output={run.runs}/two/.slurm/%A-%a.txt" in words for words in queue.calls)
    assert run.shown.lines[0] == f"Slurm job 1: its tasks print to {run.runs}/two/.slurm"


def test_a_job_that_only_saved_is_followed_by_others_and_three_that_did_nothing_are_not(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run.runs / "two" / run.hashes[0]

    def save() -> None:
        folder.mkdir(parents=True)
        (folder / "checkpoint-00000001-ab.pt").touch()

    nothing = [lambda: None] * 3
    queue = use(monkeypatch, nothing[0], save, *nothing)
    with pytest.raises(BrokenOff, match=r"Slurm job 5 and 2 before it ended with .*\.slurm"):
        run()
    assert len(queue.scripts) == 5


def test_a_request_to_end_reaches_the_tasks_which_save_first(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> None:
        run.stop.request(signal.SIGTERM)
        queue.running = True
        queue.work.append(lambda: run.finish(0))

    queue = use(monkeypatch, ask)
    with pytest.raises(Stopped) as stopped:
        run()
    assert stopped.value.signum == signal.SIGTERM
    assert [words for words in queue.calls if words[0] == "scancel"] == [
        ("scancel", "--state=PENDING", "1"),
        ("scancel", "--batch", "--signal=USR1", "1"),
    ]
    assert len(queue.scripts) == 1


def test_what_slurm_refuses_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    error = "sbatch: error: Batch job submission failed: Invalid qos\n"
    answer = CompletedProcess((), 1, "", error)
    monkeypatch.setattr(slurm_array, "_call", lambda *words, script=None: answer)
    with pytest.raises(BenchError, match=r"Slurm did not take the job: .*: Invalid qos$"):
        run()
    monkeypatch.setattr(slurm_array.shutil, "which", lambda name: None)
    with pytest.raises(BenchError, match="--executor slurm needs sbatch, squeue, scancel, not"):
        run()


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("1", 60), ("2:30", 150), ("1:00:05", 3605), ("2-0", 172800), ("1-1:30", 91800)],
)
def test_times_are_read_as_slurm_reads_them(time: str, seconds: int) -> None:
    assert seconds_of(time) == seconds


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(BenchError, match="--time '1 h' is no time of Slurm's; give H:M:S"):
        seconds_of("1 h")
