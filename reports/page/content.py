"""What the page says, as plain values for the template."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.records import CURVE, Record, StoredRecord, canonical_json, read_parquet
from bench.stats import Interval
from reports.cost import amount, rate
from reports.figures.build import Drawing
from reports.groups import KNOWLEDGE, Group, Row
from reports.model import Table
from reports.paired import signed
from reports.summary import Leader, leaders, over_classes, over_seeds

IMAGE_BYTES = 1_200_000
"""All images of cells on the page together; further ones are named, not shown."""
CURVE_POINTS = 60
"""Points of a small curve; more are thinned out."""


@dataclass(frozen=True)
class Picture:
    """A figure on the page: its address is data, so that the page stands alone."""

    name: str
    title: str
    caption: str
    alt: str
    address: str


@dataclass(frozen=True)
class Part:
    """What the page shows of one group."""

    slug: str
    short: str
    name: str
    tables: list[Table]
    pictures: list[Picture] = field(default_factory=list)


def picture(drawing: Drawing, svg: bytes) -> Picture:
    """Return a figure as the page shows it."""
    address = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    return Picture(drawing.name, drawing.title, drawing.caption, drawing.alt, address)


def slug(group: Group, groups: Sequence[Group]) -> str:
    """Return a short name of a group for files and links, distinct among the groups."""
    first = group.first
    plain = "-".join([first.scenario, first.protocol_label, *sorted(first.datasets)[:1]])
    plain = "".join(c if c.isalnum() else "-" for c in plain.lower())
    plain = "-".join(word for word in plain.split("-") if word)
    return f"{plain}-{groups.index(group) + 1}"


def short_name(group: Group) -> str:
    """Return what a group is called in headings."""
    data = ", ".join(dict.fromkeys(setting.data for setting in group.settings))
    variant = f", {group.first.variant}" if group.first.variant else ""
    return f"{group.first.scenario} {data}: {group.first.protocol_label}{variant}"


def percent(value: float) -> str:
    """Return a fraction as percent with one decimal, without sign."""
    return f"{100 * value:.1f}"


def span(interval: Interval | None) -> str:
    """Return an interval in percent, or a dash."""
    return f"{percent(interval.low)} to {percent(interval.high)}" if interval else "–"


def leader_lines(group: Group) -> list[dict[str, str]]:
    """Return what the summary says of each setting of a group."""
    return [_leader_line(group, one) for one in leaders(group)]


def _leader_line(group: Group, leader: Leader) -> dict[str, str]:
    records = [one.record for one in leader.result.done]
    return {
        "where": group.setting_name(leader.setting),
        "scenario": f"{group.first.scenario}, {group.first.protocol_label}",
        "best": shown_row(leader.row, group),
        "accuracy": f"{percent(leader.result.mean)} ± {percent(leader.result.ci95)}",
        "classes": span(over_classes(group, leader.result)),
        "seeds": span(over_seeds(leader.result)),
        "lead": _lead(leader, group),
        "sure": _sure(leader, group),
        "cost": _price(records),
        "oracle": _oracle(leader),
    }


def shown_row(row: Row, group: Group) -> str:
    """Return a method, with its learner where the group has it with several."""
    several = {other.head for other in group.rows if other.name == row.name}
    return f"{row.name} · {row.head}" if len(several) > 1 or "+" in row.head else row.name


def _price(records: Sequence[Record]) -> str:
    fit = [r.timing.fit_s for r in records if r.timing.fit_s is not None]
    macs = [r.cost.macs_per_query_image for r in records if r.cost.macs_per_query_image]
    texts = []
    if fit:
        seconds = float(np.mean(fit))
        texts.append(f"fit {rate(seconds)} s" if seconds >= 0.01 else "no training")
    if macs:
        texts.append(f"{amount(float(np.mean(macs)))} MACs a query")
    return "; ".join(texts) or "–"


def _lead(leader: Leader, group: Group) -> str:
    if leader.next_row is None:
        return "nothing to compare"
    other = shown_row(leader.next_row, group)
    if leader.lead is None:
        return f"over {other}: not on the same tasks"
    low, high = signed(leader.lead.low), signed(leader.lead.high)
    return f"{signed(leader.lead.mean)} [{low}, {high}] over {other}"


def _sure(leader: Leader, group: Group) -> str:
    n = len(leader.result.done)
    seeds = "one seed" if n == 1 else f"{n} seeds"
    if leader.lead is None:
        return seeds
    if leader.ties:
        tied = ", ".join(shown_row(row, group) for row in leader.ties)
        return f"tied with {tied} (a lead of {percent(leader.detectable)} would show); {seeds}"
    return f"clear, on {100 * leader.ahead:.0f} % of tasks; {seeds}"


def _oracle(leader: Leader) -> str:
    if leader.oracle is None:
        return "–"
    row, result = leader.oracle
    return f"{percent(result.mean)} ({row.name})"


def headline(groups: Sequence[Group]) -> list[str]:
    """Return a sentence a group: which method leads in how many settings."""
    texts = []
    for group in groups:
        found = leaders(group)
        wins: dict[str, list[Leader]] = {}
        for one in found:
            wins.setdefault(shown_row(one.row, group), []).append(one)
        for name, won in sorted(wins.items(), key=lambda item: -len(item[1])):
            clear = sum(one.lead is not None and not one.ties for one in won)
            where = ", ".join(dict.fromkeys(one.setting.data for one in won))
            surely = "all clearly" if clear == len(won) else f"{clear} clearly"
            texts.append(
                f"{name} is best in {len(won)} of {len(found)} settings of {where} "
                f"({group.first.scenario}, {group.first.protocol_label}), {surely}."
            )
    return texts


def warnings(groups: Sequence[Group], stored: Sequence[StoredRecord]) -> list[str]:
    """Return what a reader should know before quoting a number."""
    records = [one.record for one in stored]
    found = []
    labels = sorted({record.protocol_label for record in records})
    if len(labels) > 1:
        found.append(
            f"{len(labels)} protocols are on this page ({', '.join(labels)}); numbers of "
            "different protocols stand in different tables and do not compare"
        )
    single = [g for g in groups if len({one.record.seed for one in g.stored}) == 1]
    if single:
        found.append(
            f"{len(single)} of {len(groups)} groups have one seed: their intervals are over test "
            "tasks of one pool and say nothing of other pools"
        )
    for status in ("failed", "skipped"):
        n = sum(record.status == status for record in records)
        if n:
            found.append(f"{n} cells {status}; the tables say why")
    counts: dict[str, int] = {}
    for record in records:
        for text in record.warnings:
            counts[text] = counts.get(text, 0) + 1
    found += [f"{text} ({n} cells)" for text, n in sorted(counts.items())]
    return found


def cell_name(record: Record) -> str:
    """Return what a cell is called in a heading."""
    preset = "" if record.preset == "released" else f" ({record.preset})"
    head = record.learner + ("" if record.calibration == "none" else f" + {record.calibration}")
    return (
        f"{record.method}{preset} · {head} · {'+'.join(record.datasets)} "
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
    """Return what the page says of each cell.

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
            cell |= {"curves": small_curves(one.folder), "images": images(one.folder, budget)}
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
        "dataset": "+".join(r.datasets),
        "shape": f"{r.n_way}-way {r.k_shot}-shot",
        "seed": r.seed,
        "intervals": _intervals(row),
        "fit": f"{rate(r.timing.fit_s)} s" if r.timing.fit_s is not None else "–",
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
        ("tasks", f"{r.n_test_tasks} × {r.n_query} queries a class; list "
                  f"{(r.task_list_sha256 or 'none')[:10]}"),
        ("protocol", _plain(r.protocol)),
        ("budget", _plain(r.budget)),
        ("method", _plain(r.method_config) or "no settings"),
        ("calibration", _plain(r.calibration_config)),
        ("cost", _cost(r)),
    ]  # fmt: skip
    return [(name, text) for name, text in facts if text]


def _pool(r: Record) -> str:
    if r.pool is None:
        return ""
    mean = percent(r.pool.mean_accuracy)
    return f"{r.pool.n} teachers, mean held-out accuracy {mean} %, {r.pool.sha256[:10]}"


def _plain(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value if isinstance(value, str) else canonical_json(value)}"
        for key, value in values.items()
    )


def _cost(r: Record) -> str:
    found = [
        ("parameters", r.cost.params),
        ("MACs a query image", r.cost.macs_per_query_image),
        ("MACs to adapt", r.cost.macs_adapt_per_task),
        ("teacher passes", r.cost.teacher_forward_images),
    ]
    texts = [f"{name} {amount(value)}" for name, value in found if value]
    if r.timing.test_tasks_per_s:
        texts.append(f"{rate(r.timing.test_tasks_per_s)} test tasks/s")
    return ", ".join(texts)


def small_curves(folder: Path) -> list[dict[str, str]]:
    """Return the validation and loss curves of a fit as paths in a box of 200 × 48."""
    path = folder / CURVE
    if not path.exists():
        return []
    columns = read_parquet(path)
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
    """Return a fit's grids as data, shrunk; what exceeds the page's budget is only named."""
    from PIL import Image

    found = []
    for path in sorted(folder.glob("images/*.png")):
        with Image.open(path) as image:
            image = image.convert("RGB")
            image.thumbnail((480, 480))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=80)
        address = ""
        if len(buffer.getvalue()) <= budget[0]:
            budget[0] -= len(buffer.getvalue())
            address = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        found.append({"name": path.name, "address": address, "path": str(path)})
    return found
