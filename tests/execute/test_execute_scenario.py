"""Pools across data sets of different image sizes, imported pools, and what records say of them."""

from __future__ import annotations

import itertools
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bench import registry
from bench.contract import NetSpec, Pool
from bench.data.base import ImageData, make_split
from bench.data.reading.images import denormalise, normalise
from bench.execute.cell import run_cell
from bench.execute.scenario import plan_teachers, scenario_data, shares
from bench.execute.state import RunState, obtain_pool, own_pool
from bench.nets.build import build_net
from bench.nets.imported import Imported
from bench.results.store import StoredRecord, read_record
from bench.suites.cell import Cell, PoolChoice
from bench.suites.expand import expand
from bench.suites.suite import read_suite
from bench.teachers.adapt import adapt, normalises_otherwise
from bench.teachers.store import build_pool
from bench.teachers.transfer import export_pool, import_pool, load_pool
from tests.helpers import cell_of, run_toy, tiny_net, tiny_pool, toy_data

CPU = torch.device("cpu")
TINY = [
    "budget.teacher_epochs=1",
    "budget.teacher_epochs_of={}",
    "budget.max_teachers=4",
    "budget.meta_iterations=4",
    "budget.validate_every=2",
    "budget.n_val_tasks=4",
    "n_test_tasks=10",
    "n_query=3",
    "k_shot=1",
]


def toy(name: str, size: int, mean: float = 0.5, seed: int = 0) -> ImageData:
    """Coloured noise under the name of a registered data set, so that a cell can name it."""
    rng = np.random.default_rng(seed)
    splits = {}
    for split, n_classes in (("train", 10), ("val", 6), ("test", 6)):
        colours = rng.integers(60, 196, (n_classes, 1, 1, 1, 3))
        noise = rng.integers(-60, 60, (n_classes, 8, size, size, 3))
        pixels = np.clip(colours + noise, 0, 255).astype(np.uint8).reshape(-1, size, size, 3)
        splits[split] = make_split(
            split, [f"{split}{i}" for i in range(n_classes)], [8] * n_classes, pixels
        )
    digest = f"{len(name)}{size}".ljust(64, "d")
    return ImageData(name, size, (mean,) * 3, (0.25,) * 3, splits, digest, "ours")


SETS = {
    "cifar_fs": toy("cifar_fs", 16),
    "mini_imagenet": toy("mini_imagenet", 24, 0.4, 1),
    "cub": toy("cub", 24, 0.4, 2),
}


def mh_cells(*settings: str) -> list[Cell]:
    return expand(*read_suite("mh", [*TINY, "architectures=[conv4, conv4_pooled]", *settings]))


def run(cell: Cell, folder: Path, sets: dict[str, ImageData] = SETS) -> StoredRecord:
    place = RunState("toy", folder / "runs", folder / "cache", CPU, sets, "bench run mh")
    return read_record(run_cell(cell, place))


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
    torch.testing.assert_close(
        denormalise(x, mean, std) * 255, torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    )
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


def imported(folder: Path, architectures: list[str]) -> PoolChoice:
    pool = tiny_pool(architectures, 3, 16, torch.Generator().manual_seed(0))
    export_pool(list(pool), "tiny", "made here", folder / "exported")
    index = import_pool(folder / "cache", "mine", folder / "exported")
    return PoolChoice(name="mine", sha256=index.sha256)


def ss_cell(method: str, choice: PoolChoice, *settings: str) -> Cell:
    cells = expand(*read_suite("cifar_fs_ss", [*TINY, *settings]))
    cell = next(cell for cell in cells if cell.method == method)
    return cell.model_copy(update={"pool": choice})


def test_a_cell_runs_on_an_imported_pool(tmp_path: Path) -> None:
    choice = imported(tmp_path, ["conv4", "conv4_pooled"])
    cell = ss_cell("ensemble_centroids", choice)
    stored = run(cell, tmp_path)
    assert stored.record.status == "done", stored.record.reason
    assert (stored.record.pool.name, stored.record.pool.n) == ("mine", 2)
    assert stored.record.pool.sha256 == choice.sha256
    assert stored.record.pool.teachers[0]["dataset"] == "tiny"
    assert not (tmp_path / "cache" / "teachers").exists()
    other = cell.model_copy(update={"pool": PoolChoice(name="mine", sha256="0" * 64)})
    assert other.hash({}) != cell.hash({})
    failed = run(other, tmp_path).record
    assert (failed.status, "changed since the plan" in failed.reason) == ("failed", True)


def test_a_shared_pool_is_made_to_take_each_cells_images(tmp_path: Path) -> None:
    choice = imported(tmp_path, ["conv4"])
    own = load_pool(tmp_path / "cache", "mine")[0]
    alike = {name: replace(SETS[name], mean=own.mean, std=own.std) for name in ("cifar_fs", "cub")}
    place = RunState("toy", tmp_path / "runs", tmp_path / "cache", CPU, alike, "bench run own")
    cell = ss_cell("ensemble_centroids", choice)
    for name, size in (("cifar_fs", 16), ("cub", 24), ("cifar_fs", 16)):
        (teacher,) = obtain_pool(cell.model_copy(update={"datasets": (name,)}), place)
        assert teacher.net(torch.zeros(1, 3, size, size)).shape == (1, 3)
        assert not normalises_otherwise(teacher)


def test_a_pool_of_ones_own_is_not_made_to_take_a_cells_images(tmp_path: Path) -> None:
    choice = imported(tmp_path, ["conv4"])
    place = RunState("toy", tmp_path / "runs", tmp_path / "cache", CPU, SETS, "bench run own")
    cell = ss_cell("ensemble_centroids", choice).model_copy(update={"datasets": ("cub",)})
    taken, own = obtain_pool(cell, place)[0], own_pool(cell, place)[0]
    assert normalises_otherwise(taken)
    assert taken.mean == SETS["cub"].mean != own.mean
    assert not normalises_otherwise(own)


def test_weights_that_meet_other_pixels_are_named(tmp_path: Path) -> None:
    choice = imported(tmp_path, ["conv4", "conv4"])
    cells = [ss_cell(name, choice, "n_way=3") for name in ("average", "ensemble_centroids")]
    dark = {"cifar_fs": replace(SETS["cifar_fs"], mean=(0.4, 0.4, 0.4))}
    warned = []
    for cell, sets in itertools.product(cells, (SETS, dark)):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)  # the digest says nothing of the mean
        warnings = run(cell, tmp_path, sets).record.warnings
        warned.append(any("pixels of another mean" in one for one in warnings))
    assert warned == [False, True, False, False]


class Flat(nn.Module):
    """A classifier without batch norm."""

    def __init__(self, n_classes: int, image_size: int):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.out = nn.Linear(4, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.conv(x).relu().mean((2, 3)))


@pytest.fixture
def flat_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register `Flat` as the network `flat`."""
    load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name: Flat if name == "flat" else load(kind, name)
    )


@pytest.mark.usefixtures("flat_network")
def test_teachers_without_batch_norm_serve_who_needs_none(tmp_path: Path) -> None:
    teacher = tiny_pool(["conv4"], 3, 16, torch.Generator().manual_seed(0))[0]
    flat = replace(teacher, spec=NetSpec("flat", 3, 16), net=Imported(Flat(3, 16)))
    export_pool([flat], "flat", "here", tmp_path / "exported")
    index = import_pool(tmp_path / "cache", "mine", tmp_path / "exported")
    choice = PoolChoice(name="mine", sha256=index.sha256)
    assert run(ss_cell("ensemble_centroids", choice), tmp_path).record.status == "done"
    assert isinstance(load_pool(tmp_path / "cache", "mine"), Pool)
    by_batch = ss_cell("ensemble_centroids", choice, "ensemble_centroids.bn=batch")
    refused = run(by_batch, tmp_path).record
    assert (refused.status, "has no batch norm" in refused.reason) == ("skipped", True)
    merged = run(ss_cell("fisher", choice), tmp_path).record
    assert (merged.status, "needs batch norm statistics" in merged.reason) == ("skipped", True)
    inverted = run(ss_cell("purer", choice, "n_way=3"), tmp_path)
    assert (inverted.record.status, inverted.record.fit is not None) == ("done", True)
    assert any("inverted without a term" in one for one in inverted.record.warnings)
    curve = pd.read_parquet(inverted.folder / "curve.parquet").groupby("name")["value"]
    assert curve.get_group("bn_statistics").eq(0).all()
    assert curve.get_group("cross_entropy").gt(0).all()


@pytest.mark.usefixtures("flat_network")
def test_batch_norm_is_asked_only_of_the_teachers_that_a_method_uses(tmp_path: Path) -> None:
    pool = tiny_pool(["conv4", "conv4", "conv4"], 3, 16, torch.Generator().manual_seed(0))
    flat = {"name": "flat", "spec": NetSpec("flat", 3, 16), "net": Imported(Flat(3, 16))}
    worst = replace(pool[0], accuracy=0.1, **flat)
    best = replace(pool[0], accuracy=0.99, **flat)
    for name, odd in (("worst", worst), ("best", best)):
        folder = tmp_path / name
        export_pool([odd, pool[1], pool[2]], name, "here", folder / "exported")
        index = import_pool(folder / "cache", name, folder / "exported")
        choice = PoolChoice(name=name, sha256=index.sha256)
        merged = run(ss_cell("fisher", choice, "fisher.group=largest", "n_way=3"), folder).record
        assert merged.status == "done", merged.reason
        everyone = run(ss_cell("distill_ensemble", choice), folder).record
        assert (everyone.status, "flat" in everyone.reason) == ("skipped", True)
        single = run(ss_cell("single_dfkd", choice), folder).record
        assert single.status == ("done" if name == "worst" else "skipped"), single.reason


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
