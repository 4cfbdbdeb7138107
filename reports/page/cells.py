"""The page's data about each cell, as plain values for the template."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import counted
from bench.results.files import canonical_json, read_parquet
from bench.results.record import Record
from bench.results.store import CURVE, StoredRecord
from reports.figures.gallery import stage_order
from reports.page.content import percent
from reports.rows.groups import KNOWLEDGE
from reports.tables.cost import amount, rate

IMAGE_BYTES = 1_200_000
"""All images of cells on the page together; further ones are named, not shown."""
CURVE_POINTS = 60
"""Points of a small curve; more are thinned out."""


def cell_name(record: Record) -> str:
    """Return the name of a cell in a heading."""
    preset = "" if record.preset == "released" else f" ({record.preset})"
    head = record.learner + ("" if record.calibration == "none" else f" + {record.calibration}")
    return (
        f"{record.method}{preset} · {head} · {'+'.join(record.tested)} "
        f"{record.n_way}-way {record.k_shot}-shot · seed {record.seed}"
    )


def environments(stored: Sequence[StoredRecord]) -> dict[str, str]:
    """Return the distinct environments by a short name; cells refer to them."""
    found: dict[str, str] = {}
    for one in stored:
        found.setdefault(_environment(one.record), f"E{len(found) + 1}")
    return {name: text for text, name in found.items()}


def _environment(record: Record) -> str:
    e = record.environment
    packages = ", ".join(f"{name} {version}" for name, version in sorted(e.packages.items()))
    commit = (e.git_commit or "unknown")[:10] + (" (dirty)" if e.git_dirty else "")
    device = f"{record.device.type} {record.device.name}, {record.device.threads} threads"
    return f"commit {commit}; {device}; {e.platform}; Python {e.python}; {packages}"


def cells(stored: Sequence[StoredRecord], rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the page's data about each cell.

    Args:
        stored: all records.
        rows: `record_row` of each cell, by its hash.
    """
    names = {text: name for name, text in environments(stored).items()}
    budget = [IMAGE_BYTES]
    seen: dict[str, str] = {}
    found = []
    for one in stored:
        record = one.record
        cell = _cell(one, rows[record.cell_hash]) | {"environment": names[_environment(record)]}
        fit = record.fit.sha256 if record.fit else record.cell_hash
        if fit in seen:
            cell["same_fit"] = seen[fit]
        else:
            seen[fit] = record.cell_hash
            cell |= {"curves": small_curves(one), "images": images(one.folder, budget)}
        found.append(cell)
    return found


def _cell(stored: StoredRecord, row: dict[str, Any]) -> dict[str, Any]:
    r = stored.record
    accuracy = r.accuracy
    return {
        "hash": r.cell_hash,
        "name": cell_name(r),
        "status": r.status,
        "reason": r.reason,
        "accuracy": f"{percent(accuracy.mean)} ± {percent(accuracy.ci95)}" if accuracy else "–",
        "mean": accuracy.mean if accuracy else None,
        "method": r.method,
        "learner": r.learner + ("" if r.calibration == "none" else f" + {r.calibration}"),
        "knowledge": KNOWLEDGE.get(r.knowledge, r.knowledge).split(" (")[0],
        "inference": r.inference,
        "dataset": "+".join(r.tested),
        "shape": f"{r.n_way}-way {r.k_shot}-shot",
        "seed": r.seed,
        "intervals": _intervals(row),
        "fit": f"{rate(r.fit_seconds)} s" if r.fit_seconds is not None else "–",
        "facts": _facts(r),
        "command": r.command,
        "reproduce": f"bench reproduce {stored.folder}",
        "warnings": r.warnings,
        "days": r.started.replace("T", " ")[:16],
    }


def _intervals(row: dict[str, Any]) -> str:
    words = {"t": "tasks (t)", "bca": "tasks (BCa)", "open": "other classes and images"}
    texts = [
        f"{word} {percent(row[f'{key}_low'])} to {percent(row[f'{key}_high'])}"
        for key, word in words.items()
        if row.get(f"{key}_low") is not None
    ]
    return "; ".join(texts)


def _facts(r: Record) -> list[tuple[str, str]]:
    """Return the configuration in a few lines."""
    facts = [
        ("pool", _pool(r)),
        ("meta-model", f"{r.net}; teachers {', '.join(r.architectures)}"),
        ("tasks", f"{r.n_test_tasks} × {r.n_query} queries per class; list "
                  f"{(r.task_list_sha256 or 'none')[:10]}"),
        ("protocol", _plain(r.protocol)),
        ("budget", _plain(r.budget)),
        ("settings", _plain(r.method_config) or "none"),
        ("calibration", _plain(r.calibration_config)),
        ("cost", _cost(r)),
    ]  # fmt: skip
    return [(name, text) for name, text in facts if text]


def _pool(r: Record) -> str:
    if r.pool is None:
        return ""
    mean = percent(r.pool.mean_accuracy)
    return f"{counted(r.pool.n, 'teacher')}, mean held-out accuracy {mean} %, {r.pool.sha256[:10]}"


def _plain(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value if isinstance(value, str) else canonical_json(value)}"
        for key, value in values.items()
    )


def _cost(r: Record) -> str:
    found = [
        ("parameters", r.cost.params),
        ("MACs per query image", r.cost.macs_per_query_image),
        ("MACs to adapt", r.cost.macs_adapt_per_task),
        ("teacher passes", r.cost.teacher_forward_images),
    ]
    texts = [f"{name} {amount(value)}" for name, value in found if value]
    if r.test_rate:
        texts.append(f"{rate(r.test_rate)} test tasks/s")
    return ", ".join(texts)


def small_curves(stored: StoredRecord) -> list[dict[str, str]]:
    """Return the validation and loss curves of a fit as paths in a box of 200 × 48."""
    if not stored.has(CURVE):
        return []
    columns = read_parquet(stored.folder / CURVE)
    found = []
    for name in ("val_accuracy", "outer_loss"):
        chosen = columns["name"] == name
        steps, values = columns["step"][chosen], columns["value"][chosen]
        if len(steps) > 1:
            found.append({"name": name, **_path(steps, values)})
    return found


def _path(steps: np.ndarray, values: np.ndarray) -> dict[str, str]:
    kept = np.unique(np.linspace(0, len(steps) - 1, CURVE_POINTS).round().astype(int))
    steps, values = steps[kept], values[kept]
    x = 200 * (steps - steps[0]) / max(steps[-1] - steps[0], 1)
    low, high = float(values.min()), float(values.max())
    y = 46 - 44 * (values - low) / ((high - low) or 1)
    points = " ".join(f"{a:.0f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return {"points": points, "low": f"{low:.3g}", "high": f"{high:.3g}", "last": str(steps[-1])}


def images(folder: Path, budget: list[int]) -> list[dict[str, str]]:
    """Return a fit's image grids as data, reduced; beyond the size limit only their names."""
    from PIL import Image

    found = []
    for path in sorted(folder.glob("images/*.png"), key=stage_order):
        with Image.open(path) as file:
            image = file.convert("RGB")
            image.thumbnail((480, 480))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=80)
        address = ""
        if len(buffer.getvalue()) <= budget[0]:
            budget[0] -= len(buffer.getvalue())
            address = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        found.append({"name": path.name, "address": address, "path": str(path)})
    return found
