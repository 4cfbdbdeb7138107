"""Scoring: batched is one by one, kept embeddings change nothing, costs are counted right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench import registry
from bench.contract import NetSpec, TaskShape
from bench.data.base import ImageData, make_split
from bench.data.images import normalise
from bench.data.sets.glyphs import Glyphs
from bench.data.sources import open_data
from bench.data.tasks import frozen_tasks
from bench.execute.evaluate import EmbeddingTable, MacCounter, evaluate, inference_cost
from bench.learners.base import LearnerSettings
from bench.nets.build import build_net
from bench.seeds import numpy_generator, torch_generator
from bench.teachers.similarity import pool_similarity
from tests.helpers import tiny_net, tiny_pool

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> ImageData:
    """Eight classes that differ in colour, 30 noisy images each."""
    rng = numpy_generator("evaluate")
    colours = rng.integers(118, 138, (8, 1, 1, 1, 3))
    images = np.clip(colours + rng.normal(0, 60, (8, 30, 32, 32, 3)), 0, 255).astype(np.uint8)
    split = make_split("test", list("abcdefgh"), [30] * 8, images.reshape(-1, 32, 32, 3))
    return ImageData("toy", 32, (0.5,) * 3, (0.25,) * 3, {"test": split}, "0" * 64, "ours")


def learner(name: str, bn: str = "transductive"):
    net = tiny_net(torch_generator("evaluate"), size=32).requires_grad_(False).eval()
    return registry.load("learner", name)(net, LearnerSettings(bn=bn))


def tasks(data: ImageData, k_shot: int = 1, n: int = 40):
    return frozen_tasks("toy", "test", data.splits["test"].counts, TaskShape(5, k_shot, 4), n)


@pytest.mark.parametrize("name", registry.names("learner"))
def test_accuracies_are_those_of_one_task_after_another(data: ImageData, name: str) -> None:
    split, some = data.splits["test"], tasks(data)
    scored = learner(name, "running" if name == "centroids" else "transductive")
    found = evaluate(scored, data, split, some, CPU)
    assert found.shape == (40,)
    assert found.std() > 0
    for index in range(0, 40, 7):
        one = some.batch(split, index, index + 1, data.mean, data.std)
        logits = scored.predict(one.support_x, one.support_y, one.query_x)
        assert found[index] == (logits.argmax(-1) == one.query_y).double().mean().item()


def test_kept_embeddings_change_nothing_and_are_made_once(data: ImageData) -> None:
    split, scored = data.splits["test"], learner("centroids", "running")
    embedded: list[int] = []
    embed = scored.embed
    scored.embed = lambda images: embedded.append(len(images)) or embed(images)
    table = EmbeddingTable(len(split.images), CPU)
    one, five = tasks(data), tasks(data, k_shot=5)
    kept = [evaluate(scored, data, split, some, CPU, table) for some in (one, five)]
    assert sum(embedded) == table.n_known <= 240
    fresh = [evaluate(scored, data, split, some, CPU) for some in (one, five)]
    for a, b in zip(kept, fresh, strict=True):
        np.testing.assert_array_equal(a, b)


def test_costs_are_the_multiply_accumulates_counted_by_hand(data: ImageData) -> None:
    """Conv4 at 32 px: 27·32·32², 288·32·16², 288·32·8², 288·32·4² for the four convolutions."""
    body = 27 * 32 * 32**2 + 288 * 32 * (16**2 + 8**2 + 4**2)
    head = 128 * 5
    split, some = data.splits["test"], tasks(data)
    per_image, per_task = inference_cost(learner("centroids", "running"), data, split, some, CPU)
    assert body <= per_image <= body * 1.01
    assert per_task == pytest.approx(5 * body, rel=0.01)
    per_image, per_task = inference_cost(learner("maml"), data, split, some, CPU)
    assert per_image == body + head
    forward_and_weight_gradients = 2 * 5 * (body + head)
    input_gradients = 5 * (body - 27 * 32 * 32**2 + head)
    assert per_task == pytest.approx(forward_and_weight_gradients + input_gradients, rel=0.01)


def icfil(config: dict, name: str = "maml"):
    calibration = registry.load("calibration", "icfil")
    return calibration().wrap(
        learner(name),
        calibration.Config(**config),
        lambda task: torch_generator("evaluate", "noise", task),
    )


def test_counting_operations_does_not_load_torch_s_compiler() -> None:
    """Where torch wraps the counter, the first operation loads 800 modules."""
    with MacCounter() as counter:
        assert torch.ones(2, 3) @ torch.ones(3, 4) is not None
    assert counter.macs == 2 * 3 * 4
    assert not hasattr(MacCounter.__torch_dispatch__, "__wrapped__")


def test_a_calibrated_tasks_score_depends_on_its_place_alone(data: ImageData, monkeypatch) -> None:
    split, some = data.splits["test"], tasks(data, n=10)
    config = {"inversion_steps": 2, "steps": 2}
    whole = evaluate(icfil(config), data, split, some, CPU)
    monkeypatch.setattr("bench.execute.evaluate.TASKS_PER_CHUNK", 3)
    np.testing.assert_array_equal(evaluate(icfil(config), data, split, some, CPU), whole)
    uncalibrated = evaluate(learner("maml"), data, split, some, CPU)
    assert (whole != uncalibrated).any()
    still = evaluate(icfil({"steps": 0}), data, split, some, CPU)
    np.testing.assert_array_equal(still, uncalibrated)


def test_the_cost_of_adapting_includes_calibration(data: ImageData) -> None:
    """Beyond MAML's own: passes over real and pseudo images, a backward one counting two.

    The statistics of the 5 real images; 3 steps on 10 pseudo images, with gradients of the pixels
    and none of the weights; 2 steps on 5 + 10 images, with gradients of the weights.
    """
    body, first = 27 * 32 * 32**2 + 288 * 32 * (16**2 + 8**2 + 4**2), 27 * 32 * 32**2
    split, some = data.splits["test"], tasks(data)
    config = {"inversion_steps": 3, "steps": 2, "pseudo_images_per_class": 2}
    plain = inference_cost(learner("maml"), data, split, some, CPU)
    found = inference_cost(icfil(config), data, split, some, CPU)
    assert found[0] == plain[0]
    inversion = 3 * 10 * 2 * body
    calibration = 2 * (5 + 10) * (3 * body - first)
    assert found[1] - plain[1] == pytest.approx(5 * body + inversion + calibration, rel=0.02)


def test_networks_are_built_from_a_spec_alone() -> None:
    assert build_net(NetSpec("conv4", 3, 32)).head.out_features == 3


def test_a_memory_map_is_read_by_rows_and_without_a_warning(glyphs_cache: Path) -> None:
    """torch warns, once a process, of tensors on memory that must not be written."""
    opened = open_data(Glyphs(), glyphs_cache)
    split = opened.splits["val"]
    assert isinstance(split.images, np.memmap)
    assert not split.images.flags.writeable
    some = frozen_tasks("glyphs", "val", split.counts, TaskShape(5, 1, 4), 2)
    pool = tiny_pool(["conv4"] * 2, 3, 32, torch_generator("map"))
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        for name in ("protonet", "centroids"):
            assert evaluate(learner(name), opened, split, some, CPU).shape == (2,)
        assert normalise(split.class_images(0), opened.mean, opened.std).isfinite().all()
        assert pool_similarity(pool, [opened], CPU, 40) is not None
    finally:
        torch.set_warn_always(always)
