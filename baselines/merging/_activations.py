"""Means and second moments of activations, within and between networks on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from baselines.merging._channels import groups_of
from bench.contract import Backbone, Skip
from bench.nets.channels import Axis
from bench.nets.norm import running_norm

IMAGES_PER_CHUNK = 64


@torch.no_grad()
def channel_moments(
    nets: Sequence[Backbone], images: Tensor, axes: tuple[Axis, ...]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the moments of each channel group's activations after batch norm, before any ReLU.

    Every position of every image is a sample. Where several layers write to one group, the
    samples of all of them count.

    Args:
        nets: N networks of one architecture.
        images: (B, 3, H, W), shown to all of them, normalised by stored statistics.
        axes: the channel axes.

    Returns:
        For each group of n channels: means (N · n,) and second moments (N · n, N · n), channels of
        one network after the other, float64.

    Raises:
        Skip: a group of channels is not normalised anywhere.
    """
    layers = _norm_layers(axes)
    if bare := [group for group in groups_of(axes) if group not in layers.values()]:
        raise Skip(f"no batch norm follows the channels of {bare[0]}, whose activations count")
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}
    for part in images.split(IMAGES_PER_CHUNK):
        records = [_outputs(net, part, layers) for net in nets]
        for layer, group in layers.items():
            # (samples, N · n)
            joined = torch.cat([record[layer] for record in records], dim=1)
            first, second = joined.double().sum(0), (joined.T @ joined).double()
            if group in sums:
                a, b, count = sums[group]
                first, second = a + first, b + second
            else:
                count = 0
            sums[group] = first, second, count + len(joined)
    return {
        group: (sums[group][0] / sums[group][2], sums[group][1] / sums[group][2])
        for group in groups_of(axes)
    }


def correlations(mean: Tensor, second: Tensor) -> Tensor:
    """Return the correlations (m, m) from means (m,) and second moments (m, m).

    A channel that never changes has correlation 0 with all others.
    """
    covariance = second - torch.outer(mean, mean)
    deviation = covariance.diagonal().clamp_min(0).sqrt()
    scale = torch.where(deviation > 1e-6 * second.diagonal().sqrt(), 1 / deviation, 0)
    return covariance * torch.outer(scale, scale)


def _norm_layers(axes: tuple[Axis, ...]) -> dict[str, str]:
    """Return batch norm layer → group."""
    suffix = ".running_mean"
    return {a.entry.removesuffix(suffix): a.group for a in axes if a.entry.endswith(suffix)}


def _outputs(net: Backbone, images: Tensor, layers: dict[str, str]) -> dict[str, Tensor]:
    """Return the outputs (samples, n) of batch norm layers by name."""
    names = {id(module): name for name, module in net.named_modules() if name in layers}
    found: dict[str, Tensor] = {}

    def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        y = running_norm(layer, x)
        found[names[id(layer)]] = y.movedim(1, -1).flatten(0, -2)
        return y

    net.features(images, norm)
    return found
