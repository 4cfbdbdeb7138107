"""Records as a list that can be narrowed, and as data frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from bench.errors import BenchError, counted
from bench.paths import user_path
from bench.results import select
from bench.results.frame import record_frame, task_frame
from bench.results.store import StoredRecord

if TYPE_CHECKING:
    import pandas


class Records(Sequence[StoredRecord]):
    """Records of cells, in order.

    Each has `record`, all that `record.json` says, `folder`, and `accuracies()`, one fraction per
    test task.
    """

    def __init__(self, stored: Sequence[StoredRecord]) -> None:
        self._stored = tuple(stored)

    def __len__(self) -> int:
        return len(self._stored)

    @overload
    def __getitem__(self, index: int) -> StoredRecord: ...

    @overload
    def __getitem__(self, index: slice) -> Records: ...

    def __getitem__(self, index: int | slice) -> StoredRecord | Records:
        if isinstance(index, slice):
            return Records(self._stored[index])
        return self._stored[index]

    def __iter__(self) -> Iterator[StoredRecord]:
        return iter(self._stored)

    def __repr__(self) -> str:
        methods = sorted({one.record.method for one in self})
        return f"<{counted(len(self), 'record')}: {', '.join(methods)}>"

    def only(self, *conditions: str) -> Records:
        """Return the records that meet all `key=value`; several values of one key are alternatives.

        Args:
            conditions: as of `bench report --only`, such as `method=purer`, `k_shot=1`.

        Raises:
            BenchError: a condition is not of that form, or nothing meets it.
        """
        return Records(select.narrowed(list(self), conditions))

    def frame(self) -> pandas.DataFrame:
        """Return one row per record: settings, accuracy with intervals, cost, time.

        Accuracies are fractions, times seconds; the columns are those of `results.csv`.
        """
        return record_frame(self)

    def tasks(self) -> pandas.DataFrame:
        """Return one row per record and test task: `cell_hash`, what tells cells apart, `task`.

        `accuracy` is a fraction. Equal numbers in `task` are the same task where `task_list_sha256`
        is equal. Cells without a result have no row.
        """
        return task_frame(self)


def load_records(path: str | Path, only: Sequence[str] = ()) -> Records:
    """Read the records below a folder: of runs, of one suite, or stored results; no torch.

    Each cell is there once. Where several suites hold it, a finished one counts, then the latest.
    A record that cannot be read is left out with a `RecordWarning`.

    Args:
        path: the folder.
        only: `key=value` conditions, as `Records.only` takes.

    Raises:
        BenchError: no folder, no readable record, or a condition that nothing meets.
    """
    if isinstance(only, str):
        raise BenchError(f"only = '{only}' is one word; give a list, as in only=['{only}']")
    return Records(select.load_records(user_path(path), only))
