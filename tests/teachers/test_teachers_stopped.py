"""Teachers whose training is ended and taken up again: the same weights, bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.checkpoints import Checkpoints, Keeping
from bench.contract import NetSpec, TeacherRecipe
from bench.stops import Stopped
from bench.suites.protocols import budget, protocol
from bench.teachers.pool import plan_pool
from bench.teachers.store import build_pool
from bench.teachers.train import TrainedTeacher, recipe_for, train_teacher
from tests.helpers import StopAfter, toy_data

CPU = torch.device("cpu")
BATCHES = 4
EPOCHS = {"conv4": 3, "resnet10": 2}
BATCH = {"conv4": 16, "resnet10": 4}
"""Images of a batch; a large network takes fewer."""


def recipe(architecture: str) -> TeacherRecipe:
    """Return a recipe of a few epochs of four batches, whose rate decays within them."""
    size = {"batch_size": BATCH[architecture]}
    return recipe_for(architecture, EPOCHS[architecture], "best").model_copy(update=size)


def train(
    architecture: str, folder: Path | None = None, keeping: Keeping | None = None
) -> TrainedTeacher:
    """Train on images of 5 classes, of which the last batch is not full."""
    n = BATCHES * BATCH[architecture] - 1
    images = torch.randn(n + 20, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(n + 20) % 5
    return train_teacher(
        NetSpec(architecture, 5, 16),
        (images[:n], labels[:n]),
        (images[n:], labels[n:]),
        recipe(architecture),
        torch.Generator().manual_seed(2),
        CPU,
        checkpoints=Checkpoints(folder, "teacher", keeping) if folder and keeping else None,
    )


def assert_same(one: TrainedTeacher, other: TrainedTeacher) -> None:
    for kind in ("best", "last"):
        a, b = one.snapshots[kind], other.snapshots[kind]
        assert (a.accuracy, a.epoch) == (b.accuracy, b.epoch)
        assert all(torch.equal(a.state[name], b.state[name]) for name in a.state)


@pytest.mark.parametrize("architecture", ["conv4", "resnet10"])
def test_a_training_stopped_at_any_batch_goes_on_bit_by_bit(
    tmp_path: Path, architecture: str
) -> None:
    """After each batch and each epoch; a large network before, at and after an epoch's end."""
    whole = train(architecture)
    every = range(1, EPOCHS[architecture] * (BATCHES + 1) + 1)
    for look in every if architecture == "conv4" else range(BATCHES, BATCHES + 3):
        folder = tmp_path / str(look)
        with pytest.raises(Stopped):
            train(architecture, folder, Keeping(stop=StopAfter(look)))
        assert_same(train(architecture, folder, Keeping()), whole)


def test_slots_of_one_batch_each_come_to_the_end(tmp_path: Path) -> None:
    slots = 0
    while True:
        try:
            trained = train("conv4", tmp_path, Keeping(stop=StopAfter(1)))
        except Stopped:
            slots += 1
        else:
            break
    assert slots == EPOCHS["conv4"] * (BATCHES + 1)
    assert_same(trained, train("conv4"))


def test_a_pool_that_was_stopped_is_the_pool(tmp_path: Path) -> None:
    data = toy_data()
    counts = budget("micro").model_copy(update={"teacher_epochs": 2, "max_teachers": 2})
    plans = plan_pool("glyphs", data.digest, 12, 16, ["conv4"], counts, protocol("cvpr23"), 0)
    whole = build_pool(tmp_path / "whole", plans, {"glyphs": data}, CPU)
    for look in (1, 2, 1):
        with pytest.raises(Stopped) as caught:
            build_pool(
                tmp_path / "slots",
                plans,
                {"glyphs": data},
                CPU,
                keeping=Keeping(stop=StopAfter(look)),
            )
        assert caught.value.kept.startswith("teacher ")
    pool = build_pool(tmp_path / "slots", plans, {"glyphs": data}, CPU)
    assert pool.sha256 == whole.sha256
    assert not list((tmp_path / "slots").rglob("checkpoint-*"))
    x = torch.from_numpy(np.zeros((1, 3, 16, 16), dtype=np.float32))
    assert torch.equal(pool[1].net(x), whole[1].net(x))
