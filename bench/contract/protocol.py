"""The constants of a protocol and the counts of a budget."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.contract.config import Config, added

BnMode = Literal["transductive", "support", "running"]


class Budget(Config):
    """Counts that a named budget (micro, short, long, paper) resolves to; all are in the record."""

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
    bn: BnMode
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
