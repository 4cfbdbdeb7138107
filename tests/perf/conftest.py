"""Benchmarks are collected only where they are asked for: `tox -e perf`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out unless benchmarks are enabled."""
    return None if config.getoption("benchmark_enable") else True
