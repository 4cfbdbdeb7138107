"""The task lists of a cell; a learner's answers to their queries, and what each answer costs.

There is one accuracy per task. The cost is in multiply-accumulate operations, per query image and
per adaptation to a task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.contract import DrawingLearner, EmbeddingLearner, Learner
from bench.data.base import ImageData, Split
from bench.data.images import normalise
from bench.data.tasks import TEST_SEED, TaskList, frozen_tasks, shares
from bench.results.predictions import LARGEST, Predictions
from bench.seeds import derive_seed
from bench.suites.cell import Cell

if TYPE_CHECKING:
    from torch._ops import OpOverload

TASKS_PER_CHUNK = 32
TASKS_PER_CALL_OF_SLOW = 4
IMAGES_PER_CHUNK = 256


class EmbeddingTable:
    """Embeddings of the images of a split, computed when tasks need them.

    One table serves all tasks and shots of one fitted learner, so that each distinct image is
    embedded once: 12,000 images instead of 48,000 for 600 five-way tasks of CIFAR-FS.
    """

    def __init__(self, n_images: int, device: torch.device) -> None:
        self.device = device
        self._values: Tensor | None = None
        self._known = np.zeros(n_images, dtype=bool)

    @property
    def n_known(self) -> int:
        """How many images have been embedded."""
        return int(self._known.sum())

    @property
    def n_bytes(self) -> int:
        """The size of the embeddings."""
        return 0 if self._values is None else self._values.nbytes

    def state_dict(self) -> dict[str, Any]:
        """Return the embeddings that are known."""
        return {"values": self._values, "known": torch.from_numpy(self._known)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        values = state["values"]
        self._values = None if values is None else values.to(self.device)
        self._known = state["known"].numpy().copy()

    def fill(
        self, learner: EmbeddingLearner, data: ImageData, split: Split, wanted: np.ndarray
    ) -> None:
        """Embed those wanted images (indices into the split) that are not embedded yet."""
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
        assert self._values is not None, "filled before"
        return self._values[torch.from_numpy(indices).to(self.device)]


def evaluate(
    learner: Learner,
    data: ImageData,
    split: Split,
    tasks: TaskList,
    device: torch.device,
    table: EmbeddingTable | None = None,
    after: Callable[[Predictions], None] = lambda done: None,
) -> np.ndarray:
    """Return the accuracy of every task, (n_tasks,) fractions; see `answer`."""
    return answer(learner, data, split, tasks, device, table, after=after).accuracies


@torch.no_grad()
def answer(
    learner: Learner,
    data: ImageData,
    split: Split,
    tasks: TaskList,
    device: torch.device,
    table: EmbeddingTable | None = None,
    known: Predictions | None = None,
    after: Callable[[Predictions], None] = lambda done: None,
) -> Predictions:
    """Return a learner's answers to the queries of all tasks.

    Args:
        learner: the learner to score.
        data: the data set.
        split: what the tasks index.
        tasks: the list.
        device: where to compute.
        table: embeddings kept from an earlier call with the same learner and split; used only
            by an `EmbeddingLearner`.
        known: answers to the first tasks, kept from an earlier call.
        after: called with the answers so far, again and again.
    """
    n_tasks, shape = len(tasks), tasks.shape
    answers = Predictions.empty(n_tasks, shape.n_way * shape.n_query, shape.n_way)
    first = 0
    if known is not None:
        answers.put(0, known)
        first = len(known)
    if isinstance(learner, EmbeddingLearner):
        table = table or EmbeddingTable(len(split.images), device)
    together = _tasks_together(learner, device)
    for start in range(first, n_tasks, together):
        stop = min(start + together, n_tasks)
        if isinstance(learner, EmbeddingLearner) and table is not None:
            logits, labels = _predict_embedded(learner, data, split, tasks, start, stop, table)
        else:
            batch = tasks.batch(split, start, stop, data.mean, data.std, device)
            labels = batch.query_y
            given = (batch.support_x, batch.support_y, batch.query_x)
            if isinstance(learner, DrawingLearner):
                logits = learner.predict_from(start, *given)
            else:
                logits = learner.predict(*given)
        answers.put(start, _answers(logits, labels))
        after(answers[:stop])
    return answers


def _answers(logits: Tensor, labels: Tensor) -> Predictions:
    """Return the answers that logits (T, n_query, n_way) give, with the true classes."""
    best, second = logits.float().topk(2, dim=-1).values.unbind(-1)
    margin = (best - second).clamp(max=LARGEST)
    parts = torch.stack([logits.argmax(-1).to(margin.dtype), labels.to(margin.dtype), margin])
    return Predictions(*parts.cpu().numpy())  # read at once; `put` gives each its type


def _tasks_together(learner: Learner, device: torch.device) -> int:
    """Return how many tasks are predicted at once.

    On a CPU a calibration takes seconds per task, one after the other; few tasks per chunk then let
    the pass be interrupted in between.
    """
    if isinstance(learner, DrawingLearner) and device.type == "cpu":
        return min(TASKS_PER_CALL_OF_SLOW, TASKS_PER_CHUNK)
    return TASKS_PER_CHUNK


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
    """Return a digest of the weights of a learner's meta-model; empty if it has none."""
    net = getattr(learner, "net", None)
    if net is None:
        return ""
    total = hashlib.sha256()
    for value in net.state_dict().values():
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def task_lists(
    cell: Cell, sets: Sequence[ImageData], split_name: str, learner: Learner
) -> list[TaskList]:
    """Return the tasks of each data set; their number is divided among the sets."""
    total = cell.n_test_tasks if split_name == "test" else cell.budget.n_val_tasks
    return [
        task_list(cell, data, split_name, learner, n_tasks)
        for data, n_tasks in zip(sets, shares(total, len(sets)), strict=True)
    ]


def task_list(
    cell: Cell, data: ImageData, split_name: str, learner: Learner, n_tasks: int | None = None
) -> TaskList:
    """Return the tasks of a split that a learner is scored on.

    With `frozen` they depend only on the data and the task shape. With `redrawn` each evaluation,
    on validation or test tasks, has its own tasks: their seed is derived from the cell and from the
    evaluated weights. With `test_max`, a checkpoint is therefore selected and reported on the same
    test tasks, as published.
    """
    base = TEST_SEED
    if cell.protocol.task_list == "redrawn":
        weights = fingerprint(learner)
        base = derive_seed("redrawn", cell.method, cell.learner, cell.preset, cell.seed, weights)
    if n_tasks is None:
        n_tasks = cell.n_test_tasks if split_name == "test" else cell.budget.n_val_tasks
    counts = data.splits[split_name].counts
    balanced = cell.protocol.query_counts == "balanced"
    return frozen_tasks(data.name, split_name, counts, cell.shape, n_tasks, base, balanced)


class MacCounter(TorchDispatchMode):
    """Counts the multiply-accumulate operations (MACs) of all code within the block.

    It uses the formulas of torch's `FlopCounterMode`, which itself hooks modules and so fails where
    gradients with respect to a network's inputs are computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Tell torch not to load its compiler, 800 modules, to keep it out of the block."""
        return False

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Run one operation and count it."""
        from torch.utils.flop_counter import flop_registry  # loads a compiler, which prints at exit

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

    A prediction with half of the queries is compared with one with all of them: the difference is
    the cost of the queries, the rest is adaptation.

    Args:
        learner: what predicts.
        data: the data set, for the mean and deviation of its images.
        split: the split that the tasks are of.
        tasks: a task list, of which the first task is used.
        device: where the learner is.
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
