"""Memory of recovered images, and tasks that mix its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from baselines.recovery._generator import PixelScale
from bench.contract import FitLog, TaskBatch, TaskShape


class TaskMemory:
    """The latest recovered images of each class, 8 bits per channel.

    A task drawn from it may mix classes of several teachers: "task memory replay" of BiDf-MKD.

    Args:
        capacity: images kept of a class; the oldest go first.
        scale: to normalised units.
        device: where images and tasks are.
    """

    def __init__(self, capacity: int, scale: PixelScale, device: torch.device | str) -> None:
        self._capacity, self._scale, self._device = capacity, scale, device
        self._pixels: dict[int, Tensor] = {}
        self._names: dict[int, str] = {}

    def add(self, pixels: Tensor, class_ids: Sequence[int], names: Sequence[str]) -> None:
        """Keep images (n · M, 3, H, W) in [0, 1], class after class, of n classes."""
        stored = (pixels.detach() * 255).round().to(torch.uint8)
        for class_id, name, new in zip(class_ids, names, stored.chunk(len(names)), strict=True):
            known = [self._pixels[class_id]] if class_id in self._pixels else []
            self._pixels[class_id] = torch.cat([*known, new])[-self._capacity :]
            self._names[class_id] = name

    def classes(self, at_least: int) -> list[int]:
        """Return, in ascending order, the numbers of the classes with enough images."""
        return sorted(i for i, images in self._pixels.items() if len(images) >= at_least)

    def sample_tasks(self, n_tasks: int, shape: TaskShape, generator: torch.Generator) -> TaskBatch:
        """Draw tasks of distinct images; all classes give the same number of queries.

        Args:
            n_tasks: T.
            shape: n_way and k_shot; at most n_query queries of a class.
            generator: CPU generator.

        Returns:
            Tasks, class after class, labels in the order drawn.
        """
        known = self.classes(shape.k_shot + 1)
        fewest = min(len(self._pixels[i]) for i in known)
        n_query = min(shape.n_query, fewest - shape.k_shot)
        support, query = [], []
        for _ in range(n_tasks):
            chosen = torch.randperm(len(known), generator=generator)[: shape.n_way].tolist()
            drawn = [self._draw(known[i], shape.k_shot + n_query, generator) for i in chosen]
            support += [images[: shape.k_shot] for images in drawn]
            query += [images[shape.k_shot :] for images in drawn]
        labels = torch.arange(shape.n_way, device=self._device)
        return TaskBatch(
            self._normalised(support, n_tasks),
            labels.repeat_interleave(shape.k_shot).expand(n_tasks, -1),
            self._normalised(query, n_tasks),
            labels.repeat_interleave(n_query).expand(n_tasks, -1),
        )

    def show(self, log: FitLog, name: str, per_class: int) -> None:
        """Log the latest images of each class; 0 logs nothing."""
        known = self.classes(per_class)
        if per_class and known:
            tiles = torch.cat([self._pixels[i][-per_class:] for i in known])
            log.images(name, tiles.float() / 255, [self._names[i] for i in known], 5)

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to continue; keys are words, as files ask for."""
        return {
            "pixels": {str(i): images.clone() for i, images in self._pixels.items()},
            "names": {str(i): name for i, name in self._names.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._pixels = {int(i): x.to(self._device) for i, x in state["pixels"].items()}
        self._names = {int(i): name for i, name in state["names"].items()}

    def _draw(self, class_id: int, n: int, generator: torch.Generator) -> Tensor:
        images = self._pixels[class_id]
        chosen = torch.randperm(len(images), generator=generator)[:n]
        return images[chosen.to(images.device)]

    def _normalised(self, parts: list[Tensor], n_tasks: int) -> Tensor:
        pixels = torch.cat(parts).float() / 255
        return self._scale.normalised(pixels).unflatten(0, (n_tasks, -1))
