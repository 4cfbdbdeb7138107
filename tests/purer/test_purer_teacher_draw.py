"""Which teachers a pixel step takes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from purer.teacher_draw import TeacherDraw


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("per_step", [None, 5, 9])
def test_a_whole_pool_is_taken_in_order_without_a_draw(per_step):
    stream = generator()
    assert TeacherDraw(5, per_step, stream)() == [0, 1, 2, 3, 4]
    assert torch.equal(stream.get_state(), generator().get_state())


def test_teachers_are_distinct_and_equally_likely():
    draw = TeacherDraw(10, 3, generator())
    steps = [draw() for _ in range(2000)]
    assert all(len(set(step)) == 3 for step in steps)
    counts = Counter(index for step in steps for index in step)
    assert set(counts) == set(range(10))
    assert max(abs(count - 600) for count in counts.values()) < 5 * (2000 * 0.3 * 0.7) ** 0.5


def test_a_resumed_draw_goes_on():
    draw, other = TeacherDraw(100, 13, generator()), TeacherDraw(100, 13, generator())
    draw()
    state = draw.get_state()
    expected = [draw() for _ in range(3)]
    other.set_state(state)
    assert [other() for _ in range(3)] == expected
