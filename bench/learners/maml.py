"""MAML and ANIL: fit the support set by gradient steps, then predict."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from bench.contract import InnerLoopLearner
from bench.errors import BenchError
from bench.learners import batching
from bench.learners.base import FunctionalLearner, Params, count_ways
from bench.learners.norms import own_norm, query_output


class GradientLearner(FunctionalLearner, InnerLoopLearner):
    """Shared parts of MAML and ANIL: adaptation, then prediction; and the number of logits."""

    def task_logits(
        self,
        params: Params,
        support_x: Tensor,
        support_y: Tensor,
        query_x: Tensor,
        n_way: int | None = None,
    ) -> Tensor:
        """Adapt and predict one task; see `FunctionalLearner.task_logits`."""
        adapted = self.adapt(params, support_x, support_y)
        return query_output(
            self.settings.bn, lambda x, norm: self.logits(adapted, x, norm), support_x, query_x
        )

    def n_way(self, support_y: Tensor) -> int:
        """Return the outputs of the head, whatever the labels."""
        return self.net.head.out_features

    def check_labels(self, support_y: Tensor) -> int:
        """Return the number of classes of the tasks' labels (T, S).

        Raises:
            BenchError: a class has no support image, or the head has no output for it.
        """
        n_way = count_ways(support_y, self.settings.n_way)
        self._refuse_labels(n_way)
        return n_way

    def _refuse_labels(self, n_way: int) -> None:
        outputs = self.net.head.out_features
        if n_way > outputs:
            raise BenchError(
                f"labels run to {n_way - 1} but the head has {outputs} outputs; "
                f"build the net with n_classes = {n_way}"
            )

    def sgd(self, params: Params, gradient: Params) -> dict[str, Tensor]:
        """Return the parameters after one step; `first_order` takes the gradient as constant."""
        lr = self.settings.inner_lr
        if self.settings.first_order:
            gradient = {name: g.detach() for name, g in gradient.items()}
        return {name: p - lr * gradient[name] for name, p in params.items()}


class Maml(GradientLearner):
    """SGD on all parameters against the support's mean cross-entropy, then predict.

    Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017,
    algorithm 2. Departure, as in the released code of data-free meta-learning: batch norm uses the
    statistics of the current batch; `LearnerSettings.bn` offers other modes.
    """

    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> dict[str, Tensor]:
        """Return all parameters after the inner loop; see `InnerLoopLearner.adapt`."""
        norm = own_norm(self.settings.bn)

        def loss(params: Params) -> Tensor:
            return F.cross_entropy(self.logits(params, support_x, norm), support_y)

        params = dict(params)
        for _ in range(self.settings.inner_steps):
            params = self.sgd(params, self._gradient(loss, params, support_x.requires_grad))
        return params

    def _gradient(
        self, loss: Callable[[Params], Tensor], params: Params, images_count: bool
    ) -> dict[str, Tensor]:
        """Return the gradient of a loss; `grad` serves `vmap`, autograd alone is faster.

        It is differentiable where the parameters are, or the images (`images_count`).
        """
        if batching.batches_tasks(next(iter(params.values())).device):
            return grad(loss)(params)
        wanted = images_count or any(p.requires_grad for p in params.values())
        differentiable = wanted and torch.is_grad_enabled() and not self.settings.first_order
        with torch.enable_grad():
            params = {
                name: p if p.requires_grad else p.detach().requires_grad_()
                for name, p in params.items()
            }
            gradients = torch.autograd.grad(
                loss(params),
                list(params.values()),
                create_graph=differentiable,
                materialize_grads=True,
            )
        return dict(zip(params, gradients, strict=True))


class Anil(GradientLearner):
    """SGD on the head alone, over features that are computed once, then predict.

    Raghu et al., "Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of
    MAML", ICLR 2020, section 5. The outer gradient reaches head and body. Departure: batch norm
    as in `Maml`.
    """

    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> dict[str, Tensor]:
        """Return all parameters, of which the head's are new; see `InnerLoopLearner.adapt`."""
        support_e = self.features(params, support_x, own_norm(self.settings.bn))
        head = {name: params[f"head.{name}"] for name in ("weight", "bias")}
        for _ in range(self.settings.inner_steps):
            head = self.sgd(head, grad(_head_loss)(head, support_e, support_y))
        return {**params, **{f"head.{name}": value for name, value in head.items()}}


def _head_loss(head: Params, embeddings: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(embeddings, head["weight"], head["bias"]), labels)
