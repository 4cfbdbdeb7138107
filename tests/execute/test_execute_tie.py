"""Numbers belong to the code that made them: an edit is noticed, and the new code's number comes.

A copy of the packages and of a plug-in is edited and run in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.execute.checkouts import Checkout
from tests.folders import copy_cache

pytestmark = pytest.mark.slow
Records = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def finished(
    glyphs_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkout, Records]:
    """A checkout whose suite has been run, and its records."""
    folder = tmp_path_factory.mktemp("tie")
    copy_cache(glyphs_cache, folder / "kept" / "cache")
    checkout = Checkout.new(folder)
    return checkout, checkout.run()[0]


@pytest.fixture
def before(finished: tuple[Checkout, Records]) -> Records:
    """The records before the edit."""
    return finished[1]


@pytest.fixture
def checkout(finished: tuple[Checkout, Records], tmp_path: Path) -> Iterator[Checkout]:
    """The checkout, with runs and a cache of the test's own."""
    found = finished[0].beside(tmp_path)
    yield found
    found.restore()


BOTH = {"average", "scaled"}
EDITS = {
    "a method": (
        BOTH,
        "baselines/merging/average.py",
        "return average_state(states_of(teachers, context.config.head))",
        "found = average_state(states_of(teachers, context.config.head))\n"
        "        return {name: -value for name, value in found.items()}",
    ),
    "a plug-in's file": ({"scaled"}, "tie_plugin.py", "scaled(super()", "dict(super()"),
    "a helper two imports away": ({"scaled"}, "tie_far.py", "* 0.5", "* -0.5"),
    "a learner": (BOTH, "bench/learners/maml.py", "lr = self.settings", "lr = 30 * self.settings"),
    "the recipe": (BOTH, "bench/nets/conv4.py", "lr=0.01", "lr=0.002"),
    "the evaluation": (BOTH, "bench/execute/evaluate.py", "logits.argmax(-1)", "logits.argmin(-1)"),
    "the seeds": (BOTH, "bench/seeds.py", "hashlib.sha256(text", "hashlib.sha512(text"),
}


UNCONCERNED = {"bench/nets/conv4.py": ("data",), "bench/seeds.py": ()}
"""What of a cache does not depend on a file, where it is not data and teachers."""
LONG = ("a plug-in's file", "a learner", "the seeds")
"""Edits that only a long campaign tries; each of the others goes another way to the number."""


@pytest.mark.parametrize(
    ("concerned", "path", "old", "new"),
    [
        pytest.param(*edit, id=name, marks=[pytest.mark.faults] * (name in LONG))
        for name, edit in EDITS.items()
    ],
)
def test_an_edit_is_noticed_and_the_number_is_the_new_codes(
    checkout: Checkout, before: Records, concerned: set[str], path: str, old: str, new: str
) -> None:
    checkout.edit(path, old, new)
    after, said = checkout.run()
    reference = checkout.reference(*UNCONCERNED.get(path, ("data", "teachers")))
    again = [line for line in said.splitlines() if line.endswith("running it again")]
    assert {line.split()[0] for line in again} == concerned
    assert all(path in line for line in again)
    for method in concerned:
        now, wanted, then = (found[method] for found in (after, reference, before))
        assert now["accuracy"] == wanted["accuracy"] != then["accuracy"]
        assert now["code"]["digest"] == wanted["code"]["digest"] != then["code"]["digest"]
    assert all(after[method] == before[method] for method in BOTH - concerned)


def test_comments_docstrings_and_the_place_of_a_module_change_nothing(
    checkout: Checkout, before: Records
) -> None:
    checkout.edit("baselines/merging/average.py", "class Average", "# a comment\nclass Average")
    checkout.edit("baselines/merging/average.py", "Return the mean state", "Give the mean")
    checkout.move("bench.training.initialisation", "bench.learners.initial_weights")
    after, said = checkout.run()
    assert after == before
    assert "again" not in said


def test_other_threads_make_it_again_and_trust_takes_it_with_a_warning(
    checkout: Checkout, before: Records
) -> None:
    trusted, said = checkout.run("--threads", "2", "--trust-stored")
    assert "running it again" not in said
    again, said = checkout.run("--threads", "2")
    assert "was made with 1 thread, not with 2; running it again" in said
    for method in BOTH:
        assert trusted[method]["accuracy"] == before[method]["accuracy"]
        assert any("1 thread, not with 2" in line for line in trusted[method]["warnings"])
        assert again[method]["device"]["threads"] == again[method]["fit"]["threads"] == 2
