"""The intervals over seeds and over classes: against formulas, symmetric, order-free."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from bench.errors import BenchError
from bench.seeds import numpy_generator
from bench.stats import (
    hierarchical_interval,
    mean_interval,
    open_interval,
    resample_counts,
    seed_spread,
)
from bench.stats.classes import class_effects

N_TASKS = 200
COUNTS = resample_counts(N_TASKS, numpy_generator("counts"), 8000)


def repetitions(seed_std: float, n_seeds: int = 4) -> np.ndarray:
    """(n_seeds, 200) accuracies: tasks differ, seeds differ by `seed_std`."""
    generator = numpy_generator("repetitions")
    tasks = generator.normal(0.5, 0.09, N_TASKS)
    seeds = generator.normal(0, 1, (n_seeds, 1)) * seed_std
    return tasks + seeds + generator.normal(0, 0.05, (n_seeds, N_TASKS))


def tasks_of(class_std: float, noise: float = 0.05, n_classes: int = 20):
    """Values (200,), classes (200, 5) and the effects that made them."""
    generator = numpy_generator("classes", n_classes)
    classes = np.argsort(generator.random((N_TASKS, n_classes)), axis=1)[:, :5]
    effects = generator.normal(0, class_std, n_classes)
    values = 0.5 + effects[classes].sum(1) + generator.normal(0, noise, N_TASKS)
    return values, classes, effects


def test_spread_by_hand():
    found = seed_spread([0.3, 0.4, 0.5])
    assert (found.mean, found.std, found.n) == (pytest.approx(0.4), pytest.approx(0.1), 3)
    with pytest.raises(BenchError, match="at least 2"):
        seed_spread([0.3])


def test_without_tasks_spread_it_is_the_t_interval_over_seeds():
    """All tasks of a seed are equal: only the seeds' means count."""
    means = np.array([0.40, 0.43, 0.41, 0.47])
    found = hierarchical_interval(np.repeat(means[:, None], N_TASKS, axis=1))
    assert found == pytest.approx(mean_interval(means))


def test_without_seeds_spread_it_is_the_t_interval_over_tasks():
    tasks = numpy_generator("tasks").normal(0.5, 0.1, N_TASKS)
    found = hierarchical_interval(np.repeat(tasks[None], 3, axis=0))
    assert found == pytest.approx(mean_interval(tasks))


def test_mean_squares_are_those_of_the_two_way_analysis():
    """By sums of squares as a textbook writes them, from the raw totals."""
    values = repetitions(0.02)
    n_seeds, n_tasks = values.shape
    correction = values.sum() ** 2 / values.size
    seeds = (values.sum(1) ** 2).sum() / n_tasks - correction
    tasks = (values.sum(0) ** 2).sum() / n_seeds - correction
    rest = (values**2).sum() - correction - seeds - tasks
    squares = np.array([seeds, tasks, rest])
    degrees = np.array([n_seeds - 1, n_tasks - 1, (n_seeds - 1) * (n_tasks - 1)])
    ms = squares / degrees
    total = ms[0] + ms[1] - ms[2]
    freedom = total**2 / (ms**2 / degrees).sum()
    half = reference.t(freedom).ppf(0.975) * np.sqrt(total / values.size)
    found = hierarchical_interval(values)
    assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))


def test_it_is_wider_than_tasks_alone_and_ignores_both_orders():
    values = repetitions(0.02)
    found = hierarchical_interval(values)
    alone = mean_interval(values.mean(0))
    assert found.high - found.low > alone.high - alone.low
    generator = numpy_generator("orders")
    shuffled = values[generator.permutation(4)][:, generator.permutation(N_TASKS)]
    assert hierarchical_interval(shuffled) == pytest.approx(found)
    mirrored = hierarchical_interval(-values)
    assert mirrored == pytest.approx((-found.mean, -found.high, -found.low))


def test_equal_values_have_no_width():
    assert hierarchical_interval(np.full((3, 5), 0.25)) == (0.25, 0.25, 0.25)
    values, classes, _ = tasks_of(0.02)
    flat = open_interval(np.full(len(values), 0.25), classes, COUNTS, numpy_generator("flat"))
    assert flat == pytest.approx((0.25, 0.25, 0.25))


def test_class_effects_are_found_and_shrunk():
    values, classes, effects = tasks_of(0.03)
    found, rest, n_way = class_effects(values, classes)
    assert n_way == 5
    assert np.corrcoef(found, effects)[0, 1] > 0.9
    assert found.sum() == pytest.approx(0, abs=1e-12)
    assert rest.mean() == pytest.approx(0, abs=1e-12)
    none, _, _ = class_effects(tasks_of(0.0)[0], classes)
    assert none.std() < 0.3 * found.std()


def test_exact_effects_are_not_shrunk():
    values, classes, effects = tasks_of(0.03, noise=0.0)
    found, rest, _ = class_effects(values, classes)
    assert found == pytest.approx(effects - effects.mean())
    assert np.abs(rest).max() < 1e-12


def test_open_is_about_the_formula_of_its_model():
    """Half width: t_{C-1} · √(n_way² s²/C + σ²/T), s and σ those of the simulated world."""
    values, classes, effects = tasks_of(0.03)
    found = open_interval(values, classes, COUNTS, numpy_generator("open"))
    variance = 25 * effects.var(ddof=1) / 20 + 0.05**2 / N_TASKS
    half = reference.t(19).ppf(0.975) * np.sqrt(variance)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
    tasks = mean_interval(values)
    assert found.low < tasks.low < found.mean < tasks.high < found.high


def test_open_depends_on_names_of_classes_and_order_of_tasks_by_chance_only():
    values, classes, _ = tasks_of(0.03)
    found = open_interval(values, classes, COUNTS, numpy_generator("g"))
    again = open_interval(values, classes, COUNTS, numpy_generator("g"))
    assert again == found
    order = numpy_generator("order").permutation(N_TASKS)
    renamed = 100 - classes[order][:, ::-1]
    other = open_interval(values[order], renamed, COUNTS, numpy_generator("g"))
    assert other == pytest.approx(found, abs=0.1 * (found.high - found.low))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v, c, g: open_interval(v, c[:-1], COUNTS, g), "classes of shape (199, 5)"),
        (lambda v, c, g: open_interval(v[:30], c[:30], COUNTS, g), "30 tasks of 20 classes"),
        (lambda v, c, g: open_interval(v, c, COUNTS, g, level=0), "level = 0"),
        (lambda v, c, g: open_interval(v, c, COUNTS[:, 1:], g), "resample_counts(200, "),
        (lambda v, c, g: hierarchical_interval(v), "shape (200,)"),
        (lambda v, c, g: hierarchical_interval(v[None]), "shape (1, 200)"),
        (lambda v, c, g: hierarchical_interval(np.full((2, 2), np.nan)), "finite"),
    ],
)
def test_bad_input_is_one_line(call, words):
    values, classes, _ = tasks_of(0.02)
    with pytest.raises(BenchError) as raised:
        call(values, classes, numpy_generator("bad"))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
