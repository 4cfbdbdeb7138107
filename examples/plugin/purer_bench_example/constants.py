"""A protocol and a budget."""

from __future__ import annotations

from bench.contract import Budget
from bench.suites.protocols import protocol

SLOW_INNER = protocol("cvpr23").model_copy(update={"name": "slow_inner", "inner_lr": 0.001})

MINUTE = Budget(
    name="minute",
    teacher_epochs=3,
    meta_iterations=6,
    oracle_iterations=6,
    validate_every=3,
    n_val_tasks=10,
)
