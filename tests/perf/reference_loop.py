"""A meta-iteration with the cost structure of the published code, written for comparison only.

For each teacher and meta-iteration it builds the network, loads its file, deep-copies it and
registers a forward hook on each BN layer; one backward pass of the sum of all losses follows, in
which the teachers' weights get gradients too; then four tasks, one after another, in second-order
MAML. Layers stand in the published order: convolution, BN, ReLU, pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.contract import Pool, TaskBatch
from bench.inversion.losses import InversionWeights


class ReferenceConv4(nn.Module):
    """The layers of `Conv4` under the same names, in the published order."""

    def __init__(self, n_classes: int, n_features: int, channels: int):
        super().__init__()
        widths = [3, *[channels] * 4]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(4))
        self.head = nn.Linear(n_features, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, n_classes) of images (B, 3, H, W)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(conv(x))), 2)
        return self.head(x.flatten(1))


class StatisticsHook:
    """Keeps the distance between a BN layer's stored statistics and its input's."""

    def __init__(self, layer: nn.BatchNorm2d):
        self.distance: Tensor | None = None
        self._handle = layer.register_forward_hook(self._look)

    def _look(self, layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        x = inputs[0]
        mean = x.mean((0, 2, 3))
        variance = x.permute(1, 0, 2, 3).reshape(x.shape[1], -1).var(1, correction=0)
        self.distance = (layer.running_var - variance).norm() + (layer.running_mean - mean).norm()

    def close(self) -> None:
        self._handle.remove()


class ReferenceLoop:
    """The published structure of a meta-iteration.

    Args:
        pool: Conv4 teachers.
        folder: where their files go.
        images: the initial pixels (n_classes, M, 3, H, W).
        rows: the rows of each teacher's classes.
        net: the state of the meta-model.
        weights: factors of the inversion terms.
        pixel_lr, inner_lr, outer_lr: rates.
    """

    def __init__(
        self,
        pool: Pool,
        folder: Path,
        images: Tensor,
        rows: Sequence[Tensor],
        net: nn.Module,
        weights: InversionWeights,
        pixel_lr: float = 0.25,
        inner_lr: float = 0.01,
        outer_lr: float = 1e-3,
    ):
        self._shapes = [
            (t.spec.n_classes, t.net.n_features, len(t.net.norms[0].bias)) for t in pool
        ]
        self._files = [folder / f"{index}.pt" for index in range(len(pool))]
        for teacher, file in zip(pool, self._files, strict=True):
            torch.save(teacher.net.state_dict(), file)
        self.images = images.detach().clone().requires_grad_()
        self.rows, self._weights, self._inner_lr = rows, weights, inner_lr
        self.net = ReferenceConv4(net.head.out_features, net.n_features, len(net.norms[0].bias))
        self.net.to(images).load_state_dict(net.state_dict())
        self._pixel_optimiser = torch.optim.Adam([self.images], lr=pixel_lr)
        self._outer_optimiser = torch.optim.Adam(self.net.parameters(), lr=outer_lr)

    def pixel_step(self, offsets: Sequence[Sequence[int]]) -> float:
        """Make one pixel step; return the sum of the teachers' inversion losses before it."""
        self._pixel_optimiser.zero_grad()
        total = 0
        for index, (dy, dx) in enumerate(offsets):
            total = total + self._teacher_loss(index, dy, dx)
        total.backward()
        self._pixel_optimiser.step()
        return total.item()

    def _teacher_loss(self, index: int, dy: int, dx: int) -> Tensor:
        net = ReferenceConv4(*self._shapes[index]).to(self.images)
        place = self.images.device
        net.load_state_dict(torch.load(self._files[index], map_location=place, weights_only=True))
        net = deepcopy(net).eval()
        hooks = [StatisticsHook(layer) for layer in net.norms]
        rows = self.rows[index]
        x = torch.roll(self.images[rows].flatten(0, 1), (dy, dx), (2, 3))
        labels = torch.arange(len(rows), device=place).repeat_interleave(self.images.shape[1])
        loss = self._weights.cross_entropy * F.cross_entropy(net(x), labels)
        for hook in hooks:
            loss = loss + self._weights.bn_statistics * hook.distance
            hook.close()
        differences = (
            x[:, :, :, :-1] - x[:, :, :, 1:],
            x[:, :, :-1] - x[:, :, 1:],
            x[:, :, :-1, :-1] - x[:, :, 1:, 1:],
            x[:, :, 1:, :-1] - x[:, :, :-1, 1:],
        )
        variation = sum(torch.norm(d) for d in differences)
        return loss + self._weights.total_variation * variation + self._weights.l2 * torch.norm(x)

    def meta_step(self, tasks: TaskBatch) -> float:
        """Make one outer step; return the sum of the tasks' query losses before it."""
        self._outer_optimiser.zero_grad()
        losses = [self._task_loss(*task) for task in zip(*vars(tasks).values(), strict=True)]
        total = torch.stack(losses).sum()
        total.backward()
        self._outer_optimiser.step()
        return total.item()

    def _task_loss(self, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y) -> Tensor:
        parameters = dict(self.net.named_parameters())
        loss = F.cross_entropy(self._functional(parameters, support_x), support_y)
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        adapted = {
            name: value - self._inner_lr * gradient
            for (name, value), gradient in zip(parameters.items(), gradients, strict=True)
        }
        return F.cross_entropy(self._functional(adapted, query_x), query_y)

    def _functional(self, p: dict[str, Tensor], x: Tensor) -> Tensor:
        """Return the logits at given parameters, BN by the batch."""
        for i in range(4):
            x = F.conv2d(x, p[f"convs.{i}.weight"], p[f"convs.{i}.bias"], padding=1)
            scale, shift = p[f"norms.{i}.weight"], p[f"norms.{i}.bias"]
            x = F.batch_norm(x, None, None, scale, shift, training=True)
            x = F.max_pool2d(F.relu(x), 2)
        return F.linear(x.flatten(1), p["head.weight"], p["head.bias"])
