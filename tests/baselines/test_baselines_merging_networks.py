"""Merges of networks that the suite does not know: served, or skipped with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from baselines.merging.git_rebasin import GitRebasin
from bench import registry
from bench.contract import NetSpec, Pool, Skip
from bench.teachers.train import recipe_for
from tests.helpers import cell_of, run_toy, tiny_context, tiny_net, tiny_pool, toy_data
from tests.plug_ins import Dense, DepthwiseNet, register

QUICK = {"inversion_steps": 2, "images_per_class": 2}
MERGES = (
    *("average", "git_rebasin", "otfusion", "fisher", "regmean", "zipit", "dro"),
    *("ties", "task_arithmetic"),
)
PATCHWISE = ("fisher", "regmean")
"""Merges that read convolutions as linear layers on patches, which depthwise ones are not."""


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks of another author."""
    register(monkeypatch, "net", depthwise=DepthwiseNet, dense=Dense)


def merged(method: str, architecture: str) -> dict[str, torch.Tensor]:
    kind, generator = registry.load("method", method), torch.Generator().manual_seed(0)
    pool = tiny_pool((architecture,) * 3, 5, 16, generator)
    start = tiny_net(generator, architecture, 5, 16).state_dict()
    pool = Pool(pool.teachers, "p", {pool[0].spec: start})
    config = {key: value for key, value in QUICK.items() if key in kind.Config.model_fields}
    context = tiny_context(kind, pool, net=NetSpec(architecture, 5, 16), config=config)
    assert kind().skip(context) is None
    return kind().fit(context)


@pytest.mark.parametrize("method", [name for name in MERGES if name not in PATCHWISE])
def test_merges_serve_a_network_of_another_author(method: str) -> None:
    found = merged(method, "depthwise")
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize(
    ("method", "architecture", "reason"),
    [
        *((name, "depthwise", "a convolution of 8 groups is no linear") for name in PATCHWISE),
        *((name, "dense", "cannot be followed through 'cat'") for name in ("git_rebasin", "zipit")),
    ],
)
def test_a_merge_that_cannot_serve_a_network_says_why(
    method: str, architecture: str, reason: str
) -> None:
    with pytest.raises(Skip, match=reason):
        merged(method, architecture)


def test_the_harness_records_it_as_skipped(tmp_path: Path) -> None:
    config = GitRebasin.Config().model_dump(mode="json")
    update = {"method": "git_rebasin", "method_config": config}
    update |= {"architectures": ("dense",), "net": "dense"}
    cell = cell_of("average").model_copy(update=update)
    record = run_toy(cell, toy_data(), tmp_path).record
    assert record.status == "skipped"
    assert record.reason.startswith("the channels of Dense cannot be followed through 'cat'")


def test_a_network_says_how_it_is_trained() -> None:
    assert recipe_for("conv4_pooled", 3, "best") == recipe_for("conv4", 3, "best")
    assert recipe_for("torchvision:resnet18", 3, "best") == recipe_for("resnet10", 3, "best")
    own = recipe_for("depthwise", 3, "last", 0.5)
    assert (own.optimiser, own.lr, own.momentum) == ("sgd", 0.2, 0.0)
    assert (own.epochs, own.checkpoint, own.decay) == (3, "last", 0.5)
    assert recipe_for("dense", 3, "best") == recipe_for("resnet10", 3, "best")  # a plain module
    assert issubclass(Dense, nn.Module)
