"""Pools across data sets of different image sizes, and untrained ones."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench import registry
from bench.contract import NetSpec
from bench.data.images import normalise
from bench.data.tasks import shares
from bench.execute.scenario import plan_teachers, scenario_data
from bench.nets.build import build_net
from bench.suites.expand import expand
from bench.suites.suite import read_suite
from bench.teachers.adapt import adapt
from bench.teachers.store import build_pool
from tests.execute.toy_scenarios import CPU, SETS, mh_cells, run
from tests.helpers import cell_of, run_toy, tiny_net, tiny_pool, toy_data


def test_every_method_is_tested_per_data_set_and_together() -> None:
    cells = [cell for cell in mh_cells() if cell.method == "ensemble_centroids"]
    assert [cell.test_datasets for cell in cells] == [
        ("cifar_fs",),
        ("mini_imagenet",),
        ("cub",),
        (),
    ]
    assert cells[-1].tested == ("cifar_fs", "mini_imagenet", "cub")
    assert {cell.datasets for cell in cells} == {("cifar_fs", "mini_imagenet", "cub")}
    assert len({cell.hash({}) for cell in cells}) == 4


def test_data_set_and_architecture_both_vary() -> None:
    cell = mh_cells("budget.max_teachers=6")[0]
    plans = plan_teachers(cell, SETS)
    assert [plan.dataset for plan in plans] == ["cifar_fs", "mini_imagenet", "cub"] * 2
    assert [plan.architecture for plan in plans] == [
        "conv4",
        "conv4_pooled",
        "conv4",
        "conv4_pooled",
        "conv4",
        "conv4_pooled",
    ]
    assert [plan.image_size for plan in plans] == [16, 24, 24] * 2
    assert [plan.classes[0] for plan in plans] == [0, 0, 0, 5, 5, 5]


def test_tasks_are_divided_evenly() -> None:
    assert shares(600, 3) == [200, 200, 200]
    assert shares(10, 3) == [4, 3, 3]
    assert sum(shares(601, 4)) == 601


def test_data_sets_are_normalised_alike() -> None:
    cell = mh_cells()[0]
    assert {(one.mean, one.std) for one in scenario_data(cell, SETS)} == {
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    }
    single = cell.model_copy(update={"datasets": ("cub",)})
    assert scenario_data(single, SETS)[0].mean == (0.4,) * 3


def test_a_pool_across_sizes_serves_every_set_and_all_together(tmp_path: Path) -> None:
    cells = [cell for cell in mh_cells() if cell.method == "ensemble_centroids"]
    stored = [run(cell, tmp_path) for cell in cells]
    assert [one.record.status for one in stored] == ["done"] * 4, stored[0].record.reason
    together = stored[-1]
    parts = [one.accuracies()[:n] for one, n in zip(stored, shares(10, 3), strict=False)]
    np.testing.assert_array_equal(together.accuracies(), np.concatenate(parts))
    _, classes = together.tasks()
    assert classes.max() >= 12
    assert [set(part.ravel() // 6) for part in np.split(classes, [4, 7])] == [{0}, {1}, {2}]
    pool = together.record.pool
    assert pool.architectures == {"conv4": 2, "conv4_pooled": 2}
    assert [teacher["dataset"] for teacher in pool.teachers] == [
        "cifar_fs",
        "mini_imagenet",
        "cub",
        "cifar_fs",
    ]
    assert together.record.test_datasets == []
    assert stored[0].record.test_datasets == ["cifar_fs"]
    assert stored[0].record.fit.sha256 == together.record.fit.sha256


def test_methods_of_one_architecture_say_why_not(tmp_path: Path) -> None:
    average = next(cell for cell in mh_cells() if cell.method == "average")
    assert run(average, tmp_path).record.status == "skipped"
    alike = {cell.method: cell for cell in mh_cells("architectures=[conv4]")}
    best = run(alike["best_teacher"], tmp_path).record
    assert (best.status, "conv4_pooled" in best.reason) == ("skipped", True)


def test_purer_runs_across_image_sizes(tmp_path: Path) -> None:
    """Pixels of one size against teachers of two, and tasks of two sizes for one meta-model."""
    cell = next(c for c in mh_cells() if c.method == "purer" and not c.test_datasets)
    record = run(cell, tmp_path).record
    assert (record.status, record.accuracy.n) == ("done", 10), record.reason
    assert {teacher["image_size"] for teacher in record.pool.teachers} == {16, 24}


def test_a_meta_model_of_pooled_features_takes_any_size(tmp_path: Path) -> None:
    net = build_net(NetSpec("conv4_pooled", 5, 84))
    assert net.features(torch.zeros(2, 3, 32, 32)).shape == (2, 32)
    assert net(torch.zeros(2, 3, 84, 84)).shape == (2, 5)
    cell = next(
        c for c in mh_cells() if (c.method, c.learner) == ("random", "maml") and not c.test_datasets
    )
    record = run(cell, tmp_path).record
    assert (record.status, record.accuracy.n) == ("done", 10), record.reason


def test_renormalised_teachers_see_their_own_pixels() -> None:
    """Fed with the cell's normalisation, a teacher answers as on its own normalisation."""
    pool = tiny_pool(["conv4"], 3, 16, torch.Generator().manual_seed(0))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    own = pool[0].net(normalise(pixels, pool[0].mean, pool[0].std))
    before = {name: value.clone() for name, value in pool[0].net.state_dict().items()}
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    adapted = adapt(pool[0], mean, std, 16)
    x = normalise(pixels, mean, std)
    torch.testing.assert_close(adapted.net(x), own)
    assert (adapted.mean, adapted.std) == (mean, std)
    back = x.permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)
    torch.testing.assert_close(back * 255, torch.from_numpy(pixels).float())
    after = adapted.net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert adapt(adapted, mean, std, 16) is adapted


def test_a_copy_of_a_renormalised_net_has_weights_of_its_own() -> None:
    teacher = adapt(
        tiny_pool(["conv4"], 3, 16, torch.Generator().manual_seed(0))[0], (0.1,) * 3, (1.0,) * 3, 16
    )
    copy = deepcopy(teacher.net)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    before = teacher.net(x)
    torch.testing.assert_close(copy(x), before)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    torch.testing.assert_close(teacher.net(x), before)
    assert not copy(x).any()


def test_a_pass_makes_no_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making them would have a GPU wait at every pass, and forbid recording it in a graph."""
    teacher = adapt(
        tiny_pool(["conv4"], 3, 16, torch.Generator().manual_seed(0))[0], (0.1,) * 3, (1.0,) * 3, 24
    )
    x = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    nets = [teacher.net, deepcopy(teacher.net)]
    monkeypatch.setattr(torch.Tensor, "new_tensor", lambda *args: pytest.fail("made a tensor"))
    assert torch.equal(*(net(x) for net in nets))
    monkeypatch.undo()
    in_double = deepcopy(teacher.net).double()(x.double())
    torch.testing.assert_close(in_double.float(), teacher.net(x), rtol=1e-4, atol=1e-5)


UNTRAINED = ("protocol.teachers=untrained", "protocol.teacher_image_size=24")


def test_untrained_teachers_of_another_size_say_so(tmp_path: Path) -> None:
    cell = cell_of("ensemble_centroids", *UNTRAINED)
    stored = run_toy(cell, toy_data(), tmp_path)
    assert stored.record.status == "done", stored.record.reason
    assert any("untrained" in one for one in stored.record.warnings)
    assert stored.record.variant == "teacher_image_size=24, teachers=untrained"
    assert {one["image_size"] for one in stored.record.pool.teachers} == {24}
    assert not any(
        "untrained" in one for one in run_toy(cell_of(), toy_data(), tmp_path).record.warnings
    )


def test_untrained_weights_follow_the_seed_and_are_stored_once(tmp_path: Path) -> None:
    data = {"glyphs": toy_data()}
    cell = cell_of("ensemble_centroids", *UNTRAINED)
    again = cell.model_copy(update={"seed": 1})
    first, same, other = (
        build_pool(tmp_path / folder, plan_teachers(one, data), data, CPU)
        for folder, one in (("a", cell), ("b", cell), ("a", again))
    )
    assert first.sha256 == same.sha256 != other.sha256
    assert len(list((tmp_path / "a" / "teachers").glob("*/teacher.json"))) == len(first) * 2
    assert 0 <= first.mean_accuracy <= 1


def test_trained_teachers_may_take_larger_images_than_the_data_has(tmp_path: Path) -> None:
    cell = cell_of("ensemble_centroids", "protocol.teacher_image_size=24")
    stored = run_toy(cell, toy_data(), tmp_path)
    assert stored.record.status == "done", stored.record.reason
    assert {one["image_size"] for one in stored.record.pool.teachers} == {24}


def test_the_large_suite_s_teachers() -> None:
    cell = expand(*read_suite("large"))[0]
    plans = plan_teachers(cell, {"glyphs": toy_data()})
    assert [(plan.architecture, plan.image_size, plan.recipe.epochs) for plan in plans] == [
        ("torchvision:resnet50", 224, 0),
        ("torchvision:vit_b_16", 224, 0),
    ]
    assert (cell.n_test_tasks, cell.k_shot, cell.n_query, cell.budget.meta_iterations) == (
        10,
        1,
        1,
        3,
    )


def test_tiny_nets_have_batch_norm() -> None:
    net = tiny_net(torch.Generator().manual_seed(0))
    assert any(isinstance(part, nn.BatchNorm2d) for part in net.modules())


@pytest.mark.parametrize("method", ["ties", "task_arithmetic"])
def test_a_shared_initialisation_reaches_the_method(method: str, tmp_path: Path) -> None:
    """Also through the step that makes teachers take the cell's images."""
    base = cell_of("average", "protocol.shared_initialisation=true")
    config = registry.load("method", method).Config()
    cell = base.model_copy(update={"method": method, "method_config": config.model_dump()})
    record = run_toy(cell, toy_data(), tmp_path).record
    assert record.status == "done", record.reason
