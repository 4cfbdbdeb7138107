"""Task source: order of the steps, adversarial gradient, streams, what is logged, resuming."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.contract import Pool
from bench.errors import BenchError
from bench.learners.base import LearnerSettings
from bench.learners.maml import Maml
from bench.nets.conv4 import Conv4
from purer.pixel_step import PixelStep


def adversarial_steps(log) -> list[int]:
    return [step for step, values in log.steps if values.get("adversarial")]


def run(parts, accuracies, first: int = 1) -> list[torch.Tensor]:
    """Draw and observe; return what was drawn."""
    drawn = []
    for iteration, accuracy in enumerate(accuracies, start=first):
        list(parts.source.prepare(iteration))
        drawn.append(parts.source.next_tasks(iteration).query_x)
        parts.source.observe(iteration, accuracy)
    return drawn


def test_tasks_are_those_of_the_protocol_and_detached(make_source):
    tasks = make_source(protocol={"tasks_per_meta_batch": 3}).source.next_tasks(1)
    assert tasks.support_x.shape == (3, 3 * 1, 3, 16, 16)
    assert tasks.query_x.shape == (3, 3 * 3, 3, 16, 16)
    assert not tasks.support_x.requires_grad
    assert not tasks.query_x.requires_grad


def test_each_iteration_moves_the_pixels_before_drawing(make_source):
    parts = make_source()
    before = parts.dataset.images.detach().clone()
    tasks = parts.source.next_tasks(1)
    assert ((parts.dataset.images - before).abs() > 0.2).float().mean() > 0.99  # Adam's first: lr
    pixels = {tuple(image[0, 0, :4].tolist()) for image in parts.dataset.images.flatten(0, 1)}
    assert all(tuple(image[0, 0, :4].tolist()) in pixels for image in tasks.query_x.flatten(0, 1))


def test_pixel_rate_and_clip_come_from_the_protocol_unless_given(make_source):
    def first_step(**arguments):
        parts = make_source(**arguments)
        before = parts.dataset.images.detach().clone()
        parts.source.next_tasks(1)
        after = parts.dataset.images.detach()
        return (after - before).abs().median().item(), after.abs().max().item()

    assert first_step()[0] == pytest.approx(0.25, rel=1e-2)
    assert first_step(protocol={"pixel_lr": 0.1})[0] == pytest.approx(0.1, rel=1e-2)
    assert first_step(protocol={"pixel_lr": 0.1}, pixel_lr=0.01)[0] == pytest.approx(0.01, rel=1e-2)
    assert first_step(protocol={"clip_pixels": 1.5})[1] == 1.5
    assert first_step(protocol={"clip_pixels": 1.5}, clip_pixels=0.5)[1] == 0.5


def test_switch_drives_the_adversarial_steps(make_source):
    parts = make_source(adversarial_start=2, adversarial_patience=2)
    run(parts, [0.5] * 10)
    assert adversarial_steps(parts.log) == [3, 6, 9]
    armed = [step for step, values in parts.log.steps if values.get("armed")]
    assert armed == [2, 5, 8], "armed in the iteration before the adversarial step"


def test_without_curriculum_no_step_is_adversarial(make_source):
    parts = make_source(adversarial_start=2, adversarial_patience=2, curriculum=False)
    run(parts, [0.5] * 10)
    assert {step for step, _ in parts.log.steps} == set(range(1, 11))
    assert adversarial_steps(parts.log) == []


def pixel_steps(log) -> list[int]:
    return [step for step, values in log.steps if "inversion" in values]


def test_noise_images_are_never_inverted(make_source):
    parts = make_source(pixels="noise", pixel_warmup=4, adversarial_start=2)
    before = parts.dataset.images.detach().clone()
    run(parts, [0.5] * 10)
    assert torch.equal(parts.dataset.images, before)
    assert pixel_steps(parts.log) == []
    assert parts.source.watched() == {}
    assert parts.log.counts["pseudo_images"] == 0


def test_fixed_images_take_all_their_steps_before_the_first_task(make_source):
    """Six iterations and a step in every second make three, and two of the warm-up."""
    parts = make_source(pixels="fixed", total=6, pixel_every=2, pixel_warmup=2, adversarial_start=2)
    drawn = run(parts, [0.5] * 6)
    assert pixel_steps(parts.log) == [-4, -3, -2, -1, 0]
    assert adversarial_steps(parts.log) == []
    pixels = parts.dataset.images.flatten(0, 1)
    assert all((pixels == image).all((1, 2, 3)).any() for image in drawn[0].flatten(0, 1))


def test_fixed_images_are_those_of_as_many_steps(make_source):
    """Pixels know nothing of the tasks without a curriculum: both end at the same images."""
    fixed = make_source(pixels="fixed", total=5)
    dynamic = make_source(curriculum=False, total=5)
    run(fixed, [0.5] * 5)
    run(dynamic, [0.5] * 5)
    assert torch.equal(fixed.dataset.images, dynamic.dataset.images)


def test_random_switches_are_as_many_as_stated_for_the_shots(make_source):
    parts = make_source(random_switches={1: 4, 5: 9}, adversarial_start=2, total=12)
    run(parts, [0.5] * 12)
    steps = adversarial_steps(parts.log)
    assert len(steps) == 4
    assert min(steps) > 2


def test_random_switches_refuse_shots_that_they_do_not_name(make_source):
    with pytest.raises(BenchError, match=r"names k_shot \[5\], not 1; add the number"):
        make_source(random_switches={5: 9})


def test_curriculum_changes_pixels_but_not_which_tasks_are_drawn(make_source):
    """With a pixel rate of nearly nothing, both runs draw the same images until the end."""
    first = make_source(adversarial_start=1, adversarial_patience=1, pixel_lr=1e-12)
    second = make_source(curriculum=False, pixel_lr=1e-12)
    for a, b in zip(run(first, [0.5] * 8), run(second, [0.5] * 8), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert len(adversarial_steps(first.log)) > 1


def test_adversarial_gradient_reaches_support_and_query(make_source):
    """All 4 images of each drawn class, 1 support and 3 queries, get a gradient; others none."""
    gradient = make_source().source.adversarial_gradient()
    touched = (gradient.flatten(2).abs().amax(2) > 0).sum(1)  # images of each class
    assert sorted(touched.tolist()) == [0, 0, 0, 4, 4, 4]


def test_support_gradient_comes_through_the_inner_loop(make_source):
    """With an inner rate of zero only the 3 queries of each class get a gradient."""
    parts = make_source()
    parts.source._learner.inner_lr = 0.0
    touched = (parts.source.adversarial_gradient().flatten(2).abs().amax(2) > 0).sum(1)
    assert sorted(touched.tolist()) == [0, 0, 0, 3, 3, 3]


def test_adversarial_gradient_leaves_the_meta_model_alone(make_source):
    parts = make_source()
    before = {name: value.clone() for name, value in parts.net.state_dict().items()}
    for parameter in parts.net.parameters():
        parameter.grad = torch.ones_like(parameter)
    parts.source.adversarial_gradient()
    assert all((parameter.grad == 1).all() for parameter in parts.net.parameters())
    assert all(torch.equal(value, before[k]) for k, value in parts.net.state_dict().items())


@pytest.mark.parametrize("teacher_weights", ["uniform", "cumulative"])
def test_adversarial_step_is_inversion_minus_scaled_outer_loss(
    make_source, monkeypatch, teacher_weights
):
    """The gradient that Adam gets in the armed iteration, against its two halves.

    Cumulative weights count in the inversion half and not in the other (H4): Adam hides a factor
    of a whole step, but not one of a summand.
    """
    given = []
    monkeypatch.setattr(PixelStep, "apply", lambda self, gradient: given.append(gradient.clone()))
    settings = {"adversarial_start": 1, "adversarial_scale": 7.0}
    settings["protocol"] = {"teacher_weights": teacher_weights}
    parts, twin = (make_source(**settings) for _ in range(2))
    run(parts, [0.5, 0.5])
    twin.source._pixels.inversion_gradient()
    inversion, _ = twin.source._pixels.inversion_gradient()
    expected = inversion - 7 * twin.source.adversarial_gradient()
    torch.testing.assert_close(given[1], expected)
    assert (given[1] - inversion).abs().max() > 1e-4


def test_adversarial_steps_raise_the_outer_loss(make_source):
    """Ascending on one task: with the inversion terms off, its outer loss goes up."""

    def outer_loss(parts):
        tasks = parts.dataset.sample_tasks(64, parts.source._context.shape, torch.Generator())
        params = dict(parts.net.named_parameters())
        return parts.source._learner.outer_loss(params, tasks)[0].mean().item()

    parts = make_source(pixel_lr=0.05)
    before = outer_loss(parts)
    for _ in range(10):
        parts.source._pixels.apply(-parts.source.adversarial_gradient())
    assert outer_loss(parts) > before + 0.02


def test_adversarial_gradient_of_the_real_maml_equals_plain_autograd(make_source):
    plain, real = make_source(), make_source()
    real.source._learner = Maml(real.net, LearnerSettings(inner_lr=0.01, inner_steps=1))
    expected = plain.source.adversarial_gradient()
    atol = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(real.source.adversarial_gradient(), expected, rtol=1e-4, atol=atol)


@pytest.mark.golden
@pytest.mark.parametrize("k_shot", [1, 5])
def test_adversarial_gradient_norms_equal_the_published(golden, make_source, make_pool, k_shot):
    """The published task in the data set's rows, drawn in its own order, gives its norms."""
    parts = make_source(pool=make_pool((0, 1, 2), (3, 4)), protocol={"pseudo_split": "fixed"})
    names = {"conv": "convs", "bn": "norms"}
    net = Conv4(5, 32).double()
    state = {}
    for key in (key for key in golden if key.startswith("meta/")):
        name = key.removeprefix("meta/")
        if name.startswith("block"):
            block, kind, entry = name.removeprefix("block").split(".")
            name = f"{names[kind]}.{block}.{entry}"
        state[name] = torch.as_tensor(golden[key])
    net.load_state_dict(state)
    source, dataset = parts.source, parts.dataset
    support, query = (
        torch.as_tensor(golden[f"{k_shot}shot/{part}"]).view(5, -1, 3, 32, 32)
        for part in ("support", "query")
    )
    dataset.images = torch.cat([support, query], 1).requires_grad_()
    source._net = source._learner.net = net
    shape = type(source._context.shape)(n_way=5, k_shot=k_shot, n_query=3)
    source._context.shape = shape
    source._adversarial_tasks = identity_order(dataset, shape)
    gradient = source.adversarial_gradient()
    prefix = f"{k_shot}shot/1step/second_order/grad"
    norms = [part.norm().item() for part in gradient.split([k_shot, 3], dim=1)]
    expected = [golden[f"{prefix}_support_norm"], golden[f"{prefix}_query_norm"]]
    np.testing.assert_allclose(norms, expected, rtol=1e-9)


def identity_order(dataset, shape) -> torch.Generator:
    """Return a generator whose first draw takes the classes in the data set's order."""
    for seed in range(5000):
        tasks = dataset.sample_tasks(1, shape, torch.Generator().manual_seed(seed), "fixed")
        if torch.equal(tasks.support_x[0], dataset.images[:, : shape.k_shot].flatten(0, 1)):
            return torch.Generator().manual_seed(seed)
    raise AssertionError("no seed below 5000 draws the classes in order")


def test_everything_is_logged_and_counted(make_source, make_pool):
    parts = make_source(total=4, pool=make_pool((0, 1, 2), (2, 3)))  # class 2 belongs to both
    run(parts, [0.5] * 4)
    names = {"inversion", "cross_entropy", "bn_statistics", "total_variation", "l2", "adversarial"}
    for kind in (names, {"armed"}):
        found = [step for step, values in parts.log.steps if set(values) == kind]
        assert found == [1, 2, 3, 4]
    terms = ["cross_entropy", "bn_statistics", "total_variation", "l2", "inversion"]
    assert list(parts.source.watched()) == terms
    assert parts.log.counts["pseudo_images"] == 4 * (4 * 4)  # steps · classes · images
    assert parts.log.counts["teacher_forward_images"] == 4 * (3 + 2) * 4


def test_a_few_teachers_are_drawn_for_each_step(make_source, make_pool):
    """Shared images count once; undrawn ones keep still in the first step, as Adam has no past."""
    pool = make_pool((0, 1, 2), (2, 3), (4, 5))
    parts = make_source(total=3, pool=pool, protocol={"teachers_per_iteration": 2})
    start = parts.dataset.images.detach().clone()
    drawn = make_source(pool=pool, protocol={"teachers_per_iteration": 2}).source._draw
    steps = [drawn() for _ in range(3)]
    assert len({tuple(sorted(step)) for step in steps}) > 1
    run(parts, [0.5])
    moved = (parts.dataset.images != start).flatten(1).any(1)
    owned = {row for index in steps[0] for row in parts.dataset.rows[index].tolist()}
    assert set(moved.nonzero().flatten().tolist()) == owned
    run(parts, [0.5] * 2, first=2)
    rows = [[set(parts.dataset.rows[i].tolist()) for i in step] for step in steps]
    assert parts.log.counts["pseudo_images"] == sum(4 * len(a | b) for a, b in rows)
    assert parts.log.counts["teacher_forward_images"] == sum(4 * (len(a) + len(b)) for a, b in rows)


def test_gallery_shows_start_middle_and_end(make_source, make_pool):
    """A row for each teacher, in its own mean and std; a teacher of fewer classes ends blank."""
    first, second = make_pool((0, 1, 2), (2, 3))
    pool = Pool([first, replace(second, mean=(0.2, 0.3, 0.4), std=(0.1, 0.1, 0.3))], "drawn")
    parts = make_source(total=4, gallery_images_per_class=2, pool=pool)
    start = parts.dataset.images[:, :2].detach().clone()
    run(parts, [0.5] * 4)
    assert list(parts.log.grids) == [
        f"pseudo images, {when}" for when in ("start", "middle", "end")
    ]
    for images, captions in parts.log.grids.values():
        assert images.shape == (12, 3, 16, 16)
        assert captions == ["0 class0", "0 class1", "0 class2", "1 class2", "1 class3", ""]
        assert images.min() >= 0
        assert images.max() <= 1
    assert set(parts.log.columns.values()) == {3}
    found = parts.log.grids["pseudo images, start"][0].unflatten(0, (2, 3, 2))
    for row, (teacher, classes) in enumerate(zip(pool, ([0, 1, 2], [2, 3]), strict=True)):
        scale, shift = (torch.tensor(v)[:, None, None] for v in (teacher.std, teacher.mean))
        expected = (start[classes] * scale + shift).clamp(0, 1)
        torch.testing.assert_close(found[row, : len(classes)], expected)
    assert (found[1, 2] == 1).all()
    assert not torch.allclose(found[0, 2], found[1, 0]), "one class, two normalisations"


def test_no_gallery_where_none_is_wanted(make_source):
    parts = make_source(total=2, gallery_images_per_class=0)
    run(parts, [0.5] * 2)
    assert parts.log.grids == {}


def test_streams_follow_the_seed_and_leave_the_global_one(make_source):
    parts = [make_source(seed=seed, adversarial_start=1) for seed in (1, 1, 2)]
    state = torch.get_rng_state()
    first, same, other = (run(part, [0.5] * 3) for part in parts)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("cut", [1, 3, 6, 9])
@pytest.mark.parametrize("drawn", [None, 1])
def test_a_resumed_source_goes_on_bit_by_bit(make_source, cut, drawn):
    settings = {"adversarial_start": 2, "adversarial_patience": 2}
    settings["protocol"] = {"teachers_per_iteration": drawn}
    accuracies = [0.5, 0.6, 0.4, 0.4, 0.7, 0.2, 0.2, 0.2, 0.5, 0.5, 0.5]
    whole = make_source(**settings)
    expected = run(whole, accuracies)
    interrupted, resumed = make_source(**settings), make_source(**settings)
    run(interrupted, accuracies[:cut])
    resumed.source.load_state_dict(interrupted.source.state_dict())
    run(interrupted, accuracies[cut:], first=cut + 1)  # the saved state must not move with it
    drawn = run(resumed, accuracies[cut:], first=cut + 1)
    assert all(torch.equal(a, b) for a, b in zip(drawn, expected[cut:], strict=True))
    assert torch.equal(resumed.dataset.images, whole.dataset.images)
    assert len(adversarial_steps(whole.log)) > 1
