"""Names in figures: beside their points, and none over another."""

from __future__ import annotations

import itertools

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from reports.figures.cost import pareto_figure
from reports.figures.differences import Difference, difference_figure
from reports.figures.frontier import frontier_figure
from reports.figures.names import name_points, spread_out
from reports.figures.style import laid_out

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


@given(VALUES, st.floats(0.01, 5))
def test_places_keep_their_order_their_distance_and_their_mean(values, least):
    places = spread_out(values, least)
    order = np.argsort(values, kind="stable")
    assert (np.diff(places[order]) >= least - 1e-9).all()
    assert places.mean() == pytest.approx(np.mean(values), abs=1e-6)


def test_places_far_apart_are_left_alone():
    assert spread_out([3.0, 1.0, 9.0], 0.5).tolist() == [3.0, 1.0, 9.0]
    assert spread_out([1.0, 1.0], 0.5).tolist() == [0.75, 1.25]


def test_names_meet_neither_one_another_nor_a_point_and_the_first_are_all_there():
    rng = np.random.default_rng(0)
    x, y = 10 ** rng.uniform(-2, 3, 25), rng.uniform(20, 60, 25)
    figure = Figure(figsize=(5, 4))
    axes = figure.subplots()
    axes.plot(x, y, "o", markersize=4)
    axes.set_xscale("log")
    axes.margins(0.2)
    names = [f"method {i} · maml" for i in range(25)]
    name_points(axes, x, y, names, [int(y.argmax())])
    figure.draw_without_rendering()
    shown = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert names[int(y.argmax())] in shown
    assert 8 <= len(shown) < 25
    for one, other in itertools.combinations(shown.values(), 2):
        width = min(one.x1, other.x1) - max(one.x0, other.x0)
        height = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(width, height) <= 1.5  # pixels: letters' widths are estimated
    for place in axes.transData.transform(np.stack([x, y], axis=1)):
        assert not any(box.contains(*place) for box in shown.values())


def test_the_first_names_keep_off_one_another_and_off_the_line_that_joins_them():
    x, y = np.array([4.0, 52.0, 104.0, 4.0]), np.array([63.6, 64.3, 66.9, 62.9])
    figure = Figure(figsize=(4.4, 3.4))
    axes = figure.subplots()
    axes.plot(x, y, "o", markersize=4)
    axes.set(xscale="log", ylim=(45, 70))
    axes.margins(x=0.33)
    names = ["distill_ensemble", "ensemble_centroids", "ensemble_centroids (tuned)", "oracle"]
    name_points(axes, x, y, names, [0, 1, 2])
    figure.draw_without_rendering()
    shown = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert set(names[:3]) <= set(shown)
    for one, other in itertools.combinations(shown.values(), 2):
        assert not one.overlaps(other)
    corners = axes.transData.transform(np.stack([x, y], axis=1))[:3]
    for start, end in itertools.pairwise(corners):
        for place in np.linspace(start, end, 50):
            assert not any(box.contains(*place) for box in shown.values())


@pytest.mark.parametrize("n_rows", [2, 8])
def test_names_and_titles_of_differences_lie_inside_the_picture(n_rows):
    rows = [f"ensemble_centroids (tuned) {i}" for i in range(n_rows)]
    settings = ["mini_imagenet_subset 5-way 1-shot", "mini_imagenet_subset 5-way 5-shot"]
    figure = difference_figure([
        Difference(setting, a, b, 0.01, -0.01, 0.03)
        for setting in settings
        for a, b in itertools.permutations(rows, 2)
    ])  # fmt: skip
    figure.draw_without_rendering()
    titles = [axes.title for axes in figure.axes]
    names = [*figure.axes[0].get_yticklabels(), *figure.axes[0].get_xticklabels()]
    for text in [*titles, *names]:
        box = text.get_window_extent()
        assert all(figure.bbox.contains(*corner) for corner in box.corners()), text
    first, second = (title.get_window_extent() for title in titles)
    assert not first.overlaps(second)


@pytest.mark.parametrize("second", [4e6, 4.0001e6])
def test_nearly_equal_costs_are_drawn_on_a_decade(second: float) -> None:
    """The names of the points and the numbers below the axis stay on the figure."""
    rows = [
        {"method": name, "learner": "maml", "setting": "glyphs", "knowledge": "parameters",
         "inference": "inductive", "mean": mean, "ci95": 0.01, "macs_per_query_image": macs}
        for name, mean, macs in (("average", 0.5, 4e6), ("random", 0.4, second))
    ]  # fmt: skip
    frame = pandas.DataFrame(rows)
    for figure in (frontier_figure(frame), pareto_figure(frame, "macs_per_query_image")):
        laid_out(figure)
        (axes,) = figure.axes
        low, high = axes.get_xlim()
        assert high > 9.99 * low
        ticks = [one.get_text() for one in axes.get_xticklabels()]
        assert len(set(ticks)) == len(ticks)
        for text in axes.texts:
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_names_of_a_frontier_lie_on_no_point_and_on_no_other_name() -> None:
    """Many cheap methods close together, two between, three costly ones; names of any length."""
    places = [(f"method_{i} (largest_group)", 0.3 + 0.004 * i, 4e6) for i in range(18)]
    places += [("two_networks (tuned)", 0.5, 8e6), ("four_networks", 0.41, 16e6)]
    places += [("all_teachers", 0.48, 5e7), ("all", 0.43, 5e7), ("all_teachers (tuned)", 0.51, 1e8)]
    rows = [
        {"method": name, "learner": "maml", "setting": "glyphs", "knowledge": "parameters",
         "inference": "inductive", "mean": mean, "ci95": 0.01, "macs_per_query_image": macs}
        for name, mean, macs in places
    ]  # fmt: skip
    figure = laid_out(frontier_figure(pandas.DataFrame(rows)))
    (axes,) = figure.axes
    points = axes.transData.transform([(macs, 100 * mean) for _, mean, macs in places])
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without their lines
    assert len(boxes) == len(places)
    for one, other in itertools.combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        upwards = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert across <= 0 or upwards < 0.2 * one.height
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert not box.count_contains(points)
