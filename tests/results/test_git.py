"""The commit of a record is that of the code's own checkout, whatever git is doing around it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.execute.machine import describe_environment
from bench.results.maker import git, git_state

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine")
NAMED = {
    f"GIT_{who}_{what}": "someone@example.org"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


def repository(folder: Path, text: str) -> str:
    """Make a repository with one commit and return the commit."""
    folder.mkdir()
    (folder / "file.txt").write_text(text)
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", text]):
        subprocess.run(["git", *words], cwd=folder, env={**os.environ, **NAMED}, check=True)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def no_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


def test_a_repository_is_described(tmp_path: Path) -> None:
    commit = repository(tmp_path / "a", "one")
    assert git_state(tmp_path / "a") == (commit, False)
    (tmp_path / "a" / "new.txt").write_text("untracked files do not count")
    assert git_state(tmp_path / "a") == (commit, False)
    (tmp_path / "a" / "file.txt").write_text("two")
    assert git_state(tmp_path / "a") == (commit, True)


def test_a_hooks_variables_lead_to_no_other_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, other = (repository(tmp_path / name, name) for name in ("ours", "other"))
    assert ours != other
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nothing"))
    assert git_state(tmp_path / "ours") == (ours, False)


def test_a_record_names_the_codes_commit_inside_a_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = describe_environment.__wrapped__()
    repository(tmp_path / "other", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert describe_environment.__wrapped__() == known


def test_no_repository_no_commit_and_no_git_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert git_state(tmp_path) == (None, None)
    repository(tmp_path / "a", "one")
    (tmp_path / "a" / "inner").mkdir()
    assert git_state(tmp_path / "a" / "inner") == (None, None)
    subprocess.run(["git", "init", "-q", str(tmp_path / "fresh")], check=True)
    assert git_state(tmp_path / "fresh") == (None, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path / "a") == (None, None)
