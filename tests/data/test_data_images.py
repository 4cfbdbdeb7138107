"""Normalising against numpy, and there and back again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.data.images import normalise
from bench.errors import BenchError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 2, 5, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("dims", [3, 4, 5])
def test_agrees_with_numpy_in_float64(pixels, dims):
    images = pixels.reshape(-1, *pixels.shape[-3:])[0] if dims == 3 else pixels
    images = images[:, 0] if dims == 4 else images
    want = np.moveaxis((images / 255 - np.array(MEAN)) / np.array(STD), -1, -3)
    got = normalise(images, MEAN, STD)
    assert got.dtype == torch.float32
    assert got.is_contiguous()
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=2e-6)


def test_tensor_and_array_agree_and_stay_as_they_were(pixels):
    before = pixels.copy()
    tensor = torch.from_numpy(pixels)
    assert torch.equal(normalise(pixels, MEAN, STD), normalise(tensor, MEAN, STD))
    np.testing.assert_array_equal(pixels, before)


def test_read_only_array_is_taken_without_a_warning(pixels):
    pixels.flags.writeable = False
    assert normalise(pixels, MEAN, STD).shape == (4, 2, 3, 5, 6)


def test_there_and_back(pixels):
    back = normalise(pixels, MEAN, STD).movedim(-3, -1).numpy() * STD + MEAN
    np.testing.assert_array_equal(np.rint(back * 255), pixels)


@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, 3)])
def test_refuses_what_was_normalised_before(bad):
    with pytest.raises(BenchError, match="stored images are uint8"):
        normalise(bad, MEAN, STD)


@pytest.mark.cuda
def test_same_on_a_device(cuda, pixels):
    there = normalise(torch.from_numpy(pixels).to(cuda), MEAN, STD)
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), normalise(pixels, MEAN, STD), rtol=0, atol=2e-6)
