"""Scoring a learner on a list of test tasks: one accuracy per task, and what prediction costs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.contract import DrawingLearner, EmbeddingLearner, Learner
from bench.data.base import ImageData, Split
from bench.data.reading.images import normalise
from bench.data.tasks import TaskList

TASKS_PER_CHUNK = 32
IMAGES_PER_CHUNK = 256


class EmbeddingTable:
    """The embedding of every image of a split, filled as tasks ask for it.

    One table serves all tasks and shots of one fitted learner, so that each distinct image is
    embedded once: 12,000 images instead of 48,000 for 600 five-way tasks of CIFAR-FS.
    """

    def __init__(self, n_images: int, device: torch.device):
        self.device = device
        self._values: Tensor | None = None
        self._known = np.zeros(n_images, dtype=bool)

    @property
    def n_known(self) -> int:
        """How many images have been embedded."""
        return int(self._known.sum())

    def fill(
        self, learner: EmbeddingLearner, data: ImageData, split: Split, wanted: np.ndarray
    ) -> None:
        """Embed the wanted images (indices into the split) that are not known yet."""
        missing = np.unique(wanted[~self._known[wanted]])
        for part in np.array_split(missing, max(1, -(-len(missing) // IMAGES_PER_CHUNK))):
            if not len(part):
                continue
            images = torch.from_numpy(np.ascontiguousarray(split.images[part])).to(self.device)
            values = learner.embed(normalise(images, data.mean, data.std))
            if self._values is None:
                self._values = values.new_zeros(len(self._known), values.shape[1])
            self._values[torch.from_numpy(part).to(self.device)] = values
            self._known[part] = True

    def __getitem__(self, indices: np.ndarray) -> Tensor:
        return self._values[torch.from_numpy(indices).to(self.device)]


@torch.no_grad()
def evaluate(
    learner: Learner,
    data: ImageData,
    split: Split,
    tasks: TaskList,
    device: torch.device,
    table: EmbeddingTable | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Return the accuracy of every task, (n_tasks,) fractions.

    Args:
        learner: what is scored.
        data, split: the data set and the split that the tasks index.
        tasks: the list.
        device: where to compute.
        table: embeddings kept from an earlier call with the same learner and split; used only
            by an `EmbeddingLearner`.
        progress: called with (tasks done, tasks).
    """
    n_tasks = len(tasks)
    accuracies = np.empty(n_tasks)
    if isinstance(learner, EmbeddingLearner):
        table = table or EmbeddingTable(len(split.images), device)
    for start in range(0, n_tasks, TASKS_PER_CHUNK):
        stop = min(start + TASKS_PER_CHUNK, n_tasks)
        if isinstance(learner, EmbeddingLearner):
            logits, labels = _predict_embedded(learner, data, split, tasks, start, stop, table)
        else:
            batch = tasks.batch(split, start, stop, data.mean, data.std, device)
            labels = batch.query_y
            given = (batch.support_x, batch.support_y, batch.query_x)
            drawing = isinstance(learner, DrawingLearner)
            logits = learner.predict_from(start, *given) if drawing else learner.predict(*given)
        hits = (logits.argmax(-1) == labels).double().mean(-1)
        accuracies[start:stop] = hits.cpu().numpy()
        progress(stop, n_tasks)
    return accuracies


def _predict_embedded(
    learner: EmbeddingLearner,
    data: ImageData,
    split: Split,
    tasks: TaskList,
    start: int,
    stop: int,
    table: EmbeddingTable,
) -> tuple[Tensor, Tensor]:
    part = tasks[start:stop]
    support, query = part.rows(split)
    table.fill(learner, data, split, np.concatenate([support.ravel(), query.ravel()]))
    support_y, query_y = part.labels(table.device)
    return learner.predict_embedded(table[support], support_y, table[query]), query_y


def fingerprint(learner: Learner) -> str:
    """Return a digest of the meta-model's weights that a learner holds; empty without one."""
    net = getattr(learner, "net", None)
    if net is None:
        return ""
    total = hashlib.sha256()
    for value in net.state_dict().values():
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


class MacCounter(TorchDispatchMode):
    """Counts the multiply-accumulates of everything that runs inside.

    By the formulas of torch's `FlopCounterMode`, which itself hooks modules and so fails where
    gradients of a network's inputs are taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if formula is not None:
            self.macs += formula(*args, **kwargs, out_val=result) // 2
        return result


def inference_cost(
    learner: Learner, data: ImageData, split: Split, tasks: TaskList, device: torch.device
) -> tuple[int, int]:
    """Return (MACs of one query image, MACs of adapting to one task), counted on a real task.

    A prediction with half of the queries is compared with one of all: the difference is the
    queries' share, the rest is adaptation.
    """
    batch = tasks.batch(split, 0, 1, data.mean, data.std, device)
    n_query = batch.query_x.shape[1]
    half = n_query // 2

    def macs(query_x: Tensor) -> int:
        with MacCounter() as counter:
            learner.predict(batch.support_x, batch.support_y, query_x)
        return counter.macs

    whole = macs(batch.query_x)
    if half == 0:
        return whole, 0
    per_image = (whole - macs(batch.query_x[:, :half])) // (n_query - half)
    return per_image, max(0, whole - per_image * n_query)
