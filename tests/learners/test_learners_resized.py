"""Learners that meet tasks of another image size stay what they are."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.contract import DrawingLearner, EmbeddingLearner, Learner
from bench.learners.base import resized


class Plain(Learner):
    """Logits are the size of what was met."""

    n_parameters = 7

    def predict(self, support_x: Tensor, support_y: Tensor, query_x: Tensor) -> Tensor:
        sizes = torch.tensor([support_x.shape[-1], query_x.shape[-1]]).float()
        return sizes.expand(*query_x.shape[:2], 2)


class Drawing(DrawingLearner):
    """Logits are the size, and the task's number."""

    n_parameters = 8

    def predict_from(
        self, first: int, support_x: Tensor, support_y: Tensor, query_x: Tensor
    ) -> Tensor:
        numbers = torch.arange(first, first + len(query_x)).float()
        size = torch.tensor(float(query_x.shape[-1]))
        return torch.stack([size.expand(len(numbers)), numbers], -1)[:, None]


class Embedding(EmbeddingLearner):
    """Embeddings are the size."""

    n_parameters = 9

    def embed(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 1), float(images.shape[-1]))

    def predict_embedded(self, support_e: Tensor, support_y: Tensor, query_e: Tensor) -> Tensor:
        return query_e


def tasks() -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(2, 5, 3, 12, 12), torch.arange(5).expand(2, 5), torch.zeros(2, 4, 3, 12, 12)


def test_each_kind_of_learner_meets_its_own_size():
    assert resized(Plain(), 8).predict(*tasks()).unique().tolist() == [8.0]
    assert resized(Embedding(), 8).predict(*tasks()).unique().tolist() == [8.0]
    assert resized(Drawing(), 8).predict(*tasks())[:, 0].tolist() == [[8.0, 0.0], [8.0, 1.0]]


def test_the_kind_and_the_number_of_parameters_stay():
    for learner, kind in ((Plain(), Learner), (Drawing(), DrawingLearner)):
        assert isinstance(resized(learner, 8), kind)
        assert not isinstance(resized(learner, 8), EmbeddingLearner)
        assert resized(learner, 8).n_parameters == learner.n_parameters
    assert isinstance(resized(Embedding(), 8), EmbeddingLearner)


def test_a_task_draws_by_its_place_in_the_list_at_any_size():
    assert resized(Drawing(), 8).predict_from(32, *tasks())[:, 0, 1].tolist() == [32.0, 33.0]
