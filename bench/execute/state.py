"""State shared by the cells of a process: folders, device, data, last pool and embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.checkpoints import Keeping
from bench.contract import Pool
from bench.data.base import ImageData
from bench.errors import BenchError
from bench.execute.evaluate import EmbeddingTable
from bench.execute.scenario import meta_spec, plan_teachers, scenario_data
from bench.nets.precision import computing_in
from bench.results.files import content_hash
from bench.suites.cell import Cell
from bench.teachers.adapt import adapt_pool
from bench.teachers.store import build_pool

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, done, total)."""


def _silent(label: str, done: int, total: int) -> None:
    pass


@dataclass
class RunState:
    """Folders, device and data of a run, and the objects that one cell leaves for the next.

    `pools` keeps the last pool; `embeddings` the embeddings of the test images under the last fit,
    for the next cell's shots.
    """

    suite: str
    runs: Path
    cache: Path
    device: torch.device
    data: dict[str, ImageData]
    command: str
    progress: Progress = _silent
    keeping: Keeping = field(default_factory=Keeping)
    pools: dict[str, Pool] = field(default_factory=dict)
    embeddings: dict[str, EmbeddingTable] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder of the suite's cells."""
        return self.runs / self.suite

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each data set."""
        return {name: data.digest for name, data in self.data.items()}

    def embedding_table(self, key: str, data: ImageData) -> EmbeddingTable:
        """Return the embeddings of a data set under a fit; those of another fit are let go."""
        if not all(known.startswith(f"{key}/") for known in self.embeddings):
            self.embeddings.clear()
        n_images = len(data.splits["test"].images)
        empty = EmbeddingTable(n_images, self.device)
        return self.embeddings.setdefault(f"{key}/{data.name}", empty)


def obtain_pool(cell: Cell, state: RunState) -> Pool:
    """Return a cell's pool, trained or imported, taking the cell's images; kept for the next."""
    sets = scenario_data(cell, state.data)
    first, size = sets[0], meta_spec(cell, sets).image_size
    recipe = [plan.model_dump(mode="json") for plan in plan_teachers(cell, state.data)]
    chosen = cell.pool.model_dump() if cell.pool else None
    key = content_hash([recipe, chosen, first.mean, first.std, size])
    if key not in state.pools:
        state.pools.clear()
        state.pools[key] = adapt_pool(own_pool(cell, state), first.mean, first.std, size)
    return state.pools[key]


def own_pool(cell: Cell, state: RunState) -> Pool:
    """Return a cell's pool as it was trained or imported: each teacher takes its own images.

    Raises:
        BenchError: the imported pool is not the one that the cell names.
    """
    if cell.pool is None:
        plans = plan_teachers(cell, state.data)
        with computing_in("float32", state.device):
            return build_pool(
                state.cache, plans, state.data, state.device, state.progress, state.keeping
            )
    from bench.teachers.transfer import load_pool

    pool = load_pool(state.cache, cell.pool.name, state.device)
    if pool.sha256 != cell.pool.sha256:
        raise BenchError(
            f"pool '{cell.pool.name}' changed since the plan was made; run the command again"
        )
    return pool
