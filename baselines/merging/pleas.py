"""PLeaS: match channels to one teacher's, then fit each layer to the mean activations."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from baselines.merging._barrier import measure_merges
from baselines.merging._channels import State, channel_axes, permute, present
from baselines.merging._layers import (
    layer_of,
    layer_weight,
    output_rows,
    sample_rows,
    watched_pass,
)
from baselines.merging._least_squares import ridge_of, solved_entries, with_ridge
from baselines.merging._matching import inner_products, layerwise_match, weight_match
from baselines.merging._merging import Merge, MergeConfig, states_of
from baselines.merging._pseudo_images import InversionSettings, invert_teachers
from bench.contract import Backbone, FitContext, Teacher, added
from bench.nets.channels import Axis
from bench.training.initialisation import average_state

IMAGES_PER_CHUNK = 32


class PleasConfig(MergeConfig, InversionSettings):
    """Limits of the match, and the pseudo images for the activations."""

    max_sweeps: int = Field(100, ge=1)
    """sweeps over all channel groups in one match at most; a match ends by itself before. Ours."""
    measure_barrier: bool = added(False)
    """whether the log gets the loss between teachers, averaged unmatched or matched, and merged;
    the fit is the same. See `baselines/merging/_barrier.py`"""


class Pleas(Merge[PleasConfig]):
    """Permutations to the most accurate teacher, then least squares per layer.

    Nasery, Hayase, Koh and Oh, "PLeaS: Merging Models with Permutations and Least Squares", CVPR
    2025, arXiv 2407.02447, its variant without training data, with the full budget: every layer is
    merged to the width of one teacher. Each teacher's channels are matched to the reference's by
    weight matching (as in `git_rebasin`); then each layer of the merged network fits, from the mean
    over the matched teachers of the layer's inputs, the mean of its outputs.

    Departures: more than two teachers, each matched to the most accurate one; activations come from
    pseudo images inverted from the teachers; biases are solved for as the weight of a constant
    input, scale and shift of batch norm channel by channel; running statistics are averaged. The
    partial merge, whose integer programme chooses layers that keep the channels of several
    teachers, is left out: the result would not be a network of the meta-model's shape.
    """

    name = "pleas"
    knowledge = "inversion"
    needs = frozenset({"same_architecture", "bn_statistics"})
    Config = PleasConfig

    def merge(
        self, context: FitContext[PleasConfig], teachers: Sequence[Teacher]
    ) -> dict[str, Tensor]:
        """Match the teachers, invert them, and solve each layer."""
        config, nets = context.config, [teacher.net for teacher in teachers]
        measured = config.measure_barrier and len(teachers) > 1
        states = states_of(teachers, "average" if measured else config.head)
        axes = present(states[0], channel_axes(teachers[0]))
        best = max(range(len(teachers)), key=lambda i: teachers[i].accuracy)
        aligned = matched_to(states, axes, best, context.generator("order"), config.max_sweeps)
        shown = invert_teachers(context, teachers, config)
        images = torch.cat([images for images, _ in shown])
        context.log.count("teacher_forward_images", len(images) * len(teachers))
        if measured:
            kinds = {"unmatched": states, "matched": aligned}
            solve = partial(least_squares, nets[:1])
            measure_merges(context.log, nets[0], kinds, solve, shown, best)
        return least_squares(nets, aligned, images)


def matched_to(
    states: Sequence[State],
    axes: tuple[Axis, ...],
    reference: int,
    generator: torch.Generator,
    max_sweeps: int,
) -> list[dict[str, Tensor]]:
    """Return states whose channels are permuted to match one of them by weight matching."""
    aligned = [dict(state) for state in states]
    for index, state in enumerate(states):
        if index != reference:
            start = layerwise_match(states[reference], state, axes, inner_products)
            found = weight_match(states[reference], state, axes, start, generator, max_sweeps)
            aligned[index] = permute(state, axes, found)
    return aligned


@torch.no_grad()
def least_squares(
    nets: Sequence[Backbone], states: Sequence[State], images: Tensor
) -> dict[str, Tensor]:
    """Return the state whose layers map the networks' mean inputs to their mean outputs.

    Args:
        nets: N of the architecture, or one for all; not written to.
        states: of N networks, their channels matched; layers that they lack are not solved.
        images: (B, 3, H, W), shown to all of them.
    """
    nets = [*nets] * (len(states) if len(nets) == 1 else 1)
    nets = [_with_state(net, state).double() for net, state in zip(nets, states, strict=True)]
    merged = average_state(states)
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    for part in images.split(IMAGES_PER_CHUNK):
        for name, (inputs, outputs) in _mean_rows(nets, part.double(), merged).items():
            gram, target = sums.get(name, (0, 0))
            sums[name] = gram + inputs.mT @ inputs, target + inputs.mT @ outputs
    mean = _with_state(nets[0], merged)
    for name, (gram, target) in sums.items():
        pull = ridge_of(gram) * layer_weight(layer_of(mean, name))
        sums[name] = with_ridge(gram), target + pull
    solved = solved_entries(mean, sums)
    return merged | {name: value.to(merged[name].dtype) for name, value in solved.items()}


def _mean_rows(
    nets: Sequence[Backbone], images: Tensor, wanted: State
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return, by layer, mean inputs and mean outputs, one row per sample, in float64."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for net in nets:
        for name, seen in watched_pass(net, images)[1].items():
            if f"{name}.weight" in wanted:
                before, own = found.get(name, (0, 0)), (sample_rows(seen), output_rows(seen))
                found[name] = before[0] + own[0], before[1] + own[1]
    n = len(nets)
    return {name: (a / n, b / n) for name, (a, b) in found.items()}


def _with_state(net: Backbone, state: State) -> Backbone:
    """Return a copy of a network with a state, which may lack the head."""
    copied = deepcopy(net)
    copied.load_state_dict(dict(state), strict=False)
    return copied
