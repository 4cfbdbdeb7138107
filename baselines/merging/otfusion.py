"""OTFusion: align all channels with one teacher's by optimal transport, then average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.merging._activations import channel_moments
from baselines.merging._channels import channel_axes, permute, present
from baselines.merging._matching import assignment, layerwise_match, negative_distances
from baselines.merging._merging import Merge, MergeConfig, states_of
from baselines.merging._pseudo_images import InversionSettings, invert_teachers
from bench.contract import FitContext, Knowledge, Need, Teacher
from bench.nets.channels import Axis
from bench.training.initialisation import average_state


class OtFusionConfig(MergeConfig, InversionSettings):
    """The distance between two channels, and the pseudo images for it."""

    ground: Literal["weights", "activations"] = "weights"
    """distance between channels' incoming `weights`, or between their `activations` on pseudo
    images of all teachers. Source: the paper has both."""
    activation_images: int = Field(200, ge=1)
    """pseudo images that activations are compared on, at most. Source: the released code."""


class OtFusion(Merge[OtFusionConfig]):
    """Layer-wise optimal transport to a reference teacher, then the mean.

    Singh and Jaggi, "Model Fusion via Optimal Transport", NeurIPS 2020, arXiv 1910.05653. Ground
    metric: Euclidean distance, not squared, as in the released commands. Between equally many
    channels of equal mass an optimal transport is a permutation, found as a linear assignment.

    Departures: the reference is the most accurate teacher; convolution bias and batch norm belong
    to a channel's weights and are permuted with it, and a flattened head is permuted in blocks of
    columns (the released code drops biases and batch norm); the channels of a residual stream are
    permuted together, matched on the first layers that write to it; activations are taken after
    batch norm, on pseudo images instead of training images.
    """

    name = "otfusion"
    Config = OtFusionConfig

    @classmethod
    def knowledge_of(cls, config: OtFusionConfig) -> Knowledge:
        """Activations need inverted images."""
        return "inversion" if config.ground == "activations" else cls.knowledge

    @classmethod
    def needs_of(cls, config: OtFusionConfig) -> frozenset[Need]:
        """Images are inverted from batch norm statistics."""
        images = config.ground == "activations"
        extra: frozenset[Need] = frozenset({"bn_statistics"} if images else ())
        return super().needs_of(config) | extra

    def merge(
        self, context: FitContext[OtFusionConfig], teachers: Sequence[Teacher]
    ) -> dict[str, Tensor]:
        """Align the teachers and average them."""
        states = states_of(teachers, context.config.head)
        axes = present(states[0], channel_axes(teachers[0]))
        best = max(range(len(teachers)), key=lambda i: teachers[i].accuracy)
        if context.config.ground == "activations":
            found = _by_activations(context, teachers, axes, best)
        else:
            found = [layerwise_match(states[best], s, axes, negative_distances) for s in states]
        return average_state(
            [permute(state, axes, f) for state, f in zip(states, found, strict=True)]
        )


def _by_activations(
    context: FitContext[OtFusionConfig],
    teachers: Sequence[Teacher],
    axes: tuple[Axis, ...],
    reference: int,
) -> list[dict[str, Tensor]]:
    """Return, for each teacher, the permutations to the reference's channels."""
    images = torch.cat([images for images, _ in invert_teachers(context, teachers, context.config)])
    # evenly over the teachers, whose images stand one after another
    stride = -(-len(images) // context.config.activation_images)
    images = images[::stride]
    context.log.count("teacher_forward_images", len(images) * len(teachers))
    moments = channel_moments([t.net for t in teachers], images, axes)
    n_teachers = len(teachers)
    found: list[dict[str, Tensor]] = [{} for _ in teachers]
    for group, (_, second) in moments.items():
        n = second.shape[0] // n_teachers
        blocks = second.view(n_teachers, n, n_teachers, n)
        own = blocks[reference, :, reference].diagonal()
        for index in range(n_teachers):
            other = blocks[index, :, index].diagonal()
            squares = own[:, None] + other - 2 * blocks[reference, :, index]
            found[index][group] = assignment(-squares.clamp_min(0).sqrt())
    return found
