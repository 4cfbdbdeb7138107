"""MAML and ANIL: inner loop, meta-gradients, batching, BN modes."""

from __future__ import annotations

import itertools
import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.contract import TaskBatch, TaskShape
from bench.errors import BenchError
from bench.learners import batching
from bench.learners.base import LearnerSettings
from bench.learners.maml import Anil, Maml
from bench.learners.protonet import ProtoNet
from bench.nets.base import Backbone
from bench.nets.conv4 import Conv4
from bench.nets.norm import batch_norm, running_norm
from tests.helpers import tiny_net, tiny_tasks

BN_MODES = ("transductive", "support", "running")
LEARNERS = (Maml, Anil, ProtoNet)


def double(tasks: TaskBatch) -> TaskBatch:
    return TaskBatch(
        tasks.support_x.double(), tasks.support_y, tasks.query_x.double(), tasks.query_y
    )


def parameters(net: nn.Module) -> dict[str, Tensor]:
    return dict(net.named_parameters())


class TwoParameters(Backbone):
    """Logits (a·x, b·x), where x is the mean of the image."""

    def __init__(self, a: float, b: float):
        super().__init__()
        self.n_features = 1
        self.head = nn.Linear(1, 2, bias=False, dtype=torch.float64)
        self.head.weight.data = torch.tensor([[a], [b]], dtype=torch.float64)

    def features(self, x: Tensor, norm=running_norm) -> Tensor:
        return x.mean((1, 2, 3)).unsqueeze(1)


@pytest.mark.parametrize("first_order", [False, True])
def test_meta_gradient_of_two_parameters_matches_the_derivation(first_order):
    """One support image x of class 0, one query image z of class 0, one inner step of rate η.

    With d = a − b the losses are log(1 + e^(−d·x)) and log(1 + e^(−d'·z)). Let p = σ(−d·x). The
    support's gradient is (∂a, ∂b) = (−p·x, p·x), so d' = d + 2·η·p·x. As ∂p/∂d = −p·(1 − p)·x,
    ∂d'/∂d = 1 − 2·η·p·(1 − p)·x². With q = σ(−d'·z), the outer gradient is
    ∂a = −q·z·∂d'/∂d and ∂b = −∂a; to first order ∂d'/∂d counts as 1.
    """
    a, b, x, z, lr = 0.3, -0.2, 1.5, -0.7, 0.4
    p = 1 / (1 + math.exp((a - b) * x))
    adapted = a - b + 2 * lr * p * x
    q = 1 / (1 + math.exp(adapted * z))
    factor = 1.0 if first_order else 1 - 2 * lr * p * (1 - p) * x**2
    expected = torch.tensor([[-q * z * factor], [q * z * factor]], dtype=torch.float64)

    net = TwoParameters(a, b)
    learner = Maml(net, LearnerSettings(inner_lr=lr, inner_steps=1, first_order=first_order))
    images = [torch.full((1, 1, 3, 2, 2), v, dtype=torch.float64) for v in (x, z)]
    label = torch.zeros(1, 1, dtype=torch.long)
    losses, logits = learner.outer_loss(
        parameters(net), TaskBatch(images[0], label, images[1], label)
    )
    losses.sum().backward()

    assert logits.shape == (1, 1, 2)
    assert losses.item() == pytest.approx(math.log(1 + math.exp(-adapted * z)), rel=1e-12)
    torch.testing.assert_close(net.head.weight.grad, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bn", BN_MODES)
def test_inner_loop_is_sgd_on_a_copy(bn):
    generator = torch.Generator().manual_seed(1)
    net = tiny_net(generator).double()
    tasks = double(tiny_tasks(generator, 1))
    x, y = tasks.support_x[0], tasks.support_y[0]
    assert x.std() > 0.1
    adapted = Maml(net, LearnerSettings(inner_lr=0.1, inner_steps=3, bn=bn)).adapt(
        parameters(net), x, y
    )
    copy = deepcopy(net)
    optimiser = torch.optim.SGD(copy.parameters(), lr=0.1)
    norm = running_norm if bn == "running" else batch_norm
    for _ in range(3):
        optimiser.zero_grad()
        F.cross_entropy(copy(x, norm), y).backward()
        optimiser.step()
    for name, start in net.named_parameters():
        change = copy.get_parameter(name) - start
        torch.testing.assert_close(adapted[name] - start, change, rtol=1e-9, atol=1e-13)
    assert (adapted["head.weight"] - net.head.weight).abs().max() > 1e-3


def test_anil_is_sgd_on_the_head_alone_and_meta_learns_the_body():
    generator = torch.Generator().manual_seed(2)
    net = tiny_net(generator).double()
    tasks = double(tiny_tasks(generator, 1))
    learner = Anil(net, LearnerSettings(inner_lr=0.5, inner_steps=4))
    copy = deepcopy(net)
    optimiser = torch.optim.SGD(copy.head.parameters(), lr=0.5)
    for _ in range(4):
        optimiser.zero_grad()
        F.cross_entropy(copy(tasks.support_x[0], batch_norm), tasks.support_y[0]).backward()
        optimiser.step()
    expected = copy(tasks.query_x[0], batch_norm)
    losses, logits = learner.outer_loss(parameters(net), tasks)
    torch.testing.assert_close(logits[0], expected, rtol=1e-9, atol=1e-12)
    assert (expected - net(tasks.query_x[0], batch_norm)).abs().max() > 1e-2
    gradients = torch.autograd.grad(losses.sum(), list(net.parameters()))
    for (name, _), gradient in zip(net.named_parameters(), gradients, strict=True):
        cancelled = name.startswith("convs.") and name.endswith(".bias")  # by the batch's mean
        assert (gradient.abs().max() > 1e-8) != cancelled, name


@pytest.mark.parametrize("bn", BN_MODES)
@pytest.mark.parametrize("kind", LEARNERS)
def test_outer_gradient_is_the_slope_of_the_outer_loss(kind, bn):
    """Along a random direction of parameters and of both image sets, in float64."""
    generator = torch.Generator().manual_seed(3)
    net = tiny_net(generator).double()
    tasks = double(tiny_tasks(generator, 1, TaskShape(5, 2, 2)))
    learner = kind(net, LearnerSettings(inner_lr=0.1, inner_steps=2, bn=bn))
    values = {**parameters(net), "support_x": tasks.support_x, "query_x": tasks.query_x}
    values = {name: value.detach().requires_grad_() for name, value in values.items()}
    directions = {
        name: torch.randn(v.shape, generator=generator, dtype=torch.float64)
        for name, v in values.items()
    }

    def loss(step: float) -> Tensor:
        moved = {name: v + step * directions[name] for name, v in values.items()}
        images = moved.pop("support_x"), moved.pop("query_x")
        batch = TaskBatch(images[0], tasks.support_y, images[1], tasks.query_y)
        return learner.outer_loss(moved, batch)[0].sum()

    gradients = torch.autograd.grad(loss(0.0), list(values.values()), allow_unused=True)
    for (name, direction), gradient in zip(directions.items(), gradients, strict=True):
        assert (gradient is None) == (kind is ProtoNet and name.startswith("head."))
        directions[name] = direction if gradient is not None else torch.zeros_like(direction)
    slope = sum(
        (g * directions[name]).sum()
        for name, g in zip(directions, gradients, strict=True)
        if g is not None
    )
    step = 1e-8  # the inner gradient jumps where a ReLU or a maximum switches
    with torch.no_grad():
        numeric = (loss(step) - loss(-step)) / (2 * step)
    assert abs(slope) > 1e-3
    torch.testing.assert_close(slope, numeric, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("bn", BN_MODES)
@pytest.mark.parametrize("kind", LEARNERS)
def test_batched_tasks_equal_single_ones(kind, bn, monkeypatch):
    """Loop and vmap agree, in losses and second-order gradients; so do tasks given one by one."""
    generator = torch.Generator().manual_seed(4)
    net = tiny_net(generator).double()
    tasks = double(tiny_tasks(generator, 3))
    learner = kind(net, LearnerSettings(inner_steps=2, bn=bn))
    logits = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
    for index in range(3):
        single = learner.predict(
            tasks.support_x[index : index + 1],
            tasks.support_y[index : index + 1],
            tasks.query_x[index : index + 1],
        )
        torch.testing.assert_close(single[0], logits[index], rtol=1e-12, atol=1e-12)

    trained = [p for n, p in net.named_parameters() if kind is not ProtoNet or "head" not in n]
    results = []
    for batches in (False, True):
        monkeypatch.setattr(batching, "batches_tasks", lambda device, batches=batches: batches)
        losses, query_logits = learner.outer_loss(parameters(net), tasks)
        torch.testing.assert_close(query_logits, logits, rtol=1e-9, atol=1e-11)
        results.append(torch.autograd.grad(losses.sum(), trained))
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-11)


def test_vmap_in_chunks_equals_vmap_at_once(monkeypatch):
    generator = torch.Generator().manual_seed(5)
    learner = Maml(tiny_net(generator), LearnerSettings())
    tasks = tiny_tasks(generator, 5)
    monkeypatch.setattr(batching, "batches_tasks", lambda device: True)
    whole = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
    monkeypatch.setattr(batching, "CHUNK_BYTES", 2 * 4 * 64 * 4 * 16 * 16 * 20)
    assert batching.tasks_per_chunk(tasks.support_x, tasks.query_x) == 2
    parts = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", LEARNERS)
def test_predict_leaves_no_graph_and_changes_nothing(kind):
    generator = torch.Generator().manual_seed(6)
    net = tiny_net(generator)
    before = {name: v.clone() for name, v in net.state_dict().items()}
    tasks = tiny_tasks(generator, 2)
    state = torch.get_rng_state()
    first = kind(net, LearnerSettings()).predict(tasks.support_x, tasks.support_y, tasks.query_x)
    second = kind(net, LearnerSettings()).predict(tasks.support_x, tasks.support_y, tasks.query_x)
    assert not first.requires_grad
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[name]) for name, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("kind", [Maml, Anil])
def test_permuting_classes_and_head_rows_permutes_predictions(kind):
    generator = torch.Generator().manual_seed(7)
    net = tiny_net(generator).double()
    tasks = double(tiny_tasks(generator, 2))
    order = torch.tensor([3, 0, 4, 1, 2])  # class c becomes order[c]
    permuted = deepcopy(net)
    with torch.no_grad():
        permuted.head.weight[order] = net.head.weight
        permuted.head.bias[order] = net.head.bias
    settings = LearnerSettings(inner_lr=0.3, inner_steps=2)
    logits = kind(net, settings).predict(tasks.support_x, tasks.support_y, tasks.query_x)
    relabelled = kind(permuted, settings).predict(
        tasks.support_x, order[tasks.support_y], tasks.query_x
    )
    torch.testing.assert_close(relabelled[..., order], logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", LEARNERS)
def test_bn_modes_differ_as_their_names_say(kind):
    """Only in the transductive mode does a query's prediction depend on the other queries."""
    generator = torch.Generator().manual_seed(8)
    net = tiny_net(generator).double()
    tasks = double(tiny_tasks(generator, 1))
    outputs = {}
    for bn in BN_MODES:
        learner = kind(net, LearnerSettings(bn=bn))
        whole = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
        part = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x[:, :4])
        assert (part - whole[:, :4]).abs().max().item() > 1e-3 or bn != "transductive"
        if bn != "transductive":
            torch.testing.assert_close(part, whole[:, :4], rtol=1e-9, atol=1e-12)
        outputs[bn] = whole
    for left, right in itertools.combinations(BN_MODES, 2):
        assert (outputs[left] - outputs[right]).abs().max() > 1e-3


def test_first_order_differs_in_gradient_but_not_in_loss():
    generator = torch.Generator().manual_seed(9)
    net = tiny_net(generator).double()
    tasks = double(tiny_tasks(generator, 2))
    results = []
    for first_order in (False, True):
        settings = LearnerSettings(inner_lr=0.3, inner_steps=2, first_order=first_order)
        losses, _ = Maml(net, settings).outer_loss(parameters(net), tasks)
        results.append((losses, torch.autograd.grad(losses.sum(), net.head.weight)[0]))
    (loss_2, gradient_2), (loss_1, gradient_1) = results
    assert torch.equal(loss_1, loss_2)
    assert (gradient_1 - gradient_2).abs().max() > 1e-3


def test_labels_beyond_the_head_are_refused():
    generator = torch.Generator().manual_seed(10)
    tasks = tiny_tasks(generator, 1, TaskShape(7, 1, 1))
    with pytest.raises(BenchError, match="labels run to 6 but the head has 5 outputs"):
        Maml(tiny_net(generator), LearnerSettings()).predict(
            tasks.support_x, tasks.support_y, tasks.query_x
        )


def golden_net(golden) -> Conv4:
    names = {"conv": "convs", "bn": "norms"}
    state = {}
    for key, value in golden.items():
        if key.startswith("meta/"):
            state[local_name(key.removeprefix("meta/"), names)] = torch.from_numpy(value)
    net = Conv4(5, 32).double()
    net.load_state_dict(state)
    return net


def local_name(name: str, names: dict[str, str]) -> str:
    if not name.startswith("block"):
        return name
    block, kind, entry = name.split(".")
    return f"{names[kind]}.{block.removeprefix('block')}.{entry}"


@pytest.mark.golden
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("shots", [1, 5])
def test_maml_matches_the_published_implementation(golden, shots, steps, first_order):
    net = golden_net(golden)
    support, query = (
        torch.from_numpy(golden[f"{shots}shot/{kind}"]).unsqueeze(0).requires_grad_()
        for kind in ("support", "query")
    )
    labels = [torch.arange(5).repeat_interleave(n).unsqueeze(0) for n in (shots, 3)]
    settings = LearnerSettings(inner_lr=0.01, inner_steps=steps, first_order=first_order)
    losses, logits = Maml(net, settings).outer_loss(
        parameters(net), TaskBatch(support, labels[0], query, labels[1])
    )
    losses.sum().backward()
    order = "first" if first_order else "second"
    prefix = f"{shots}shot/{steps}step{'s' if steps > 1 else ''}/{order}_order/"
    assert losses.item() == pytest.approx(float(golden[prefix + "outer_loss"]), rel=1e-9)
    accuracy = 100 * (logits.argmax(-1) == labels[1]).double().mean().item()
    assert accuracy == pytest.approx(float(golden[prefix + "accuracy_percent"]), rel=1e-9)
    compared = 0
    for key, value in golden.items():
        if not key.startswith(prefix + "grad_norm/"):
            continue
        name = local_name(key.removeprefix(prefix + "grad_norm/"), {"conv": "convs", "bn": "norms"})
        norm = net.get_parameter(name).grad.norm().item()
        if key.endswith("conv.bias"):
            assert norm < 1e-12
        else:
            assert norm == pytest.approx(float(value), rel=1e-9)
        compared += 1
    assert compared == 18
    if prefix + "grad_support_norm" in golden:
        expected = [float(golden[f"{prefix}grad_{kind}_norm"]) for kind in ("support", "query")]
        assert support.grad.norm().item() == pytest.approx(expected[0], rel=1e-9)
        assert query.grad.norm().item() == pytest.approx(expected[1], rel=1e-9)
