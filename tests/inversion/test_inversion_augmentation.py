"""Augmentation of pseudo images: what each part may do, and nothing else."""

from __future__ import annotations

import pytest
import torch

from bench.inversion.augmentation import Augmentation

SIDE = 8


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn((3, 40, 3, SIDE, SIDE), generator=draw(1))


def test_off_is_the_identity_and_draws_nothing(images):
    generator = draw()
    assert torch.equal(Augmentation()(images, generator), images)
    assert torch.equal(generator.get_state(), draw().get_state())


def test_flip_mirrors_about_half(images):
    changed = Augmentation(flip=True)(images, draw()).flatten(0, 1)
    flat = images.flatten(0, 1)
    same = (changed == flat).flatten(1).all(1)
    mirrored = (changed == flat.flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 35 < int(mirrored.sum()) < 85  # 120 fair coins


def test_shift_moves_each_image_as_its_own_offset_says(images):
    most = 2
    changed = Augmentation(shift=most)(images, draw()).flatten(0, 1)
    flat = images.flatten(0, 1)
    inside = slice(most, SIDE - most)
    offsets = set()
    for before, after in zip(flat, changed, strict=True):
        found = [
            (dy, dx)
            for dy in range(-most, most + 1)
            for dx in range(-most, most + 1)
            if torch.equal(
                after[:, inside, inside],
                before[:, most + dy : SIDE - most + dy, most + dx : SIDE - most + dx],
            )
        ]
        assert len(found) == 1
        offsets.add(found[0])
    assert len(offsets) > 15  # of 25


def test_shift_mirrors_at_the_edges():
    row = torch.arange(float(SIDE)).expand(1, 3, SIDE, SIDE)
    rows = {tuple(Augmentation(shift=1)(row, draw(s))[0, 0, 0].tolist()) for s in range(30)}
    plain = tuple(range(SIDE))
    assert rows == {plain, (*plain[1:], SIDE - 2), (1, *plain[:-1])}


def test_colour_is_affine_for_each_channel_and_bounded(images):
    changed = Augmentation(colour=0.3)(images, draw()).flatten(0, 1)
    x, y = images.flatten(0, 1).flatten(2), changed.flatten(2)  # (120, 3, pixels)
    slope = ((x - x.mean(2, True)) * (y - y.mean(2, True))).sum(2) / x.var(2, correction=0) / 64
    offset = y.mean(2) - slope * x.mean(2)
    torch.testing.assert_close(y, slope[..., None] * x + offset[..., None])
    torch.testing.assert_close(slope, slope[:, :1].expand(-1, 3))  # one scale for all channels
    assert float((slope - 1).abs().max()) <= 0.3 + 1e-5
    assert 0.2 < float(offset.abs().max()) <= 0.3 + 1e-5


def test_draws_follow_the_generator_alone(images):
    change = Augmentation(flip=True, shift=1, colour=0.1)
    state = torch.get_rng_state()
    assert torch.equal(change(images, draw(5)), change(images, draw(5)))
    assert not torch.equal(change(images, draw(5)), change(images, draw(6)))
    assert torch.equal(torch.get_rng_state(), state)
