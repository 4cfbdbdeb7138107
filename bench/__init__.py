"""The benchmark harness: data, teachers, learners, evaluation, records; a Python API and commands.

The names in `__all__` are the Python API. They are imported when they are first used, so that
`import bench` costs nothing: no torch, no pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.api.comparing import compare
    from bench.api.evaluating import Result, evaluate
    from bench.api.fitting import FittedLearner, fit
    from bench.api.loading import load_data, load_pool
    from bench.api.pools import make_pool, train_pool
    from bench.api.records import Records, load_records
    from bench.api.running import run

__version__ = "0.2.0.dev0"

__all__ = [
    "BenchError",
    "FittedLearner",
    "Records",
    "Result",
    "__version__",
    "compare",
    "evaluate",
    "fit",
    "load_data",
    "load_pool",
    "load_records",
    "make_pool",
    "run",
    "train_pool",
]

_HOMES = {
    "FittedLearner": "fitting",
    "Records": "records",
    "Result": "evaluating",
    "compare": "comparing",
    "evaluate": "evaluating",
    "fit": "fitting",
    "load_data": "loading",
    "load_pool": "loading",
    "load_records": "records",
    "make_pool": "pools",
    "run": "running",
    "train_pool": "pools",
}
"""The module of `bench.api` that each name comes from."""


def __getattr__(name: str) -> object:
    """Import a name of the API when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bench' has no attribute '{name}'")
    return getattr(import_module(f"bench.api.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the names of the API beside what is imported."""
    return sorted({*globals(), *__all__})
