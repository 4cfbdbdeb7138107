"""What a plug-in must offer, and what it is given. The heart of the suite; keep it small.

A *method* turns a pool of teachers into a learner without seeing data; a *learner* adapts to a
support set and predicts a query set; a *network* is the backbone of a teacher or a meta-model.
The harness owns data, tasks, files, the clock and the record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Knowledge = Literal["parameters", "inversion", "features", "real_data"]
Need = Literal["same_architecture", "shared_initialisation", "bn_statistics"]


class Config(BaseModel):
    """Base of every configuration model: unknown keys are errors, numbers are finite, instances do
    not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """Return what makes two configurations the same, for hashing: fields by name, in JSON's
        types, without those `added` later that have their default."""
        values = self.model_dump(mode="json")
        for name, field_info in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Config):
                values[name] = value.identity()
            if _is_added(field_info) and value == field_info.default:
                del values[name]
        return values


def added(default: Any, **constraints: Any) -> Any:
    """Declare a field that a released configuration gains, as `pydantic.Field` does.

    At its default, which means what was done before, it leaves `Config.identity` as it was: stored
    records keep their hashes, and stored fits are found again.
    """
    return Field(default, json_schema_extra={"added": True}, **constraints)


def with_added(kind: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that were written by some version of a configuration, with what was `added`
    since at its default."""
    fields = kind.model_fields
    later = {
        name: one.get_default(call_default_factory=True)
        for name, one in fields.items()
        if _is_added(one)
    }
    return {**later, **values}


def _is_added(field_info: FieldInfo) -> bool:
    extra = field_info.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("added"))


@dataclass(frozen=True)
class TaskShape:
    """n_way classes, k_shot support and n_query query images of each."""

    n_way: int
    k_shot: int
    n_query: int = 15


@dataclass(frozen=True)
class TaskBatch:
    """T tasks of one shape; labels run from 0 to n_way - 1, images are normalised float.

    support_x (T, n_way * k_shot, C, H, W), support_y (T, n_way * k_shot),
    query_x (T, n_way * n_query, C, H, W), query_y (T, n_way * n_query).
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor

    def __len__(self) -> int:
        return self.support_x.shape[0]

    def to(self, device: torch.device | str) -> TaskBatch:
        """Return the same tasks on another device."""
        return TaskBatch(
            self.support_x.to(device),
            self.support_y.to(device),
            self.query_x.to(device),
            self.query_y.to(device),
        )


@dataclass(frozen=True)
class NetSpec:
    """What is needed to build a network: registry name, outputs of the head, image side in px."""

    architecture: str
    n_classes: int
    image_size: int


@dataclass(frozen=True)
class Teacher:
    """A classifier trained on a few classes of a data set's meta-train split.

    `net` is frozen and in eval mode; it expects images normalised with `mean` and `std` (each
    3 numbers, for pixels in [0, 1]), of the size in `spec` or the meta-model's.
    `accuracy` is the held-out accuracy, a fraction.
    `class_ids` number the classes across the pool: equal ids mean the same class.
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
    net: nn.Module = field(repr=False)


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
    ):
        self.teachers = tuple(teachers)
        self.sha256 = sha256
        self.initial_states = dict(initial_states or {})

    def __len__(self) -> int:
        return len(self.teachers)

    def __getitem__(self, index):
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


class Learner(ABC):
    """Adapts to a support set and predicts a query set, for many tasks at once."""

    @abstractmethod
    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Return the logits of the queries; builds no graph that outlives the call.

        Args:
            support_x: images (T, n_way * k_shot, C, H, W).
            support_y: labels (T, n_way * k_shot) in [0, n_way).
            query_x: images (T, n_way * n_query, C, H, W).

        Returns:
            Logits (T, n_way * n_query, n_way).
        """

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """The number of parameters that prediction uses."""


class EmbeddingLearner(Learner):
    """A learner whose embedding of an image does not depend on the other images of the task.

    The harness then embeds each distinct test image once, for all tasks and shots.
    """

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Return the embeddings (B, D) of images (B, C, H, W)."""

    @abstractmethod
    def predict_embedded(self, support_e: Tensor, support_y: Tensor, query_e: Tensor) -> Tensor:
        """Return logits (T, Q, n_way) from embeddings (T, S, D), labels (T, S), (T, Q, D)."""

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Embed, then predict from the embeddings; see `Learner.predict`."""
        n_tasks, n_support = support_x.shape[:2]
        n_query = query_x.shape[1]
        support_e = self.embed(support_x.flatten(0, 1)).view(n_tasks, n_support, -1)
        query_e = self.embed(query_x.flatten(0, 1)).view(n_tasks, n_query, -1)
        return self.predict_embedded(support_e, support_y, query_e)


class DrawingLearner(Learner):
    """A learner that draws random numbers for each task.

    The harness says where in the list the tasks stand, so that what is drawn for a task depends
    neither on how the list is cut into batches nor on the tasks before.
    """

    @abstractmethod
    def predict_from(
        self, first: int, support_x: Tensor, support_y: Tensor, query_x: Tensor
    ) -> Tensor:
        """Return logits as `Learner.predict` does, of tasks number first, first + 1, …"""

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        """Predict the tasks at the head of the list; see `Learner.predict`."""
        return self.predict_from(0, support_x, support_y, query_x)


class MetaLearner(Learner):
    """A learner around a meta-model that can be meta-trained: pure functions of its parameters."""

    @abstractmethod
    def outer_loss(self, params: Mapping[str, Tensor], tasks: TaskBatch) -> tuple[Tensor, Tensor]:
        """Adapt to each support set and return the query losses; differentiable.

        Args:
            params: parameters of the meta-model by name; gradients flow to them, and to the
                images of both sets.
            tasks: T tasks.

        Returns:
            Mean query cross-entropy of each task (T,), and query logits (T, Q, n_way).
        """


class FitLog(Protocol):
    """Where a fit reports; the harness decides what becomes of it. Nothing here synchronises."""

    def scalars(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Note named scalars (floats or 0-d tensors) of one step."""

    def images(
        self, name: str, images: Tensor, captions: Sequence[str] = (), columns: int | None = None
    ) -> None:
        """Note a grid of images (N, 3, H, W) with values in [0, 1].

        Captions, where given, each name a group of consecutive images, all groups equally large.
        `columns` groups stand in a row; None makes the grid about square.
        """

    def count(self, name: str, amount: int) -> None:
        """Add to a counter: `train_tasks`, `pseudo_images`, `teacher_forward_images`, `queries`."""

    def progress(self, step: int, total: int) -> None:
        """Say that `step` of `total` steps are done."""


class Choose(Protocol):
    """Picks one of several ways to compute the same numbers; they differ in speed and rounding."""

    def __call__(self, subject: str, trials: Mapping[str, Callable[[], object]]) -> str:
        """Return the name of a way.

        Args:
            subject: what is computed and on which shapes, in words; equal words, equal work.
            trials: by name, a run of each way, the one to take without measuring first.
        """


def first_of(subject: str, trials: Mapping[str, Callable[[], object]]) -> str:
    """Return the first way: a `Choose` that measures nothing and is the same everywhere."""
    return next(iter(trials))


class Budget(Config):
    """Counts that a named budget (micro, short, paper) resolves to; all are in the record."""

    name: str
    teacher_epochs: int = Field(ge=1)
    teacher_epochs_of: dict[str, Annotated[int, Field(ge=1)]] = {}
    """epochs of the architectures that are trained for other than `teacher_epochs`"""
    max_teachers: int | None = Field(None, ge=1)
    meta_iterations: int = Field(ge=0)
    oracle_iterations: int = Field(ge=1)
    """meta-iterations of the oracles, whose tasks cost no inversion"""
    validate_every: int = Field(ge=1)
    n_val_tasks: int = Field(ge=1)


class ProtocolConstants(Config):
    """The constants that make two numbers comparable; meanings in `bench/suites/protocols.py`."""

    name: str
    pool: Literal["disjoint", "overlapping"]
    shared_initialisation: bool = False
    n_teachers: int | None = Field(None, ge=1)
    teachers: Literal["trained", "untrained"] = added("trained")
    teacher_image_size: int | None = added(None, ge=8)
    teacher_decay: float = Field(0.2, gt=0, le=1)
    teacher_checkpoint: Literal["best", "last"]
    selection: Literal["val", "test_max", "last"]
    task_list: Literal["frozen", "redrawn"]
    teacher_weights: Literal["uniform", "cumulative"]
    teachers_per_iteration: int | None = Field(None, ge=1)
    label_order: Literal["aligned", "mismatched"]
    bn: Literal["transductive", "support", "running"]
    pseudo_split: Literal["random", "fixed"]
    pseudo_images_per_class: int | None = Field(None, ge=2)
    initialisation: Literal["auto", "random", "average", "best_teacher"]
    inner_lr: float = Field(gt=0)
    inner_steps_train: int = Field(ge=0)
    inner_steps_test: int = Field(ge=0)
    first_order: bool
    outer_lr: float = Field(gt=0)
    tasks_per_meta_batch: int = Field(ge=1)
    pixel_lr: float = Field(gt=0)
    clip_pixels: float | None = Field(None, gt=0)
    precision: Literal["float32", "tf32", "bfloat16"] = added("float32")

    @model_validator(mode="after")
    def _count_teachers(self) -> ProtocolConstants:
        if (self.pool == "overlapping") != (self.n_teachers is not None):
            raise ValueError(
                f"n_teachers = {self.n_teachers} with pool = {self.pool}: set n_teachers for an "
                "overlapping pool, and for no other"
            )
        return self


@dataclass
class FitContext:
    """Everything that a method is given. It sees no data set, no file, no test task.

    `generator(purpose)` returns an independent CPU generator of its own stream.
    `build_net(generator)` returns a fresh meta-model of the spec `net`, on the device.
    `training_learner(net)` wraps a meta-model in the cell's learner with the protocol's training
    settings (a `MetaLearner`); `make_learner(state)` wraps a state dict of the meta-model in the
    cell's learner with the test settings. `validate(learner)` returns the mean accuracy on
    validation tasks; None where the protocol takes the last state. `resume` is what
    `save(step, state)` was given last, or None; states are nested dicts, lists, numbers and
    tensors. `train_tasks(generator, n)` draws real tasks of the meta-train split; None unless the
    method's knowledge is `real_data`. `choose` picks one of several equal ways to compute.
    """

    pool: Pool
    net: NetSpec
    shape: TaskShape
    learner: str
    config: Any
    budget: Budget
    protocol: ProtocolConstants
    device: torch.device
    log: FitLog
    generator: Callable[[str], torch.Generator]
    build_net: Callable[[torch.Generator], nn.Module]
    training_learner: Callable[[nn.Module], MetaLearner]
    make_learner: Callable[[Mapping[str, Tensor]], Learner]
    validate: Callable[[Learner], float] | None
    resume: dict[str, Any] | None
    save: Callable[[int, dict[str, Any]], None]
    train_tasks: Callable[[torch.Generator, int], TaskBatch] | None
    choose: Choose = first_of


BACKWARD = 2
"""A backward pass costs about two forward passes."""


@dataclass(frozen=True)
class PlannedTeacher:
    """What a plan knows of a teacher: its network, and how many classes it knows."""

    spec: NetSpec
    n_classes: int


@dataclass(frozen=True)
class PlannedFit:
    """What a plan knows of a fit: what `FitContext` will give it, less what only a run has."""

    teachers: Sequence[PlannedTeacher]
    net: NetSpec
    shape: TaskShape
    config: Any
    budget: Budget
    protocol: ProtocolConstants


@dataclass(frozen=True)
class Passes:
    """About how many forward passes of one image a fit takes besides its meta-iterations' own; a
    backward pass counts as two.

    `teachers`: of each teacher of the pool. `net`: of the meta-model.
    """

    teachers: Sequence[float]
    net: float = 0.0


class Method(ABC):
    """Pool → learner. One subclass, one file, one entry point; the docstring names the paper.

    A fit is a dict of tensors, apart from the learner that is built from it, so that the harness
    can store it, share it between cells (`fit_depends_on`) and restore it without the method's
    help.
    """

    name: ClassVar[str]
    knowledge: ClassVar[Knowledge]
    learners: ClassVar[tuple[str, ...]]
    """The learners that the method can be combined with; the first is the default."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    fit_depends_on: ClassVar[frozenset[str]] = frozenset()
    """Which of n_way, k_shot, learner change the fit; cells that agree in them share one."""
    uses_pool: ClassVar[bool] = True
    validates: ClassVar[bool] = False
    """Whether the fit selects a checkpoint through `context.validate`."""
    Config: ClassVar[type[Config]] = Config
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"released": {}}
    learner_presets: ClassVar[Mapping[tuple[str, str], Mapping[str, Any]]] = {}
    """What a preset is with one learner, by (preset, learner), where it is not as in `presets`."""

    @classmethod
    def preset_values(cls, preset: str, learner: str) -> Mapping[str, Any]:
        """Return what a preset sets where the method is combined with a learner."""
        return cls.learner_presets.get((preset, learner), cls.presets[preset])

    @classmethod
    def needs_of(cls, config: Any) -> frozenset[Need]:
        """Return what the method needs under a configuration (an instance of `Config`)."""
        return cls.needs

    @classmethod
    def knowledge_of(cls, config: Any) -> Knowledge:
        """Return the kind of knowledge that the method uses under a configuration."""
        return cls.knowledge

    @classmethod
    def meta_iterations(cls, config: Any, budget: Budget) -> int:
        """Return the meta-iterations of a fit; 0 where nothing is meta-trained."""
        return budget.meta_iterations if cls.validates else 0

    @classmethod
    def fit_passes(cls, fit: PlannedFit) -> Passes:
        """Return about what a fit takes besides its meta-iterations' own tasks and validation.

        For estimates before a run only, as all that is told by passes.
        """
        return Passes([0.0] * len(fit.teachers))

    @classmethod
    def kept_passes(cls, fit: PlannedFit) -> float:
        """Return the meta-model's passes of one image that a fit keeps at once for a gradient
        through an inner loop, besides those of its meta-iterations; for the memory of plans."""
        return 0.0

    @classmethod
    def embedding_passes(cls, fit: PlannedFit) -> Sequence[float]:
        """Return the passes of each teacher that embed one test image; where knowledge is
        `features`, whose tests take little else."""
        return [1.0] * len(fit.teachers)

    def teachers_used(self, context: FitContext) -> Sequence[Teacher]:
        """Return the teachers that a fit uses, of whom alone `bn_statistics` are needed."""
        return tuple(context.pool)

    def skip(self, context: FitContext) -> str | None:
        """Return why this pool or shape cannot be served, or None; beyond `needs`."""
        return None

    def notes(self, context: FitContext) -> tuple[str, ...]:
        """Return what a reader of the record should know of a fit to this pool."""
        return ()

    @abstractmethod
    def fit(self, context: FitContext) -> dict[str, Tensor]:
        """Turn the pool into tensors; the clock runs during this call only."""

    @abstractmethod
    def learner(self, context: FitContext, fitted: Mapping[str, Tensor]) -> Learner:
        """Build the learner from what `fit` returned; cheap, draws nothing."""


class Calibration(ABC):
    """Learner → learner that refines itself on each test task; never part of a fit.

    One subclass, one entry point of the group `purer_bench.calibrations`. Fits and validation
    know nothing of it, so cells with and without it share them.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Config]] = Config

    @classmethod
    @abstractmethod
    def refuse(cls, learner: type[Learner]) -> str | None:
        """Return why a kind of learner cannot be calibrated, with the remedy, or None."""

    @abstractmethod
    def wrap(
        self, learner: Learner, config: Any, generator: Callable[[int], torch.Generator]
    ) -> Learner:
        """Return the calibrated learner; draws nothing yet.

        Args:
            learner: with the test settings; never changed.
            config: an instance of `Config`.
            generator: returns the CPU generator of a test task, by its place in the list.
        """

    @abstractmethod
    def image_passes(self, config: Any, shape: TaskShape) -> int:
        """Return about how many forward passes of one image it adds to a task.

        A backward pass counts as two. For estimates before a run only.
        """
