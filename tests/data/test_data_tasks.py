"""Task lists: disjoint, fair, frozen, and in the order that labels say."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from scipy import stats

from bench.contract import TaskShape
from bench.data.base import make_split
from bench.data.query_counts import query_counts
from bench.data.tasks import TaskList, check_shape, frozen_tasks, random_tasks
from bench.errors import BenchError
from bench.seeds import distinct, torch_generator

SHAPE = TaskShape(n_way=5, k_shot=2, n_query=3)
COUNTS = np.array([5, 9, 6, 12, 7, 5, 8])


@pytest.fixture
def split():
    """Seven classes of 2 px images; red is the class, green the image within it."""
    images = np.zeros((COUNTS.sum(), 2, 2, 3), dtype=np.uint8)
    images[..., 0] = np.repeat(np.arange(7), COUNTS)[:, None, None]
    images[..., 1] = np.concatenate([np.arange(n) for n in COUNTS])[:, None, None]
    return make_split("test", "abcdefg", COUNTS, images)


def _frozen(n_tasks: int, shape: TaskShape = SHAPE, **other) -> TaskList:
    names = {"dataset_name": "tiny", "split_name": "test", "counts": COUNTS} | other
    return frozen_tasks(shape=shape, n_tasks=n_tasks, **names)


def _drawn(split, n: int, seed: int) -> TaskList:
    return random_tasks(split, SHAPE, n, torch_generator("test", seed))


def _check_valid(tasks: TaskList, counts: np.ndarray) -> None:
    ordered = np.sort(tasks.classes, axis=1)
    assert np.all(ordered[:, 1:] > ordered[:, :-1])
    assert ordered.min() >= 0
    assert ordered.max() < len(counts)
    ordered = np.sort(tasks.images, axis=2)
    assert np.all(ordered[..., 1:] > ordered[..., :-1])
    assert ordered.min() >= 0
    assert np.all(ordered.max(axis=2) < counts[tasks.classes])
    assert tasks.classes.dtype == tasks.images.dtype == np.int32


def test_classes_and_images_are_distinct_and_there(split):
    for tasks in (_frozen(300), _drawn(split, 300, 0)):
        assert tasks.images.shape == (300, 5, 5)
        _check_valid(tasks, COUNTS)


def test_a_shape_that_takes_everything():
    shape = TaskShape(n_way=7, k_shot=1, n_query=4)
    tasks = _frozen(50, shape)
    assert np.all(np.sort(tasks.classes, axis=1) == np.arange(7))
    fives = COUNTS[tasks.classes] == 5
    assert np.all(np.sort(tasks.images[fives], axis=1) == np.arange(5))


def test_shorter_list_is_the_beginning():
    long, short = _frozen(600), _frozen(100)
    np.testing.assert_array_equal(long[:100].classes, short.classes)
    np.testing.assert_array_equal(long[:100].images, short.images)
    assert long[:100].sha256 == short.sha256 != long.sha256


def test_same_words_same_list_and_other_words_another():
    base = _frozen(20)
    assert _frozen(20).sha256 == base.sha256
    others = [
        _frozen(20, base_seed=1),
        _frozen(20, dataset_name="other"),
        _frozen(20, split_name="val"),
        _frozen(20, TaskShape(5, 1, 4)),
        _frozen(20, TaskShape(5, 2, 2)),
    ]
    assert len({base.sha256, *(other.sha256 for other in others)}) == 6
    for other in others:
        assert not np.array_equal(other.classes, base.classes)


def test_list_does_not_move():
    """The tasks of stored results; whoever changes them makes all results anew."""
    tasks = frozen_tasks("cifar_fs", "test", np.full(20, 600), TaskShape(5, 5), 600)
    assert tasks.sha256 == "f5c806ef388fd75e684b96babe36f53cd07f45e7dfc8b3f08ea25827a18ba96b"


def test_sha256_covers_shape_classes_and_images():
    a = _frozen(3)
    classes, images = a.classes.copy(), a.images.copy()
    classes[2, 4] += 1
    images[2, 4, 4] += 1
    variants = [
        TaskList(SHAPE, classes, a.images),
        TaskList(SHAPE, a.classes, images),
        TaskList(TaskShape(5, 3, 2), a.classes, a.images),
    ]
    assert len({a.sha256, *(v.sha256 for v in variants)}) == 4


def test_random_tasks_follow_their_generator(split):
    assert _drawn(split, 10, 0).sha256 == _drawn(split, 10, 0).sha256
    assert _drawn(split, 10, 0).sha256 != _drawn(split, 10, 1).sha256
    generator = torch_generator("test", 0)
    first, second = (random_tasks(split, SHAPE, 10, generator) for _ in range(2))
    assert first.sha256 != second.sha256


def test_global_random_state_is_untouched(split):
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    _frozen(5)
    _drawn(split, 5, 0)
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_distinct_agrees_with_a_shuffle_of_lists():
    generator = np.random.default_rng(3)
    sizes = generator.integers(6, 12, 200)
    draws = generator.random((200, 6))
    for row, size, got in zip(draws, sizes, distinct(sizes, draws), strict=True):
        values = list(range(size))
        for step, draw in enumerate(row):
            other = step + int(draw * (size - step))
            values[step], values[other] = values[other], values[step]
        assert got.tolist() == values[:6]


def test_every_ordered_choice_is_equally_likely():
    draws = np.random.default_rng(5).random((24_000, 3))
    _, times = np.unique(distinct(np.full(24_000, 4), draws), axis=0, return_counts=True)
    assert len(times) == 4 * 3 * 2
    assert stats.chisquare(times).pvalue > 1e-3


def test_every_class_and_image_is_drawn_evenly(split):
    tasks = _drawn(split, 4000, 2)
    assert stats.chisquare(np.bincount(tasks.classes.ravel())).pvalue > 1e-3
    for place in (0, 4):  # as the first support and as the last query image
        images = tasks.images[..., place][tasks.classes == 3]
        assert stats.chisquare(np.bincount(images, minlength=12)).pvalue > 1e-3


def test_batch_holds_the_images_that_the_list_names(split):
    tasks = _frozen(6)
    batch = tasks.batch(split, 2, 5, mean=(0, 0, 0), std=(1 / 255,) * 3)
    assert batch.support_x.shape == (3, 10, 3, 2, 2)
    assert batch.query_x.shape == (3, 15, 3, 2, 2)
    for t in range(3):
        for way in range(5):
            chosen = tasks.images[2 + t, way]
            support = batch.support_x[t, 2 * way : 2 * way + 2, :, 0, 0]
            query = batch.query_x[t, 3 * way : 3 * way + 3, :, 0, 0]
            got = torch.cat([support, query]).round().int()
            assert got[:, 0].tolist() == [tasks.classes[2 + t, way]] * 5
            assert got[:, 1].tolist() == chosen.tolist()
    assert batch.support_y.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]] * 3
    assert batch.query_y[0].tolist() == [i // 3 for i in range(15)]


def test_batches_join_to_the_list(split):
    tasks = _frozen(5)
    whole = tasks.batch(split, 0, 5, (0.5,) * 3, (0.2,) * 3)
    parts = [tasks.batch(split, start, start + 2, (0.5,) * 3, (0.2,) * 3) for start in (0, 2, 4)]
    assert [len(part) for part in parts] == [2, 2, 1]
    for field in ("support_x", "support_y", "query_x", "query_y"):
        joined = torch.cat([getattr(part, field) for part in parts])
        assert torch.equal(joined, getattr(whole, field))


def test_rows_find_distinct_images_once(split):
    tasks = _frozen(40)
    support, query = tasks.rows(split)
    distinct, places = np.unique(np.concatenate([support, query], axis=1), return_inverse=True)
    assert len(distinct) <= COUNTS.sum()
    rows = distinct[places.reshape(40, -1)]
    np.testing.assert_array_equal(rows[:, :10], support)
    assert np.all(split.images[rows[:, :10], 0, 0, 0] == np.repeat(tasks.classes, 2, axis=1))


def test_list_of_another_split_is_refused(split):
    tasks = frozen_tasks("tiny", "test", COUNTS + 20, SHAPE, 10)
    with pytest.raises(BenchError, match="draw the tasks from this split"):
        tasks.batch(split, 0, 10, (0.5,) * 3, (0.2,) * 3)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            TaskShape(5, 5, 15),
            "k_shot + n_query = 20 exceeds the 15 images of class 7 of split test; lower n_query",
        ),
        (TaskShape(30, 1, 1), "n_way 30 exceeds the 20 classes of split test; lower n_way"),
        (TaskShape(1, 1, 1), "n_way = 1 is below 2, the least of a task; raise it"),
        (TaskShape(5, 0, 1), "k_shot = 0 is below 1, the least of a task; raise it"),
        (TaskShape(5, 1, 0), "n_query = 0 is below 1, the least of a task; raise it"),
    ],
)
def test_impossible_shapes_are_refused_in_one_line(shape, message):
    counts = np.full(20, 600)
    counts[7] = 15
    with pytest.raises(BenchError) as caught:
        check_shape("test", counts, shape)
    assert str(caught.value) == message
    with pytest.raises(BenchError):
        frozen_tasks("tiny", "test", counts, shape, 1)


def test_largest_possible_shape_is_accepted():
    check_shape("test", np.full(20, 20), TaskShape(20, 5, 15))


def _unequal(n_tasks: int, **changes) -> TaskList:
    return frozen_tasks("tiny", "test", np.full(9, 60), SHAPE, n_tasks, balanced=False, **changes)


def test_dirichlet_tasks_share_classes_and_support_with_balanced_ones():
    equal = frozen_tasks("tiny", "test", np.full(9, 60), SHAPE, 30)
    unequal = _unequal(30)
    k, n = SHAPE.k_shot, SHAPE.n_query
    np.testing.assert_array_equal(unequal.classes, equal.classes)
    np.testing.assert_array_equal(unequal.images[:, :, :k], equal.images[:, :, :k])
    assert (unequal.counts.sum(1) == SHAPE.n_way * n).all()
    for mine, other, counts in zip(unequal.images, equal.images, unequal.counts, strict=True):
        for row, old, count in zip(mine, other, counts, strict=True):
            common = k + min(count, n)
            np.testing.assert_array_equal(row[:common], old[:common])
            assert len(set(row[: k + count])) == k + count, "images of a class are distinct"
            assert not row[k + count :].any()


def test_a_shorter_dirichlet_list_is_the_beginning_of_a_longer_one():
    long, short = _unequal(40), _unequal(10)
    assert long[:10].sha256 == short.sha256 != long.sha256
    assert short.sha256 != frozen_tasks("tiny", "test", np.full(9, 60), SHAPE, 10).sha256
    assert short.sha256 != _unequal(10, base_seed=1).sha256


def test_rows_and_labels_follow_the_counts():
    images = np.arange(2 * 2 * 4).reshape(2, 2, 4) % 6
    counts = np.array([[3, 1], [1, 3]])
    tasks = TaskList(TaskShape(2, 1, 2), np.array([[0, 1], [1, 0]]), images, counts)
    split = make_split("test", "ab", np.array([6, 6]), np.zeros((12, 2, 2, 3), dtype=np.uint8))
    support, query = tasks.rows(split)
    np.testing.assert_array_equal(support, [[0, 10], [8, 0]])
    np.testing.assert_array_equal(query, [[1, 2, 3, 11], [9, 1, 2, 3]])
    assert tasks.labels()[1].tolist() == [[0, 0, 0, 1], [0, 1, 1, 1]]
    assert tasks.labels()[0].tolist() == [[0, 1], [0, 1]]
    equal = _frozen(3)
    np.testing.assert_array_equal(equal.query_labels, equal.labels()[1])


def test_query_counts_are_rounded_shares_of_a_dirichlet_distribution():
    shape = TaskShape(5, 1, 15)
    counts = query_counts(shape, np.random.default_rng(0), 4000)
    exact = 75 * np.random.default_rng(0).dirichlet(np.full(5, 2.0), 4000)
    assert (counts.sum(1) == 75).all()
    assert np.abs(counts - exact).max() < 1
    # variance of a share: m (1 - m) / (5 · 2 + 1) at m = 1/5
    assert counts.std() == pytest.approx(75 * np.sqrt(0.2 * 0.8 / 11), rel=0.03)


def test_too_few_images_for_unequal_queries_is_one_line():
    with pytest.raises(BenchError, match=r"query_counts = dirichlet wants \d+ of the 9 images"):
        frozen_tasks("tiny", "test", np.full(9, 9), TaskShape(3, 2, 6), 20, balanced=False)
