"""Precisions change the rounding of the features and nothing else, and float32 is float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.errors import BenchError
from bench.execute.plan import Request, make_plan
from bench.execute.run import check_plan
from bench.inversion.losses import InversionWeights
from bench.learners import batching
from bench.learners.base import LearnerSettings
from bench.learners.maml import Maml
from bench.learners.protonet import ProtoNet
from bench.nets.norm import RecordingNorm, batch_norm, running_norm
from bench.nets.precision import check_precision, computing_in, current_precision
from bench.suites.expand import expand
from bench.suites.suite import read_suite
from purer.gradients import offered_backends
from tests.helpers import cell_of, run_toy, tiny_net, tiny_pool, tiny_tasks, toy_data
from tests.purer.plain_gradients import PlainGradients

CPU = torch.device("cpu")
WEIGHTS = InversionWeights(1.0, 0.1, 1e-3, 1e-3)
SETTINGS = LearnerSettings()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rounded(x: torch.Tensor) -> torch.Tensor:
    return x.bfloat16().float()


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("architecture", ["conv4", "resnet10"])
@pytest.mark.parametrize("norm", [running_norm, batch_norm])
def test_bfloat16_features_are_near_float32_and_not_the_same(architecture, norm):
    net = tiny_net(generator(), architecture)
    images = torch.randn(6, 3, 16, 16, generator=generator(1))
    with torch.no_grad():
        exact = net.features(images, norm)
        with computing_in("bfloat16", CPU):
            found = net.features(images, norm)
        assert torch.equal(net.features(images, norm), exact)
    assert found.dtype == torch.float32
    assert 1e-4 < distance(found, exact) < 0.05


def test_one_bfloat16_layer_by_hand():
    """The first convolution: factors rounded, sum in float32, statistics of the rounded sum."""
    net = tiny_net(generator())
    images = torch.randn(4, 3, 16, 16, generator=generator(1))
    norm = RecordingNorm()
    with torch.no_grad(), computing_in("bfloat16", CPU):
        net.features(images, norm)
    conv = net.convs[0]
    with torch.no_grad():
        sums = torch.nn.functional.conv2d(
            rounded(images), rounded(conv.weight), rounded(conv.bias), padding=1
        )
    _, mean, variance = norm.layers[0]
    assert mean.dtype == variance.dtype == torch.float32
    torch.testing.assert_close(mean, rounded(sums).mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        variance, rounded(sums).var((0, 2, 3), correction=0), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("kind", [Maml, ProtoNet])
def test_tasks_one_by_one_and_batched_round_alike(kind, monkeypatch):
    net, tasks = tiny_net(generator()), tiny_tasks(generator(1))
    learner = kind(net, SETTINGS)
    given = (tasks.support_x, tasks.support_y, tasks.query_x)
    exact = learner.predict(*given)
    with computing_in("bfloat16", CPU):
        single = learner.predict(*given)
        monkeypatch.setattr(batching, "batches_tasks", lambda device: True)
        together = learner.predict(*given)
    for found in (single, together):
        assert found.dtype == torch.float32
        assert 1e-4 < distance(found, exact) < 0.1


def test_meta_gradients_keep_their_direction_and_type():
    net = tiny_net(generator(), size=32).requires_grad_(True)
    tasks = tiny_tasks(generator(1), size=32)
    params = dict(net.named_parameters())

    def gradient() -> torch.Tensor:
        loss = Maml(net, SETTINGS).outer_loss(params, tasks)[0].sum()
        parts = torch.autograd.grad(loss, list(params.values()), materialize_grads=True)
        assert {part.dtype for part in parts} == {torch.float32}
        return torch.cat([part.flatten() for part in parts])

    exact = gradient()
    with computing_in("bfloat16", CPU):
        found = gradient()
    assert not torch.equal(found, exact)
    assert torch.cosine_similarity(found, exact, dim=0) > 0.95


def test_every_backend_of_inversion_rounds_as_much():
    """`fused` has a hand-written backward pass; it must be no further off than automatic ones."""
    pool = tiny_pool(["conv4", "conv4"], 5, 16, generator())
    labels = [torch.arange(5).repeat_interleave(4)] * 2
    blocks = [torch.randn(20, 3, 16, 16, generator=generator(i)) for i in range(2)]
    plain = PlainGradients(pool, labels, WEIGHTS)
    exact, terms = plain([0, 1], blocks)
    off = {}
    backends = {**offered_backends(pool, labels, WEIGHTS, 2**30), "plain": lambda: plain}
    for name, make in backends.items():
        with computing_in("bfloat16", CPU):
            found, found_terms = make()([0, 1], blocks)
        torch.testing.assert_close(found_terms, terms, rtol=2e-2, atol=1e-3)
        off[name] = distance(torch.stack(found), torch.stack(exact))
    assert set(off) == {"plain", "fused", "stacked"}
    assert all(1e-3 < value < 0.4 for value in off.values())
    assert off["fused"] < 1.5 * off["plain"]


def test_the_block_ends_what_it_began_even_by_an_error():
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    def fail() -> None:
        with computing_in("bfloat16", CPU):
            with computing_in("float32", CPU):
                assert current_precision() == "float32"
                assert not torch.backends.cudnn.allow_tf32
            assert current_precision() == "bfloat16"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert current_precision() == "float32"
    assert flags == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


def test_tf32_is_switched_on_by_its_name_alone():
    device = torch.device("cuda")  # only its name is looked at
    for precision, allowed in (("tf32", True), ("float32", False), ("bfloat16", False)):
        with computing_in(precision, device):
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
            assert torch.backends.cudnn.allow_tf32 is allowed


def test_tf32_on_a_cpu_is_refused_before_any_cell_runs(cache: Path, tmp_path: Path):
    with pytest.raises(BenchError, match=r"precision = tf32 on a cpu.*use float32"):
        check_precision("tf32", CPU)
    plan = make_plan("micro", ["protocol.precision=tf32"], [], None, cache, None, {})
    request = Request(tmp_path / "runs", cache, None, {}, "cpu", 1, "")
    with pytest.raises(BenchError, match="precision = tf32"):
        check_plan(plan, request)


def test_precision_is_part_of_a_cell_and_of_its_name():
    suite, overrides = read_suite("micro", ["protocol.precision=bfloat16"])
    plain = expand(*read_suite("micro"))[0]
    other = expand(suite, overrides)[0]
    assert plain.hash({}) != other.hash({})
    assert other.variant == "precision=bfloat16"
    assert "precision" not in plain.protocol.identity()


def test_a_cell_in_bfloat16_shares_its_teachers_and_differs_in_its_fit(tmp_path: Path):
    data = toy_data()
    exact = run_toy(cell_of("purer"), data, tmp_path).record
    found = run_toy(cell_of("purer", "protocol.precision=bfloat16"), data, tmp_path).record
    assert found.status == exact.status == "done"
    assert found.pool.sha256 == exact.pool.sha256
    assert found.fit.sha256 != exact.fit.sha256
    assert found.protocol["precision"] == "bfloat16"
    assert current_precision() == "float32"


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_precisions_on_cuda(cuda: torch.device, precision: str):
    net = tiny_net(generator(), "resnet10").to(cuda)
    images = torch.randn(8, 3, 16, 16, generator=generator(1))
    with torch.no_grad():
        exact = tiny_net(generator(), "resnet10").double().features(images.double())
        with computing_in(precision, cuda):
            found = net.features(images.to(cuda)).cpu().double()
    bounds = {"float32": (0, 1e-5), "tf32": (1e-6, 5e-3), "bfloat16": (1e-4, 0.05)}
    low, high = bounds[precision]
    assert low <= distance(found, exact) < high
