"""A method fitted to a pool that the caller holds, as a cell of a suite would fit it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.api.cells import Constants, Counts, cell_of
from bench.api.process import Folder, Told, as_it_was, state_of
from bench.contract import Learner, Pool
from bench.data.base import ImageData
from bench.errors import BenchError, Skip
from bench.execute.fitting import Fitted, fit_pool
from bench.execute.scenario import refused_by_plan
from bench.nets.base import placed
from bench.nets.precision import computing_in
from bench.results.files import read_parquet
from bench.results.store import CURVE, CURVE_COLUMNS
from bench.seeds import seed_global_state
from bench.suites.cell import Cell
from bench.teachers.adapt import adapt_pool

if TYPE_CHECKING:
    import pandas
    import torch
    from PIL.Image import Image
    from torch import Tensor


class FittedLearner(Learner):
    """The learner of a fit, with what is known of the fit.

    Attributes:
        learner: what predicts; of the class that the method made.
        cell: the complete configuration; nothing else changes its result.
        seconds: that the fit took, when it was made.
        counters: what it counted, such as `train_tasks`.
        notes: what a reader of its results should know.
        extra: values of the method's own.
    """

    def __init__(self, fitted: Fitted, device: torch.device) -> None:
        self.fitted = fitted
        self.learner = fitted.learner()
        self.cell: Cell = fitted.known.cell
        self.device = device
        self.seconds = fitted.fit.elapsed.seconds
        self.counters = dict(fitted.fit.counters)
        self.notes = tuple(fitted.notes())
        self.extra = dict(fitted.fit.extra)

    def __repr__(self) -> str:
        return f"<{self.cell.label}, fitted in {self.seconds:.1f} s>"

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Return the logits of the queries; see `Learner.predict`."""
        return self.learner.predict(support_x, support_y, query_x)

    @property
    def n_parameters(self) -> int:
        """The number of parameters that prediction uses."""
        return self.learner.n_parameters

    def images(self) -> dict[str, Image]:
        """Return the pictures that the fit made, by name: of PURER its pseudo images."""
        from PIL import Image

        found = {}
        for path in sorted((self.fitted.fit.folder / "images").glob("*.png")):
            with Image.open(path) as image:
                found[path.stem] = image.copy()
        return found

    def curve(self) -> pandas.DataFrame:
        """Return what the fit noted of its steps: columns `step`, `name`, `value`."""
        import pandas

        path = self.fitted.fit.folder / CURVE
        found = read_parquet(path, CURVE_COLUMNS) if path.exists() else {}
        return pandas.DataFrame(found, columns=list(CURVE_COLUMNS))


def fit(
    method: str,
    pool: Pool | None,
    data: ImageData,
    *,
    learner: str | None = None,
    preset: str = "released",
    net: str = "conv4",
    n_way: int = 5,
    k_shot: int = 1,
    n_query: int = 15,
    protocol: Constants = "cvpr23",
    budget: Counts = "short",
    seed: int = 0,
    device: str | None = None,
    threads: int = 1,
    cache: Folder = None,
    progress: Told | None = None,
    **config: Any,
) -> FittedLearner:
    """Fit a method to a pool of teachers and return its learner.

    The method sees no image of the data set unless it is an oracle; the data set gives the size and
    the normalisation of the images, and the validation tasks that some methods choose a checkpoint
    on. A fit is kept in the cache: the same call again returns it at once. Ctrl-C keeps its state,
    from which the same call goes on.

    Args:
        method: a registered method (`bench list methods`).
        pool: the teachers; not changed. None where the method uses none, as oracles.
        data: the data set.
        learner: a registered learner; None takes the method's default.
        preset: of the method's configuration.
        net: the meta-model's network: a registered one, `torchvision:NAME` or `timm:NAME`.
        n_way: classes per task.
        k_shot: support images per class.
        n_query: query images per class, of training and validation tasks.
        protocol: a protocol's name, or its constants.
        budget: a budget's name, or its counts, which say how long the fit is.
        seed: the repetition.
        device: as `--device`; None takes the first accelerator, else the CPU.
        cache: the folder that fits are kept in; None takes the one that commands take.
        threads: CPU threads; another number may change rounding, and so results.
        progress: called with each standing; `print(standing.text)` shows it.
        config: settings of the method over its preset's (`bench show METHOD` lists them).

    Raises:
        BenchError: an unknown name, a value that may not be, parts that do not go together, or a
            pool that the method cannot use.
    """
    kind = registry.load("method", method)
    if kind.uses_pool and not pool:
        raise BenchError(f"method '{method}' needs a pool of teachers; give one that has some")
    teachers = pool if kind.uses_pool and pool else Pool([], "")
    cell = cell_of(
        {"method": method, "learner": learner, "preset": preset},
        teachers,
        data,
        config,
        protocol,
        budget,
        seed,
        net=net,
        n_way=n_way,
        k_shot=k_shot,
        n_query=n_query,
    )
    state = state_of(data, device, cache, progress, "bench.fit")
    with as_it_was(state.device, threads), computing_in(cell.protocol.precision, state.device):
        seed_global_state(cell.method, cell.seed)
        try:
            if reason := refused_by_plan(kind, cell):
                raise Skip(reason)
            with state.keeping.stop.on_signals():
                fitted = fit_pool(cell, _adapted(teachers, data, state.device), state)
            return FittedLearner(fitted, state.device)
        except Skip as skipped:
            raise BenchError(f"method '{method}' cannot use this pool: {skipped}") from None


def _adapted(pool: Pool, data: ImageData, device: torch.device) -> Pool:
    """Return copies of the teachers on a device, which take the data set's images."""
    kept = copy.deepcopy(pool)
    for teacher in kept:
        placed(teacher.net, device)
    starts = {
        spec: {name: value.to(device) for name, value in state.items()}
        for spec, state in kept.initial_states.items()
    }
    copies = Pool(kept.teachers, pool.sha256, starts)
    return adapt_pool(copies, data.mean, data.std, data.image_size)
