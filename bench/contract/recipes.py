"""How teachers are trained."""

from __future__ import annotations

from typing import ClassVar, Literal

from bench.contract.config import Config

Checkpoint = Literal["best", "last"]


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
