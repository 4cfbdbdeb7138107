"""Distributionally robust fusion: a small network gives coefficients over teachers' weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from baselines.merging._channels import State
from baselines.merging._merging import Merge, MergeConfig, on_host, states_of
from bench.contract import FitContext, Teacher
from bench.training.initialisation import average_state


class DroConfig(MergeConfig):
    """Fusion network and adversary; the paper's code is not public, so all values are ours."""

    embedding_size: int = Field(16, ge=1)
    """length of a teacher's embedding, which lies on the unit sphere. Ours."""
    hidden_units: int = Field(64, ge=1)
    """width of the fusion network's hidden layer. Ours."""
    radius: float = Field(0.5, ge=0)
    """Wasserstein-2 radius: root mean square of how far embeddings are moved. Ours."""
    ascent_steps: int = Field(3, ge=0)
    """gradient steps of the adversary in a training step. Ours."""
    steps: int = Field(200, ge=1)
    """training steps. Ours."""
    lr: float = Field(0.01, gt=0)
    """Adam's rate. Ours."""


class Dro(Merge[DroConfig]):
    """A network maps each teacher's embedding to weights, trained on adversarial embeddings.

    Our reading of Wang et al., "Meta-Learning without Data via Wasserstein
    Distributionally-Robust Model Fusion", UAI 2022; its code is not public, so call it
    "DRO-style". The network is trained to give each teacher's weights from the teacher's
    embedding, at the worst distribution of embeddings within a Wasserstein ball around them. The
    meta-model is its output at the mean embedding.

    Ours: the network outputs N coefficients c_i, for weights = mean + Σ c_i (teacher i - mean);
    gradient descent from zero would keep a full output layer in this span as well. The error
    weights all entries equally, by the teachers' spread in them. The ball is explored by gradient
    ascent on each embedding. Batch norm statistics are averaged.
    """

    name = "dro"
    Config = DroConfig

    def merge(
        self, context: FitContext[DroConfig], teachers: Sequence[Teacher]
    ) -> dict[str, Tensor]:
        """Train the network and mix the weights with its coefficients at the mean embedding."""
        states = states_of(teachers, context.config.head)
        names = [n for n, _ in teachers[0].net.named_parameters() if n in states[0]]
        merged = average_state(states)
        gram = deviation_gram(states, names)
        coefficients = robust_coefficients(on_host(gram), context)
        for name in names:
            stacked = torch.stack([state[name].double() for state in states])
            mean = stacked.mean(0)
            step = torch.tensordot(coefficients.to(stacked.device), stacked - mean, dims=1)
            merged[name] = (mean + step).to(merged[name].dtype)
        return merged


def deviation_gram(states: Sequence[State], names: Sequence[str]) -> Tensor:
    """Return the inner products (N, N) of the states' deviations from their mean, float64.

    Each entry is scaled to the same spread, and the whole to trace N; equal states give 0.
    """
    device = states[0][names[0]].device
    total = torch.zeros(len(states), len(states), dtype=torch.float64, device=device)
    for name in names:
        stacked = torch.stack([state[name].double().flatten() for state in states])
        deviation = stacked - stacked.mean(0)
        inner = deviation @ deviation.T
        spread = inner.trace()
        differ = spread > 1e-20 * stacked.square().sum()
        total += torch.where(differ, inner / spread, 0.0)
    return torch.where(total.trace() > 0, total * (len(states) / total.trace()), total)


def robust_coefficients(gram: Tensor, context: FitContext[DroConfig]) -> Tensor:
    """Return the coefficients (N,) at the mean embedding, float64, on the CPU.

    The error of coefficients c for teacher i is (c - e_i)ᵀ G (c - e_i), e_i the unit vector: the
    squared distance between the mixed weights and the teacher's.
    """
    config, generator = context.config, context.generator("fusion network")
    n = len(gram)
    embeddings = _normal((n, config.embedding_size), 1.0, generator)
    first = _normal((config.hidden_units, config.embedding_size), 1.0, generator)
    shift = torch.zeros(config.hidden_units, dtype=torch.float64)
    second = torch.zeros(n, config.hidden_units, dtype=torch.float64)
    learnt = [embeddings, first, shift, second]
    for tensor in learnt:
        tensor.requires_grad_()
    optimiser = torch.optim.Adam(learnt, lr=config.lr)

    def network(points: Tensor) -> Tensor:
        return torch.tanh(points @ first.T + shift) @ second.T

    def error(points: Tensor) -> Tensor:
        difference = network(points) - torch.eye(n, dtype=torch.float64)
        return ((difference @ gram) * difference).sum(1).mean()

    for step in range(1, config.steps + 1):
        points = F.normalize(embeddings, dim=1)
        moves = worst_moves(error, points.detach(), config.radius, config.ascent_steps, generator)
        loss = error(points + moves)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        context.log.scalars(step, {"robust_error": loss.detach()})
        context.log.progress(step, config.steps)
    with torch.no_grad():
        return network(F.normalize(embeddings, dim=1).mean(0, keepdim=True))[0]


def worst_moves(
    error: Callable[[Tensor], Tensor],
    points: Tensor,
    radius: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Return displacements (N, d) that raise an error, of root mean square length ≤ radius.

    A distribution within Wasserstein-2 distance `radius` of the points is reached by moving each
    of them; gradient ascent with steps of the radius over `steps`, from a small random move.
    """
    if radius == 0 or steps == 0:
        return torch.zeros_like(points)
    moves = _into_ball(_normal(tuple(points.shape), 1.0, generator), 0.01 * radius)
    for _ in range(steps):
        moves.requires_grad_()
        (gradient,) = torch.autograd.grad(error(points + moves), moves)
        length = gradient.square().sum(1).mean().sqrt()
        ascent = gradient * (2 * radius / steps / length.clamp_min(1e-12))
        moves = _into_ball(moves.detach() + ascent, radius)
    return moves


def _into_ball(moves: Tensor, radius: float) -> Tensor:
    length = moves.square().sum(1).mean().sqrt()
    return moves * (radius / length.clamp_min(radius)) if radius > 0 else torch.zeros_like(moves)


def _normal(size: tuple[int, ...], scale: float, generator: torch.Generator) -> Tensor:
    return scale * torch.randn(size, generator=generator, dtype=torch.float64)
