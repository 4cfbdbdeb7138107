"""`bench plan --slurm`: a script that the shell reads, with the plan's times and memory."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.cli.main import main
from bench.cli.slurm import sbatch_script
from bench.errors import BenchError
from bench.execute.plan import Request

GIB = 2**30
OPTIONS = {
    "suite": "micro",
    "settings": ("n_test_tasks=12", "purer.pixel_lr=0.1"),
    "only": ("method=purer",),
    "seeds": 2,
    "dataset_dirs": ("birds=b",),
}


def row(seconds: float | None = 100.0, memory: int | None = GIB, **more: Any) -> dict[str, Any]:
    facts = {"status": "to do", "method": "purer", "cell": "0123", "teachers": 13}
    return {**facts, "teachers_stored": 10, "seconds": seconds, "memory_bytes": memory, **more}


def script(rows: list[dict[str, Any]], n_tasks: int = 4, time: str | None = None, **more) -> str:
    request = Request(Path("r"), Path("c"), Path("d"), {}, more.pop("device", None), 1, "bench")
    return sbatch_script(OPTIONS, request, "micro", rows, n_tasks, time)


def setting(text: str, name: str) -> str:
    (line,) = [one for one in text.splitlines() if one.startswith(f"#SBATCH --{name}=")]
    return line.partition("=")[2]


def test_the_script_runs_the_same_cells_from_any_folder() -> None:
    text = script([row(), row()])
    here = Path.cwd()
    words = shlex.split(text.splitlines()[-1])
    assert words == [
        *("exec", "bench", "run", "micro", "--set=n_test_tasks=12", "--set=purer.pixel_lr=0.1"),
        *("--only=method=purer", "--seeds=2", f"--data={here / 'd'}"),
        *(f"--dataset-dir=birds={here / 'b'}", f"--cache={here / 'c'}", f"--runs={here / 'r'}"),
        "--jobs=1",
    ]
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=True).returncode == 0
    assert "gpu" not in text
    assert setting(script([row()], device="cuda"), "gres") == "gpu:1"


@pytest.mark.parametrize(
    ("seconds", "time"),
    [
        ([100.0, 100.0], "00:10:00"),  # the least
        ([7200.0, 60.0], "03:02:00"),  # 1.5 × the longest cell + 120 s
        ([3600.0] * 8, "03:02:00"),  # 1.5 × a quarter of them all + 120 s
    ],
)
def test_the_time_holds_the_longest_cell_and_a_task_s_share(seconds, time) -> None:
    assert setting(script([row(one) for one in seconds]), "time") == time


def test_tasks_and_memory() -> None:
    """As many tasks as there are cells, or teachers to train; one and a half times the memory."""
    assert setting(script([row()], n_tasks=9), "array") == "0-2"
    assert setting(script([row(teachers=0, teachers_stored=None)]), "array") == "0-0"
    assert setting(script([row(memory=3 * GIB), row()]), "mem") == "5G"
    assert "--mem" in script([row(memory=None)])
    assert "#SBATCH --mem" not in script([row(memory=None)])


def test_what_is_not_known_is_asked_for() -> None:
    with pytest.raises(BenchError, match=r"the time of purer \(0123\) is not known; give --time"):
        script([row(None)])
    assert setting(script([row(None)], time="1:00:00"), "time") == "1:00:00"
    with pytest.raises(BenchError, match="there is nothing to submit"):
        script([row(status="done", seconds=None), row(status="skipped")])


def test_the_command_prints_it(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "micro", "--only=method=random", f"--cache={cache}", f"--runs={tmp_path}"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--device=cpu", "--slurm=4"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("#!/bin/bash\n#SBATCH --job-name=micro\n#SBATCH --array=0-0\n")
    assert text.endswith("--jobs=1\n")
