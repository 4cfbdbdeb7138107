"""Checks of networks."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from bench import registry
from bench.contract import NetSpec, OptimiserRecipe
from bench.nets.base import initialise
from bench.nets.build import build_net, optimiser_recipe
from bench.nets.norm import batch_norm, running_norm
from bench.testing.checks import Check, require
from bench.testing.rules import (
    require_close,
    require_docstring,
    require_public_imports,
    untouched_global_state,
)
from bench.testing.tiny import tiny_net

N_CLASSES, SIZE = 5, 32


class NetSubject:
    """A network with random weights and statistics, for five classes at 32 pixels.

    Args:
        name: the registered name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = registry.load("net", name)
        self.net = tiny_net(_generator(), name, N_CLASSES, SIZE).eval()

    @functools.cached_property
    def images(self) -> Tensor:
        """Four images (4, 3, 32, 32)."""
        return torch.randn(4, 3, SIZE, SIZE, generator=_generator(1))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def describes_itself(subject: NetSubject) -> str:
    """Has a docstring, and takes (n_classes, image_size)."""
    return require_docstring(subject.kind)


def imports_only_what_plug_ins_may(subject: NetSubject) -> None:
    """Imports no part of the harness that is not meant for plug-ins."""
    require_public_imports(subject.kind)


@torch.no_grad()
def ends_in_its_head(subject: NetSubject) -> str:
    """Gives the logits of a linear head on its features, one row for each image."""
    net = subject.net
    require(isinstance(net.head, nn.Linear), f"head is a {type(net.head).__name__}, not nn.Linear")
    require(net.head.out_features == N_CLASSES, f"the head has {net.head.out_features} outputs")
    features = net.features(subject.images)
    wanted = len(subject.images), net.n_features
    require(tuple(features.shape) == wanted, f"features are {tuple(features.shape)}, not {wanted}")
    require_close(net(subject.images), net.head(features), "logits are not those of the head")
    n_parameters = sum(parameter.numel() for parameter in net.parameters())
    return f"{net.n_features} features, {n_parameters:,} parameters"


@torch.no_grad()
def sees_images_one_by_one(subject: NetSubject) -> None:
    """Computes an image's features independently of the others, with stored statistics."""
    alone = subject.net.features(subject.images[:1], running_norm)
    among = subject.net.features(subject.images, running_norm)
    require_close(alone[0], among[0], "the features of an image change if it is alone")


@torch.no_grad()
def lets_the_caller_normalise(subject: NetSubject) -> str:
    """Calls the given norm for every batch norm layer."""
    asked: set[nn.Module] = set()

    def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        asked.add(layer)
        return batch_norm(layer, x)

    subject.net.features(subject.images, norm)
    layers = {m: n for n, m in subject.net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    missed = [name for layer, name in layers.items() if layer not in asked]
    require(not missed, f"{', '.join(missed[:3])} normalise without asking the norm")
    return f"{len(layers)} batch norm layers"


@torch.no_grad()
def is_rebuilt_from_its_state(subject: NetSubject) -> None:
    """A new network with its state computes the same; building draws nothing globally."""
    with untouched_global_state():
        other = build_net(NetSpec(subject.name, N_CLASSES, SIZE))
        other.load_state_dict(subject.net.state_dict())
        found = other.eval()(subject.images)
    require_close(
        found, subject.net(subject.images), "a copy with the same state computes something else"
    )


def starts_from_a_generator(subject: NetSubject) -> None:
    """Draws equal weights from equal generators, different ones from different generators."""
    states = []
    for seed in (0, 0, 1):
        net = build_net(NetSpec(subject.name, N_CLASSES, SIZE))
        initialise(net, _generator(seed))
        states.append(torch.cat([parameter.detach().flatten() for parameter in net.parameters()]))
    require(torch.equal(states[0], states[1]), "equal generators give different weights")
    require(not torch.equal(states[0], states[2]), "different generators give equal weights")


def can_be_trained(subject: NetSubject) -> str:
    """Has gradients in every parameter, and a recipe for its teachers."""
    net = build_net(NetSpec(subject.name, N_CLASSES, SIZE))
    initialise(net, _generator())
    net(subject.images, batch_norm).logsumexp(1).sum().backward()
    still = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    require(not still, f"no gradient reaches {', '.join(still[:3])}")
    recipe = optimiser_recipe(subject.name)
    require(isinstance(recipe, OptimiserRecipe), f"recipe is {recipe!r}, no OptimiserRecipe")
    return f"{recipe.optimiser}, rate {recipe.lr:g}"


@torch.no_grad()
def lets_channels_be_moved(subject: NetSubject) -> str:
    """Computes the same with permuted channels, so that merges can match channels."""
    net = subject.net
    axes = net.channel_axes(SIZE)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    sizes = {a.group: state[a.entry].shape[a.dim] // a.block for a in axes[::-1]}
    order = {group: torch.randperm(n, generator=_generator(2)) for group, n in sizes.items()}
    moved = dict(state)
    for axis in axes:
        places = order[axis.group][:, None] * axis.block + torch.arange(axis.block)
        moved[axis.entry] = moved[axis.entry].index_select(axis.dim, places.flatten())
    before = net(subject.images)
    net.load_state_dict(moved)
    after = net(subject.images)
    net.load_state_dict(state)
    require_close(after, before, "permuted channels compute something else")
    return f"{len(sizes)} groups of channels"


SUBJECTS = {"net": NetSubject}
CHECKS: dict[str, tuple[Check, ...]] = {
    "net": (
        describes_itself,
        imports_only_what_plug_ins_may,
        ends_in_its_head,
        sees_images_one_by_one,
        lets_the_caller_normalise,
        is_rebuilt_from_its_state,
        starts_from_a_generator,
        can_be_trained,
        lets_channels_be_moved,
    )
}
