"""Teachers trained with another image size or normalisation, adapted to the cell's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.contract import Backbone, Pool, Teacher
from bench.learners.resized import resize
from bench.nets.norm import Norm, running_norm

if TYPE_CHECKING:
    from torch import Tensor


class _Adapted:
    """A backbone's `features` that first resizes the images and changes their normalisation.

    A bound method, plain numbers and two small tensors, so that copying the network copies it
    whole, and its state dict stays what it was. The tensors are made here, where the network is:
    made at each pass, they would have a GPU wait for the CPU, and could not be recorded in a graph.
    """

    def __init__(
        self, net: Backbone, size: int, scale: tuple[float, ...], shift: tuple[float, ...]
    ) -> None:
        self.own, self.size, self.scale, self.shift = net.features, size, scale, shift
        self.renormalises = any(one != 1 for one in scale) or any(shift)
        like = next(net.parameters())
        self._made = {(like.device, like.dtype): self._tensors(like)}

    def _tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift (3, 1, 1), of a tensor's device and type."""
        scale, shift = (like.new_tensor(values) for values in (self.scale, self.shift))
        return scale.view(-1, 1, 1), shift.view(-1, 1, 1)

    def __call__(self, x: Tensor, norm: Norm = running_norm) -> Tensor:
        """Return the features (B, n_features) of images (B, 3, H, W) of any size."""
        scale, shift = self._made.get((x.device, x.dtype)) or self._tensors(x)
        return self.own(resize(x, self.size) * scale + shift, norm)


def adapt(teacher: Teacher, mean: Sequence[float], std: Sequence[float], size: int) -> Teacher:
    """Return a teacher that takes images of any size, normalised by `mean` and `std`.

    Pixels x = (p − mean) / std become (p − own mean) / own std before the first layer, and images
    of another size the teacher's. The net is changed, unless it takes the cell's images already.

    Args:
        teacher: whose net takes images of its own size and normalisation.
        mean: (3,) for pixels in [0, 1].
        std: (3,) likewise.
        size: side of the cell's images, pixels.
    """
    alike = (tuple(teacher.mean), tuple(teacher.std)) == (tuple(mean), tuple(std))
    if alike and teacher.spec.image_size == size:
        return teacher
    scale = tuple(s / own for s, own in zip(std, teacher.std, strict=True))
    shift = tuple(
        (m - own) / own_std for m, own, own_std in zip(mean, teacher.mean, teacher.std, strict=True)
    )
    adapted = _Adapted(teacher.net, teacher.spec.image_size, scale, shift)
    teacher.net.features = adapted  # type: ignore[method-assign]  # of this network alone
    return dataclasses.replace(teacher, mean=tuple(mean), std=tuple(std))


def normalises_otherwise(teacher: Teacher) -> bool:
    """Tell whether a teacher was trained with another normalisation than it is given now."""
    features = teacher.net.features
    return isinstance(features, _Adapted) and features.renormalises


def adapt_pool(pool: Pool, mean: Sequence[float], std: Sequence[float], size: int) -> Pool:
    """Return the pool with every teacher taking images of any size, of one normalisation."""
    teachers = [adapt(teacher, mean, std, size) for teacher in pool]
    return Pool(teachers, pool.sha256, pool.initial_states)
