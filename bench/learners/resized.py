"""Learners for tasks whose images have another size than the network's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bench.contract import DrawingLearner, EmbeddingLearner, Learner, TaskBatch


def resize(images: Tensor, size: int) -> Tensor:
    """Return square images (…, C, H, H) at another side length, bilinear and anti-aliased."""
    if images.shape[-1] == size:
        return images
    flat = images.flatten(0, -4)
    flat = F.interpolate(flat, (size, size), mode="bilinear", antialias=True)
    return flat.view(*images.shape[:-2], size, size)


def resize_tasks(tasks: TaskBatch, size: int) -> TaskBatch:
    """Return the same tasks with images of another side length."""
    support_x, query_x = resize(tasks.support_x, size), resize(tasks.query_x, size)
    return TaskBatch(support_x, tasks.support_y, query_x, tasks.query_y)


def resized(learner: Learner, size: int) -> Learner:
    """Return the learner for tasks of any image size; images are resized to its own.

    Args:
        learner: what predicts.
        size: the side of the images it takes, pixels.
    """
    if isinstance(learner, EmbeddingLearner):
        return _ResizedEmbedding(learner, size)
    if isinstance(learner, DrawingLearner):
        return _ResizedDrawing(learner, size)
    return _Resized(learner, size)


class _Resized(Learner):
    def __init__(self, learner: Learner, size: int) -> None:
        self.learner, self.size = learner, size

    @property
    def n_parameters(self) -> int:
        return self.learner.n_parameters

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        return self.learner.predict(
            resize(support_x, self.size), support_y, resize(query_x, self.size)
        )


class _ResizedDrawing(_Resized, DrawingLearner):
    learner: DrawingLearner

    def predict_from(
        self, first: int, support_x: Tensor, support_y: Tensor, query_x: Tensor
    ) -> Tensor:
        return self.learner.predict_from(
            first, resize(support_x, self.size), support_y, resize(query_x, self.size)
        )


class _ResizedEmbedding(EmbeddingLearner):
    def __init__(self, learner: EmbeddingLearner, size: int) -> None:
        self.learner, self.size = learner, size

    @property
    def n_parameters(self) -> int:
        return self.learner.n_parameters

    def embed(self, images: Tensor) -> Tensor:
        return self.learner.embed(resize(images, self.size))

    def predict_embedded(self, support_e: Tensor, support_y: Tensor, query_e: Tensor) -> Tensor:
        return self.learner.predict_embedded(support_e, support_y, query_e)
