"""The numbers in the prose around the tables are those of the stored records."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from bench.results.files import read_parquet
from bench.results.find import find_records
from bench.results.store import CURVE, StoredRecord

ROOT = Path(__file__).resolve().parents[1]
NUMBER = r"[-+]?\d+\.\d"
DIFFERENCE = re.compile(rf"({NUMBER}) (?:points )?\[({NUMBER}), ({NUMBER})\]")
ROUNDED = 0.05 + 1e-9
ACCURACY = re.compile(r"(?<![-+\d.])[2-9]\d\.\d(?![\d.])(?!(?: and \d+\.\d)? points)")

Suites = dict[str, list[StoredRecord]]


def prose(text: str) -> str:
    """Return a page on one line, without its generated tables and its commands."""
    text = re.sub(r"<!-- results: .*?<!-- /results -->", "", text, flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", text)


def suites_of(path: Path, text: str, suites: Collection[str]) -> set[str]:
    """Return the suites that a page shows or links to; all for a page of all."""
    shown = set(re.findall(r"<!-- results: (\S+)", text))
    linked = set(re.findall(r"\]\((?:[\w.]+/)*(\w+)\.md", text))
    return set(suites) if "." in shown else (shown | linked) & set(suites)


def with_tables() -> Iterator[Path]:
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))):
        if "<!-- results: " in path.read_text(encoding="utf-8"):
            yield path


PAGES = list(with_tables())
RESULTS = [path for path in PAGES if path.parent.name == "results" or path.name == "README.md"]


@pytest.fixture(scope="module")
def suites() -> Suites:
    found = defaultdict(list)
    for one in find_records(ROOT / "results"):
        if one.record.accuracy is not None:
            found[one.record.suite].append(one)
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_differences_with_an_interval_are_of_two_stored_rows(path: Path, suites: Suites) -> None:
    text = path.read_text(encoding="utf-8")
    shown = suites_of(path, text, suites)
    parts = [[name] for name in shown] if shown == set(suites) else [shown]
    known = np.concatenate([paired([x for name in part for x in suites[name]]) for part in parts])
    stated = DIFFERENCE.findall(prose(text))
    assert unknown(stated, known) == [], f"no two rows of {', '.join(sorted(shown))} differ by this"


def paired(rows: list[StoredRecord]) -> np.ndarray:
    return differences([one.accuracies() for one in rows])


def differences(accuracies: list[np.ndarray]) -> np.ndarray:
    """Return each two rows' mean difference in points and its 95 % t interval, (n, 3)."""
    found = [np.empty((0, 3))]
    for n in {len(one) for one in accuracies}:
        same = 100 * np.stack([one for one in accuracies if len(one) == n])
        mean = same.mean(axis=1)[:, None] - same.mean(axis=1)
        covariance = np.atleast_2d(np.cov(same))
        variance = np.diag(covariance)[:, None] + np.diag(covariance) - 2 * covariance
        half = scipy.stats.t.ppf(0.975, n - 1) * np.sqrt(np.maximum(variance, 0) / n)
        found.append(np.stack([mean, mean - half, mean + half], axis=-1).reshape(-1, 3))
    return np.concatenate(found)


def unknown(stated: Sequence[Sequence[str]], known: np.ndarray) -> list[Sequence[str]]:
    """Return the tuples that are, rounded up or down, no row of known numbers, (n, k)."""
    return [
        one
        for one in stated
        if not (abs(known - np.array(one, dtype=float)) <= ROUNDED).all(axis=1).any()
    ]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_accuracies_are_of_a_stored_row(path: Path, suites: Suites) -> None:
    text = path.read_text(encoding="utf-8")
    shown = suites_of(path, text, suites)
    known = [[100 * value] for suite in shown for value in values(suites[suite])]
    stated = [(one,) for one in ACCURACY.findall(DIFFERENCE.sub("", prose(text)))]
    assert unknown(stated, np.array(known)) == [], f"not in {', '.join(sorted(shown))}"


def values(rows: list[StoredRecord]) -> Iterator[float]:
    """Yield the accuracies of rows: on test tasks, of their teachers, and during their fits."""
    for one in rows:
        yield one.record.scored.mean
        if one.record.pool is not None:
            yield one.record.pool.mean_accuracy
        if one.has(CURVE):
            yield from validations(one)


def validations(one: StoredRecord) -> Iterator[float]:
    columns = read_parquet(one.folder / CURVE, ("name", "value"))
    yield from columns["value"][columns["name"] == "val_accuracy"]


def test_a_number_that_no_record_holds_is_found() -> None:
    text = "reaches 38.6 %, 0.8 points [0.2,\n1.4] above, 9.9 and 20.2 points, -20.5, 24.3 / 37.1"
    assert DIFFERENCE.findall(prose(text)) == [("0.8", "0.2", "1.4")]
    assert ACCURACY.findall(prose(text)) == ["38.6", "24.3", "37.1"]
    known = differences([np.array([0.2, 0.4, 0.6]), np.array([0.1, 0.4, 0.4])])
    right = [("10.0", "-14.8", "34.8"), ("-10.0", "-34.8", "14.8")]
    assert unknown([*right, ("10.0", "-14.8", "34.7")], known) == [("10.0", "-14.8", "34.7")]
