"""A black-box teacher: an interface that only answers queries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.contract import FitLog, Teacher
from bench.learners.batching import channels_last
from bench.learners.centroids import PIXELS_PER_CHUNK
from bench.nets.base import resize


class BlackBox:
    """The interface of a service: images in, class probabilities out; every image is counted.

    The network is held in a closure, so that no attribute leads to its weights, gradients or
    activations. What a service's documentation would tell is public: the classes.

    Attributes:
        class_ids, class_names: of the outputs, in their order.

    Args:
        teacher: what is behind it.
        log: counts `queries`, one for each image of each call.
    """

    __slots__ = ("_answer", "class_ids", "class_names")

    def __init__(self, teacher: Teacher, log: FitLog) -> None:
        self.class_ids, self.class_names = teacher.class_ids, teacher.class_names
        net, side, n_classes = teacher.net, teacher.spec.image_size, len(teacher.class_ids)

        @torch.no_grad()
        def answer(images: Tensor) -> Tensor:
            log.count("queries", len(images))
            log.count("teacher_forward_images", len(images))
            logits = [net(channels_last(part)) for part in _parts(resize(images.detach(), side))]
            return F.log_softmax(torch.cat(logits)[:, :n_classes], dim=1)

        self._answer = answer

    def __call__(self, images: Tensor) -> Tensor:
        """Return log-probabilities (B, n_classes) of normalised images (B, 3, H, W); no graph.

        Images of another size than the teacher's are resized behind the interface.
        """
        return self._answer(images)

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.class_ids)


def _parts(images: Tensor) -> tuple[Tensor, ...]:
    """Return images in batches of the size that is fastest on their device."""
    if images.device.type != "cpu":
        return (images,)
    return images.split(max(1, PIXELS_PER_CHUNK // (images.shape[-1] * images.shape[-2])))
