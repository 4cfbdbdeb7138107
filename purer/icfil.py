"""ICFIL (inversion calibration following the inner loop) on one task: pure functions of tensors.

Our reading of ICFIL: the paper's figure and captions give the steps, and no code is public. See
`docs/icfil.md` for what the paper says and what is ours. First-order gradients are all it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import grad
from torch.linalg import vector_norm

from bench.contract import Config
from bench.inversion.losses import l2_loss, total_variation_loss
from bench.learners.centroids import unit
from bench.learners.maml import GradientLearner
from bench.learners.norms import own_norm
from bench.nets.norm import Norm, batch_statistics

Params = Mapping[str, Tensor]
Statistics = list[tuple[Tensor, Tensor]]
"""(mean (C,), biased variance (C,)) of the input of each batch norm layer, in passing order."""

ADAM_DECAY = (0.9, 0.999)
ADAM_EPSILON = 1e-8


class IcfilConfig(Config):
    """Constants of our reading of ICFIL; the paper gives none, so all are ours."""

    pseudo_images_per_class: int = Field(2, ge=1)
    """pseudo support images of each class. Ours."""
    inversion_steps: int = Field(10, ge=0)
    """Adam steps on the pseudo images; 0 leaves them noise. Ours."""
    pixel_lr: float = Field(0.25, gt=0)
    """Adam's rate on the pixels. As in the released pixel step of ECI. Unit: normalised pixels"""
    cross_entropy_weight: float = Field(1.0, ge=0)
    """factor of the adapted model's cross-entropy. As in ECI."""
    bn_weight: float = Field(1e-2, ge=0)
    """factor of the distance to the BN statistics of the real support batch. As in ECI."""
    tv_weight: float = Field(1e-4, ge=0)
    """factor of the total variation. As in ECI."""
    l2_weight: float = Field(1e-5, ge=0)
    """factor of the norm of the pixels. As in ECI."""
    steps: int = Field(5, ge=0)
    """calibration steps of gradient descent; 0 leaves the adapted model as it is. Ours."""
    lr: float = Field(0.1, gt=0)
    """rate of a calibration step. Ours."""
    temperature: float = Field(0.1, gt=0)
    """divisor of the cosine similarities in the contrastive loss. Source: Khosla et al. 2020."""
    contrastive_weight: float = Field(1.0, ge=0)
    """factor of the contrastive loss, which moves the extractor alone. Ours."""
    head_weight: float = Field(1.0, ge=0)
    """factor of the real support's cross-entropy, which moves the head alone. Ours."""


class StatisticsNorm:
    """A norm that records the statistics of each layer's input; one instance per pass."""

    def __init__(self, norm: Norm) -> None:
        self._norm = norm
        self.statistics: Statistics = []

    def __call__(self, layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) with the norm that it was made around."""
        self.statistics.append(batch_statistics(x))
        return self._norm(layer, x)


def contrastive_loss(
    real: Tensor, real_y: Tensor, pseudo: Tensor, pseudo_y: Tensor, temperature: float
) -> Tensor:
    """Return the supervised contrastive loss of real features against pseudo features.

    Args:
        real: features of real images (S, D).
        real_y: their labels (S,), each among the pseudo labels.
        pseudo: features of pseudo images (P, D).
        pseudo_y: their labels (P,).
        temperature: divisor of the cosine similarities.

    Returns:
        0-d tensor: the mean over real features of −log softmax of their similarities to all
        pseudo features, averaged over those of their class.

    Source: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, equation 2, with the
    real features as anchors and the pseudo features as everything else.
    """
    log_p = (unit(real) @ unit(pseudo).mT / temperature).log_softmax(-1)  # (S, P)
    same = (real_y.unsqueeze(-1) == pseudo_y).to(log_p.dtype)
    return -((same * log_p).sum(-1) / same.sum(-1)).mean()


def inversion_objective(
    learner: GradientLearner,
    adapted: Params,
    target: Statistics,
    labels: Tensor,
    config: IcfilConfig,
) -> Callable[[Tensor], Tensor]:
    """Return the function from pixels (P, 3, H, W) to the adapted model's inversion loss, 0-d.

    The meta-model stores no statistics of its training, so its activations on the real support
    stand for them; the pixels are normalised as a support set is.
    """

    def loss(pixels: Tensor) -> Tensor:
        norm = StatisticsNorm(own_norm(learner.settings.bn))
        logits = learner.logits(adapted, pixels, norm)
        distances = [
            vector_norm(variance - wanted_variance) + vector_norm(mean - wanted_mean)
            for (mean, variance), (wanted_mean, wanted_variance) in zip(
                norm.statistics, target, strict=True
            )
        ]
        return (
            config.cross_entropy_weight * F.cross_entropy(logits, labels)
            + config.bn_weight * torch.stack(distances).sum()
            + config.tv_weight * total_variation_loss(pixels)
            + config.l2_weight * l2_loss(pixels)
        )

    return loss


def adam_descent(loss: Callable[[Tensor], Tensor], x: Tensor, steps: int, lr: float) -> Tensor:
    """Return a tensor after Adam steps on a loss; the argument is not changed."""
    gradient_of = grad(loss)
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    a, b = ADAM_DECAY
    for step in range(1, steps + 1):
        gradient = gradient_of(x)
        first = a * first + (1 - a) * gradient
        second = b * second + (1 - b) * gradient.square()
        scale = (second / (1 - b**step)).sqrt() + ADAM_EPSILON
        x = x - lr / (1 - a**step) * first / scale
    return x


def invert(
    learner: GradientLearner,
    adapted: Params,
    support_x: Tensor,
    pixels: Tensor,
    labels: Tensor,
    config: IcfilConfig,
) -> Tensor:
    """Return pseudo support images (P, 3, H, W) of the adapted model.

    Args:
        learner: whose BN mode and network are used.
        adapted: all parameters after the inner loop.
        support_x: real support images (S, 3, H, W).
        pixels: where to start, (P, 3, H, W), normalised units.
        labels: (P,).
        config: the constants.
    """
    if config.inversion_steps == 0:
        return pixels
    norm = StatisticsNorm(own_norm(learner.settings.bn))
    learner.features(adapted, support_x, norm)
    loss = inversion_objective(learner, adapted, norm.statistics, labels, config)
    return adam_descent(loss, pixels, config.inversion_steps, config.pixel_lr)


def calibration_objective(
    learner: GradientLearner,
    support: tuple[Tensor, Tensor],
    pseudo: tuple[Tensor, Tensor],
    config: IcfilConfig,
) -> Callable[[Params], Tensor]:
    """Return the function from parameters to the calibration loss, a 0-d tensor.

    The contrastive loss reaches the extractor, and the cross-entropy of the real support the
    head, alone. Real and pseudo images are normalised each as a batch of their own.

    Args:
        learner: whose BN mode and network are used.
        support: real images (S, 3, H, W) and labels (S,).
        pseudo: pseudo images (P, 3, H, W) and labels (P,).
        config: the constants.
    """
    norm = own_norm(learner.settings.bn)

    def loss(params: Params) -> Tensor:
        real_e = learner.features(params, support[0], norm)
        pseudo_e = learner.features(params, pseudo[0], norm)
        contrastive = contrastive_loss(real_e, support[1], pseudo_e, pseudo[1], config.temperature)
        logits = F.linear(real_e.detach(), params["head.weight"], params["head.bias"])
        head = F.cross_entropy(logits, support[1])
        return config.contrastive_weight * contrastive + config.head_weight * head

    return loss


def calibrate(
    learner: GradientLearner,
    adapted: Params,
    support_x: Tensor,
    support_y: Tensor,
    pixels: Tensor,
    labels: Tensor,
    config: IcfilConfig,
) -> dict[str, Tensor]:
    """Return all parameters of the adapted model after calibration on one task.

    Args:
        learner: with the test settings.
        adapted: all parameters after the inner loop.
        support_x: real support images (S, 3, H, W).
        support_y: their labels (S,).
        pixels: where the pseudo images start, (P, 3, H, W), normalised units.
        labels: the pseudo images' labels (P,).
        config: the constants.
    """
    params = dict(adapted)
    if config.steps == 0:
        return params
    pseudo_x = invert(learner, adapted, support_x, pixels, labels, config)
    loss = calibration_objective(learner, (support_x, support_y), (pseudo_x, labels), config)
    for _ in range(config.steps):
        gradient = grad(loss)(params)
        params = {name: p - config.lr * gradient[name] for name, p in params.items()}
    return params
