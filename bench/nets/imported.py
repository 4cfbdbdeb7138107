"""Other networks as backbones: of torchvision and timm by name, or any module.

A module becomes a backbone by taking its last linear layer as the head, and what goes into it as
the features. Its batch norm layers, where it has some, normalise as the caller chooses; those of a
kind derived from `nn.BatchNorm2d` do all else that they did.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from bench.errors import BenchError, unknown_name
from bench.nets.base import Backbone
from bench.nets.norm import Norm, running_norm

FAMILIES = ("torchvision", "timm")
_FAILURES = (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, IndexError)
"""What networks raise for images or settings that are not theirs."""

_chosen_norm: ContextVar[Norm] = ContextVar("chosen_norm", default=running_norm)


class _CallersBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics the backbone's caller chooses."""

    follows_caller = True

    def forward(self, input: Tensor) -> Tensor:
        return _chosen_norm.get()(self, input)


class _CallersNormWithin(TorchFunctionMode):
    """Gives the normalisation by a layer's own scale and shift to the backbone's caller."""

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__()
        self._layer = layer

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Run one operation."""
        kwargs = kwargs or {}
        if func is F.batch_norm and self._is_own(*args, **kwargs):
            return _chosen_norm.get()(self._layer, args[0] if args else kwargs["input"])
        return func(*args, **kwargs)

    def _is_own(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        *others: Any,
        **named: Any,
    ) -> bool:
        return weight is self._layer.weight and bias is self._layer.bias


_FOLLOWING: dict[type[nn.BatchNorm2d], type[nn.BatchNorm2d]] = {nn.BatchNorm2d: _CallersBatchNorm}
"""Kinds of batch norm, by what they were made from, that normalise as the caller says."""


def _following_caller(kind: type[nn.BatchNorm2d]) -> type[nn.BatchNorm2d]:
    """Return a kind of batch norm that does all it did, but normalises as the caller says.

    What it does before and after normalising, as timm's `BatchNormAct2d` its activation, stays.
    """
    if getattr(kind, "follows_caller", False):
        return kind

    def forward(self: nn.BatchNorm2d, *args: Any, **kwargs: Any) -> Tensor:
        with _CallersNormWithin(self):
            return kind.forward(self, *args, **kwargs)

    if kind not in _FOLLOWING:
        members = {"forward": forward, "follows_caller": True}
        _FOLLOWING[kind] = type(kind.__name__, (kind,), members)
    return _FOLLOWING[kind]


def _follow_caller(part: _BatchNorm) -> bool:
    """Let a layer normalise as the backbone's caller says, in place; tell whether it does."""
    if not isinstance(part, nn.BatchNorm2d):
        return False
    part.__class__ = _following_caller(type(part))
    return isinstance(part, _CallersBatchNorm) or _asks_caller(part)


@torch.no_grad()
def _asks_caller(part: nn.BatchNorm2d) -> bool:
    """Tell whether a layer has the caller normalise, once, when it is given activations."""
    asked: list[nn.BatchNorm2d] = []

    def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        asked.append(layer)
        return x

    training, token = part.training, _chosen_norm.set(norm)
    try:
        part.eval()(torch.zeros(2, part.num_features, 2, 2))
    except _FAILURES:
        return False
    finally:
        _chosen_norm.reset(token)
        part.train(training)
    return asked == [part]


class Imported(Backbone):
    """A module whose last linear layer is the head.

    Args:
        module: maps images (B, 3, H, W) to logits; taken over and changed. In `state_dict` the
            head's entries are named `head.…`, all others `body.…` with the module's own names.

    Raises:
        BenchError: the module has no linear layer, or a batch norm layer that cannot normalise as
            the caller chooses: of one or three dimensions, synchronised, or a user's own that does
            not leave normalising to torch.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        linear = {name: one for name, one in module.named_modules() if isinstance(one, nn.Linear)}
        if not linear:
            raise BenchError(
                f"network {type(module).__name__} has no linear layer to take as its head; only "
                "classifiers that end in one can be teachers"
            )
        name, self.head = list(linear.items())[-1]
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, nn.Identity())
        for name, part in module.named_modules():
            if isinstance(part, _BatchNorm) and not _follow_caller(part):
                raise BenchError(
                    f"network {type(module).__name__} normalises in '{name}' by "
                    f"{type(part).__name__}, whose statistics cannot be chosen from outside; use "
                    "nn.BatchNorm2d, or a subclass that calls its forward once"
                )
        self.body = module
        self.n_features = self.head.in_features

    def features(self, x: Tensor, norm: Norm = running_norm) -> Tensor:
        """Return what goes into the head (B, n_features), of images (B, 3, H, W)."""
        token = _chosen_norm.set(norm)
        try:
            return self.body(x)
        finally:
            _chosen_norm.reset(token)


def is_named(architecture: str) -> bool:
    """Tell whether an architecture is written `torchvision:NAME` or `timm:NAME`."""
    return architecture.partition(":")[0] in FAMILIES and ":" in architecture


def check_named(architecture: str) -> None:
    """Raise an error if `torchvision:NAME` or `timm:NAME` names no classifier.

    Raises:
        BenchError: the family's package is not installed, or has no such classifier.
    """
    family, _, name = architecture.partition(":")
    known = _torchvision_names() if family == "torchvision" else _timm().list_models()
    if name not in known:
        raise unknown_name(f"{family} network", name, known)


def build_named(architecture: str, n_classes: int, image_size: int) -> nn.Module:
    """Return an untrained classifier `torchvision:NAME` or `timm:NAME`.

    Args:
        architecture: the family and the name.
        n_classes: outputs.
        image_size: side in pixels, which a vision transformer is built for, and of timm any network
            that does not take such images as its name alone builds it.

    Raises:
        BenchError: there is no such classifier, or it cannot be built for such images.
    """
    check_named(architecture)
    family, _, name = architecture.partition(":")
    try:
        if family == "torchvision":
            from torchvision import models

            sized = {"image_size": image_size} if name.startswith("vit_") else {}
            return models.get_model(name, weights=None, num_classes=n_classes, **sized)
        sized = {"img_size": image_size} if _has_a_size(name, image_size) else {}
        return _timm().create_model(name, pretrained=False, num_classes=n_classes, **sized)
    except _FAILURES as error:
        raise BenchError(
            f"network {architecture} cannot be built for {n_classes} classes at {image_size} px "
            f"({_line(error)}); choose another size or network"
        ) from None


@functools.cache
def _has_a_size(name: str, image_size: int) -> bool:
    """Tell whether a network of timm takes images of a size only if it is built for them."""
    build = functools.partial(_timm().create_model, name, pretrained=False, num_classes=2)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.inference_mode():
        try:
            build().eval()(torch.zeros(1, 3, image_size, image_size))
        except _FAILURES:
            pass
        else:
            return False
        try:
            build(img_size=image_size)
        except TypeError as error:
            return "img_size" not in str(error)
    return True


def _torchvision_names() -> list[str]:
    from torchvision import models

    return models.list_models(module=models)


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError:
        raise BenchError("networks of timm need the package timm; pip install timm") from None
    return timm


@torch.no_grad()
def check_backbone(module: nn.Module, image_size: int) -> Imported:
    """Return the module as a backbone, after checking that it computes head(features(x)).

    Args:
        module: in eval mode; taken over and changed.
        image_size: side of the images it takes, pixels.

    Raises:
        BenchError: it takes no such images, or its last linear layer is not its end.
    """
    images = torch.linspace(-1, 1, 2 * 3 * image_size**2).view(2, 3, image_size, image_size)
    name = type(module).__name__
    try:
        before = module(images)
    except _FAILURES as error:
        raise BenchError(
            f"network {name} does not take images of {image_size} px ({_line(error)}); name the "
            "size that it was trained at"
        ) from None
    net = Imported(module)
    reason, after = "", before
    try:
        features = net.features(images)
        after = net.head(features)
        ends = features.ndim == 2 and isinstance(before, Tensor) and before.shape == after.shape
    except _FAILURES as error:
        ends, reason = False, f" ({_line(error)})"
    if not ends:
        raise BenchError(
            f"network {name} does not end in its last linear layer{reason}; only classifiers that "
            "do can be teachers"
        )
    if not (before.isfinite().all() and after.isfinite().all()):
        raise BenchError(
            f"network {name} gives numbers that are not finite; its weights are too large, or its "
            "batch norm statistics wrong: take another checkpoint"
        )
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-5):
        raise BenchError(
            f"network {name} does more after its last linear layer; only classifiers that end in "
            "one can be teachers"
        )
    return net


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
