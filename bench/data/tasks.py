"""Task lists: the classes and images of each few-shot task, as indices.

A list is drawn in full before anything is read. Frozen lists depend on the base seed, the data
set, the split and the task shape alone, so that all methods meet the same tasks, and the first
100 tasks of a list of 600 are the list of 100.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bench.contract import TaskBatch, TaskShape
from bench.errors import BenchError
from bench.results.files import canonical_json, content_hash
from bench.seeds import distinct, numpy_generator

if TYPE_CHECKING:
    import torch

    from bench.data.base import Split

TEST_SEED = 0
"""Base seed of the frozen test tasks; the repetition never changes them."""


@dataclass(frozen=True, eq=False)
class TaskList:
    """T tasks of one shape, as indices into a split.

    `classes` (T, n_way) int32 are distinct within a task; `images` (T, n_way, k_shot + n_query)
    int32 are distinct indices within the class, support images first. Where `counts` (T, n_way) is
    given, it says how many of each class's queries belong to the task, n_way * n_query in all;
    `images` then holds as many per class as the largest needs, and 0 beyond the count.
    """

    shape: TaskShape
    classes: np.ndarray
    images: np.ndarray
    counts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, tasks: slice) -> TaskList:
        counts = None if self.counts is None else self.counts[tasks]
        return TaskList(self.shape, self.classes[tasks], self.images[tasks], counts)

    @property
    def sha256(self) -> str:
        """The SHA-256 (hex) of the shape and all indices, and of the counts where they differ."""
        total = hashlib.sha256(canonical_json(asdict(self.shape)).encode())
        parts = [self.classes, self.images]
        if self.counts is not None:
            parts = [self.classes, self.counts, self.images[self._belongs]]
        for indices in parts:
            total.update(np.ascontiguousarray(indices, dtype="<i4").tobytes())
        return total.hexdigest()

    def rows(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of `split.images`, ordered by label.

        Returns:
            Support rows (T, n_way * k_shot) and query rows (T, n_way * n_query), int64.
        """
        rows = split.rows(self.classes[:, :, None], self.images)
        support, query = np.split(rows, [self.shape.k_shot], axis=2)
        if self.counts is not None:
            query = query[self._belongs[:, :, self.shape.k_shot :]]
        return support.reshape(len(self), -1), query.reshape(len(self), -1)

    @property
    def _belongs(self) -> np.ndarray:
        """Which of the images belong to the tasks, (T, n_way, width), where there are counts."""
        assert self.counts is not None
        return np.arange(self.images.shape[2]) < self.shape.k_shot + self.counts[:, :, None]

    def labels(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Return the labels of support (T, n_way * k_shot) and query (T, n_way * n_query)."""
        import torch

        ways = torch.arange(self.shape.n_way, device=device)
        support, query = (
            ways.repeat_interleave(n).expand(len(self), -1).contiguous()
            for n in (self.shape.k_shot, self.shape.n_query)
        )
        if self.counts is not None:
            query = torch.from_numpy(self.query_labels).to(device)
        return support, query

    @property
    def query_labels(self) -> np.ndarray:
        """The labels of the queries (T, n_way * n_query), int64."""
        ways = np.tile(np.arange(self.shape.n_way), len(self))
        counts = self.shape.n_query if self.counts is None else self.counts.ravel()
        return ways.repeat(counts).reshape(len(self), -1)

    def batch(
        self,
        split: Split,
        start: int,
        stop: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
    ) -> TaskBatch:
        """Return the tasks from `start` up to `stop` as normalised images on a device.

        Args:
            split: the split that the list was drawn for.
            start: first task.
            stop: one after the last task; the list's end where it is beyond.
            mean: (3,) of the data set.
            std: (3,) of the data set.
            device: pixels travel as bytes and are normalised there.

        Raises:
            BenchError: an index lies outside the split.
        """
        import torch

        from bench.data.images import normalise

        tasks = self[start:stop]
        pixels = np.asarray(split.images)
        support_x, query_x = (
            normalise(torch.from_numpy(pixels[rows]).to(device), mean, std)
            for rows in tasks.rows(split)
        )
        support_y, query_y = tasks.labels(device)
        return TaskBatch(support_x, support_y, query_x, query_y)


def check_shape(split_name: str, counts: np.ndarray, shape: TaskShape) -> None:
    """Raise an error if a split has too few classes or images for tasks of a shape.

    Args:
        split_name: named in the message.
        counts: (n_classes,) images of each class.
        shape: the task shape.

    Raises:
        BenchError: too few classes or images, or a number below what a task needs.
    """
    for field, least in (("n_way", 2), ("k_shot", 1), ("n_query", 1)):
        if getattr(shape, field) < least:
            value = getattr(shape, field)
            raise BenchError(f"{field} = {value} is below {least}, the least of a task; raise it")
    if shape.n_way > len(counts):
        raise BenchError(
            f"n_way {shape.n_way} exceeds the {len(counts)} classes of split {split_name}; "
            "lower n_way"
        )
    wanted, fewest = shape.k_shot + shape.n_query, int(np.argmin(counts))
    if wanted > counts[fewest]:
        raise BenchError(
            f"k_shot + n_query = {wanted} exceeds the {counts[fewest]} images of class {fewest} "
            f"of split {split_name}; lower n_query"
        )


def frozen_tasks(
    dataset_name: str,
    split_name: str,
    counts: np.ndarray,
    shape: TaskShape,
    n_tasks: int,
    base_seed: int = 0,
    balanced: bool = True,
) -> TaskList:
    """Return the frozen task list, which is the same for every method.

    Args:
        dataset_name: part of the seed.
        split_name: part of the seed.
        counts: (n_classes,) images of each class of the split.
        shape: the task shape, part of the seed.
        n_tasks: length of the list; a shorter list is the beginning of a longer one.
        base_seed: part of the seed.
        balanced: whether each class has n_query queries; otherwise see `query_counts`. Classes and
            support images are the same, and so is the order in which a class's queries are taken.

    Raises:
        BenchError: the split cannot serve the shape.
    """
    check_shape(split_name, counts, shape)
    stream = (base_seed, dataset_name, split_name, *asdict(shape).values())
    of_classes = numpy_generator("task classes", *stream)
    of_images = numpy_generator("task images", *stream)
    n_images = shape.k_shot + shape.n_query
    draws = [
        of_classes.random((n_tasks, shape.n_way)),
        of_images.random((n_tasks, shape.n_way, n_images)),
    ]
    if balanced:
        return _task_list(np.asarray(counts), shape, *draws)
    from bench.data.query_counts import query_counts

    wanted = query_counts(shape, numpy_generator("query counts", *stream), n_tasks)
    width = shape.n_way * shape.n_query - shape.n_query  # more than n_query, at most
    more = numpy_generator("further queries", *stream).random((n_tasks, shape.n_way, width))
    draws[1] = np.concatenate([draws[1], more], axis=2)[:, :, : shape.k_shot + wanted.max()]
    found = _task_list(np.asarray(counts), shape, *draws)
    return _cut(found, split_name, np.asarray(counts), wanted)


def _cut(tasks: TaskList, split_name: str, sizes: np.ndarray, wanted: np.ndarray) -> TaskList:
    """Return tasks with so many queries of each class, wanted (T, n_way)."""
    needed = tasks.shape.k_shot + wanted
    missing = needed - sizes[tasks.classes]
    if (missing > 0).any():
        worst = np.unravel_index(missing.argmax(), missing.shape)
        raise BenchError(
            f"query_counts = dirichlet wants {needed[worst]} of the {sizes[tasks.classes[worst]]} "
            f"images of class {tasks.classes[worst]} of split {split_name}; lower n_query"
        )
    cut = TaskList(tasks.shape, tasks.classes, tasks.images, wanted)
    return replace(cut, images=np.where(cut._belongs, tasks.images, 0))


def shares(total: int, parts: int) -> list[int]:
    """Divide a number of tasks among data sets as evenly as can be, the first ones first."""
    return [total // parts + (index < total % parts) for index in range(parts)]


def lists_digest(lists: Sequence[TaskList]) -> str:
    """Return the digest of one task list, or of several together."""
    digests = [tasks.sha256 for tasks in lists]
    return digests[0] if len(digests) == 1 else content_hash(digests)


def numbered_classes(counts: Sequence[int], lists: Sequence[TaskList]) -> np.ndarray:
    """Return the classes of all tasks (n, n_way); those of different data sets never coincide.

    Args:
        counts: the number of classes in the test split of each data set.
        lists: the tasks of each.
    """
    starts = np.cumsum([0, *counts[:-1]])
    return np.concatenate(
        [tasks.classes + start for tasks, start in zip(lists, starts, strict=True)]
    )


def random_tasks(split: Split, shape: TaskShape, n: int, generator: torch.Generator) -> TaskList:
    """Return n tasks drawn anew: training tasks, and the redrawn lists of published protocols.

    Args:
        split: the split to draw from.
        shape: the task shape.
        n: the number of tasks.
        generator: a CPU generator; two calls on one generator give different tasks.

    Raises:
        BenchError: the split cannot serve the shape.
    """
    import torch

    check_shape(split.name, split.counts, shape)
    n_images = shape.k_shot + shape.n_query
    draws = [
        torch.rand(size, generator=generator, dtype=torch.float64).numpy()
        for size in ((n, shape.n_way), (n, shape.n_way, n_images))
    ]
    return _task_list(split.counts, shape, *draws)


def _task_list(
    counts: np.ndarray, shape: TaskShape, class_draws: np.ndarray, image_draws: np.ndarray
) -> TaskList:
    n_tasks, n_way, n_images = image_draws.shape
    classes = distinct(np.full(n_tasks, len(counts)), class_draws)
    sizes = counts[classes].reshape(-1)
    images = distinct(sizes, image_draws.reshape(-1, n_images)).reshape(n_tasks, n_way, n_images)
    return TaskList(shape, classes, images)
