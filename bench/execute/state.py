"""State shared by the cells of a process: folders, device, data, last pool and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from bench.checkpoints import Keeping
from bench.contract import Method, Pool, Teacher
from bench.data.base import ImageData
from bench.errors import BenchError
from bench.execute.evaluate import EmbeddingTable
from bench.execute.progress import Progress
from bench.execute.scenario import meta_spec, plan_teachers, scenario_data
from bench.execute.status import cell_code
from bench.nets.precision import computing_in
from bench.results.codebase import CodeBase, code_at, installed_code
from bench.results.files import content_hash
from bench.results.maker import Judge, Maker, made_by_records
from bench.results.record import Code
from bench.stops import Deadline
from bench.suites.cell import Cell
from bench.teachers.adapt import adapt_pool, digest_of, with_untrustworthy
from bench.teachers.pool import TeacherSpec
from bench.teachers.store import build_pool


@dataclass(frozen=True)
class Makers:
    """The code of this process, with the threads and the device of a run.

    Args:
        runs: the folder whose records tell who made what has no stamp.
        threads: CPU threads.
        device: type of the device.
        trust: take what is stored whoever made it.
        say: tells the user one line.
    """

    runs: Path
    threads: int
    device: str
    trust: bool = False
    say: Callable[[str], None] = lambda line: None

    def teacher(self, plan: TeacherSpec) -> Judge:
        """Return what judges a stored teacher."""
        return self._judge(lambda code: code.teacher(plan.architecture))

    def fit(self, cell: Cell, method: type[Method]) -> Judge:
        """Return what judges a stored fit."""
        return self._judge(lambda code: code.fit(cell, method))

    def cell(self, cell: Cell) -> Judge:
        """Return what judges the part of a cell's test pass that is done."""
        return self._judge(lambda code: cell_code(code, cell))

    def made_alike(self, teacher: Teacher) -> bool:
        """Tell whether a trained teacher is as if it was made now."""
        code = installed_code().teacher(teacher.spec.architecture).digest
        alike = self.device != "cpu" or teacher.threads == self.threads
        return alike and teacher.code == code

    def _judge(self, code_of: Callable[[CodeBase], Code]) -> Judge:
        def recorded(sha256: str) -> Maker | None:
            made = made_by_records(self.runs, sha256)
            base = code_at(made.commit) if made else None
            return Maker(code_of(base), made.threads, made.device) if made and base else None

        now = Maker(code_of(installed_code()), self.threads, self.device)
        return Judge(now, recorded, self.trust, self.say)


@dataclass
class RunState:
    """Folders, device and data of a run, and the objects that one cell leaves for the next.

    `pools` keeps the last pool; `embeddings` the embeddings of the test images under the last fit,
    for the next cell's shots. `say` tells the user one line.
    """

    suite: str
    runs: Path
    cache: Path
    device: torch.device
    data: dict[str, ImageData]
    command: str
    progress: Progress = field(default_factory=Progress)
    keeping: Keeping = field(default_factory=Keeping)
    trust_stored: bool = False
    """take teachers, fits and cells that other code or another number of threads made"""
    time_limit: float | None = None
    """seconds after which a cell ends at its next step; None is none"""
    pools: dict[str, Pool] = field(default_factory=dict)
    embeddings: dict[str, EmbeddingTable] = field(default_factory=dict)

    @property
    def makers(self) -> Makers:
        """Who makes teachers and fits here, and judges those that are stored."""
        threads, device = torch.get_num_threads(), self.device.type
        return Makers(self.runs, threads, device, self.trust_stored, self.keeping.say)

    def limited(self) -> RunState:
        """Return the state for a cell that begins now, which has the time limit to end it."""
        if self.time_limit is None:
            return self
        stop = Deadline(self.keeping.stop, self.time_limit)
        return replace(self, keeping=replace(self.keeping, stop=stop))

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

    def trained_pool(self, plans: Sequence[TeacherSpec]) -> Pool:
        """Return the pool of the planned teachers; those that are not stored are trained."""
        return build_pool(
            self.cache,
            plans,
            self.data,
            self.device,
            self.progress,
            self.keeping,
            self.makers.teacher,
        )


def obtain_pool(cell: Cell, state: RunState) -> Pool:
    """Return a cell's pool, trained or imported, taking the cell's images; kept for the next."""
    sets = scenario_data(cell, state.data)
    first, size = sets[0], meta_spec(cell, sets).image_size
    recipe = [plan.model_dump(mode="json") for plan in plan_teachers(cell, state.data)]
    chosen = cell.pool.model_dump() if cell.pool else None
    protocol = cell.protocol
    changed = digest_of("", protocol, cell.seed)
    key = content_hash([recipe, chosen, first.mean, first.std, size, changed])
    if key not in state.pools:
        state.pools.clear()
        pool = with_untrustworthy(own_pool(cell, state), protocol, cell.seed)
        state.pools[key] = adapt_pool(pool, first.mean, first.std, size)
    return state.pools[key]


def own_pool(cell: Cell, state: RunState) -> Pool:
    """Return a cell's pool as it was trained or imported: each teacher takes its own images.

    Raises:
        BenchError: the imported pool is not the one that the cell names.
    """
    if cell.pool is None:
        plans = plan_teachers(cell, state.data)
        with computing_in("float32", state.device):
            return state.trained_pool(plans)
    from bench.teachers.transfer import load_pool

    pool = load_pool(state.cache, cell.pool.name, state.device)
    if pool.sha256 != cell.pool.sha256:
        raise BenchError(
            f"pool '{cell.pool.name}' changed since the plan was made; run the command again"
        )
    return pool
