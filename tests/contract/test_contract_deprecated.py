"""Names of the version before this one still work, and say once that they will not for long."""

from __future__ import annotations

import warnings

import pytest

import bench.contract
from bench.contract import Method, deprecated
from bench.contract.deprecated import OLD_NAMES

OLD_PLUG_IN = """
from bench.contract import Method, Passes, PlannedFit

class Old(Method):
    name = "old"
    knowledge = "parameters"
    learners = ("maml",)

    @classmethod
    def fit_passes(cls, fit: PlannedFit) -> Passes:
        return Passes([3.0] * len(fit.teachers))

    def fit(self, context):
        return {}

    def learner(self, context, fitted):
        return context.make_learner(fitted)
"""


@pytest.fixture(autouse=True)
def _nothing_warned_of() -> None:
    deprecated.warn_once.cache_clear()


def test_a_plug_in_of_the_last_version_works_with_one_warning() -> None:
    names: dict[str, type[Method]] = {}
    with pytest.warns(DeprecationWarning, match="fit_passes") as caught:
        exec(OLD_PLUG_IN, names)
    assert len(caught) == 1
    planned = deprecated.PlannedFit(["a", "b"], None, None, None, None, None)
    assert names["Old"].fit_passes(planned).teachers == [3.0, 3.0]
    assert names["Old"]().fit(None) == {}
    assert names["Old"].default_learner == "maml"


def test_a_plug_in_of_this_version_is_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        type("New", (Method,), {"name": "new"})


@pytest.mark.parametrize("old", OLD_NAMES)
def test_every_old_name_is_found(old: str) -> None:
    module, _, name = old.rpartition(".")
    with pytest.warns(DeprecationWarning, match="this version only"):
        assert deprecated.old_name(module, name) is not None


def test_other_names_are_missing_as_ever() -> None:
    with pytest.raises(AttributeError, match=r"'bench\.contract' has no attribute 'Passage'"):
        bench.contract.Passage  # noqa: B018
