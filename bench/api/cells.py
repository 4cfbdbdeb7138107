"""One cell, as a suite would have it, from the arguments of a call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contract import Budget, Pool, ProtocolConstants
from bench.data.base import ImageData
from bench.suites import protocols
from bench.suites.cell import Cell, PoolChoice
from bench.suites.expand import expand
from bench.suites.suite import Suite, validated

Constants = str | ProtocolConstants
"""A protocol: its name, or its constants."""
Counts = str | Budget
"""A budget: its name, or its counts."""


def protocol_of(protocol: Constants) -> ProtocolConstants:
    """Return the constants of a protocol.

    Raises:
        BenchError: there is no protocol of that name.
    """
    return protocols.protocol(protocol) if isinstance(protocol, str) else protocol


def budget_of(budget: Counts) -> Budget:
    """Return the counts of a budget.

    Raises:
        BenchError: there is no budget of that name.
    """
    return protocols.budget(budget) if isinstance(budget, str) else budget


def cell_of(
    entry: Mapping[str, Any],
    pool: Pool,
    data: ImageData,
    config: Mapping[str, Any],
    protocol: Constants,
    budget: Counts,
    seed: int,
    **shape: Any,
) -> Cell:
    """Return the cell of a method and a pool that the caller has.

    Args:
        entry: the method with its learner and preset, as a suite's file names them.
        pool: its teachers; none where the method uses none.
        data: whose tasks are met.
        config: settings of the method, over the preset's.
        protocol: its name or constants.
        budget: its name or counts.
        seed: the repetition.
        shape: the network, ways, shots and queries, as fields of a suite.

    Raises:
        BenchError: an unknown name, a value that may not be, or parts that do not go together.
    """
    constants, counts = protocol_of(protocol), budget_of(budget)
    fields = {
        "name": "python",
        "title": "",
        "datasets": [data.name],
        "architectures": [shape["net"]],
        "methods": [entry],
        **shape,
        "k_shot": [shape["k_shot"]],
    }
    suite = validated(Suite, fields, "the arguments")
    overrides = {"protocol": constants.model_dump(), "budget": counts.model_dump()}
    (cell,) = expand(suite, {**overrides, entry["method"]: config}, 1, {data.name: Path()})
    return cell.model_copy(update={"seed": seed, **_pool_fields(pool)})


def _pool_fields(pool: Pool) -> dict[str, Any]:
    """Return what a cell says of its pool, as it does of an imported one."""
    if not pool:
        return {}
    architectures = tuple(dict.fromkeys(teacher.spec.architecture for teacher in pool))
    several = len({teacher.dataset for teacher in pool}) > 1
    return {
        "pool": PoolChoice(name="python", sha256=pool.sha256),
        "architectures": architectures,
        "scenario": "MH" if several else "SS" if len(architectures) == 1 else "SH",
    }
