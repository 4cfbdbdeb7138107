"""Pool recipes: the classes and the architecture of each teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import registry
from bench.contract import Budget, Checkpoint, Config, NetSpec, ProtocolConstants, TeacherRecipe
from bench.errors import BenchError
from bench.seeds import numpy_generator
from bench.teachers.train import recipe_for

WAYS = 5
"""Classes of a full teacher, and outputs of every teacher's head."""


class TeacherSpec(Config):
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
    shared_initialisation: bool = False
    """start from the weights that all teachers of this spec and seed start from"""

    @property
    def content(self) -> dict[str, Any]:
        """The content whose hash names the teacher's files.

        An independent start is not mentioned, so that such teachers keep the names they had before
        there was another; nor is a version 1.
        """
        content = self.model_dump(mode="json")
        if not self.shared_initialisation:
            del content["shared_initialisation"]
        versions = {"recipe": TeacherRecipe.version, "net": 1}
        if ":" not in self.architecture:
            versions["net"] = registry.version("net", self.architecture)
        above = {name: version for name, version in versions.items() if version > 1}
        return content | ({"versions": above} if above else {})

    @property
    def spec(self) -> NetSpec:
        """The network to build."""
        return NetSpec(self.architecture, self.n_outputs, self.image_size)

    def with_checkpoint(self, checkpoint: Checkpoint) -> TeacherSpec:
        """Return the same teacher of another epoch, the best or the last."""
        recipe = self.recipe.model_copy(update={"checkpoint": checkpoint})
        return self.model_copy(update={"recipe": recipe})


def number_classes(plans: Sequence[TeacherSpec]) -> dict[tuple[str, int], int]:
    """Number the classes of a pool: data sets in the pool's order, then classes as sorted."""
    datasets = list(dict.fromkeys(plan.dataset for plan in plans))
    known = {(plan.dataset, c) for plan in plans for c in plan.classes}
    ordered = sorted(known, key=lambda pair: (datasets.index(pair[0]), pair[1]))
    return {pair: number for number, pair in enumerate(ordered)}


def disjoint_blocks(n_classes: int, ways: int = WAYS) -> list[tuple[int, ...]]:
    """Cut classes 0…n-1 into consecutive blocks; a last block of fewer than 2 is dropped.

    Source: the paper's protocol (64 classes → 13 teachers, the last with 4 classes).
    """
    blocks = [
        tuple(range(start, min(start + ways, n_classes))) for start in range(0, n_classes, ways)
    ]
    return [block for block in blocks if len(block) >= 2]


def overlapping_draws(
    n_classes: int, n_teachers: int, dataset: str, seed: int, ways: int = WAYS
) -> list[tuple[int, ...]]:
    """Draw the classes of each teacher at random, in random order; teachers may share classes.

    Each teacher has a stream of its own, so a smaller pool is the beginning of a larger one.

    Raises:
        BenchError: there are fewer classes than a teacher has.

    Source: the pool of the paper's later extension, 100 teachers of 5 classes.
    """
    if n_classes < ways:
        raise BenchError(
            f"{dataset} has {n_classes} meta-train classes, a teacher of an overlapping pool "
            f"draws {ways}; use pool disjoint"
        )
    return [
        tuple(
            numpy_generator("teacher classes", dataset, seed, index)
            .permutation(n_classes)[:ways]
            .tolist()
        )
        for index in range(n_teachers)
    ]


def plan_pool(
    dataset: str,
    dataset_digest: str,
    n_classes: int,
    image_size: int,
    architectures: Sequence[str],
    budget: Budget,
    protocol: ProtocolConstants,
    seed: int,
) -> list[TeacherSpec]:
    """Return the teachers of a pool; architectures cycle by teacher number.

    Args:
        dataset: the name of the data set.
        dataset_digest: its digest.
        n_classes: of its meta-train split.
        image_size: of its images, side in pixels.
        architectures: one name, or several to cycle through.
        budget: says how many epochs, and keeps the first `max_teachers` teachers.
        protocol: says which classes each teacher gets and how it is trained.
        seed: the repetition; another seed gives other teachers, and in an overlapping pool other
            classes.
    """
    if protocol.n_teachers is not None:  # of an overlapping pool
        groups = overlapping_draws(n_classes, protocol.n_teachers, dataset, seed)
    else:
        groups = disjoint_blocks(n_classes)
    plans = []
    for index, classes in enumerate(groups[: budget.max_teachers]):
        architecture = architectures[index % len(architectures)]
        epochs = budget.teacher_epochs_of.get(architecture, budget.teacher_epochs)
        epochs = 0 if protocol.teachers == "untrained" else epochs
        plans.append(
            TeacherSpec(
                dataset=dataset,
                dataset_digest=dataset_digest,
                classes=classes,
                architecture=architecture,
                n_outputs=WAYS,
                image_size=protocol.teacher_image_size or image_size,
                recipe=recipe_for(
                    architecture, epochs, protocol.teacher_checkpoint, protocol.teacher_decay
                ),
                seed=seed,
                shared_initialisation=protocol.shared_initialisation,
            )
        )
    return plans
