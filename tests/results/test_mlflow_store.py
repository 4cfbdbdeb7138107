"""The MLflow store after people used its page."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.results.find import find_records
from bench.results.mlflow import open_tracker, pending

RESULTS = Path(__file__).parents[2] / "results"


def test_an_experiment_that_was_deleted_in_the_page_is_restored(tmp_path: Path) -> None:
    for path in sorted(RESULTS.glob("glyphs/*"))[:2]:
        shutil.copytree(path, tmp_path / "glyphs" / path.name)
    first, second = find_records(tmp_path)
    tracker = open_tracker(tmp_path)
    tracker.ingest(first)
    tracker.client.delete_experiment(tracker.experiment)
    again = open_tracker(tmp_path)
    again.ingest(second)
    assert pending(tmp_path, [first, second]) == []
    kept = {run.data.tags["cell_hash"] for run in again._search("tags.kind = 'cell'")}
    assert kept == {first.record.cell_hash, second.record.cell_hash}
