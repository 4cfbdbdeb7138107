"""Pools in Python: a user's own modules without files, and pools by name and folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bench
from bench.contract import Budget, Pool
from bench.nets.build import build_net
from bench.teachers.transfer import export_pool, import_pool


def fitted(
    in_python: SimpleNamespace, small: Budget, method: str, pool: Pool
) -> bench.FittedLearner:
    words = {"budget": small, "cache": in_python.cache, "device": "cpu"}
    return bench.fit(method, pool, in_python.data, **words)


class Plain(nn.Sequential):
    """A classifier of a user's own, which knows nothing of this package."""

    def __init__(self, n_classes: int) -> None:
        convolution = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()
        super().__init__(
            *convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n_classes)
        )


def test_the_nets_of_a_pool_make_the_same_pool(in_python: SimpleNamespace, small: Budget) -> None:
    pool, data = in_python.pool, in_python.data
    parts = ([t.net for t in pool], [t.class_names for t in pool], [t.accuracy for t in pool])
    own = bench.make_pool(*parts, data)
    assert [t.spec for t in own] == [t.spec for t in pool]
    assert [t.class_ids for t in own] == [t.class_ids for t in pool]
    assert own.sha256 == bench.make_pool(*parts, data).sha256 != pool.sha256
    ours, theirs = (
        bench.evaluate(fitted(in_python, small, "average", one), data, n_tasks=4)
        for one in (own, pool)
    )
    np.testing.assert_array_equal(ours.accuracies, theirs.accuracies)


def test_foreign_modules_are_copied_and_take_images_as_they_were_trained(
    in_python: SimpleNamespace, small: Budget
) -> None:
    generator = torch.Generator().manual_seed(0)
    modules = [Plain(4).train(), Plain(4).train()]
    for weight in (weight for module in modules for weight in module.parameters()):
        weight.data = torch.randn(weight.shape, generator=generator)
    names = [["a", "b", "c", "d"], ["c", "d", "e", "f"]]
    words = {"image_size": 20, "mean": (0.25,) * 3, "std": (0.5,) * 3, "dataset": "mine"}
    pool = bench.make_pool(modules, names, [0.5, 0.75], in_python.data, **words)
    assert pool.n_classes == 6
    assert pool[0].spec.architecture == "python:Plain"
    assert all(module.training and list(module.children())[-1].out_features for module in modules)
    images = torch.rand(2, 3, 20, 20, generator=generator)
    torch.testing.assert_close(pool[1].net(images), modules[1].eval()(images))

    learner = fitted(in_python, small, "ensemble_centroids", pool)
    assert bench.evaluate(learner, in_python.data, n_tasks=4).accuracies.shape == (4,)
    assert [teacher.mean for teacher in pool] == [(0.25,) * 3] * 2  # the caller's is not adapted
    torch.testing.assert_close(pool[1].net(images), modules[1](images))
    with pytest.raises(bench.BenchError, match="method 'average' cannot use this pool: "):
        fitted(in_python, small, "average", pool)


def test_a_module_may_be_said_to_be_a_named_network(
    in_python: SimpleNamespace, small: Budget
) -> None:
    own = [build_net(in_python.pool[0].spec) for _ in range(2)]
    names = [list("abcde"), list("fghij")]
    pool = bench.make_pool(own, names, [0.5, 0.5], in_python.data, architectures=["conv4", None])
    assert pool.architectures == ("conv4",)
    assert fitted(in_python, small, "average", pool).cell.architectures == ("conv4",)


NET, NAMES = Plain(2), ["a", "b"]


@pytest.mark.parametrize(
    ("parts", "architectures", "expected"),
    [
        (([], [], []), None, "at least one module"),
        (([NET], [NAMES], []), None, "0 accuracies for 1 modules"),
        (([NET], [["a", "b", "c"]], [0.5]), None, "3 class names for 2 outputs"),
        (([NET], [["a", "a"]], [0.5]), None, "a class name is there twice"),
        (([NET], [NAMES], [1.5]), None, "accuracy"),
        (([nn.ReLU()], [NAMES], [0.5]), None, "no linear layer"),
        (([NET], [NAMES], [0.5]), ["conv4"], "the module is no conv4 for 2 classes"),
        (([NET], [NAMES], [0.5]), ["conv5"], "unknown net 'conv5'"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_in_one_line(
    in_python: SimpleNamespace, parts: Any, architectures: Any, expected: str
) -> None:
    with pytest.raises(bench.BenchError, match=expected) as caught:
        bench.make_pool(*parts, in_python.data, architectures=architectures)
    assert "\n" not in str(caught.value)


def test_pools_are_loaded_by_name_and_by_folder(in_python: SimpleNamespace, tmp_path: Path) -> None:
    export_pool(list(in_python.pool), "mine", "a test", tmp_path / "mine")
    import_pool(in_python.cache, "mine", tmp_path / "mine")
    folder = bench.load_pool(tmp_path / "mine")
    named = bench.load_pool("mine", cache=in_python.cache)
    assert folder.sha256 == named.sha256
    assert [t.sha256 for t in folder] == [t.sha256 for t in named]
    with pytest.raises(bench.BenchError, match="unknown pool 'yours'"):
        bench.load_pool("yours", cache=in_python.cache)
