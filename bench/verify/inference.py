"""The check of what a record says of its queries: predicted alone, or together with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench import registry
from bench.contract import Inference
from bench.results.record import Record
from bench.suites.cell import UNCALIBRATED
from bench.verify import known
from bench.verify.findings import Finding, doubt, refused


def inference(record: Record) -> Iterator[Finding]:
    """Yield where `inference` does not follow from learner, calibration and batch norm.

    Of plug-ins of other packages their word is taken, unless another part decides.
    """
    parts = [known.settings(kind, name) for kind, name in _named(record)]
    mode = _batch_norm(record)
    together = mode == "transductive" or any(part and part["transductive"] for part in parts)
    if together:
        wanted: Inference = "transductive"
    elif mode is None or None in parts:
        yield from _unknown(record)
        return
    else:
        wanted = "inductive"
    if record.inference != wanted:
        text = f"it says {record.inference}; by its learner, calibration and batch norm it is"
        yield refused("inference", f"{text} {wanted}")


def _named(record: Record) -> list[tuple[registry.Kind, str]]:
    """Return the plug-ins that say themselves whether they use the queries of a task together."""
    found: list[tuple[registry.Kind, str]] = [("learner", record.learner)]
    if record.calibration != UNCALIBRATED:
        found.append(("calibration", record.calibration))
    return found


def _batch_norm(record: Record) -> str | None:
    """Return the mode of batch norm at prediction; None where only a package says it."""
    own = known.settings("method", record.method)
    if own is None:
        return None
    said: Mapping[str, Any] = own["bn"]
    if "by_setting" in said:
        return said["by_setting"].get(record.method_config.get("bn"))
    by_learner = said.get("by_learner", {})
    if by_learner and known.settings("learner", record.learner) is None:
        return None
    return by_learner.get(record.learner, record.protocol["bn"])


def _unknown(record: Record) -> Iterator[Finding]:
    if record.inference == "inductive" and record.protocol["bn"] == "transductive":
        text = "it says inductive, its protocol's batch norm uses all queries of a task"
        yield doubt("inference", f"{text}; that its method does otherwise only its package says")
