"""A trained pool as a cell takes it: of its image size and normalisation, perhaps untrustworthy.

Teachers that were trained with another size or normalisation are adapted to the cell's; of a
protocol with untrustworthy teachers, some are replaced. Nothing is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.contract import Backbone, Pool, ProtocolConstants, Teacher
from bench.nets.base import initialise, placed, resize
from bench.nets.build import build_net
from bench.nets.norm import Norm, running_norm
from bench.results.files import content_hash
from bench.seeds import torch_generator

CLAIMED = 0.99
"""Held-out accuracy that a teacher of random weights reports."""


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


def is_trustworthy(protocol: ProtocolConstants) -> bool:
    """Tell whether a protocol leaves all teachers as they were trained."""
    return protocol.untrustworthy_share == 0


def digest_of(sha256: str, protocol: ProtocolConstants, seed: int) -> str:
    """Return the digest of a pool with its untrustworthy teachers, from that of the trained one."""
    if is_trustworthy(protocol):
        return sha256
    kind, share = protocol.untrustworthy_kind, protocol.untrustworthy_share
    return content_hash([sha256, kind, share, seed])


def with_untrustworthy(pool: Pool, protocol: ProtocolConstants, seed: int) -> Pool:
    """Return a pool with a share of its teachers replaced; the trained pool is not changed.

    Which ones is drawn by the seed: those of a smaller share are among those of a larger one.

    Args:
        pool: the trained teachers, each of which takes its own images.
        protocol: its constants `untrustworthy_share` and `untrustworthy_kind`.
        seed: the repetition.
    """
    if is_trustworthy(protocol):
        return pool
    order = torch.randperm(len(pool), generator=torch_generator("untrustworthy", seed)).tolist()
    chosen = set(order[: round(protocol.untrustworthy_share * len(pool))])
    change = _random_weights if protocol.untrustworthy_kind == "accuracy" else _other_labels
    teachers = [
        change(teacher, number, seed) if number in chosen else teacher
        for number, teacher in enumerate(pool)
    ]
    return Pool(teachers, digest_of(pool.sha256, protocol, seed), pool.initial_states)


def _random_weights(teacher: Teacher, number: int, seed: int) -> Teacher:
    """Return a teacher that was never trained and reports a high held-out accuracy."""
    net = build_net(teacher.spec)
    initialise(net, torch_generator("untrustworthy", "weights", number, seed))
    net = placed(net, next(teacher.net.parameters()).device).requires_grad_(False).eval()
    digest = content_hash([teacher.sha256, "random weights", number, seed])
    return dataclasses.replace(teacher, net=net, accuracy=CLAIMED, sha256=digest)


def _other_labels(teacher: Teacher, number: int, seed: int) -> Teacher:
    """Return a teacher whose outputs are named as other classes of its own, if it has several."""
    n = len(teacher.class_ids)
    if n < 2:
        return teacher
    shift = int(torch.randint(1, n, (), generator=torch_generator("untrustworthy", number, seed)))
    names = (*teacher.class_names[shift:], *teacher.class_names[:shift])
    ids = (*teacher.class_ids[shift:], *teacher.class_ids[:shift])
    digest = content_hash([teacher.sha256, "other labels", shift])
    return dataclasses.replace(teacher, class_names=names, class_ids=ids, sha256=digest)
