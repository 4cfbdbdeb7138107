"""The loop that speed is measured against computes the same losses as PURER's own steps."""

from __future__ import annotations

import pytest
import torch

from bench.contract import NetSpec, TaskShape
from bench.nets.build import build_net
from tests.perf.meta_iteration import MetaIterations, drawn_pool

BACKENDS = ("plain", "fused", "stacked")


@pytest.mark.parametrize(
    ("k_shot", "backend", "n"),
    [(1, "plain", 2), (1, "fused", 2), (1, "stacked", 3), (3, "stacked", 2)],
)
def test_losses_of_meta_iterations_agree(tmp_path, backend, k_shot, n):
    """In float64, for Adam turns rounding of float32 into another path of the pixels.

    Adam's memory counts from the second iteration on.
    """
    both = MetaIterations(drawn_pool(2, image_size=16), tmp_path, k_shot, backend, torch.float64)
    assert both.shape == TaskShape(5, k_shot, 15)
    start = both.dataset.images.detach().clone()
    for _ in range(n):
        offsets, tasks = both.draw()
        expected = both.theirs(offsets, tasks)
        assert both.ours(tasks) == pytest.approx(expected, rel=1e-8)
    assert (both.dataset.images - start).abs().mean() > 0.1
    torch.testing.assert_close(both.dataset.images, both.reference.images, rtol=0, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_agree_in_float32(tmp_path, backend):
    both = MetaIterations(drawn_pool(3, image_size=16), tmp_path, 1, backend)
    offsets, tasks = both.draw()
    assert both.ours(tasks) == pytest.approx(both.theirs(offsets, tasks), rel=1e-5)


def test_the_reference_builds_the_network_that_teachers_are(tmp_path):
    both = MetaIterations(drawn_pool(1, image_size=16), tmp_path, 1)
    ours = build_net(NetSpec("conv4", 5, 16)).state_dict()
    theirs = both.reference.net.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
