"""Pools made in Python: of a user's own modules, or trained as the harness trains them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.api.cells import Constants, Counts, budget_of, protocol_of
from bench.api.process import Folder, Told, as_it_was, state_of
from bench.contract import Backbone, Pool
from bench.data.base import ImageData
from bench.errors import BenchError
from bench.nets import base
from bench.nets.build import build_net, check_net
from bench.nets.imported import check_backbone
from bench.results.files import content_hash
from bench.teachers.cards import TeacherCard, validated
from bench.teachers.pool import plan_pool
from bench.teachers.transfer import teachers_of

if TYPE_CHECKING:
    from torch import Tensor, nn

IN_PYTHON = "a module given in Python"


def make_pool(
    modules: Sequence[nn.Module],
    class_names: Sequence[Sequence[str]],
    accuracies: Sequence[float],
    data: ImageData,
    *,
    architectures: Sequence[str | None] | None = None,
    dataset: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Pool:
    """Return a pool of your own classifiers, without files.

    A module maps images (B, 3, H, W) to logits and ends in its last linear layer; batch norm is
    `nn.BatchNorm2d`. Modules are copied, and the copies frozen.

    Args:
        modules: one per teacher.
        class_names: of each, in the order of its outputs; equal names are the same class.
        accuracies: held-out accuracy of each as you measured it, fractions.
        data: says what is not given below: the images that the modules take are its images.
        architectures: of each, the name of the network that it is: a registered one,
            `torchvision:NAME` or `timm:NAME`. Methods that merge weights need it. None, all or
            single ones, takes a registered network's name where the module is one.
        dataset: the name of the data set that they were trained on.
        image_size: side of the images that they take, pixels.
        mean: (3,) of their normalisation, for pixels in [0, 1].
        std: (3,) likewise.

    Raises:
        BenchError: numbers that do not agree, a module that is no such classifier, or that is not
            the network that it is said to be.
    """
    kinds = list(architectures or [None] * len(modules))
    given = {"class names": class_names, "accuracies": accuracies, "architectures": kinds}
    for what, values in given.items():
        if len(values) != len(modules):
            raise BenchError(f"{len(values)} {what} for {len(modules)} modules; give one for each")
    if not modules:
        raise BenchError("a pool needs at least one module; none was given")
    common = {
        "dataset": dataset or data.name,
        "image_size": image_size or data.image_size,
        "mean": tuple(mean or data.mean),
        "std": tuple(std or data.std),
        "source": IN_PYTHON,
    }
    with as_it_was():
        made = [
            _teacher(*one, common)
            for one in zip(modules, class_names, accuracies, kinds, strict=True)
        ]
    cards, nets = zip(*made, strict=True)
    digests = [_digest(net) for net in nets]
    names = [f"python/{index:02d}" for index in range(len(made))]
    described = [card.model_dump(mode="json") for card in cards]
    return Pool(teachers_of(names, cards, nets, digests), content_hash([described, digests]))


def _teacher(
    module: nn.Module,
    class_names: Sequence[str],
    accuracy: float,
    architecture: str | None,
    common: dict[str, Any],
) -> tuple[TeacherCard, Backbone]:
    """Return the card of a module and the module as a frozen backbone."""
    own = copy.deepcopy(module).cpu().eval()
    net = own if isinstance(own, base.Backbone) else check_backbone(own, common["image_size"])
    values = {
        **common,
        "architecture": architecture or _name_of(own),
        "n_outputs": net.head.out_features,
        "class_names": tuple(class_names),
        "accuracy": float(accuracy),
    }
    card = validated(TeacherCard, values, type(module).__name__)
    if architecture is not None:
        _check_is(net, card)
    return card, net


def _name_of(module: nn.Module) -> str:
    """Return the registered name of a network, or a name that no registered one has."""
    for name in registry.names("net"):
        if registry.load("net", name) is type(module):
            return name
    return f"python:{type(module).__name__}"


def _check_is(net: Backbone, card: TeacherCard) -> None:
    """Raise unless a backbone has the weights of the network that it is said to be."""
    check_net(card.architecture)
    expected = {name: tensor.shape for name, tensor in build_net(card.spec).state_dict().items()}
    if {name: tensor.shape for name, tensor in net.state_dict().items()} != expected:
        raise BenchError(
            f"the module is no {card.architecture} for {card.n_outputs} classes at "
            f"{card.image_size} px: its weights have other names or shapes; name the right "
            "network, or none"
        )


def _digest(net: nn.Module) -> str:
    """Return the SHA-256 (hex) of a network's weights with their names."""
    total = hashlib.sha256()
    for name, value in net.state_dict().items():
        total.update(name.encode())
        total.update(_bytes(value))
    return total.hexdigest()


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().numpy().tobytes()


def train_pool(
    data: ImageData,
    *,
    architectures: Sequence[str] = ("conv4",),
    protocol: Constants = "cvpr23",
    budget: Counts = "short",
    seed: int = 0,
    device: str | None = None,
    threads: int = 1,
    cache: Folder = None,
    progress: Told | None = None,
) -> Pool:
    """Return a pool of teachers that are trained as a suite's are; stored ones are not again.

    Each teacher is trained on a few classes of the data set's meta-train split. Ctrl-C keeps the
    state of the training, from which the same call goes on.

    Args:
        data: the data set.
        architectures: networks that the teachers cycle through.
        protocol: a protocol's name, or its constants: classes and recipe of each teacher.
        budget: a budget's name, or its counts: epochs, and the most teachers.
        seed: the repetition.
        device: as `--device`; None takes the first accelerator, else the CPU.
        cache: the folder that teachers are kept in; None takes the one that commands take.
        threads: CPU threads; another number may change rounding, and so results.
        progress: called with each standing.

    Raises:
        BenchError: an unknown name, or a data set that cannot serve the protocol.
    """
    for architecture in architectures:
        check_net(architecture)
    state = state_of(data, device, cache, progress, "bench.train_pool")
    plans = plan_pool(
        data.name,
        data.digest,
        len(data.splits["train"].classes),
        data.image_size,
        tuple(architectures),
        budget_of(budget),
        protocol_of(protocol),
        seed,
    )
    with as_it_was(state.device, threads), state.keeping.stop.on_signals():
        return state.trained_pool(plans)
