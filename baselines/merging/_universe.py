"""Match the channels of many networks at once, through one common order (the universe).

For each group of channels, each of N networks has a matrix (n, n) from its channels to those of
the universe: doubly stochastic while it is searched for, a permutation in the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from baselines.merging._channels import State, group_sizes
from baselines.merging._matching import assignment, voting_axes
from baselines.merging._merging import on_host
from bench.nets.channels import Axis

Maps = Mapping[str, Tensor]
"""For each group (N, n, n): rows are places of the universe, columns the networks' channels."""

IMPROVEMENT = 1e-6
"""Smallest relative gain of a step that counts."""


class Agreement:
    """The agreement of networks that are mapped to one order of channels, and its slope.

    With U_a the voting entries of network a, mapped along all their axes, the agreement is
    Σ_{a<b} ⟨U_a, U_b⟩ = (|Σ U_a|² - Σ |U_a|²) / 2.

    Args:
        states: N states of one architecture.
        axes: the channel axes.
    """

    def __init__(self, states: Sequence[State], axes: tuple[Axis, ...]) -> None:
        self._sizes, self._n = group_sizes(states[0], axes), len(states)
        votes = voting_axes(axes)
        names = dict.fromkeys(axis.entry for axis in votes)
        self._axes = {name: [axis for axis in votes if axis.entry == name] for name in names}
        self._entries = {name: torch.stack([s[name].double() for s in states]) for name in names}
        self.degree = 2 * max(len(found) for found in self._axes.values())
        """of the agreement, as a polynomial along a line between two maps"""

    def identities(self) -> dict[str, Tensor]:
        """Return the maps at the start: every channel stays where it is."""
        device = next(iter(self._entries.values())).device
        return {
            group: torch.eye(n, dtype=torch.float64, device=device).repeat(self._n, 1, 1)
            for group, n in self._sizes.items()
        }

    def of(self, maps: Maps) -> float:
        """Return Σ_{a<b} ⟨U_a, U_b⟩."""
        parts = []
        for name in self._axes:
            moved = self._mapped(name, maps)
            parts.append(moved.sum(0).square().sum() - moved.square().sum())
        return sum((on_host(torch.stack(parts)) / 2).tolist())

    def slopes(self, maps: Maps) -> dict[str, Tensor]:
        """Return the derivative of the agreement with respect to every map."""
        found = {group: torch.zeros_like(one) for group, one in maps.items()}
        for name, axes in self._axes.items():
            moved = self._mapped(name, maps)
            others = moved.sum(0) - moved
            for axis in axes:
                rest = self._mapped(name, maps, but=axis)
                found[axis.group] += _rows(others, axis) @ _rows(rest, axis).mT
        return found

    def _mapped(self, name: str, maps: Maps, but: Axis | None = None) -> Tensor:
        """Return an entry of all networks, mapped along all its axes or all but one."""
        value = self._entries[name]
        for axis in self._axes[name]:
            if axis != but:
                value = _map(value, axis, maps[axis.group])
        return value


def universe_match(
    states: Sequence[State], axes: tuple[Axis, ...], max_steps: int, patience: int
) -> tuple[list[dict[str, Tensor]], list[float]]:
    """Return permutations of all networks to a common order, by Frank and Wolfe's algorithm.

    Each step moves all maps together towards the permutations that their slopes favour most, as far
    as the agreement grows; at the end each map becomes the nearest permutation.

    Args:
        states: N states of one architecture.
        axes: the channel axes.
        max_steps: at most.
        patience: the search ends after so many steps in a row with next to no gain.

    Returns:
        For each network and group (n,): which channel stands at each place of the universe; and
        the agreement at the start and after each step, while it grows.

    Source: Crisostomi et al., arXiv 2405.17897, algorithm 1.
    """
    agreement = Agreement(states, axes)
    maps = agreement.identities()
    reached, idle = [agreement.of(maps)], 0
    while len(reached) <= max_steps and idle < patience:
        slopes = agreement.slopes(maps)
        goals = {group: _permutations(slope) for group, slope in slopes.items()}
        moved = _between(maps, goals, _best_share(agreement, maps, goals, reached[-1]))
        now = agreement.of(moved)
        if now <= reached[-1]:
            break  # the next step would be the same
        idle = idle + 1 if now - reached[-1] <= IMPROVEMENT * abs(reached[-1]) else 0
        maps = moved
        reached.append(now)
    found = [
        {group: assignment(one[number]) for group, one in maps.items()}
        for number in range(len(states))
    ]
    return found, reached


def _best_share(agreement: Agreement, maps: Maps, goals: Maps, start: float) -> float:
    """Return the share of the way, in [0, 1], at which the agreement is highest.

    Along the way it is a polynomial, which as many points as it has coefficients determine.
    """
    shares = np.linspace(0, 1, agreement.degree + 1)
    values = [start, *(agreement.of(_between(maps, goals, float(x))) for x in shares[1:])]
    along = np.polynomial.Polynomial.fit(shares, values, agreement.degree, domain=[0, 1])
    flat = along.deriv().roots()
    inside = flat.real[(abs(flat.imag) < 1e-9) & (flat.real > 0) & (flat.real < 1)]
    return float(max([0.0, 1.0, *inside], key=along))


def _between(maps: Maps, goals: Maps, share: float) -> dict[str, Tensor]:
    return {group: torch.lerp(one, goals[group], share) for group, one in maps.items()}


def _permutations(scores: Tensor) -> Tensor:
    """Return the permutation matrices (N, n, n) of the assignments with the highest scores."""
    eye = torch.eye(scores.shape[-1], dtype=scores.dtype, device=scores.device)
    return torch.stack([eye[assignment(one).to(scores.device)] for one in scores])


def _map(value: Tensor, axis: Axis, maps: Tensor) -> Tensor:
    """Return an entry (N, …) whose channels along an axis are mapped by (N, n, n)."""
    front = value.movedim(axis.dim + 1, 1)
    return (maps @ _rows(value, axis)).reshape(front.shape).movedim(1, axis.dim + 1)


def _rows(value: Tensor, axis: Axis) -> Tensor:
    """Return an entry (N, …) as one row for each channel of an axis, (N, n, rest)."""
    front = value.movedim(axis.dim + 1, 1)
    return front.reshape(len(front), front.shape[1] // axis.block, -1)
