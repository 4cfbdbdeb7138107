"""RegMean: each merged layer fits the outputs of the teachers' layers by least squares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from baselines.merging._layers import (
    layer_of,
    layer_weight,
    sample_rows,
    watched_pass,
)
from baselines.merging._least_squares import solved_entries, with_ridge
from baselines.merging._merging import Merge, MergeConfig, states_of
from baselines.merging._pseudo_images import InversionSettings, invert_teachers
from bench.contract import Backbone, FitContext, Teacher
from bench.training.initialisation import average_state

IMAGES_PER_CHUNK = 64


class RegMeanConfig(MergeConfig, InversionSettings):
    """The shrinkage, and the pseudo images for the inner products."""

    off_diagonal: float = Field(0.9, ge=0, le=1)
    """factor of the inner products between different inputs of a layer; 1 is plain least squares,
    0 weighs each input by its own size. Source: the paper, 0.9 for most models."""


class RegMean(Merge[RegMeanConfig]):
    """Least-squares solution per layer for the outputs of all teachers, in closed form.

    Jin, Ren, Preotiuc-Pietro and Cheng, "Dataless Knowledge Fusion by Merging Weights of Language
    Models", ICLR 2023, arXiv 2212.09849, equation 2 and section 4.2 (shrinkage).

    Departures: inner products come from pseudo images inverted from each teacher, not from its
    training data; convolutions are linear layers on unfolded patches; biases are solved for too,
    as the weight of a constant input; batch norm's scale and shift are solved for channel by
    channel, as a linear layer on the normalised input; running statistics are averaged.
    """

    name = "regmean"
    knowledge = "inversion"
    needs = frozenset({"same_architecture", "bn_statistics"})
    Config = RegMeanConfig

    def merge(
        self, context: FitContext[RegMeanConfig], teachers: Sequence[Teacher]
    ) -> dict[str, Tensor]:
        """Invert the teachers, collect inner products, and solve each layer."""
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        for teacher, (images, _) in zip(
            teachers, invert_teachers(context, teachers, context.config), strict=True
        ):
            context.log.count("teacher_forward_images", len(images))
            for name, gram in layer_grams(teacher.net, images).items():
                gram = with_ridge(shrunk(gram, context.config.off_diagonal))
                target = gram @ layer_weight(layer_of(teacher.net, name))
                before = sums.get(name, (0, 0))
                sums[name] = before[0] + gram, before[1] + target
        merged = average_state(states_of(teachers, context.config.head))
        for entry, value in solved_entries(teachers[0].net, sums).items():
            if entry in merged:
                merged[entry] = value.to(merged[entry].dtype)
        return merged


@torch.no_grad()
def layer_grams(net: Backbone, images: Tensor) -> dict[str, Tensor]:
    """Return the inner products of every layer's inputs, summed over samples.

    Args:
        net: the network; not written to.
        images: (B, 3, H, W), normalised by stored statistics.

    Returns:
        By layer name, float64: (d, d) for convolutions and linear layers, (C, 2, 2) for batch
        norm; inputs in the order of `layer_weight`.
    """
    grams: dict[str, Tensor] = {}
    for part in images.split(IMAGES_PER_CHUNK):
        for name, seen in watched_pass(net, part)[1].items():
            rows = sample_rows(seen)
            grams[name] = grams.get(name, 0) + (rows.mT @ rows).double()
    return grams


def shrunk(gram: Tensor, off_diagonal: float) -> Tensor:
    """Return inner products (…, d, d) whose off-diagonal entries are scaled."""
    diagonal = torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    return off_diagonal * gram + (1 - off_diagonal) * diagonal
