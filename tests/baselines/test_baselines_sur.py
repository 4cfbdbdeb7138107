"""SUR: weighted blocks, weights learned on the support set."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.centroids.sur import SurConfig, sur_logits
from bench.learners.centroids import class_means

WAYS, WIDTHS = 5, [4, 8]


@pytest.fixture(scope="module")
def tasks() -> tuple[Tensor, Tensor, Tensor]:
    """Three tasks whose first block is noise and whose second tells the classes apart."""
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(WAYS).repeat(3).expand(3, -1)
    noise = F.normalize(torch.randn(3, 15, WIDTHS[0], generator=g), dim=-1)
    clear = F.one_hot(labels, WIDTHS[1]) + 0.3 * torch.randn(3, 15, WIDTHS[1], generator=g)
    rows = torch.cat([noise, F.normalize(clear, dim=-1)], dim=-1)
    return rows[:, :10], labels[:, :10], rows[:, 10:]


def logits_of(tasks: tuple[Tensor, Tensor, Tensor], **values: float) -> Tensor:
    return sur_logits(*tasks, WAYS, WIDTHS, SurConfig(**values))


def test_without_steps_it_is_the_cosine_to_the_class_means(tasks) -> None:
    support, labels, query = tasks
    means = class_means(support, labels, WAYS)
    expected = 10 * F.cosine_similarity(query.unsqueeze(2), means.unsqueeze(1), dim=-1)
    torch.testing.assert_close(logits_of(tasks, steps=0), expected)


def test_the_block_that_tells_classes_apart_gains_weight(tasks) -> None:
    support, labels, query = tasks
    means = class_means(support, labels, WAYS)[..., WIDTHS[0] :]
    clear = F.cosine_similarity(query[..., WIDTHS[0] :].unsqueeze(2), means.unsqueeze(1), dim=-1)
    before, after = (logits_of(tasks, steps=n) / 10 - clear for n in (0, 100))
    assert after.abs().mean() < 0.7 * before.abs().mean()


def test_each_task_and_each_query_is_predicted_alone(tasks) -> None:
    found = logits_of(tasks, steps=5)
    support, labels, query = tasks
    alone = logits_of((support[1:2], labels[1:2], query[1:2, 2:3]), steps=5)
    torch.testing.assert_close(alone[0, 0], found[1, 2])
