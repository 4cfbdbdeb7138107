"""The record of a cell: a model that explains itself and can be run again. No torch, no MLflow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from bench.contract import Budget, Inference, ProtocolConstants, with_added
from bench.errors import BenchError
from bench.results.files import content_hash

SCHEMA = 3
"""The version that is written: raised, with a step in `bench.results.migrations`, when an older
reader could take a record for something else."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Accuracy(_Part):
    """Fractions in [0, 1] over n test tasks; std is the population's, ci95 = 1.96·std/√n."""

    mean: float
    ci95: float
    std: float
    n: int


class Timing(_Part):
    """Seconds and rates; None where a thing was not done.

    `*_cpu_s` are CPU seconds of all threads of the process: of one thread, those by the clock less
    what other programs took meanwhile. Validation and checkpoints are in none of them; the rates of
    a fit are those of its loop from the end of its first step on (`execute.timing.Pace`). Peak
    memory: of the process, or of the GPU's allocator where one was used.
    """

    fit_s: float | None = None
    fit_cpu_s: float | None = None
    meta_iterations_per_s: float | None = None
    train_tasks_per_s: float | None = None
    pseudo_images_per_s: float | None = None
    test_s: float | None = None
    test_cpu_s: float | None = None
    test_tasks_per_s: float | None = None
    embeddings_reused: bool = False
    peak_memory_bytes: int | None = None


class Cost(_Part):
    """What prediction and the fit cost; MACs are multiply-accumulates of one image or task."""

    params: int | None = None
    macs_per_query_image: int | None = None
    macs_adapt_per_task: int | None = None
    teacher_forward_images: int = 0
    queries: int = 0


class Device(_Part):
    """Where the cell ran."""

    type: str
    name: str
    threads: int


class Environment(_Part):
    """With what the cell ran; `git_commit` is None outside a checkout."""

    python: str
    platform: str
    packages: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None


class Distribution(_Part):
    """An installed distribution that plug-ins came from; `commit` where it is known."""

    name: str
    version: str
    commit: str | None = None


class Code(_Part):
    """The code that something was made by: all first-party code that it reached.

    `digest` is of all of it, `files` of what is reached in each file, to tell which one changed
    (`bench.results.code`); `distributions` are those that the plug-ins came from.
    """

    digest: str
    files: dict[str, str] = {}
    distributions: list[Distribution] = []


class ProcessFacts(_Part):
    """The process that ran the cell, of which a run may have many, on many machines."""

    host: str
    pid: int


class PoolSummary(_Part):
    """Which teachers a cell used; `name` is that of an imported pool.

    Each teacher's `code` (digest) and `threads` are those that it was trained with, where known.
    """

    name: str | None = None
    sha256: str
    n: int
    mean_accuracy: float
    architectures: dict[str, int]
    teachers: list[dict[str, Any]]


class FitSummary(_Part):
    """Which fit a cell used, whether an earlier cell had made it, and how it was computed.

    `strategies` names the backend taken, for each part that several equivalent ones compute;
    `code` is the digest of the code that made the fit, `threads` the CPU threads that it had.
    """

    sha256: str
    reused: bool
    strategies: dict[str, str] = {}
    code: str | None = None
    threads: int | None = None


class Record(_Part):
    """The result of one cell, complete enough to explain itself and to be run again.

    `identity` is the object whose hash `cell_hash` is (`bench.suites.cell.Cell.hashed`); None where
    the record was written before it was kept. `extra` holds what a plug-in adds, by name.
    """

    schema_version: int = SCHEMA
    status: Literal["done", "failed", "skipped"]
    reason: str | None = None
    suite: str
    cell_hash: str
    identity: dict[str, Any] | None = None
    scenario: str
    datasets: list[str]
    test_datasets: list[str] = []
    dataset_digests: dict[str, str]
    architectures: list[str]
    net: str
    method: str
    knowledge: str
    inference: Inference
    preset: str
    method_config: dict[str, Any]
    learner: str
    calibration: str
    calibration_config: dict[str, Any] = {}
    n_way: int
    k_shot: int
    n_query: int
    n_test_tasks: int
    task_list_sha256: str | None = None
    protocol: dict[str, Any]
    variant: str = ""
    budget: dict[str, Any]
    selection: str
    seed: int
    accuracy: Accuracy | None = None
    timing: Timing = Timing()
    cost: Cost = Cost()
    energy_j: float | None = None
    """joules of the device, all that ran on it included, while the cell ran; None where the machine
    counts none"""
    device: Device
    environment: Environment
    code: Code | None = None
    """None where the record was written before it was kept"""
    pool: PoolSummary | None = None
    fit: FitSummary | None = None
    process: ProcessFacts | None = None
    """None where the record was written before it was kept"""
    command: str
    warnings: list[str] = []
    extra: dict[str, Any] = {}
    started: str
    ended: str

    @model_validator(mode="after")
    def _know_what_was_added(self) -> Record:
        """An older record says nothing of constants added since: they were what is default now."""
        self.protocol = with_added(ProtocolConstants, self.protocol)
        self.budget = with_added(Budget, self.budget)
        return self

    @property
    def undisturbed(self) -> bool:
        """Whether `fit_seconds` and `test_seconds` leave out what other programs took meanwhile.

        They are processor seconds then: of a single CPU thread, where the record knows them.
        """
        single = (self.device.type, self.device.threads) == ("cpu", 1)
        return single and None not in (self.timing.fit_cpu_s, self.timing.test_cpu_s)

    @property
    def fit_seconds(self) -> float | None:
        """The seconds of the fit, processor seconds where `undisturbed`, else by the clock."""
        return self.timing.fit_cpu_s if self.undisturbed else self.timing.fit_s

    @property
    def test_seconds(self) -> float | None:
        """The seconds of the test, processor seconds where `undisturbed`, else by the clock."""
        return self.timing.test_cpu_s if self.undisturbed else self.timing.test_s

    @property
    def test_rate(self) -> float | None:
        """Test tasks in each of the `test_seconds`; None where nothing was scored."""
        done, seconds = self.accuracy, self.test_seconds
        return done.n / seconds if done and seconds else None

    @property
    def scored(self) -> Accuracy:
        """The accuracy of a finished cell.

        Raises:
            BenchError: the record has none.
        """
        if self.accuracy is None:
            raise BenchError(f"cell {self.cell_hash} has no accuracy: {self.status}; run it again")
        return self.accuracy

    @property
    def tested(self) -> list[str]:
        """The data sets whose test tasks were scored; the pool's may be more."""
        return self.test_datasets or self.datasets

    @property
    def protocol_label(self) -> str:
        """The name under which numbers may share a table: the protocol, or the budget's own.

        A short budget is a protocol of its own name and never stands beside the paper's.
        """
        if self.budget["name"] == "paper":
            return self.protocol["name"]
        return f"{self.budget['name']} ({self.protocol['name']})"


def check_hash(record: Record) -> bool | None:
    """Tell whether a record's hash is that of the identity it stores; None where it stores none.

    Neither the plug-ins nor the data that the cell was made with are needed.
    """
    if record.identity is None:
        return None
    return content_hash(record.identity)[: len(record.cell_hash)] == record.cell_hash


def summarise(accuracies: Sequence[float] | np.ndarray) -> Accuracy:
    """Summarise one accuracy per task.

    Args:
        accuracies: (n,) fractions in [0, 1], one per test task.

    Raises:
        BenchError: none given, or one is not a fraction.

    Source: the field's convention, mean ± 1.96·population std/√n over tasks.
    """
    values = np.asarray(accuracies, dtype=np.float64)
    if values.size == 0 or not np.all((values >= 0) & (values <= 1)):
        raise BenchError(f"{values.size} accuracies given; need at least one, all within [0, 1]")
    std = float(values.std())
    n = int(values.size)
    return Accuracy(mean=float(values.mean()), ci95=1.96 * std / math.sqrt(n), std=std, n=n)
