"""Configuration: released constants, counts that follow from the shape and the budget."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from bench.contract import TaskShape
from bench.errors import BenchError
from purer.config import PurerConfig
from purer.gallery import denormalised


def test_defaults_are_the_released_constants():
    config = PurerConfig()
    weights = config.inversion_weights
    assert (weights.cross_entropy, weights.bn_statistics) == (1, 1e-2)
    assert (weights.total_variation, weights.l2) == (1e-4, 1e-5)
    assert (config.jitter, config.adversarial_patience, config.adversarial_scale) == (2, 6, 10)


@pytest.mark.parametrize(
    ("meta_iterations", "start"), [(60_000, 4_000), (400, 27), (30, 2), (1, 1)]
)
def test_the_switch_starts_after_a_fifteenth(meta_iterations, start):
    assert PurerConfig().first_adversarial_iteration(meta_iterations) == start


def test_a_given_start_is_kept():
    assert PurerConfig(adversarial_start=7).first_adversarial_iteration(60_000) == 7


@pytest.mark.parametrize(("k_shot", "images"), [(1, 16), (5, 20)])
def test_images_per_class_are_support_and_query(k_shot, images):
    assert PurerConfig().images_per_class(TaskShape(5, k_shot)) == images


def test_too_few_images_per_class_are_refused():
    with pytest.raises(BenchError, match=r"class 5 leaves no query.*6 or more"):
        PurerConfig(pseudo_images_per_class=5).images_per_class(TaskShape(5, 5))
    assert PurerConfig(pseudo_images_per_class=6).images_per_class(TaskShape(5, 5)) == 6


@pytest.mark.parametrize(
    "wrong", [{"pixel_lr": 0}, {"jitter": -1}, {"clip_pixels": 0}, {"adversarial_patience": 0}]
)
def test_impossible_constants_are_refused(wrong):
    with pytest.raises(ValidationError):
        PurerConfig(**wrong)


def test_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="pixel_rate"):
        PurerConfig(pixel_rate=0.1)


def test_denormalised_undoes_the_normalisation():
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
    pictures = torch.rand((2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    normalised = (pictures - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(denormalised(normalised, mean, std), pictures)
    assert denormalised(normalised * 100, mean, std).aminmax() == (0, 1)
