"""Coverage by simulation, in a quick and in a slow version, and what the docs say of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from coverage_simulation import CASES, Case, coverage

DOCS = Path(__file__).resolve().parents[2] / "docs" / "statistics.md"
IDS = [f"{case.interval}: {case.world}" for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_intervals_cover_the_truth(case: Case) -> None:
    """60 simulations: three Monte-Carlo standard errors below the least that is let pass."""
    n = 60
    error = 3 * (case.least * (1 - case.least) / n) ** 0.5
    assert coverage(case, n) >= case.least - error


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_intervals_cover_as_often_as_they_say(case: Case, pytestconfig: pytest.Config) -> None:
    if "slow" not in pytestconfig.getoption("-m"):
        pytest.skip("2,000 simulations take minutes; ask for them with -m slow")
    found = coverage(case, 2000)
    assert case.least <= found <= case.most
    assert f"| {case.interval} | {case.world} | {100 * found:.1f} % |" in DOCS.read_text("utf-8")


def test_the_docs_list_every_case() -> None:
    rows = re.findall(r"^\| (.*) \| (.*) \| [\d.]+ % \|$", DOCS.read_text("utf-8"), re.MULTILINE)
    assert rows == [(case.interval, case.world) for case in CASES]
