"""Networks by name: registered ones, torchvision's and timm's. No torch until one is built."""

from __future__ import annotations

from bench import registry
from bench.contract import Backbone, NetSpec, OptimiserRecipe
from bench.errors import unknown_name


def check_net(architecture: str) -> None:
    """Raise an error for an unknown architecture: registered, `torchvision:…` or `timm:…`.

    Raises:
        BenchError: the name is unknown.
    """
    if ":" in architecture:
        from bench.nets.imported import FAMILIES, check_named, is_named

        if not is_named(architecture):
            raise unknown_name("family of networks", architecture.partition(":")[0], FAMILIES)
        check_named(architecture)
    else:
        registry.entry("net", architecture)


def build_net(spec: NetSpec) -> Backbone:
    """Build the network of a `NetSpec`; its weights are still to be drawn or loaded.

    Registered classes that are no `Backbone` are taken as classifiers that end in a linear layer.
    The network is in evaluation mode and stays so in training too, where the norm that it is
    called with says what batch norm does: dropout and the like, which draw from the global stream,
    do nothing. Constructors draw from it as well; it is put back afterwards.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        return _built(spec).eval()


def _built(spec: NetSpec) -> Backbone:
    from bench.nets import base

    if ":" in spec.architecture:
        from bench.nets.imported import Imported, build_named

        return Imported(build_named(spec.architecture, spec.n_classes, spec.image_size))
    net = registry.load("net", spec.architecture)(spec.n_classes, spec.image_size)
    if isinstance(net, base.Backbone):
        return net
    from bench.nets.imported import Imported

    return Imported(net)


def optimiser_recipe(architecture: str) -> OptimiserRecipe:
    """Return the optimiser recipe that an architecture's class declares, or the default one."""
    from bench.nets import base

    kind = base.Backbone if ":" in architecture else registry.load("net", architecture)
    return getattr(kind, "recipe", base.Backbone.recipe)
