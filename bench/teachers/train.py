"""Supervised training of one teacher by the protocol's recipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.contract import Checkpoint, NetSpec, TeacherRecipe
from bench.errors import BenchError
from bench.nets.base import initialise
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
        progress: called with (epochs done, epochs) after each epoch.
        start: where to start; None draws fresh weights.

    Raises:
        BenchError: the loss became non-finite.

    Source: the paper's released pre-training script (facts).
    """
    net = build_net(spec)
    if start is None:
        initialise(net, generator)
    else:
        net.load_state_dict(start)
    net = net.to(device=device, memory_format=torch.channels_last)
    images, labels = (t.to(device) for t in train)
    images = images.contiguous(memory_format=torch.channels_last)
    held_out = held_out[0].to(device), held_out[1].to(device)
    optimiser = _optimiser(net, recipe)
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimiser, [round(f * recipe.epochs) for f in recipe.milestones], recipe.decay
    )
    if recipe.epochs == 0:
        drawn = Snapshot(_state(net), held_out_accuracy(net, *held_out), 0)
        return TrainedTeacher({"best": drawn, "last": drawn}, 0.0)
    best, last, seconds = None, None, 0.0
    for epoch in range(recipe.epochs):
        start = time.perf_counter()
        loss = _train_epoch(net, images, labels, optimiser, recipe, generator)
        if not torch.isfinite(loss):
            raise BenchError(
                f"teacher loss is {loss.item()} in epoch {epoch + 1}; "
                f"lower the learning rate {recipe.lr} of the recipe"
            )
        seconds += time.perf_counter() - start
        schedule.step()
        last = Snapshot(_state(net), held_out_accuracy(net, *held_out), epoch + 1)
        if best is None or last.accuracy > best.accuracy:
            best = last
        progress(epoch + 1, recipe.epochs)
    rate = recipe.epochs * len(labels) / seconds
    return TrainedTeacher({"best": best, "last": last}, rate)


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


def _train_epoch(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimiser: torch.optim.Optimizer,
    recipe: TeacherRecipe,
    generator: torch.Generator,
) -> Tensor:
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    loss = images.new_zeros(())
    for index in order.split(recipe.batch_size):
        loss = F.cross_entropy(net(images[index], training_norm), labels[index])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), recipe.max_grad_norm)
        optimiser.step()
    return loss.detach()


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
    return {name: t.detach().cpu().contiguous().clone() for name, t in net.state_dict().items()}
