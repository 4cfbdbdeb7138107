"""The dynamic data set: a few pseudo images of each class of the pool, as learnable pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from bench.contract import Pool, TaskBatch, TaskShape
from bench.errors import BenchError

LabelOrder = Literal["aligned", "mismatched"]
PseudoSplit = Literal["random", "fixed"]


class DynamicDataset:
    """Learnable images (n_classes, M, 3, H, W), one row for each distinct class of a pool.

    Each teacher owns the rows of its classes; a row whose class several teachers know is theirs
    in common. Pixels start at N(0, 1) in the normalised space that all teachers share.

    Attributes:
        images: the leaf tensor (n_classes, M, 3, H, W), float32, which requires gradients.
        class_ids: the pool's class number of each row, ascending.
        class_names: the name of each row's class.
        rows: for each teacher, the rows (n_i,) whose images get its labels 0 … n_i - 1.

    Args:
        pool: the teachers; all take images of one size.
        images_per_class: M.
        generator: CPU generator of the initial pixels.
        device: where the pixels live.
        image_size: side of the images, pixels; the first teacher's unless given.
        label_order: `aligned`, label j of a teacher goes with its own class j; `mismatched`, with
            its j-th class in ascending order (what the extended released code does, hazard H5).
    """

    def __init__(
        self,
        pool: Pool,
        images_per_class: int,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        label_order: LabelOrder = "aligned",
        image_size: int | None = None,
    ) -> None:
        names = {
            class_id: name
            for teacher in pool
            for class_id, name in zip(teacher.class_ids, teacher.class_names, strict=True)
        }
        self.class_ids = tuple(sorted(names))
        self.class_names = tuple(names[class_id] for class_id in self.class_ids)
        row_of = {class_id: row for row, class_id in enumerate(self.class_ids)}
        arrange = sorted if label_order == "mismatched" else tuple
        places = [[row_of[i] for i in arrange(teacher.class_ids)] for teacher in pool]
        self.rows = tuple(torch.tensor(rows, device=device) for rows in places)
        side = image_size or pool[0].spec.image_size
        draw = torch.randn(
            (len(row_of), images_per_class, 3, side, side), generator=generator, dtype=torch.float32
        )
        self.images = draw.to(device).requires_grad_()
        self._owned = places
        self._labels = tuple(
            torch.arange(len(rows), device=device).repeat_interleave(images_per_class)
            for rows in self.rows
        )

    @property
    def images_per_class(self) -> int:
        """M, the number of pseudo images of each class."""
        return self.images.shape[1]

    def count_images(self, teachers: Sequence[int]) -> tuple[int, int]:
        """Return the number of distinct pseudo images of some teachers, and of those that they see.

        The second counts an image once for each teacher.
        """
        owned = [self._owned[index] for index in teachers]
        per_class = self.images_per_class
        return len(frozenset().union(*owned)) * per_class, sum(map(len, owned)) * per_class

    def names_of(self, index: int) -> list[str]:
        """Return the class names of a teacher's rows, in their order."""
        return [self.class_names[row] for row in self._owned[index]]

    def teacher_batch(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a teacher's block (n_i · M, 3, H, W), class-major, and its labels (n_i · M,).

        The block is a differentiable selection from `images`.
        """
        return self.images[self.rows[index]].flatten(0, 1), self._labels[index]

    def sample_tasks(
        self,
        n_tasks: int,
        shape: TaskShape,
        generator: torch.Generator,
        split: PseudoSplit = "random",
    ) -> TaskBatch:
        """Draw pseudo tasks of n_way classes; M images per class, support and query.

        Args:
            n_tasks: T.
            shape: n_way and k_shot; each class gives min(M - k_shot, n_query) queries.
            generator: CPU generator.
            split: `random`, each task parts a class anew; `fixed`, the first k_shot images of a
                class are always its support.

        Returns:
            Tasks, class-major, labels in the order drawn; differentiable selections from `images`.

        Raises:
            BenchError: there are fewer classes than n_way, or no image is left for the queries.
        """
        n_classes, per_class = self.images.shape[:2]
        n_query = min(per_class - shape.k_shot, shape.n_query)
        self._check(shape, n_classes, n_query)
        classes = _permutations((n_tasks,), n_classes, generator)[:, : shape.n_way]
        if split == "random":
            members = _permutations((n_tasks, shape.n_way), per_class, generator)
        else:
            members = torch.arange(per_class).expand(n_tasks, shape.n_way, per_class)
        flat = (classes[..., None] * per_class + members).to(self.images.device)  # (T, n_way, M)
        support, query = flat.split([shape.k_shot, per_class - shape.k_shot], dim=-1)
        labels = torch.arange(shape.n_way, device=self.images.device)
        return TaskBatch(
            self._select(support),
            labels.repeat_interleave(shape.k_shot).expand(n_tasks, -1),
            self._select(query[..., :n_query]),
            labels.repeat_interleave(n_query).expand(n_tasks, -1),
        )

    def _select(self, index: Tensor) -> Tensor:
        """Return the images (T, n_way · m, 3, H, W) of flat indices (T, n_way, m)."""
        return self.images.flatten(0, 1)[index.flatten(1)]

    def _check(self, shape: TaskShape, n_classes: int, n_query: int) -> None:
        if n_classes < shape.n_way:
            raise BenchError(
                f"n_way = {shape.n_way} exceeds the {n_classes} classes that the pool knows; "
                "lower n_way or add teachers"
            )
        if n_query < 1:
            raise BenchError(
                f"k_shot = {shape.k_shot} leaves no query of {self.images_per_class} pseudo images "
                "a class; raise pseudo_images_per_class"
            )

    @torch.no_grad()
    def clip(self, bound: float) -> None:
        """Clamp every pixel to ±bound, in normalised units, in place."""
        self.images.clamp_(-bound, bound)


def _permutations(batch: tuple[int, ...], n: int, generator: torch.Generator) -> Tensor:
    """Return independent random permutations (*batch, n) of 0 … n - 1."""
    return torch.rand((*batch, n), generator=generator, dtype=torch.float64).argsort(dim=-1)
