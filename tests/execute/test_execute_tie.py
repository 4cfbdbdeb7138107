"""Numbers belong to the code that made them: an edit is noticed, and the new code's number comes.

A copy of the packages is edited and run in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import processes

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
title: tie
scenario: SS
datasets: [glyphs]
architectures: [conv4]
budget: micro
budgets: {micro: {teacher_epochs: 1, max_teachers: 2}}
k_shot: [1]
n_test_tasks: 12
methods: [{method: average}]
"""
RUN = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from bench.cli.main import main; main()"


class Checkout:
    """A copy of the packages, with a cache and a folder of runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in ("bench", "baselines", "purer", "reports"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, folder / "code" / package, ignore=ignore)
        (folder / "tie.yaml").write_text(SUITE, encoding="utf-8")

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a piece of text in one file."""
        file = self.folder / "code" / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {path}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def run(self, *words: str, fresh: bool = False) -> tuple[dict[str, Any], str]:
        """Run the suite; return its record and what was said.

        Args:
            words: more options.
            fresh: take a new runs folder and a new cache, as a reference.
        """
        place = self.folder / ("fresh" if fresh else "kept")
        command = [str(self.folder / "code"), "run"]
        command += [str(self.folder / "tie.yaml"), "--runs", str(place / "runs")]
        command += ["--cache", str(place / "cache"), "--device", "cpu", "--no-figures"]
        command += ["--no-mlflow", *(words or ("--threads", "1"))]
        surroundings = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = processes.run(command, RUN, surroundings, self.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.record(place), done.stdout

    def record(self, place: Path | None = None) -> dict[str, Any]:
        """Return the record of the last run in a place, by default the kept one."""
        (path,) = ((place or self.folder / "kept") / "runs" / "tie").glob("[!.]*/record.json")
        return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout whose suite has been run."""
    checkout = Checkout(tmp_path_factory.mktemp("tie"))
    checkout.run()
    return checkout


@pytest.fixture
def checkout(finished: Checkout, tmp_path: Path) -> Checkout:
    """A copy of it."""
    shutil.copytree(finished.folder, tmp_path / "copy")
    copy = Checkout.__new__(Checkout)
    copy.folder = tmp_path / "copy"
    return copy


EDITS = {
    "a method": (
        "baselines/merging/average.py",
        "return average_state(states_of(teachers, context.config.head))",
        "found = average_state(states_of(teachers, context.config.head))\n"
        "        return {name: -value for name, value in found.items()}",
    ),
    "a learner": ("bench/learners/maml.py", "lr = self.settings", "lr = 30 * self.settings"),
    "the recipe": ("bench/nets/conv4.py", "lr=0.01", "lr=0.002"),
    "the evaluation": ("bench/execute/evaluate.py", "logits.argmax(-1)", "logits.argmin(-1)"),
    "the seeds": ("bench/seeds.py", "hashlib.sha256(text", "hashlib.sha512(text"),
}


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_is_noticed_and_the_number_is_the_new_codes(
    checkout: Checkout, edit: tuple[str, str, str]
) -> None:
    before = checkout.record()
    checkout.edit(*edit)
    after, said = checkout.run()
    reference, _ = checkout.run(fresh=True)
    assert edit[0] in said
    assert "running it again" in said
    assert after["accuracy"] == reference["accuracy"] != before["accuracy"]
    assert after["code"]["digest"] == reference["code"]["digest"] != before["code"]["digest"]


@pytest.mark.slow
def test_a_comment_changes_nothing(checkout: Checkout) -> None:
    before = checkout.record()
    checkout.edit("baselines/merging/average.py", "class Average", "# a comment\nclass Average")
    after, said = checkout.run()
    assert after == before
    assert "again" not in said


@pytest.mark.slow
def test_other_threads_make_it_again_and_trust_takes_it_with_a_warning(checkout: Checkout) -> None:
    before = checkout.record()
    trusted, said = checkout.run("--threads", "2", "--trust-stored")
    assert trusted["accuracy"] == before["accuracy"]
    assert any("1 thread, not with 2" in line for line in trusted["warnings"])
    assert "running it again" not in said
    again, said = checkout.run("--threads", "2")
    assert again["device"]["threads"] == again["fit"]["threads"] == 2
    assert "was made with 1 thread, not with 2; running it again" in said
