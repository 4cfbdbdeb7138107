"""Comparison of two results on the same tasks, or of two sets of records."""

from __future__ import annotations

from typing import overload

from bench.api.evaluating import Result
from bench.api.records import Records
from bench.errors import BenchError
from bench.results.compare import MARGIN, Comparison, compare_sides
from bench.results.memo import Memo
from bench.results.paired import compare_all
from bench.results.places import Side
from bench.stats import PairedDifference


@overload
def compare(a: Result, b: Result) -> PairedDifference: ...


@overload
def compare(
    a: Records, b: Records, *, across_methods: bool = False, margin: float = MARGIN
) -> Comparison: ...


def compare(
    a: Result | Records,
    b: Result | Records,
    *,
    across_methods: bool = False,
    margin: float = MARGIN,
) -> PairedDifference | Comparison:
    """Compare b with a, paired on the same test tasks; differences are b minus a.

    Args:
        a: a result of `bench.evaluate`, or records.
        b: another of the same kind.
        across_methods: of records, match cells without regard to method, preset, learner and
            calibration, as where a is one method and b another; otherwise these must agree.
        margin: of records, the largest difference that does not matter, a fraction.

    Returns:
        Of results, the mean difference with its 95 % interval and the p-value of a sign-flip test.
        Of records, what changed in each pair of cells, with p-values adjusted by Holm; its
        `frame()` has one row per pair.

    Raises:
        BenchError: results of different tasks, records without a pair of cells in common, or two
            things of different kinds.
    """
    if isinstance(a, Result) and isinstance(b, Result):
        return _difference(a, b)
    if isinstance(a, Records) and isinstance(b, Records):
        return compare_sides(Side("a", list(a)), Side("b", list(b)), across_methods, margin)
    raise BenchError(
        f"{type(a).__name__} and {type(b).__name__} cannot be compared; give two results of "
        "bench.evaluate, or two of bench.load_records or bench.run"
    )


def _difference(a: Result, b: Result) -> PairedDifference:
    if a.task_list_sha256 != b.task_list_sha256:
        raise BenchError(
            "the results are of different test tasks; evaluate both on the same data, ways, shots "
            "and number of tasks"
        )
    (found,) = compare_all([(b.accuracies, a.accuracies)], Memo())
    assert found is not None  # a pair was given
    return found[0]
