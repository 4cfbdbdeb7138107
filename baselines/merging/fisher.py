"""Fisher merging: mean of the teachers' weights, weighted by Fisher information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.merging._channels import State
from baselines.merging._layers import (
    Watched,
    input_rows,
    layer_entries,
    normalised,
    watched_pass,
)
from baselines.merging._merging import Merge, MergeConfig, states_of
from baselines.merging._pseudo_images import InversionSettings, invert_teachers
from bench.contract import Backbone, FitContext, Teacher
from bench.training.initialisation import average_state

IMAGES_PER_CHUNK = 8
"""Images whose gradients are held at once: a ResNet layer has 2.4 million weights."""


class FisherConfig(MergeConfig, InversionSettings):
    """How Fisher information is turned into weights, and the pseudo images for it."""

    normalise: bool = True
    """scale each teacher's Fisher to a mean entry of 1, so that none outweighs another by being
    less sure. Ours."""
    floor: float = Field(1e-6, ge=0)
    """added to every entry: what nobody's predictions depend on is averaged. Source: the released
    code's floor."""


class Fisher(Merge[FisherConfig]):
    """Mean of the teachers' weights, each entry weighted by its diagonal Fisher information.

    Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", NeurIPS 2022,
    arXiv 2111.09832: equation 3 for the Fisher, with the expectation over a network's own labels
    taken exactly, and equation 4 for the mean.

    Departures: inputs are pseudo images inverted from the teacher itself, since there is no data;
    each teacher's Fisher is scaled to the same mean; batch norm statistics are averaged without
    weights.
    """

    name = "fisher"
    knowledge = "inversion"
    needs = frozenset({"same_architecture", "bn_statistics"})
    Config = FisherConfig

    def merge(
        self, context: FitContext[FisherConfig], teachers: Sequence[Teacher]
    ) -> dict[str, Tensor]:
        """Invert the teachers, compute Fisher information, and take the weighted mean."""
        config = context.config
        fishers = []
        pairs = zip(teachers, invert_teachers(context, teachers, context.config), strict=True)
        for teacher, (images, _) in pairs:
            found = diagonal_fisher(teacher.net, images)
            context.log.count("teacher_forward_images", len(images))
            fishers.append(scaled(found) if config.normalise else found)
        return fisher_mean(states_of(teachers, config.head), fishers, config.floor)


def diagonal_fisher(net: Backbone, images: Tensor) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of every parameter.

    F = mean over images of Σ_y p(y | x) (∂ log p(y | x) / ∂θ)², at stored BN statistics. An
    image's gradient of a weight is the product of what its layer read and of the gradient of what
    it wrote, so that one backward pass for each label serves a batch.

    Args:
        net: the network; not written to.
        images: (B, 3, H, W).

    Returns:
        By entry, in the network's precision.
    """
    total: dict[str, Tensor] = {}
    for part in images.split(IMAGES_PER_CHUNK):
        logits, seen = watched_pass(net, part.detach().requires_grad_())
        log_p = logits.log_softmax(1)
        outputs = [one.output for one in seen.values()]
        for label in range(log_p.shape[1]):
            gradients = torch.autograd.grad(log_p[:, label].sum(), outputs, retain_graph=True)
            weight = log_p[:, label].detach().exp() / len(images)
            for (name, one), gradient in zip(seen.items(), gradients, strict=True):
                found = torch.einsum("b,b...->...", weight, _gradient(one, gradient).square())
                for entry, value in layer_entries(name, one.layer, found).items():
                    total[entry] = total.get(entry, 0) + value
    return total


def _gradient(seen: Watched, gradient: Tensor) -> Tensor:
    """Return each image's gradient of a layer's weight (B, …, d, outputs), as `layer_weight`.

    Args:
        seen: the layer.
        gradient: the gradient of its output.
    """
    if isinstance(seen.layer, nn.BatchNorm2d):
        gradient = gradient.flatten(2)
        scale = (gradient * normalised(seen.layer, seen.input)).sum(-1)
        return torch.stack([scale, gradient.sum(-1)], dim=-1)[..., None].detach()
    rows = input_rows(seen.layer, seen.input)  # (B, L, d)
    outputs = gradient.reshape(*gradient.shape[:2], -1)  # (B, outputs, L)
    return (rows.mT @ outputs.mT).detach()


def scaled(fisher: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return Fisher information scaled to mean 1; all zeros stay as they are."""
    total = reduce(torch.add, (f.double().sum() for f in fisher.values()))
    mean = total / sum(f.numel() for f in fisher.values())
    factor = torch.where(mean > 0, 1 / mean, 1.0)
    return {name: (f.double() * factor).to(f.dtype) for name, f in fisher.items()}


def fisher_mean(
    states: Sequence[State], fishers: Sequence[Mapping[str, Tensor]], floor: float
) -> dict[str, Tensor]:
    """Return Σ (F_i + floor) θ_i / Σ (F_i + floor), entry by entry.

    Entries without Fisher information (statistics), and those where all weights are 0, are
    averaged. With equal Fishers it is the average.

    Worked by hand: θ = 1 and 4 with F = 2 and 1 and no floor give (2 · 1 + 1 · 4) / 3 = 2.
    """
    merged = average_state(states)
    for name in merged.keys() & fishers[0].keys():
        weights = torch.stack([f[name].double() + floor for f in fishers])
        values = torch.stack([state[name].double() for state in states])
        total = weights.sum(0)
        mean = (weights * values).sum(0) / total
        merged[name] = torch.where(total > 0, mean, values.mean(0)).to(merged[name].dtype)
    return merged
