"""Dynamic data set: blocks of teachers, and pseudo tasks drawn from it."""

from __future__ import annotations

import pytest
import torch

from bench.contract import TaskShape
from bench.errors import BenchError
from purer.dynamic_dataset import DynamicDataset

M = 6
SHAPE = TaskShape(n_way=3, k_shot=2, n_query=15)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(dataset: DynamicDataset) -> DynamicDataset:
    """Set every pixel of image m of row c to 100 · c + m, so that images tell who they are."""
    n_classes, per_class = dataset.images.shape[:2]
    names = 100 * torch.arange(n_classes)[:, None] + torch.arange(per_class)
    with torch.no_grad():
        dataset.images.copy_(names[..., None, None, None].expand_as(dataset.images))
    return dataset


@pytest.fixture
def dataset(make_pool) -> DynamicDataset:
    """Teachers of classes (7, 2, 9), (4, 2) and (30,): five distinct ones."""
    pool = make_pool((7, 2, 9), (4, 2), (30,))
    return numbered(DynamicDataset(pool, M, generator()))


def who(images: torch.Tensor) -> torch.Tensor:
    """Return the numbers of images whose pixels are all equal."""
    assert (images == images[..., :1, :1, :1]).all()
    return images[..., 0, 0, 0].long()


def test_each_distinct_class_owns_one_row(dataset):
    assert dataset.class_ids == (2, 4, 7, 9, 30)
    assert dataset.class_names == ("class2", "class4", "class7", "class9", "class30")
    assert dataset.images.shape == (5, M, 3, 16, 16)
    assert dataset.images.is_leaf
    assert dataset.images.requires_grad


def test_pixels_start_standard_normal(make_pool):
    images = DynamicDataset(make_pool((0, 1, 2)), 20, generator()).images.detach()
    assert images.mean().abs() < 0.02
    assert (images.std() - 1).abs() < 0.02


def test_start_follows_the_generator(make_pool):
    pool = make_pool((0, 1, 2))
    first, same, other = (DynamicDataset(pool, M, generator(s)).images for s in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_aligned_blocks_follow_the_teacher_s_own_class_order(dataset):
    images, labels = dataset.teacher_batch(0)
    assert labels.tolist() == [0] * M + [1] * M + [2] * M
    assert (who(images) // 100).tolist() == [2] * M + [0] * M + [3] * M  # rows of 7, 2, 9
    images, labels = dataset.teacher_batch(1)
    assert labels.tolist() == [0] * M + [1] * M
    assert (who(images) // 100).tolist() == [1] * M + [0] * M  # rows of 4, 2


def test_mismatched_blocks_put_images_in_ascending_class_order(make_pool):
    pool = make_pool((7, 2, 9), (1, 3, 5))
    dataset = numbered(DynamicDataset(pool, M, generator(), label_order="mismatched"))
    images, labels = dataset.teacher_batch(0)
    assert labels.tolist() == [0] * M + [1] * M + [2] * M
    ids = [dataset.class_ids[row] for row in (who(images) // 100).tolist()]
    assert ids == [2] * M + [7] * M + [9] * M  # teacher's output 0 means class 7
    aligned = numbered(DynamicDataset(pool, M, generator()))
    assert torch.equal(dataset.teacher_batch(1)[0], aligned.teacher_batch(1)[0])  # sorted anyway


def test_gradients_of_two_teachers_meet_in_a_shared_row(dataset):
    (dataset.teacher_batch(0)[0].sum() + dataset.teacher_batch(1)[0].sum()).backward()
    per_row = dataset.images.grad.flatten(1)
    assert per_row.min(1).values.tolist() == per_row.max(1).values.tolist() == [2, 1, 1, 1, 0]


def test_tasks_have_distinct_classes_and_disjoint_class_major_sets(dataset):
    tasks = dataset.sample_tasks(50, SHAPE, generator())
    n_query = M - SHAPE.k_shot
    support, query = who(tasks.support_x), who(tasks.query_x)
    assert support.shape == (50, 3 * 2)
    assert query.shape == (50, 3 * n_query)
    assert tasks.support_y.tolist() == [[0, 0, 1, 1, 2, 2]] * 50
    assert tasks.query_y.tolist() == [[0] * n_query + [1] * n_query + [2] * n_query] * 50
    for s, q in zip(support.view(50, 3, 2), query.view(50, 3, n_query), strict=True):
        rows = s[:, 0] // 100
        assert rows.unique().numel() == 3
        assert (s // 100 == rows[:, None]).all()
        assert (q // 100 == rows[:, None]).all()
        assert torch.cat([s.flatten(), q.flatten()]).unique().numel() == 3 * M


def test_random_split_reaches_every_class_and_image_evenly(dataset):
    support = who(dataset.sample_tasks(2000, SHAPE, generator()).support_x).flatten()
    _, counts = support.unique(return_counts=True)
    assert counts.numel() == 5 * M
    expected = 2000 * 3 * 2 / (5 * M)
    assert (counts - expected).abs().max() < 5 * expected**0.5


def test_fixed_split_supports_with_the_same_images(dataset):
    tasks = dataset.sample_tasks(50, SHAPE, generator(), split="fixed")
    assert (who(tasks.support_x).view(50, 3, 2) % 100 == torch.tensor([0, 1])).all()
    assert (who(tasks.query_x).view(50, 3, -1) % 100 == torch.arange(2, M)).all()


def test_queries_are_at_most_those_of_the_shape(dataset):
    shape = TaskShape(n_way=2, k_shot=1, n_query=3)
    tasks = dataset.sample_tasks(2, shape, generator())
    assert tasks.query_x.shape == (2, 2 * 3, 3, 16, 16)
    assert tasks.query_y.tolist() == [[0, 0, 0, 1, 1, 1]] * 2


def test_tasks_are_differentiable_selections(dataset):
    tasks = dataset.sample_tasks(1, SHAPE, generator())
    (tasks.support_x.sum() + 3 * tasks.query_x.sum()).backward()
    per_image = dataset.images.grad[..., 0, 0, 0]
    assert sorted(per_image.unique().tolist()) == [0, 1, 3]
    assert (per_image == 1).sum() == 3 * SHAPE.k_shot
    assert (per_image == 3).sum() == 3 * (M - SHAPE.k_shot)


def test_sampling_follows_its_generator_and_leaves_the_global_stream(dataset):
    state = torch.get_rng_state()
    first, same, other = (dataset.sample_tasks(3, SHAPE, generator(s)) for s in (1, 1, 2))
    assert torch.equal(first.support_x, same.support_x)
    assert torch.equal(first.query_x, same.query_x)
    assert not torch.equal(first.query_x, other.query_x)
    assert torch.equal(torch.get_rng_state(), state)


def test_clip_bounds_the_pixels(make_pool):
    dataset = DynamicDataset(make_pool((0, 1, 2)), M, generator())
    before = dataset.images.detach().clone()
    dataset.clip(0.5)
    assert torch.equal(dataset.images, before.clamp(-0.5, 0.5))
    assert before.abs().max() > 0.5


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (TaskShape(6, 1), "n_way = 6 exceeds the 5 classes"),
        (TaskShape(3, M), f"k_shot = {M} leaves no query of {M}"),
    ],
)
def test_impossible_shapes_are_refused_with_numbers(dataset, shape, message):
    with pytest.raises(BenchError, match=message):
        dataset.sample_tasks(1, shape, generator())
