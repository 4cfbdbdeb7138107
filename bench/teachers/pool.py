"""Pool recipes: which classes and which architecture each teacher gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bench.contract import Config, NetSpec
from bench.teachers.train import TeacherRecipe, recipe_for

WAYS = 5
"""Classes of a full teacher, and outputs of every teacher's head."""


class TeacherPlan(Config):
    """One teacher of a pool, before it is trained; its content hash names its files."""

    dataset: str
    dataset_digest: str
    classes: tuple[int, ...]
    """indices into the sorted classes of the meta-train split"""
    architecture: str
    n_outputs: int
    image_size: int
    recipe: TeacherRecipe
    seed: int

    @property
    def spec(self) -> NetSpec:
        """The network to build."""
        return NetSpec(self.architecture, self.n_outputs, self.image_size)


def disjoint_blocks(n_classes: int, ways: int = WAYS) -> list[tuple[int, ...]]:
    """Cut classes 0…n-1 into consecutive blocks; a last block of fewer than 2 is dropped.

    Source: the paper's protocol (64 classes → 13 teachers, the last with 4 classes).
    """
    blocks = [
        tuple(range(start, min(start + ways, n_classes))) for start in range(0, n_classes, ways)
    ]
    return [block for block in blocks if len(block) >= 2]


def plan_pool(
    dataset: str,
    dataset_digest: str,
    n_classes: int,
    image_size: int,
    architectures: Sequence[str],
    epochs: int,
    checkpoint: Literal["best", "last"],
    max_teachers: int | None,
    seed: int,
) -> list[TeacherPlan]:
    """Return the teachers of a disjoint pool; architectures cycle by teacher number.

    Args:
        dataset, dataset_digest, n_classes, image_size: the data set and its meta-train split.
        architectures: one name, or several to cycle through.
        epochs, checkpoint: see `TeacherRecipe`.
        max_teachers: keep the first so many blocks; None keeps all.
        seed: the repetition; another seed gives another pool of the same classes.
    """
    return [
        TeacherPlan(
            dataset=dataset,
            dataset_digest=dataset_digest,
            classes=block,
            architecture=architectures[index % len(architectures)],
            n_outputs=WAYS,
            image_size=image_size,
            recipe=recipe_for(architectures[index % len(architectures)], epochs, checkpoint),
            seed=seed,
        )
        for index, block in enumerate(disjoint_blocks(n_classes)[:max_teachers])
    ]
