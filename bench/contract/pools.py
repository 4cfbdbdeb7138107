"""Teachers and pools, all that a data-free method may see; and how teachers are trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

from bench.contract.config import Config
from bench.errors import BenchError

if TYPE_CHECKING:
    from torch import Tensor, nn

    Module = nn.Module
else:
    Module = object  # the contract does without torch; `bench.nets.base.Backbone` derives from both

Checkpoint = Literal["best", "last"]


@dataclass(frozen=True)
class NetSpec:
    """The parameters to build a network: name, outputs of the head, image side in pixels."""

    architecture: str
    n_classes: int
    image_size: int


class Backbone(Module):
    """What a method may use of a network, teacher or meta-model: features, then a linear head.

    Networks derive from `bench.nets.base.Backbone`. All else is that of `torch.nn.Module`.
    """

    n_features: int
    head: nn.Linear

    @abstractmethod
    def features(self, x: Tensor, norm: Callable[[nn.BatchNorm2d, Tensor], Tensor] = ...) -> Tensor:
        """Return the features (B, n_features) of images (B, 3, H, W), normalised by `norm`."""
        ...

    @abstractmethod
    def channel_axes(self, image_size: int) -> tuple[Any, ...]:
        """Return the `bench.nets.channels.Axis` of each entry that holds channels."""

    def scale_features(self, factor: float) -> None:
        """Multiply the features by a positive factor, in place, through their last norm layers.

        Exact up to rounding where norms use the batch's own statistics, whatever the images.

        Raises:
            BenchError: the network does not say how.
        """
        raise BenchError(f"{type(self).__name__} cannot scale its features; use a factor of 1")


@dataclass(frozen=True)
class Teacher:
    """A classifier trained on a few classes of a data set's meta-train split.

    `net` is frozen and in eval mode; it expects images normalised with `mean` and `std` (each
    3 numbers, for pixels in [0, 1]), of the size in `spec` or the meta-model's.
    `accuracy` is the held-out accuracy, a fraction.
    `class_ids` number the classes across the pool: equal ids mean the same class.
    `code` is the digest of the code that trained it, `threads` the CPU threads that it had; None
    where that is not known.
    """

    name: str
    dataset: str
    spec: NetSpec
    class_names: tuple[str, ...]
    class_ids: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    accuracy: float
    sha256: str
    net: Backbone = field(repr=False)
    code: str | None = None
    threads: int | None = None


class Pool(Sequence[Teacher]):
    """An ordered list of teachers: all that a data-free method may see.

    `initial_states` holds, in a pool with a shared initialisation, the weights that all teachers
    of a spec started from.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        sha256: str,
        initial_states: Mapping[NetSpec, Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.teachers = tuple(teachers)
        self.sha256 = sha256
        self.initial_states = dict(initial_states or {})

    def __len__(self) -> int:
        return len(self.teachers)

    @overload
    def __getitem__(self, index: int) -> Teacher: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Teacher]: ...

    def __getitem__(self, index: int | slice) -> Teacher | Sequence[Teacher]:
        return self.teachers[index]

    def __iter__(self) -> Iterator[Teacher]:
        return iter(self.teachers)

    @property
    def architectures(self) -> tuple[str, ...]:
        """The distinct architectures, sorted."""
        return tuple(sorted({t.spec.architecture for t in self.teachers}))

    @property
    def n_classes(self) -> int:
        """The number of distinct classes that the teachers know together."""
        return len({i for t in self.teachers for i in t.class_ids})

    @property
    def mean_accuracy(self) -> float:
        """The mean held-out accuracy of the teachers, a fraction."""
        return sum(t.accuracy for t in self.teachers) / len(self.teachers)


class OptimiserRecipe(Config):
    """The part of a teacher's recipe that its architecture chooses (`Backbone.recipe`)."""

    optimiser: Literal["adam", "sgd"]
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0


class TeacherRecipe(OptimiserRecipe):
    """How a teacher is trained. Source: the paper's released pre-training script (constants)."""

    version: ClassVar[int] = 1
    """raised when training changes in a way that changes teachers; see `Method.version`"""
    epochs: int
    """passes over the training images; 0 keeps the weights as they were drawn"""
    checkpoint: Checkpoint
    """which epoch is kept, by held-out accuracy"""
    batch_size: int = 128
    milestones: tuple[float, ...] = (1 / 2, 2 / 3, 5 / 6)
    """fractions of `epochs` at which the rate is decayed (30, 40 and 50 of 60)"""
    decay: float = 0.2
    """factor of the rate at each milestone; 1 is none"""
    max_grad_norm: float = 50.0
    train_fraction: float = 0.8
    """share of each class's images, in sorted order, that trains; the rest is held out"""
