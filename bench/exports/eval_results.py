"""Records as entries of a model repository's `.eval_results/*.yaml` on the Hugging Face Hub.

Source: https://huggingface.co/docs/hub/eval-results, as `huggingface_hub.EvalResultEntry` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.errors import BenchError
from bench.results.record import Record


def entries(
    records: Sequence[Record], dataset: str, url: str | None = None
) -> list[dict[str, Any]]:
    """Return one entry per finished cell of one method; values are percent.

    Args:
        records: of the cells.
        dataset: the benchmark's data set repository on the Hub, `owner/name`.
        url: where the records are; without one there is no source.

    Raises:
        BenchError: cells of several methods, which are of several model repositories, or none done.
    """
    done = [record for record in records if record.accuracy is not None]
    names = sorted({record.method for record in done})
    if len(names) != 1:
        raise BenchError(
            f"{', '.join(names) or 'no method'}: one file is of the model of one method; choose "
            "it with --only method=NAME"
        )
    if dataset.count("/") != 1 or not all(dataset.split("/")):
        raise BenchError(f"'{dataset}' is no repository of the Hub; write owner/name")
    return [_entry(record, dataset, url) for record in sorted(done, key=_order)]


def _order(record: Record) -> tuple[object, ...]:
    return (task_id(record), record.learner, record.preset, record.seed, record.cell_hash)


def task_id(record: Record) -> str:
    """Return the benchmark's name of what a cell was tested on."""
    data = "+".join(record.tested)
    shape = f"{record.n_way}way_{record.k_shot}shot"
    return f"{record.scenario.lower()}_{data}_{shape}"


def _entry(record: Record, dataset: str, url: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "dataset": {"id": dataset, "task_id": task_id(record)},
        "value": round(100 * record.scored.mean, 4),
        "date": record.ended,
    }
    if url is not None:
        entry["source"] = {"url": url, "name": f"purer-bench cell {record.cell_hash}"}
    entry["notes"] = (
        f"{record.learner}, preset {record.preset}, {record.protocol_label}, seed {record.seed}, "
        f"± {100 * record.scored.ci95:.2f} over {record.scored.n} tasks"
    )
    return entry
