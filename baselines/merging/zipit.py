"""ZipIt: merge correlated channels within and across teachers; heads are not merged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from baselines.merging._activations import channel_moments, correlations
from baselines.merging._channels import State, channel_axes, present
from baselines.merging._merging import Merge, MergeConfig, on_host, states_of
from baselines.merging._pseudo_images import InversionSettings, invert_teachers
from bench.contract import FitContext, Teacher
from bench.nets.channels import Axis
from bench.training.initialisation import HeadPolicy, average_state


class ZipItConfig(MergeConfig, InversionSettings):
    """Which channels may be merged, and the pseudo images for the correlations."""

    head: HeadPolicy = "drop"
    """`drop` leaves the heads apart, as the paper's partial zip does, and a fresh one is put on;
    `average` and `zero` as for other merges"""
    within_share: float = Field(0.125, ge=0, le=1)
    """share of a teacher's merges that may be between two of its own channels. Source: the
    released code's default."""


class ZipIt(Merge[ZipItConfig]):
    """Channels of all teachers, merged by correlation until the width of one network is left.

    Stoica, Bolya, Bjorner, Ramesh, Hearn and Hoffman, "ZipIt! Merging Models from Different Tasks
    without Training", ICLR 2024, arXiv 2305.03053. A merged channel is the mean of its members;
    each teacher's next layer reads it in place of every member.

    Departures: correlations come from pseudo images of all teachers, after batch norm and before
    ReLU; clusters grow by their lowest correlation, without the released discount on repeated
    merges, which would separate three or more identical teachers; the channels of a residual stream
    are merged once for all layers that write to it; of the partial zips, only the one below the
    heads gives a meta-model of one architecture; batch norm statistics are not estimated anew.
    """

    name = "zipit"
    knowledge = "inversion"
    needs = frozenset({"same_architecture", "bn_statistics"})
    Config = ZipItConfig

    def merge(
        self, context: FitContext[ZipItConfig], teachers: Sequence[Teacher]
    ) -> dict[str, Tensor]:
        """Invert the teachers, correlate and cluster channels, and merge each entry."""
        states = states_of(teachers, context.config.head)
        axes = channel_axes(teachers[0])
        images = torch.cat(
            [images for images, _ in invert_teachers(context, teachers, context.config)]
        )
        context.log.count("teacher_forward_images", len(images) * len(teachers))
        clusters = {}
        moments = channel_moments([t.net for t in teachers], images, axes)
        for group, (mean, second) in moments.items():
            similarity = on_host(correlations(mean, second)).numpy()
            clusters[group] = cluster(similarity, len(teachers), context.config.within_share)
        return zipped(states, present(states[0], axes), clusters)


def cluster(similarity: np.ndarray, n_teachers: int, within_share: float) -> np.ndarray:
    """Merge the most similar pair of clusters until as many are left as a teacher has channels.

    The similarity of two clusters is that of their least similar members.

    Args:
        similarity: (N · n, N · n), symmetric, channels of one teacher after the other.
        n_teachers: N.
        within_share: see `ZipItConfig`.

    Returns:
        (N · n,) the cluster, 0 … n - 1, of each channel; numbered by their first members.

    Worked by hand: two teachers of channels (a, b), (c, d) with a ~ d at 0.9 and b ~ c at 0.8
    and nothing else give the clusters {a, d} and {b, c}, that is [0, 1, 1, 0].
    """
    total = len(similarity)
    n = total // n_teachers
    near = similarity.astype(np.float32)
    alive = np.ones(total, dtype=bool)
    owner = np.repeat(np.arange(n_teachers), n)  # -1 once a cluster is of several teachers
    budget = np.full(n_teachers, int((total - n) / n_teachers * within_share))
    label = np.arange(total)

    def candidates(row: int) -> np.ndarray:
        barred = ~alive
        barred[row] = True
        if owner[row] >= 0 and budget[owner[row]] == 0:
            barred |= owner == owner[row]
        return np.where(barred, -np.inf, near[row])

    best, value = np.zeros(total, dtype=int), np.zeros(total, dtype=np.float32)
    stale = np.arange(total)
    for _ in range(total - n):
        for row in stale.tolist():
            found = candidates(row)
            best[row] = found.argmax()
            value[row] = found[best[row]]
        pair = int(value.argmax())
        kept, gone = sorted((pair, int(best[pair])))
        label[label == gone] = kept
        near[kept] = near[:, kept] = np.minimum(near[kept], near[gone])
        alive[gone] = False
        value[gone] = -np.inf
        changed = (best == kept) | (best == gone)
        if owner[kept] == owner[gone] >= 0:
            budget[owner[kept]] -= 1
            changed |= (owner == owner[kept]) & (budget[owner[kept]] == 0)
        else:
            changed |= owner == owner[kept]  # which may have been barred from it
            owner[kept] = -1
        changed[kept] = True
        stale = np.flatnonzero(changed & alive)
    return np.unique(label, return_inverse=True)[1]


def zipped(
    states: Sequence[State], axes: tuple[Axis, ...], clusters: dict[str, np.ndarray]
) -> dict[str, Tensor]:
    """Return the state of the merged network.

    With M_i (n, n) the part of teacher i in the means over clusters and U_i (n, n) which cluster
    stands for which of its channels, a weight that reads and writes channels becomes
    Σ_i M_i W_i U_i, one that only writes Σ_i M_i W_i, one that only reads the mean of W_i U_i.

    Args:
        states: N states.
        axes: the channel axes.
        clusters: for each group (N · n,), from `cluster`.
    """
    merged = average_state(states)
    written = {axis.entry: axis for axis in axes if axis.dim == 0}
    read = {axis.entry: axis for axis in axes if axis.dim == 1}
    for entry in written.keys() | read.keys():
        values = [state[entry].double() for state in states]
        if entry in read:
            values = [
                _read(value, read[entry], part)
                for value, part in zip(values, _parts(clusters, read[entry], values), strict=True)
            ]
        if entry in written:
            parts = _parts(clusters, written[entry], values)
            size = torch.stack(parts).sum((0, 1))  # (n,) members of each cluster
            pairs = zip(parts, values, strict=True)
            total = reduce(torch.add, (torch.tensordot(p.T, v, dims=1) for p, v in pairs))
            value = total / size.view(-1, *[1] * (total.ndim - 1))
        else:
            value = torch.stack(values).mean(0)
        merged[entry] = value.to(merged[entry].dtype)
    return merged


def _parts(clusters: dict[str, np.ndarray], axis: Axis, values: Sequence[Tensor]) -> list[Tensor]:
    """Return each teacher's membership (n channels, n clusters) of ones and zeros, float64."""
    labels = torch.from_numpy(clusters[axis.group]).to(values[0].device)
    n = len(labels) // len(values)
    member = torch.nn.functional.one_hot(labels, n).double()
    return list(member.split(n))


def _read(value: Tensor, axis: Axis, member: Tensor) -> Tensor:
    """Return an entry that reads clusters in place of a teacher's channels."""
    n = member.shape[0]
    blocks = value.unflatten(1, (n, axis.block))
    return torch.einsum("onb...,nc->ocb...", blocks, member).flatten(1, 2)
