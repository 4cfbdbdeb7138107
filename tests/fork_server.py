"""A process that has loaded the libraries of this project, and forks one process per order.

Importing torch takes seconds of CPU; a copy of a process that has done it takes none. Nothing of
this project is imported here, so that a copy imports the code that its order names, as a new
interpreter would. Orders that are content with the project as it is are passed on to a process that
has loaded it as well. A line on standard input names the folder of an order, which lies there as
JSON; see `tests/processes.py`.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NoReturn

LIBRARIES = (
    *("click", "filelock", "jinja2", "numpy", "pandas", "psutil", "pyarrow.parquet", "pydantic"),
    *("rich.progress", "rich.table", "safetensors.torch", "scipy.special", "torch._dynamo", "yaml"),
    *("PIL.Image", "mlflow.tracking", "sqlalchemy.orm", "sqlalchemy.dialects.sqlite"),
    *("alembic.command", "alembic.config", "mlflow.store.tracking.sqlalchemy_workspace_store"),
    "mlflow.store.artifact.artifact_repository_registry",
)
PACKAGES = ("baselines", "bench", "purer", "reports")
HARMLESS = "jemalloc_bg_thd"
"""The thread of an allocator, which knows of forks; a copy lacks all others."""


def main() -> None:
    """Load the libraries, then fork for each order until standard input ends."""
    for name in LIBRARIES:
        importlib.import_module(name)
    assert not _threads(), f"a process with threads must not be forked: {_threads()}"
    signal.signal(signal.SIGCHLD, _note_ends)
    os.fsync = lambda file: None  # as in tests/conftest.py
    loaded: IO[str] | None = None
    for line in sys.stdin:
        if _order(line)["fresh"]:
            _start(line)
            continue
        loaded = loaded or _with_project()
        loaded.write(line)
        loaded.flush()


def _order(line: str) -> dict[str, Any]:
    return json.loads((Path(line.rstrip("\n")) / "order").read_text(encoding="utf-8"))


def _threads() -> list[str]:
    """Return the names of the threads beside this one that a copy would miss."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")][1:]
    return [name for name in names if name != HARMLESS]


def _with_project() -> IO[str]:
    """Fork a process that loads the project and takes orders; return the end to write them to."""
    orders, to_write = os.pipe()
    if os.fork():
        os.close(orders)
        return os.fdopen(to_write, "w", encoding="utf-8")
    os.close(to_write)
    sys.path[:1] = [str(Path(__file__).resolve().parents[1])]
    for name in sorted(_modules(Path(sys.path[0]))):
        with contextlib.suppress(ImportError):  # of a library that is not installed
            importlib.import_module(name)
    _read_sources(Path(sys.path[0]))
    assert not _threads()
    with os.fdopen(orders, encoding="utf-8") as lines:
        for line in lines:
            _start(line)
    os._exit(0)


def _modules(root: Path) -> Iterable[str]:
    for path in _files(root):
        parts = path.relative_to(root).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _files(root: Path) -> Iterable[Path]:
    return (file for package in PACKAGES for file in (root / package).rglob("*.py"))


def _read_sources(root: Path) -> None:
    """Read the syntax of all modules: a digest of code then costs a copy less."""
    from bench.results.syntax import read_module

    for path in _files(root):
        package = ".".join(path.relative_to(root).parts[:-1])
        read_module(path.read_text(encoding="utf-8"), package)


_FOLDERS: dict[int, str] = {}
"""The folder of each process that runs, by its number."""


def _start(line: str) -> None:
    """Fork the process of an order, and write its number."""
    order = _order(line)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # it may end before it is noted
    pid = os.fork()
    if pid:
        _FOLDERS[pid] = order["folder"]
        _write(order["folder"], "pid", pid)
    else:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    if pid == 0:
        _run(order)


def _note_ends(*_: object) -> None:
    """Write the status of each process that has ended."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            pid, status = ended
            if pid in _FOLDERS:
                _write(_FOLDERS.pop(pid), "status", os.waitstatus_to_exitcode(status))


def _write(folder: str, name: str, value: int) -> None:
    temporary = Path(folder) / f".{name}"
    temporary.write_text(str(value))
    temporary.rename(temporary.with_name(name))


def _run(order: dict[str, Any]) -> NoReturn:
    """Run an order's code as `python -c` does, and end."""
    status = 1
    try:
        _set_up(order)
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(order["code"], "<string>", "exec"), vars(module))
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 255)


def _set_up(order: dict[str, Any]) -> None:
    for number, name in enumerate((os.devnull, "stdout", "stderr")):
        path = os.path.join(order["folder"], name)  # noqa: PTH118  /dev/null stays itself
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    encoding = os.environ.get("PYTHONIOENCODING") or "utf-8"
    sys.stdin = open(0, encoding=encoding)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    anything = {"errors": "backslashreplace", "closefd": False}
    sys.stderr = open(2, "w", encoding=encoding, **anything)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    sys.argv = ["-c", *order["words"]]
    sys.path[0] = ""
    sys.path[1:1] = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    importlib.invalidate_caches()
    for text in order["warnings"]:
        action, category = text.split("::")
        warnings.simplefilter(action, getattr(__import__("builtins"), category))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
