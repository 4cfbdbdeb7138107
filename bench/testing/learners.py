"""Checks of learners, around a small network, in each mode of batch norm."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import suppress
from typing import TypeVar, get_args

import torch
import torch.nn.functional as F

from bench import registry
from bench.contract import (
    Backbone,
    BnMode,
    DrawingLearner,
    EmbeddingLearner,
    InnerLoopLearner,
    Learner,
    MetaLearner,
    MetricLearner,
    TaskBatch,
    TaskEmbeddingLearner,
)
from bench.errors import BenchError, Skip
from bench.learners.base import LearnerSettings
from bench.testing.checks import Check, require
from bench.testing.rules import (
    predicted,
    require_close,
    require_docstring,
    require_public_imports,
    require_queries_alone,
    require_tasks_apart,
    require_unchanged,
    some_tasks,
    state_of,
    task_slice,
    untouched_global_state,
)
from bench.testing.tiny import tiny_net

CAPABILITIES = (
    *(TaskEmbeddingLearner, EmbeddingLearner, DrawingLearner),
    *(MetaLearner, InnerLoopLearner, MetricLearner),
)


AnyLearner = TypeVar("AnyLearner", bound=Learner)


class LearnerSubject:
    """A learner's class, and instances of it.

    Args:
        name: the registered name.
        net: architecture of the network.
    """

    def __init__(self, name: str, net: str = "conv4") -> None:
        self.name, self.net = name, net
        self.kind: type[Learner] = registry.load("learner", name)

    def network(self) -> Backbone:
        """Return the network, with random weights and statistics."""
        net = tiny_net(torch.Generator().manual_seed(3), self.net, 5, 16)
        return net.requires_grad_(False).eval()

    def around(self, net: Backbone, settings: LearnerSettings) -> Learner:
        """Return a learner around a network."""
        return registry.load("learner", self.name)(net, settings)

    def make(self, bn: BnMode = "transductive") -> Learner:
        """Return a learner around the network.

        Raises:
            Skip: it cannot serve this mode of batch norm.
        """
        try:
            return self.around(self.network(), LearnerSettings(bn=bn))
        except BenchError as error:
            raise Skip(f"bn {bn}: {error}") from None

    def served(self) -> Iterator[Learner]:
        """Yield a learner for each mode of batch norm that it serves."""
        modes: tuple[BnMode, ...] = get_args(BnMode)
        refused = []
        for bn in modes:
            try:
                yield self.make(bn)
            except Skip as skip:
                refused.append(str(skip))
        if len(refused) == len(modes):
            raise Skip("; ".join(refused))

    def offering(self, kind: type[AnyLearner]) -> list[AnyLearner]:
        """Return the learners that offer a capability.

        Raises:
            Skip: none does.
        """
        found = [one for one in self.served() if isinstance(one, kind)]
        if not found:
            raise Skip(f"it is no {kind.__name__}")
        return found


def declares_what_the_contract_asks(subject: LearnerSubject) -> str:
    """Is a subclass of Learner, with a docstring."""
    require(issubclass(subject.kind, Learner), f"{subject.kind} is no subclass of Learner")
    require_docstring(subject.kind)
    offered = {kind.__name__ for kind in CAPABILITIES if isinstance(subject.make(), kind)}
    return f"offers {', '.join(sorted(offered))}" if offered else ""


def imports_only_what_plug_ins_may(subject: LearnerSubject) -> None:
    """Imports no part of the harness that is not meant for plug-ins."""
    require_public_imports(subject.kind)


def predicts_every_task(subject: LearnerSubject) -> None:
    """Predicts in each mode of batch norm: finite logits, no graph, twice the same."""
    for learner in subject.served():
        first = predicted(learner, some_tasks())
        with untouched_global_state():
            require(
                torch.equal(first, predicted(learner, some_tasks())),
                "a repeated prediction differs",
            )
        require(learner.n_parameters > 0, f"n_parameters is {learner.n_parameters}")


def predicts_each_task_by_itself(subject: LearnerSubject) -> None:
    """Predicts a task in the same way alone and in a batch with others."""
    for learner in subject.served():
        require_tasks_apart(functools.partial(_from, learner), some_tasks())


def _from(learner: Learner, tasks: TaskBatch, first: int) -> torch.Tensor:
    given = tasks.support_x, tasks.support_y, tasks.query_x
    if isinstance(learner, DrawingLearner):
        return learner.predict_from(first, *given)
    return learner.predict(*given)


def follows_the_order_of_queries(subject: LearnerSubject) -> None:
    """Predicts queries in another order as it did in the first."""
    tasks = some_tasks()
    order = torch.randperm(tasks.query_x.shape[1], generator=torch.Generator().manual_seed(5))
    for learner in subject.served():
        whole = predicted(learner, tasks)
        moved = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x[:, order])
        require_close(moved, whole[:, order], "the order of the queries changes their logits")


def predicts_queries_alone_unless_transductive(subject: LearnerSubject) -> str:
    """Predicts a query alike whatever the others are, unless it or batch norm is transductive."""
    if subject.kind.transductive:
        return "transductive in every mode of batch norm"
    served = 0
    for bn in get_args(BnMode):
        with suppress(Skip):
            if bn != "transductive":
                require_queries_alone(functools.partial(predicted, subject.make(bn)), some_tasks())
                served += 1
    return "" if served else "serves no inductive mode of batch norm"


def leaves_its_network_alone(subject: LearnerSubject) -> None:
    """Leaves the weights of its network as they are."""
    net = subject.network()
    learner = subject.around(net, LearnerSettings())
    before = state_of(net)
    predicted(learner, some_tasks())
    require_unchanged(net, before, "its network")


def embeds_images_one_by_one(subject: LearnerSubject) -> None:
    """Embeds an image independently of the others; predicts the same from embeddings."""
    tasks = task_slice(some_tasks(), slice(0, 1))
    for learner in subject.offering(EmbeddingLearner):
        support, query = learner.embed(tasks.support_x[0]), learner.embed(tasks.query_x[0])
        require_close(
            learner.embed(tasks.query_x[0, :1])[0],
            query[0],
            "an image has another embedding if it is alone",
        )
        found = learner.predict_embedded(support[None], tasks.support_y, query[None])
        require_close(found, predicted(learner, tasks), "predictions from embeddings differ")


def embeds_each_task_by_itself(subject: LearnerSubject) -> None:
    """Embeds support set and queries in one space; a task alone as among others."""
    tasks = some_tasks()
    for learner in subject.offering(TaskEmbeddingLearner):
        found = learner.embed_tasks(tasks.support_x, tasks.query_x)
        for e, labels in zip(found, (tasks.support_y, tasks.query_y), strict=True):
            wanted = (*labels.shape, found[0].shape[-1])
            require(tuple(e.shape) == wanted, f"embeddings are {tuple(e.shape)}, wanted {wanted}")
            require(not e.requires_grad, "embeddings carry a graph; embed without gradients")
        alone = learner.embed_tasks(tasks.support_x[1:2], tasks.query_x[1:2])
        for one, several in zip(alone, found, strict=True):
            require_close(one[0], several[1], "a task is embedded otherwise when alone")
        require(learner.n_way(tasks.support_y) == int(tasks.support_y.max()) + 1, "n_way is wrong")


def draws_by_the_place_in_the_list(subject: LearnerSubject) -> None:
    """Draws for each task by its place in the list, whatever its batch is."""
    tasks = some_tasks()
    for learner in subject.offering(DrawingLearner):
        whole = _from(learner, tasks, 0)
        rest = _from(learner, task_slice(tasks, slice(1, None)), 1)
        require_close(rest, whole[1:], "predictions depend on how tasks are divided into batches")


def can_be_meta_trained(subject: LearnerSubject) -> None:
    """Returns query losses whose gradients reach parameters and images."""
    tasks = some_tasks()
    for learner in subject.offering(MetaLearner):
        params = {
            name: parameter.detach().clone().requires_grad_()
            for name, parameter in subject.network().named_parameters()
        }
        given = TaskBatch(
            tasks.support_x.clone().requires_grad_(),
            tasks.support_y,
            tasks.query_x.clone().requires_grad_(),
            tasks.query_y,
        )
        losses, logits = learner.outer_loss(params, given)
        require(losses.shape == (len(tasks),), f"losses are {tuple(losses.shape)}")
        wanted = F.cross_entropy(logits.transpose(1, 2), tasks.query_y, reduction="none").mean(1)
        require_close(losses.detach(), wanted.detach(), "losses are not those of the logits")
        losses.sum().backward()
        require(any(p.grad is not None for p in params.values()), "no gradient reaches parameters")
        for name in ("support_x", "query_x"):
            reached = getattr(given, name).grad
            require(reached is not None and bool(reached.abs().sum() > 0), f"none reaches {name}")


def adapts_its_parameters(subject: LearnerSubject) -> None:
    """Returns all parameters after the inner loop, some of them changed."""
    tasks = some_tasks()
    for learner in subject.offering(InnerLoopLearner):
        before = dict(subject.network().named_parameters())
        after = learner.adapt(before, tasks.support_x[0], tasks.support_y[0])
        require(
            after.keys() == before.keys(), "adapt returns names that differ from those it was given"
        )
        moved = [name for name, value in after.items() if not torch.equal(value, before[name])]
        require(moved, "adapt changes nothing")


def serves_normalised_features(subject: LearnerSubject) -> None:
    """Predicts on normalised features; the temperature scales its logits."""
    for learner in subject.offering(MetricLearner):
        cold, warm = (learner.on_normalised_features(t) for t in (0.1, 1.0))
        require(isinstance(cold, MetricLearner), "on_normalised_features returns another kind")
        tasks = some_tasks()
        require_close(0.1 * predicted(cold, tasks), predicted(warm, tasks), "logits do not scale")


SUBJECTS = {"learner": LearnerSubject}
CHECKS: dict[str, tuple[Check, ...]] = {
    "learner": (
        declares_what_the_contract_asks,
        imports_only_what_plug_ins_may,
        predicts_every_task,
        predicts_each_task_by_itself,
        follows_the_order_of_queries,
        predicts_queries_alone_unless_transductive,
        leaves_its_network_alone,
        embeds_images_one_by_one,
        embeds_each_task_by_itself,
        draws_by_the_place_in_the_list,
        can_be_meta_trained,
        adapts_its_parameters,
        serves_normalised_features,
    )
}
