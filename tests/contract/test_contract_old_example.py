"""The worked example of CONTRIBUTING.md in version 0.1 still runs, with one deprecation warning."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench.results.find import find_records
from tests.execute.test_run import ENVIRONMENT, TINY
from tests.processes import run

TEXT = Path(__file__).parents[1] / "golden" / "contract" / "contributing_0.1.md"


def block(language: str) -> str:
    text = TEXT.read_text(encoding="utf-8")
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL).group(1)


def test_the_old_example_runs_with_one_warning(cache: Path, tmp_path: Path) -> None:
    package = tmp_path / "site"
    (package / "my_package").mkdir(parents=True)
    (package / "my_package" / "__init__.py").write_text("")
    (package / "my_package" / "median.py").write_text(block("python"))
    installed = package / "my_package-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    section = block("toml").replace('project.entry-points."', "").replace('"]', "]")
    (installed / "entry_points.txt").write_text(section.replace('"', ""))
    (tmp_path / "mine.yaml").write_text(block("yaml"))
    folders = [f"--cache={cache}", f"--runs={tmp_path / 'runs'}", "--no-mlflow", "--json"]
    result = run(
        ["run", str(tmp_path / "mine.yaml"), *folders, *TINY],
        env={**ENVIRONMENT, "PYTHONPATH": str(package)},
        warn=["default::DeprecationWarning"],
    )
    assert result.returncode == 0, result.stderr
    assert {row["method"]: row["status"] for row in json.loads(result.stdout)} == {
        "average": "done",
        "median": "done",
    }
    assert len(find_records(tmp_path / "runs")) == 2
    assert result.stderr.count("DeprecationWarning: a plug-in uses what the contract no") == 1
    assert "learner_needs" in result.stderr
