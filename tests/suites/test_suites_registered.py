"""Protocols, budgets and suites that another distribution offers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import registry
from bench.errors import BenchError
from bench.suites.expand import expand
from bench.suites.files import suite_file, suite_names
from bench.suites.protocols import budget, budget_names, differences, protocol, protocol_names
from bench.suites.suite import read_suite
from tests.plug_ins import installed

FILES = {
    "other/__init__.py": "",
    "other/constants.py": """
from bench.suites.protocols import BUDGETS, PROTOCOLS
SLOW = PROTOCOLS["cvpr23"].model_copy(update={"name": "slow", "inner_lr": 0.001})
TINY = BUDGETS["micro"].model_copy(update={"name": "tiny", "meta_iterations": 2})
WRONG = "cvpr23"
""",
    "other/suites/theirs.yaml": """
title: another author's
datasets: [glyphs]
architectures: [conv4]
protocol: slow
budget: tiny
methods: [{method: average}]
""",
    "other/suites/second.yaml": "title: both\nparts: [theirs, micro]\n",
}
POINTS = """
[purer_bench.protocols]
slow = other.constants:SLOW
wrong = other.constants:WRONG
[purer_bench.budgets]
tiny = other.constants:TINY
[purer_bench.suites]
other = other.suites
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """The distribution, installed."""
    with installed(tmp_path, FILES, POINTS):
        yield tmp_path


def test_they_are_named_like_this_packages_own(other: Path) -> None:
    assert {"cvpr23", "slow"} <= set(protocol_names())
    assert budget_names()[-1] == "tiny"
    assert {"theirs", "second", "micro"} <= set(suite_names())
    assert registry.distribution_of("budget", "tiny") == ("other", "1.5")
    assert "slow" not in registry.names("protocol", registry.OWN)
    assert registry.names("protocol", "other") == ["slow", "wrong"]
    assert suite_file("theirs") == other / "other" / "suites" / "theirs.yaml"


def test_a_suite_of_theirs_has_their_constants(other: Path) -> None:
    (cell,) = expand(*read_suite("theirs"))
    assert (cell.protocol.name, cell.protocol.inner_lr) == ("slow", 0.001)
    assert (cell.budget.name, cell.budget.meta_iterations) == ("tiny", 2)
    assert cell.variant == ""
    (changed,) = expand(*read_suite("theirs", ["protocol.bn=support"]))
    assert changed.variant == "bn=support"
    assert {one.protocol.name for one in expand(*read_suite("second"))} == {"slow", "cvpr23"}


def test_without_them_their_protocol_is_an_unnamed_one(tmp_path: Path) -> None:
    with installed(tmp_path, FILES, POINTS):
        slow = protocol("slow")
    assert differences(slow)["inner_lr"] == 0.001
    with pytest.raises(BenchError, match="unknown budget 'tiny'"):
        budget("tiny")


def test_what_an_entry_point_may_not_name(tmp_path: Path) -> None:
    with installed(tmp_path / "a", FILES, POINTS):
        with pytest.raises(BenchError, match=r"'wrong' \(other.constants:WRONG\) is no Protocol"):
            protocol("wrong")
        with pytest.raises(BenchError, match="did you mean slow"):
            protocol("slwo")
    with (
        installed(tmp_path / "b", FILES, "[purer_bench.budgets]\nshort = other.constants:TINY\n"),
        pytest.raises(BenchError, match=r"'short' of other 1\.5 has the name of one of this"),
    ):
        budget_names()
    with (
        installed(tmp_path / "c", FILES, "[purer_bench.suites]\nmine = other.suites:micro.yaml\n"),
        pytest.raises(BenchError, match=r"'mine' of purer_bench.suites .* where no YAML file is"),
    ):
        suite_names()
    clash = {**FILES, "other/suites/micro.yaml": FILES["other/suites/theirs.yaml"]}
    with (
        installed(tmp_path / "d", clash, "[purer_bench.suites]\nmine = other.suites\n"),
        pytest.raises(BenchError, match="suite 'micro' is both"),
    ):
        suite_names()
