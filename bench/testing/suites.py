"""Checks of protocols, budgets and suites."""

from __future__ import annotations

from bench import registry
from bench.contract import Budget, ProtocolConstants
from bench.errors import unknown_name
from bench.suites import protocols
from bench.suites.expand import expand
from bench.suites.files import suite_file, suite_files
from bench.suites.suite import read_suite, suite_datasets
from bench.testing.checks import Check, require


class ProtocolSubject:
    """The constants of a protocol."""

    def __init__(self, name: str) -> None:
        self.constants: ProtocolConstants = protocols.protocol(name)


class BudgetSubject:
    """The counts of a budget."""

    def __init__(self, name: str) -> None:
        self.counts: Budget = protocols.budget(name)


class SuiteSubject:
    """A suite's file."""

    def __init__(self, name: str) -> None:
        if name not in suite_files():
            raise unknown_name("suite", name, suite_files())
        self.name, self.path = name, suite_file(name)


def is_made_of_valid_constants(subject: ProtocolSubject) -> str:
    """Has valid constants; lists those that differ from cvpr23."""
    constants = subject.constants
    ProtocolConstants.model_validate(constants.model_dump())
    usual = protocols.protocol("cvpr23").model_dump()
    changed = {k: v for k, v in constants.model_dump().items() if usual[k] != v and k != "name"}
    return ", ".join(f"{name}={value}" for name, value in changed.items())


def is_made_of_valid_counts(subject: BudgetSubject) -> str:
    """Has valid counts."""
    Budget.model_validate(subject.counts.model_dump())
    return f"{subject.counts.meta_iterations} meta-iterations"


def reads_as_a_suite(subject: SuiteSubject) -> str:
    """Is a YAML file with known fields, named like its file."""
    suite, _ = read_suite(subject.name)
    require(suite.name == subject.path.stem, f"its name is '{suite.name}'")
    return suite.title


def names_what_is_registered(subject: SuiteSubject) -> str:
    """Expands to cells of registered methods, learners, networks, data sets and constants."""
    suite, overrides = read_suite(subject.name)
    if not suite_datasets(suite):
        suite = suite.model_copy(update={"datasets": registry.names("dataset")[:1]})
    return f"{len(expand(suite, overrides))} cells"


SUBJECTS = {"protocol": ProtocolSubject, "budget": BudgetSubject, "suite": SuiteSubject}
CHECKS: dict[str, tuple[Check, ...]] = {
    "protocol": (is_made_of_valid_constants,),
    "budget": (is_made_of_valid_counts,),
    "suite": (reads_as_a_suite, names_what_is_registered),
}
