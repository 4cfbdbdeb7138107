"""Initialisation of a meta-model: random weights, the teachers' average, or the best teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from bench.contract import Backbone, FitContext, NetSpec, Pool, Teacher
from bench.errors import BenchError
from bench.nets.precision import has_float64

Initialisation = Literal["auto", "random", "average", "best_teacher"]
HeadPolicy = Literal["average", "zero", "drop"]


def average_state(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of every entry: parameters, BN statistics, counters.

    Sums are in float64, so the mean of equal float32 states is that state; integer entries are
    rounded and keep their type.

    Args:
        states: state dicts of one architecture; at least one.

    Raises:
        BenchError: no state, or entries or shapes differ.
    """
    if not states:
        raise BenchError("0 states cannot be averaged; give at least one teacher")
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise BenchError(
            f"the {len(states)} states differ in their entries or shapes; "
            "average teachers of one architecture, image size and head"
        )
    return {name: _mean([state[name] for state in states]) for name in states[0]}


def _mean(values: Sequence[Tensor]) -> Tensor:
    device = values[0].device
    where = device if has_float64(device) else "cpu"
    mean = torch.stack([value.detach().to(where, torch.float64) for value in values]).mean(0)
    mean = mean if values[0].is_floating_point() else mean.round()
    return mean.to(values[0].dtype).to(device)


def fits_body(spec: NetSpec, net: NetSpec) -> bool:
    """Tell whether a teacher's weights fit the meta-model, apart from the head."""
    return (spec.architecture, spec.image_size) == (net.architecture, net.image_size)


def initial_net(context: FitContext, initialisation: Initialisation) -> Backbone:
    """Return the initialised meta-model, on the context's device.

    Args:
        context: what the method was given; fresh weights come from its stream `initialisation`.
        initialisation: `random`; `average` of all teachers, heads included; `best_teacher`, with
            a fresh head where its width differs; `auto`, the average where all teachers fit the
            meta-model, heads included, and fresh weights otherwise.

    Raises:
        BenchError: the pool cannot give what is asked for.
    """
    if initialisation == "auto":
        fits = len(context.pool) > 0 and all(t.spec == context.net for t in context.pool)
        initialisation = "average" if fits else "random"
    if initialisation == "average":
        return average_net(context, "average")
    net = context.build_net(context.generator("initialisation"))
    if initialisation == "best_teacher":
        teacher = best_teacher(context.pool, context.net)
        _load(net, body_state(teacher, "average" if teacher.spec == context.net else "drop"))
    return net


def average_net(context: FitContext, head: HeadPolicy) -> Backbone:
    """Return a meta-model with the teachers' mean weights.

    Args:
        context: what the method was given.
        head: `average` the heads too, start it at `zero`, or `drop` it for a fresh one.

    Raises:
        BenchError: a teacher does not fit the meta-model.
    """
    for teacher in context.pool:
        if not _can_average(teacher.spec, context.net, head):
            raise BenchError(
                f"teacher {teacher.name} ({_words(teacher.spec)}) does not fit the meta-model "
                f"({_words(context.net)}); use initialisation random or best_teacher"
            )
    return net_at(
        context, average_state([body_state(teacher, head) for teacher in context.pool]), head
    )


def net_at(context: FitContext, state: Mapping[str, Tensor], head: HeadPolicy) -> Backbone:
    """Return a meta-model with given weights, on the context's device.

    Args:
        context: what the method was given.
        state: entries of the body, and of the head where the policy is `average`.
        head: take the state's, start it at `zero`, or `drop` it for a fresh one.
    """
    net = context.build_net(context.generator("initialisation"))
    body = {k: v for k, v in state.items() if head == "average" or not k.startswith("head.")}
    _load(net, body)
    if head == "zero":
        zero_head(net)
    return net


@torch.no_grad()
def zero_head(net: Backbone) -> None:
    """Set the head's weights and bias to zero, in place.

    One inner step of MAML or ANIL from there makes the head a nearest-centroid classifier: the
    row of a class becomes its mean support feature less that of all, times a constant.
    """
    net.head.weight.zero_()
    net.head.bias.zero_()


def best_teacher(pool: Pool, net: NetSpec | None = None) -> Teacher:
    """Return the teacher with the highest held-out accuracy; of equal ones, the first.

    Args:
        pool: the teachers.
        net: only those whose body fits this meta-model; None takes all.

    Raises:
        BenchError: there is none.
    """
    candidates = [t for t in pool if net is None or fits_body(t.spec, net)]
    if not candidates:
        wanted = "" if net is None else f" of a {net.architecture} at {net.image_size} px"
        raise BenchError(
            f"none of the {len(pool)} teachers is{wanted or ' there'}; use another pool or "
            "initialisation random"
        )
    return max(candidates, key=lambda teacher: teacher.accuracy)


def _words(spec: NetSpec) -> str:
    return f"{spec.architecture}, {spec.image_size} px, {spec.n_classes} outputs"


def _can_average(spec: NetSpec, net: NetSpec, head: HeadPolicy) -> bool:
    return spec == net if head == "average" else fits_body(spec, net)


def body_state(teacher: Teacher, head: HeadPolicy) -> dict[str, Tensor]:
    """Return the teacher's state, with its head only if the policy is `average`."""
    state = teacher.net.state_dict()
    return {
        name: value
        for name, value in state.items()
        if head == "average" or not name.startswith("head.")
    }


def _load(net: Backbone, state: Mapping[str, Tensor]) -> None:
    """Copy a state into a net; entries that the state lacks keep their random values."""
    net.load_state_dict({**net.state_dict(), **state})
