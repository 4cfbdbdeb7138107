"""Shared parts of methods that merge weights: the choice of teachers and the head."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import torch

from bench.contract import (
    Config,
    FitContext,
    Knowledge,
    Method,
    Need,
    NetSpec,
    Pool,
    Teacher,
)
from bench.nets.precision import has_float64
from bench.training.initialisation import HeadPolicy, body_state, fits_body, net_at

if TYPE_CHECKING:
    from torch import Tensor

Group = Literal["all", "largest"]


class MergeConfig(Config):
    """Which teachers are merged, and how the head is made."""

    head: HeadPolicy = "average"
    """`average` them as well (as the paper's baseline does), start at `zero`, or `drop` them for
    a fresh one; the latter two serve any n_way"""
    group: Group = "all"
    """`all` teachers, or of a mixed pool the `largest` group of one architecture and image size
    (of equals the meta-model's)"""


MergeT = TypeVar("MergeT", bound=MergeConfig)


def on_host(x: Tensor) -> Tensor:
    """Return a small tensor on the CPU: where assignments and clusters are found, and for reports.

    It waits for the device, which a merge may do a few times.
    """
    return x.cpu()


class Merge(Method[MergeT]):
    """A method whose meta-model is initialised with some mean of the teachers' weights."""

    knowledge: ClassVar[Knowledge] = "parameters"
    needs = frozenset({"same_architecture"})
    fit_depends_on = frozenset({"n_way"})
    Config = MergeConfig
    presets = {"released": {}, "largest_group": {"group": "largest"}}

    @abstractmethod
    def merge(
        self, context: FitContext[MergeT], teachers: Sequence[Teacher]
    ) -> Mapping[str, Tensor]:
        """Return the merged state of teachers that all fit the meta-model.

        Entries of the head are used only where the head policy is `average`.
        """

    @classmethod
    def needs_of(cls, config: MergeT) -> frozenset[Need]:
        """One group of a mixed pool is of one architecture by itself."""
        return cls.needs - {"same_architecture"} if config.group == "largest" else cls.needs

    def teachers_used(self, context: FitContext[MergeT]) -> tuple[Teacher, ...]:
        """Return those that are merged."""
        return merged_teachers(context.pool, context.net, context.config.group)

    def skip(self, context: FitContext[MergeT]) -> str | None:
        """Skip pools in which a merged teacher does not have the meta-model's shape."""
        net, config = context.net, context.config
        for teacher in self.teachers_used(context):
            if not fits_body(teacher.spec, net):
                return (
                    f"teacher {teacher.name} is a {teacher.spec.architecture} at "
                    f"{teacher.spec.image_size} px, the meta-model a {net.architecture} at "
                    f"{net.image_size} px"
                )
            if config.head == "average" and teacher.spec.n_classes != net.n_classes:
                return (
                    f"the head of teacher {teacher.name} has {teacher.spec.n_classes} outputs, "
                    f"n_way is {net.n_classes}; set head to zero or drop"
                )
        return None

    def fit(self, context: FitContext[MergeT]) -> dict[str, Tensor]:
        """Merge the weights, on the CPU where the device has no float64, and add a head."""
        if not has_float64(context.device):
            context = on_a_cpu(context)
        merged = self.merge(context, self.teachers_used(context))
        return dict(net_at(context, merged, context.config.head).state_dict())


def on_a_cpu(context: FitContext[MergeT]) -> FitContext[MergeT]:
    """Return a context on the CPU, with copies of the teachers there."""
    cpu = torch.device("cpu")
    pool = context.pool
    teachers = [replace(teacher, net=deepcopy(teacher.net).to(cpu)) for teacher in pool]
    return replace(
        context,
        pool=Pool(teachers, pool.sha256, pool.initial_states),
        device=cpu,
        build_net=lambda generator: context.build_net(generator).to(cpu),
    )


def merged_teachers(teachers: Sequence[Teacher], net: NetSpec, group: Group) -> tuple[Teacher, ...]:
    """Return the teachers to merge: all, or the largest group of one architecture and size.

    Of equally large groups the meta-model's is taken, else the first.
    """
    if group == "all":
        return tuple(teachers)
    kinds = Counter((t.spec.architecture, t.spec.image_size) for t in teachers)
    own = (net.architecture, net.image_size)
    chosen = max(kinds, key=lambda kind: (kinds[kind], kind == own))
    return tuple(t for t in teachers if (t.spec.architecture, t.spec.image_size) == chosen)


def states_of(teachers: Sequence[Teacher], head: HeadPolicy) -> list[dict[str, Tensor]]:
    """Return the teachers' states, with their heads only if the policy is `average`."""
    return [body_state(teacher, head) for teacher in teachers]
