"""Copies of the packages that are edited and run, each time in a process of its own."""

from __future__ import annotations

import json
import shutil
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from tests import processes
from tests.folders import copy_cache

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bench", "baselines", "purer", "reports")
SUITE = """
title: tie
scenario: SS
datasets: [glyphs]
architectures: [conv4]
budget: micro
budgets: {micro: {teacher_epochs: 1, max_teachers: 1}}
k_shot: [1]
n_query: 3
n_test_tasks: 12
methods: [{method: average}, {method: scaled}]
"""
PLUG_IN = {
    "tie_plugin.py": '''"""A method of another distribution."""

from baselines.merging.average import Average
from tie_near import scaled


class Scaled(Average):
    """The mean of the teachers' weights, scaled."""

    name = "scaled"

    def merge(self, context, teachers):
        """Return the scaled mean."""
        return scaled(super().merge(context, teachers))
''',
    "tie_near.py": """from tie_far import by


def scaled(state):
    return {name: by(value) for name, value in state.items()}
""",
    "tie_far.py": "def by(value):\n    return value * 0.5\n",
    "tie-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tie\nVersion: 1.0\n",
    "tie-1.0.dist-info/top_level.txt": "tie_plugin\ntie_near\ntie_far\n",
    "tie-1.0.dist-info/entry_points.txt": "[purer_bench.methods]\nscaled = tie_plugin:Scaled\n",
}
"""A method, a helper of it, and a helper of that."""

RUN = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from bench.cli.main import main; main()"


class Checkout:
    """A copy of the packages and of a plug-in, with a cache and a folder of runs.

    Args:
        code: the packages; edits of them are taken back by `restore`.
        folder: holds the suite and what is kept and made.
    """

    def __init__(self, code: Path, folder: Path) -> None:
        self.code, self.folder = code, folder
        self._before: dict[Path, str | None] = {}

    @classmethod
    def new(cls, folder: Path) -> Checkout:
        """Copy the packages and the plug-in to a folder."""
        for package in PACKAGES:
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, folder / "code" / package, ignore=ignore)
        for name, text in PLUG_IN.items():
            path = folder / "code" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (folder / "tie.yaml").write_text(SUITE, encoding="utf-8")
        return cls(folder / "code", folder)

    def beside(self, folder: Path) -> Checkout:
        """Return the same code with a copy of what was run."""
        for name in ("kept", "tie.yaml"):
            path = self.folder / name
            (copy_cache if path.is_dir() else shutil.copy)(path, folder / name)
        return Checkout(self.code, folder)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a piece of text in one file."""
        file = self.code / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {path}"
        self._write(file, text.replace(old, new, 1))

    def move(self, module: str, to: str) -> None:
        """Move a module, and change the imports of it."""
        source, target = (self.code / f"{name.replace('.', '/')}.py" for name in (module, to))
        self._write(target, source.read_text(encoding="utf-8"))
        self._write(source, None)
        for file in self.code.rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            if module in text:
                self._write(file, text.replace(module, to))

    def restore(self) -> None:
        """Take back all edits."""
        for file, text in list(self._before.items()):
            self._write(file, text)

    def _write(self, file: Path, text: str | None) -> None:
        """Write a file, or remove it; what was compiled of it is known by seconds and length."""
        before = file.read_text(encoding="utf-8") if file.exists() else None
        self._before.setdefault(file, before)
        Path(cache_from_source(str(file))).unlink(missing_ok=True)
        if text is None:
            file.unlink()
        else:
            file.write_text(text, encoding="utf-8")

    def run(self, *words: str, place: str = "kept") -> tuple[dict[str, dict[str, Any]], str]:
        """Run the suite; return its records by method, and what was said.

        Args:
            words: more options.
            place: the folder of runs and cache.
        """
        runs = self.folder / place / "runs"
        command = [str(self.code), "run", str(self.folder / "tie.yaml"), "--runs", str(runs)]
        command += ["--cache", str(self.folder / place / "cache"), "--device", "cpu", "--jobs", "1"]
        command += ["--no-figures", "--no-mlflow", *(words or ("--threads", "1"))]
        done = processes.run(command, RUN, cwd=self.folder, fresh=True)
        assert done.returncode == 0, done.stdout + done.stderr
        found = [json.loads(p.read_text("utf-8")) for p in runs.glob("tie/[!.]*/record.json")]
        return {record["method"]: record for record in found}, done.stdout

    def reference(self, *unconcerned: str) -> dict[str, dict[str, Any]]:
        """Return the records of the code as it is, made in new folders.

        Args:
            unconcerned: folders of the cache that the edit does not concern, taken as they are.
        """
        for name in unconcerned:
            copy_cache(*(self.folder / place / "cache" / name for place in ("kept", "fresh")))
        return self.run(place="fresh")[0]
