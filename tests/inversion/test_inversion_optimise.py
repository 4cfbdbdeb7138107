"""Plain inversion lowers its loss, follows its generator and leaves the network alone."""

from __future__ import annotations

import torch

from bench.inversion.losses import inversion_loss
from bench.inversion.optimise import InversionSettings, invert
from tests.helpers import tiny_net

LABELS = torch.arange(5).repeat_interleave(2)


def inverted(steps: int, seed: int = 0, net=None, **settings) -> torch.Tensor:
    net = net or tiny_net(torch.Generator().manual_seed(1)).requires_grad_(False)
    config = InversionSettings(inversion_steps=steps, **settings)
    return invert(net, LABELS, 16, config, torch.Generator().manual_seed(seed))


def test_steps_lower_the_loss_and_the_network_takes_the_images_for_its_classes():
    net = tiny_net(torch.Generator().manual_seed(1)).requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    # an untrained network's statistics fit no image: only the cross-entropy can fall far
    settings = {"bn_weight": 0.0, "pixel_lr": 0.25, "jitter": 0}
    noise, images = (inverted(steps, net=net, **settings) for steps in (0, 150))
    weights = InversionSettings(**settings).inversion_weights
    losses = [inversion_loss(net, x, LABELS, weights).total for x in (noise, images)]
    assert losses[1] < 0.5 * losses[0]
    assert (net(images).argmax(1) == LABELS).all()
    assert not images.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_without_steps_the_images_are_the_drawn_noise():
    expected = torch.randn((10, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    assert torch.equal(inverted(0), expected)


def test_the_generator_decides_and_global_state_is_left_alone():
    state = torch.get_rng_state()
    assert torch.equal(inverted(3), inverted(3))
    assert not torch.equal(inverted(3), inverted(3, seed=1))
    assert torch.equal(state, torch.get_rng_state())


def test_one_step_moves_each_pixel_by_the_rate():
    """Adam's first step is the rate times the gradient's sign, up to its epsilon."""
    moved = (inverted(1, jitter=0, pixel_lr=0.1) - inverted(0)).abs()
    assert moved.max() <= 0.1 + 1e-6
    assert moved.median() > 0.09
