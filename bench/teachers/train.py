"""Supervised training of one teacher by the protocol's recipe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.checkpoints import Checkpoints
from bench.contract import Checkpoint, NetSpec, TeacherRecipe
from bench.errors import BenchError
from bench.nets.base import initialise, on_cpu, placed
from bench.nets.build import build_net, optimiser_recipe
from bench.nets.norm import training_norm

EVALUATED_PIXELS = 512 * 32**2
"""Pixels of the held-out images that are evaluated together; a ResNet makes 0.3 GB of them."""


def recipe_for(
    architecture: str, epochs: int, checkpoint: Checkpoint, decay: float = 0.2
) -> TeacherRecipe:
    """Return the recipe of an architecture, whose class chooses the optimiser."""
    own = optimiser_recipe(architecture).model_dump()
    return TeacherRecipe(epochs=epochs, checkpoint=checkpoint, decay=decay, **own)


@dataclass(frozen=True)
class Snapshot:
    """A state dict on the CPU, its held-out accuracy (fraction), and its epoch, from 1."""

    state: dict[str, Tensor]
    accuracy: float
    epoch: int


@dataclass(frozen=True)
class TrainedTeacher:
    """The checkpoints of one training, and its speed."""

    snapshots: dict[Checkpoint, Snapshot]
    images_per_s: float


def train_teacher(
    spec: NetSpec,
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    recipe: TeacherRecipe,
    generator: torch.Generator,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
    start: Mapping[str, Tensor] | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainedTeacher:
    """Train a network on normalised images; no augmentation. Keep the best epoch and the last.

    The best one is a copy, the earliest of equals. The released code keeps a reference to the live
    weights instead: it saves the last epoch and logs the accuracy of the best (hazard H6).

    Args:
        spec: architecture, outputs and image size.
        train: images (N, 3, H, W), labels (N,).
        held_out: images (M, 3, H, W), labels (M,).
        recipe: the constants.
        generator: CPU generator of initialisation and batch order.
        device: where to train.
        progress: called with (batches done, batches) after each batch.
        start: where to start; None draws fresh weights.
        checkpoints: of an interrupted training, to go on from bit by bit and to write more; None
            keeps nothing.

    Raises:
        BenchError: the loss became non-finite.
        Stopped: the end was asked for; the checkpoint is written.

    Source: the paper's released pre-training script (facts).
    """
    net = build_net(spec)
    if start is None:
        initialise(net, generator)
    else:
        net.load_state_dict(start)
    net = placed(net, device)
    images, labels = (t.to(device) for t in train)
    images = images.contiguous(memory_format=torch.channels_last)
    held_out = held_out[0].to(device), held_out[1].to(device)
    if recipe.epochs == 0:
        drawn = Snapshot(_state(net), held_out_accuracy(net, *held_out), 0)
        return TrainedTeacher({"best": drawn, "last": drawn}, 0.0)
    training = _Training(net, images, labels, recipe, generator, progress, checkpoints)
    while training.epoch < recipe.epochs:
        training.run_epoch()
        training.end_epoch(held_out_accuracy(net, *held_out))
    rate = recipe.epochs * len(labels) / training.seconds
    return TrainedTeacher(training.snapshots, rate)


class _Training:
    """A training under way: what changes from batch to batch, and its checkpoints.

    `epoch` counts the epochs that are done, `batch` the batches of the next one.
    """

    def __init__(
        self,
        net: nn.Module,
        images: Tensor,
        labels: Tensor,
        recipe: TeacherRecipe,
        generator: torch.Generator,
        progress: Callable[[int, int], None],
        checkpoints: Checkpoints | None,
    ) -> None:
        self._net, self._images, self._labels, self._recipe = net, images, labels, recipe
        self._generator, self._progress, self._checkpoints = generator, progress, checkpoints
        self._optimiser = _optimiser(net, recipe)
        self.snapshots: dict[Checkpoint, Snapshot] = {}
        self.epoch = self.batch = 0
        self.seconds = 0.0
        self._order = generator.get_state()
        self._loss = images.new_zeros(())
        self._decay()
        saved = checkpoints.load() if checkpoints else None
        if saved is not None:
            self._restore(saved)

    def run_epoch(self) -> None:
        """Train on the batches of an epoch that are left.

        Raises:
            BenchError: the loss of the last one is not finite.
        """
        n_batches = -(-len(self._labels) // self._recipe.batch_size)
        order = torch.randperm(len(self._labels), generator=self._generator)
        batches = order.to(self._labels.device).split(self._recipe.batch_size)
        for index in batches[self.batch :]:
            start = time.perf_counter()
            self._loss = self._step(index)
            self.batch += 1
            if self.batch == n_batches:
                self._check_loss()  # waits for the device
            self.seconds += time.perf_counter() - start
            self._progress(self.epoch * n_batches + self.batch, self._recipe.epochs * n_batches)
            self._offer()

    def end_epoch(self, accuracy: float) -> None:
        """Keep the state of an epoch with its held-out accuracy, and decay the rate."""
        self.epoch, self.batch = self.epoch + 1, 0
        self._decay()
        self._order = self._generator.get_state()
        last = Snapshot(_state(self._net), accuracy, self.epoch)
        best = self.snapshots.get("best")
        self.snapshots["last"] = last
        if best is None or accuracy > best.accuracy:
            self.snapshots["best"] = last
        self._offer()

    def _decay(self) -> None:
        """Lower the rate where the epochs that are done are a milestone; see `TeacherRecipe`."""
        milestones = [round(share * self._recipe.epochs) for share in self._recipe.milestones]
        for group in self._optimiser.param_groups:
            group["lr"] *= self._recipe.decay ** milestones.count(self.epoch)

    def _step(self, index: Tensor) -> Tensor:
        loss = F.cross_entropy(self._net(self._images[index], training_norm), self._labels[index])
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._net.parameters(), self._recipe.max_grad_norm)
        self._optimiser.step()
        return loss.detach()

    def _check_loss(self) -> None:
        loss = self._loss.item()
        if not math.isfinite(loss):
            raise BenchError(
                f"teacher loss is {loss} in epoch {self.epoch + 1}; "
                f"lower the learning rate {self._recipe.lr} of the recipe"
            )

    def _offer(self) -> None:
        if self._checkpoints is not None and self._checkpoints.due():
            at = f"epoch {self.epoch + 1} of {self._recipe.epochs}"
            self._checkpoints.write(self._saved(), at)

    def _saved(self) -> dict[str, Any]:
        """Return all that is needed to go on, the order of an epoch's batches by what drew it."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "seconds": self.seconds,
            "order": self._order,
            "net": self._net.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "snapshots": {kind: vars(one) for kind, one in self.snapshots.items()},
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.epoch, self.batch = saved["epoch"], saved["batch"]
        self.seconds, self._order = saved["seconds"], saved["order"]
        self._net.load_state_dict(saved["net"])
        self._optimiser.load_state_dict(saved["optimiser"])
        self.snapshots = {kind: Snapshot(**one) for kind, one in saved["snapshots"].items()}
        self._generator.set_state(self._order)


def _optimiser(net: nn.Module, recipe: TeacherRecipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "adam":
        return torch.optim.Adam(
            net.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.SGD(
        net.parameters(),
        recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


@torch.inference_mode()
def held_out_accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the accuracy (fraction) on images (M, 3, H, W), with running statistics."""
    batch = max(1, EVALUATED_PIXELS // images.shape[-1] ** 2)
    hits = images.new_zeros((), dtype=torch.long)
    for x, y in zip(images.split(batch), labels.split(batch), strict=True):
        x = x.contiguous(memory_format=torch.channels_last)
        hits += (net(x).argmax(1) == y).sum()
    return hits.item() / len(labels)


def _state(net: nn.Module) -> dict[str, Tensor]:
    return {name: t.contiguous() for name, t in on_cpu(net.state_dict()).items()}
