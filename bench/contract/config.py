"""Configurations, pydantic models whose identity is hashed; the constants of protocols, budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypeVar

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


class Config(BaseModel):
    """Base of every configuration model: frozen, without unknown keys or infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def identity(self) -> dict[str, Any]:
        """Return what makes two configurations the same, for hashing: fields by name, as JSON.

        Those `added` later that have their default are left out.
        """
        values = self.model_dump(mode="json")
        for name, field_info in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Config):
                values[name] = value.identity()
            if _is_added(field_info) and value == field_info.default:
                del values[name]
        return values


ConfigT = TypeVar("ConfigT", bound=Config, default=Config)
ConfigT_co = TypeVar("ConfigT_co", bound=Config, default=Config, covariant=True)
"""The configuration of a method or a calibration; `Config` where nothing is named."""


def added(default: Any, **constraints: Any) -> Any:  # noqa: ANN401  as pydantic.Field
    """Declare a field that a released configuration gains, as `pydantic.Field` does.

    At its default, which means what was done before, it leaves `Config.identity` as it was: stored
    records keep their hashes, and stored fits are found again.
    """
    return Field(default, json_schema_extra={"added": True}, **constraints)


def with_added(kind: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of an earlier version, with what was `added` since at its default."""
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


BnMode = Literal["transductive", "support", "running"]


class Budget(Config):
    """Counts that a named budget (micro, short, long, paper) resolves to; all are in the record."""

    name: str
    """the name that records and tables show"""
    teacher_epochs: int = Field(ge=1)
    """passes over a teacher's training images"""
    teacher_epochs_of: dict[str, Annotated[int, Field(ge=1)]] = {}
    """epochs of the architectures that are trained for other than `teacher_epochs`"""
    max_teachers: int | None = Field(default=None, ge=1)
    """the first teachers of a pool that are kept; None keeps all"""
    meta_iterations: int = Field(ge=0)
    """outer steps of a meta-training"""
    oracle_iterations: int = Field(ge=1)
    """meta-iterations of the oracles, whose tasks cost no inversion"""
    validate_every: int = Field(ge=1)
    """meta-iterations between two validations. Unit: meta-iterations"""
    n_val_tasks: int = Field(ge=1)
    """tasks of a validation"""


class ProtocolConstants(Config):
    """The constants that must agree before two numbers are compared."""

    name: str
    """the name that records and tables show"""
    pool: Literal["disjoint", "overlapping"]
    """`disjoint`: classes in sorted order in blocks of five, one teacher per block; `overlapping`:
    `n_teachers` teachers, each of five classes that are drawn by the seed"""
    shared_initialisation: bool = False
    """whether the teachers of one architecture start from the same weights, which the pool
    publishes (task vectors need it), or each from its own"""
    n_teachers: int | None = Field(default=None, ge=1)
    """teachers of an overlapping pool; None for a disjoint one"""
    teachers: Literal["trained", "untrained"] = added("trained")
    """`trained` by the recipe, or `untrained`: seeded random weights, for trying what a run
    takes"""
    teacher_image_size: int | None = added(None, ge=8)
    """side of the images that teachers take; None is the data set's. Unit: px"""
    untrustworthy_share: float = added(0.0, ge=0, le=1)
    """share of the pool's teachers that cannot be trusted, drawn by the seed"""
    untrustworthy_kind: Literal["accuracy", "labels"] = added("accuracy")
    """in what such a teacher deceives: random weights that report a held-out `accuracy` of 99 %, or
    class names (`labels`) that are exchanged among its outputs"""
    teacher_decay: float = Field(default=0.2, gt=0, le=1)
    """factor of a teacher's learning rate at 1/2, 2/3 and 5/6 of its epochs; 1 is none"""
    teacher_checkpoint: Literal["best", "last"]
    """a teacher is saved at its `best` held-out accuracy or after its `last` epoch; its accuracy is
    always that of the saved weights"""
    selection: Literal["val", "test_max", "last"]
    """the checkpoint is chosen on tasks of the validation split (`val`), on the very test tasks
    that it is then scored on (`test_max`, as published), or is the last one (`last`)"""
    task_list: Literal["frozen", "redrawn"]
    """test tasks are the same for every method, seed and evaluation (`frozen`), or drawn anew for
    each evaluation (`redrawn`, as published), so that nothing can be paired"""
    query_counts: Literal["balanced", "dirichlet"] = added("balanced")
    """test and validation tasks have equally many queries of each class (`balanced`), or as many in
    all but class shares drawn from a Dirichlet distribution (`dirichlet`)"""
    teacher_weights: Literal["uniform", "cumulative"]
    """each teacher counts once in the inversion loss (`uniform`), or teacher i of N counts N - i
    times (`cumulative`, as published)"""
    teachers_per_iteration: int | None = Field(default=None, ge=1)
    """teachers that are drawn for each pixel step; None takes all"""
    label_order: Literal["aligned", "mismatched"]
    """pseudo images and targets agree (`aligned`), or images come in ascending class order while
    targets follow the teacher's own (`mismatched`)"""
    bn: BnMode
    """how learners normalise at prediction: all queries of a task together (`transductive`), with
    the support's statistics (`support`), or with stored ones (`running`)"""
    pseudo_split: Literal["random", "fixed"]
    """pseudo images are split into support and query anew each time (`random`), or once
    (`fixed`)"""
    pseudo_images_per_class: int | None = Field(default=None, ge=2)
    """pseudo images of each class; None is k_shot + n_query"""
    initialisation: Literal["auto", "random", "average", "best_teacher"]
    """where meta-training starts; `auto`: the average of a pool of one architecture, a random draw
    for a mixed one"""
    inner_lr: float = Field(gt=0)
    """SGD's rate in the inner loop"""
    inner_steps_train: int = Field(ge=0)
    """steps of the inner loop in meta-training"""
    inner_steps_test: int = Field(ge=0)
    """steps of the inner loop at test"""
    first_order: bool
    """whether the inner gradient counts as a constant in the outer one"""
    outer_lr: float = Field(gt=0)
    """Adam's rate in the outer step"""
    tasks_per_meta_batch: int = Field(ge=1)
    """tasks whose losses are summed in an outer step"""
    pixel_lr: float = Field(gt=0)
    """Adam's rate on pseudo images. Unit: normalised pixels"""
    clip_pixels: float | None = Field(default=None, gt=0)
    """bound on the magnitude of a pixel of a pseudo image; None is none. Unit: normalised pixels"""
    precision: Literal["float32", "tf32", "bfloat16"] = added("float32")
    """how networks compute in the fit and at test, not in training the teachers
    (`bench/nets/precision.py`)"""

    @model_validator(mode="after")
    def _count_teachers(self) -> ProtocolConstants:
        if (self.pool == "overlapping") != (self.n_teachers is not None):
            raise ValueError(
                f"n_teachers = {self.n_teachers} with pool = {self.pool}: set n_teachers for an "
                "overlapping pool, and for no other"
            )
        return self
