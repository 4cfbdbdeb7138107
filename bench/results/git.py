"""The state of a folder's git repository, independent of git's environment variables."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

TIMEOUT = 10.0
"""Seconds that one question to git may take."""


def git(folder: Path, *words: str) -> str | None:
    """Return what `git WORDS` prints in a folder, or None where git or a repository is missing."""
    printed = git_bytes(folder, *words)
    return None if printed is None else printed.decode("utf-8", "replace").strip()


def git_bytes(folder: Path, *words: str) -> bytes | None:
    """Return what `git WORDS` prints, as it is; see `git`.

    git sets `GIT_DIR`, `GIT_INDEX_FILE` and more for hooks, aliases and `rebase --exec`: they
    belong to the repository that is being worked on, so only those with settings are passed on.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG_")
    }
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            env=kept,
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit of a repository and whether tracked files differ from it.

    Args:
        root: the folder that holds `.git`; a folder inside a repository is not asked.

    Returns:
        (None, None) where there is no repository, no commit, or no git.
    """
    if not (root / ".git").exists():
        return None, None
    commit = git(root, "rev-parse", "HEAD")
    changes = git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return None, None
    return commit, bool(changes)
