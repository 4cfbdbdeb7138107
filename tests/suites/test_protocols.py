"""Every setting of a protocol does what it says, in the harness that the methods run in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import registry
from bench.contract import NetSpec, Pool, ProtocolConstants
from bench.data.base import ImageData, make_split
from bench.errors import BenchError
from bench.execute.context import CellContext
from bench.execute.evaluate import evaluate, fingerprint, task_list
from bench.execute.fits import FitRun
from bench.execute.fitting import fit_key
from bench.execute.progress import Progress
from bench.execute.scenario import plan_teachers
from bench.learners.base import LearnerSettings
from bench.learners.maml import Maml
from bench.nets.norm import holds_statistics
from bench.results.files import read_parquet
from bench.results.store import StoredRecord
from bench.suites.cell import Cell
from bench.suites.protocols import PROTOCOLS, differences, protocol
from bench.teachers.pool import number_classes
from bench.teachers.store import build_pool
from tests.helpers import cell_of, run_toy, tiny_net, toy_data

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> ImageData:
    return toy_data()


def learner_of(seed: int, size: int = 16) -> Maml:
    net = tiny_net(torch.Generator().manual_seed(seed), size=size)
    return Maml(net.requires_grad_(False).eval(), LearnerSettings())


def context_of(cell: Cell, data: ImageData, pool: Pool | None = None) -> Any:
    net = NetSpec(cell.net, cell.n_way, data.image_size)
    method = registry.load("method", cell.method)()
    known = CellContext(cell, method, pool or Pool([], ""), net, [data], CPU)
    return known.fit_context(FitRun(Path("not written"), CPU, Progress()))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_named_protocols_are_valid_and_name_themselves(name: str) -> None:
    named = protocol(name)
    assert ProtocolConstants.model_validate(named.model_dump()) == named
    assert named.name == name
    assert differences(named) == {}


def test_pool100_is_the_extension_s() -> None:
    found = {k: v for k, v in protocol("pool100").model_dump().items() if getattr(HONEST, k) != v}
    assert found == {
        "name": "pool100",
        "pool": "overlapping",
        "n_teachers": 100,
        "teacher_decay": 1.0,
        "teachers_per_iteration": 13,
        "pseudo_split": "fixed",
        "initialisation": "random",
        "inner_steps_train": 5,
        "inner_steps_test": 10,
        "pixel_lr": 0.01,
    }


HONEST = protocol("cvpr23")
SHORT = ("protocol.selection=last", "budget.meta_iterations=2", "n_test_tasks=2")
"""A cell whose fit alone is looked at."""


@pytest.mark.parametrize(
    "wrong",
    [
        {"selection": "best"},
        {"task_list": "fixed"},
        {"teacher_weights": "mean"},
        {"label_order": "random"},
        {"teacher_checkpoint": "first"},
        {"bn": "batch"},
        {"pseudo_split": "half"},
        {"pseudo_images_per_class": 1},
        {"initialisation": "zero"},
        {"inner_steps_train": -1},
        {"inner_steps_test": -1},
        {"clip_pixels": 0},
        {"teachers_per_iteration": 0},
        {"pool": "shared"},
        {"pool": "overlapping"},
        {"n_teachers": 3},
        {"teacher_decay": 0},
        {"kd": "kl"},
    ],
    ids=str,
)
def test_impossible_settings_are_one_line_errors(wrong: dict[str, Any]) -> None:
    settings = [f"protocol.{key}={value}" for key, value in wrong.items()]
    with pytest.raises(BenchError) as caught:
        cell_of("purer", *settings)
    assert "\n" not in str(caught.value)
    assert next(iter(wrong)) in str(caught.value)


def test_a_cell_names_its_variant_by_what_differs() -> None:
    assert cell_of().variant == ""
    changed = cell_of("purer", "protocol.bn=support", "protocol.inner_steps_test=5")
    assert changed.variant == "bn=support, inner_steps_test=5"
    assert changed.variant in changed.label
    assert cell_of("purer", "protocol=cvpr23_as_published").variant == ""


# H1, H2: which tasks choose the checkpoint, and which score it


@pytest.mark.parametrize(("selection", "split"), [("val", "val"), ("test_max", "test")])
@pytest.mark.parametrize("tasks", ["frozen", "redrawn"])
def test_selection_scores_on_the_split_it_names(
    data: ImageData, selection: str, split: str, tasks: str
) -> None:
    cell = cell_of("purer", f"protocol.selection={selection}", f"protocol.task_list={tasks}")
    learner = learner_of(0)
    expected = evaluate(
        learner, data, data.splits[split], task_list(cell, data, split, learner), CPU
    )
    assert context_of(cell, data).validate(learner) == pytest.approx(expected.mean())


def test_the_last_checkpoint_needs_no_validation(data: ImageData) -> None:
    assert context_of(cell_of("purer", "protocol.selection=last"), data).validate is None


def test_frozen_tasks_are_everybody_s_and_redrawn_ones_nobody_else_s(data: ImageData) -> None:
    frozen, redrawn = cell_of(), cell_of("purer", "protocol.task_list=redrawn")
    other = cell_of("average", "protocol.task_list=redrawn")
    one, two = learner_of(1), learner_of(2)
    for split in ("val", "test"):

        def drawn(cell: Cell, learner: Maml, split: str = split) -> str:
            return task_list(cell, data, split, learner).sha256

        assert drawn(frozen, one) == drawn(frozen, two) == drawn(cell_of("average"), one)
        lists = {drawn(frozen, one), drawn(redrawn, one), drawn(redrawn, two), drawn(other, one)}
        assert len(lists) == 4
        assert drawn(redrawn, one) == drawn(redrawn, learner_of(1))


def test_fingerprints_follow_the_weights() -> None:
    assert fingerprint(learner_of(1)) == fingerprint(learner_of(1)) != fingerprint(learner_of(2))
    moved = learner_of(1)
    with torch.no_grad():
        moved.net.head.bias[0] += 1e-6
    assert fingerprint(moved) != fingerprint(learner_of(1))


@pytest.mark.parametrize("tasks", ["frozen", "redrawn"])
def test_as_published_reports_the_maximum_over_its_evaluations(
    data: ImageData, tmp_path: Path, tasks: str
) -> None:
    """Best of seven evaluations on test tasks, and the record is that of the best."""
    stored = run_toy(
        cell_of("purer", "protocol=cvpr23_as_published", f"protocol.task_list={tasks}"),
        data,
        tmp_path,
    )
    record = stored.record
    assert record.status == "done", record.reason
    curve = read_parquet(stored.folder / "curve.parquet")
    scores = curve["value"][curve["name"] == "val_accuracy"]
    assert len(scores) == 7
    assert len(set(scores)) > 1
    assert record.accuracy.mean == pytest.approx(scores.max())
    assert record.selection == "test_max"
    assert "the checkpoint was selected on test tasks" in record.warnings
    assert any("cannot be paired" in text for text in record.warnings) == (tasks == "redrawn")
    assert record.variant == ("task_list=frozen" if tasks == "frozen" else "")


def test_a_fit_depends_on_the_test_tasks_only_where_it_is_selected_on_them() -> None:
    def key(*settings: str, method: str = "purer") -> str:
        cell = cell_of(method, *settings)
        return fit_key(registry.load("method", method), cell, NetSpec("conv4", 5, 32), "p", "d")

    more = "n_test_tasks=13"
    assert key() == key(more)
    published = "protocol.selection=test_max"
    assert key(published) != key(published, more)
    assert key(published, method="average") == key(published, more, method="average")


# H6, H13: pools


def test_both_checkpoints_of_one_training_have_the_accuracy_of_their_own_weights(
    data: ImageData, tmp_path: Path
) -> None:
    from bench.teachers.store import split_images
    from bench.teachers.train import held_out_accuracy

    stages: list[str] = []
    pools = {}
    for kind in ("best", "last"):
        cell = cell_of("purer", f"protocol.teacher_checkpoint={kind}", "budget.teacher_epochs=4")
        plans = plan_teachers(cell, {"glyphs": data})
        pools[kind] = build_pool(
            tmp_path, plans, {"glyphs": data}, CPU, lambda label, done, total: stages.append(label)
        )
        for teacher, plan in zip(pools[kind], plans, strict=True):
            assert held_out_accuracy(teacher.net, *split_images(plan, data)[1]) == teacher.accuracy
    assert len(stages) == 2 * 4, "the last epochs were trained for again"
    pairs = list(zip(pools["best"], pools["last"], strict=True))
    assert all(best.accuracy >= last.accuracy for best, last in pairs)
    assert any(best.sha256 != last.sha256 for best, last in pairs)


def test_overlapping_pools_share_classes_and_follow_the_seed() -> None:
    def classes(n: int, n_classes: int = 64, seed: int = 0) -> list[tuple[int, ...]]:
        settings = ("protocol=pool100", f"protocol.n_teachers={n}", "budget.max_teachers=null")
        cell = cell_of("purer", *settings).model_copy(update={"seed": seed})
        return [plan.classes for plan in plan_teachers(cell, {"glyphs": wide(n_classes)})]

    pool = classes(100)
    assert len(pool) == 100
    assert all(len(set(group)) == 5 for group in pool)
    assert {c for group in pool for c in group} == set(range(64))
    assert pool == classes(100)
    assert pool[:13] == classes(13)
    assert pool != classes(100, seed=1)
    counts = np.bincount([c for group in pool for c in group], minlength=64)
    assert counts.std() == pytest.approx(np.sqrt(500 / 64), rel=0.4), "classes are not even"
    assert any(list(group) != sorted(group) for group in pool)
    with pytest.raises(BenchError, match="4 meta-train classes"):
        classes(3, n_classes=4)


def wide(n_classes: int) -> ImageData:
    """A data set of which only the number of classes matters."""
    names = [f"c{i:03d}" for i in range(n_classes)]
    split = make_split(
        "train", names, [2] * n_classes, np.zeros((2 * n_classes, 8, 8, 3), np.uint8)
    )
    return ImageData("glyphs", 8, (0.5,) * 3, (0.5,) * 3, {"train": split}, "e" * 64, "ours")


def test_teacher_decay_reaches_the_recipe() -> None:
    decays = {
        name: plan_teachers(cell_of("purer", f"protocol={name}"), {"glyphs": wide(12)})[0].recipe
        for name in ("cvpr23", "pool100")
    }
    assert (decays["cvpr23"].decay, decays["pool100"].decay) == (0.2, 1.0)


def test_epochs_of_an_architecture_can_differ() -> None:
    settings = ("architectures=[conv4, resnet10]", "budget.teacher_epochs_of={resnet10: 3}")
    plans = plan_teachers(cell_of("purer", *settings), {"glyphs": wide(12)})
    assert [plan.recipe.epochs for plan in plans] == [1, 3]


def test_mismatched_labels_are_right_in_a_fifth_of_the_slots() -> None:
    """A random order of five classes keeps one of them in its place (H5); a sorted pool, all."""
    for settings, share in ((("protocol=pool100", "budget.max_teachers=null"), 0.2), ((), 1.0)):
        plans = plan_teachers(cell_of("purer", *settings), {"glyphs": wide(64)})
        numbers = number_classes(plans)
        ids = [[numbers[plan.dataset, c] for c in plan.classes] for plan in plans]
        right = [a == b for group in ids for a, b in zip(group, sorted(group), strict=True)]
        assert np.mean(right) == pytest.approx(share, abs=0.06)


# H7, H9, H10: the meta-model


def test_inner_steps_of_training_and_test_reach_the_learners(data: ImageData) -> None:
    settings = ("protocol.inner_steps_train=2", "protocol.inner_steps_test=3")
    context = context_of(cell_of("purer", *settings), data)
    net = context.build_net(torch.Generator().manual_seed(0))
    assert context.training_learner(net).settings.inner_steps == 2
    assert context.make_learner(net.state_dict()).settings.inner_steps == 3


@pytest.mark.parametrize("bn", ["transductive", "support", "running"])
def test_bn_reaches_training_and_test(data: ImageData, bn: str) -> None:
    context = context_of(cell_of("purer", f"protocol.bn={bn}"), data)
    net = tiny_net(torch.Generator().manual_seed(0))
    assert context.training_learner(net).settings.bn == bn
    assert context.make_learner(net.state_dict()).settings.bn == bn


def test_stored_statistics_are_told_from_fresh_ones() -> None:
    net = tiny_net(torch.Generator().manual_seed(0))
    assert holds_statistics(net.state_dict())
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    assert not holds_statistics(net.state_dict())


@pytest.mark.parametrize("method", ["random", "purer", "oracle_protonet"])
def test_running_statistics_that_nobody_stored_are_a_reason_to_skip(
    data: ImageData, tmp_path: Path, method: str
) -> None:
    settings = ("protocol.bn=running", "protocol.initialisation=random")
    record = run_toy(cell_of(method, *settings), data, tmp_path).record
    assert record.status == "skipped"
    assert "bn = running" in record.reason


def test_running_statistics_of_the_teachers_serve(data: ImageData, tmp_path: Path) -> None:
    for method in ("average", "purer"):
        record = run_toy(cell_of(method, "protocol.bn=running", *SHORT), data, tmp_path).record
        assert record.status == "done", record.reason


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (("protocol.initialisation=random",), "initialisation"),
        (("protocol.initialisation=best_teacher",), "initialisation"),
        (("protocol.inner_steps_train=3",), "inner_steps_train"),
        (("protocol.first_order=true",), "first_order"),
        (("protocol.clip_pixels=0.5",), "clip_pixels"),
        (("protocol.pseudo_split=fixed",), "pseudo_split"),
        (("protocol.pseudo_images_per_class=9",), "pseudo_images_per_class"),
        (("protocol.teachers_per_iteration=1",), "teachers_per_iteration"),
        (("protocol.pixel_lr=0.01",), "pixel_lr"),
        (("protocol.bn=support",), "bn"),
        (
            ("protocol.pool=overlapping", "protocol.n_teachers=2"),
            "pool",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_setting_changes_the_fit(
    data: ImageData, pools: Path, plain: StoredRecord, settings: tuple[str, ...], key: str
) -> None:
    """Nothing but the setting differs, and it leads to other weights."""
    changed = run_toy(cell_of("purer", *SHORT, *settings), data, pools)
    assert changed.record.status == "done", changed.record.reason
    assert key in changed.record.variant
    assert weights(pools, plain) != weights(pools, changed)


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose cache keeps the toy teachers."""
    return tmp_path_factory.mktemp("pools")


@pytest.fixture(scope="module")
def plain(data: ImageData, pools: Path) -> StoredRecord:
    """A cell of which nothing but the selection is set."""
    return run_toy(cell_of("purer", *SHORT), data, pools)


def weights(folder: Path, stored: StoredRecord) -> bytes:
    return (folder / "cache/fits" / stored.record.fit.sha256 / "fit.safetensors").read_bytes()


def test_the_page_names_every_setting_value_and_protocol() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/protocols.md").read_text("utf-8")
    head, hazards = page.split("## Hazards")
    columns = head[head.index("| setting |") : head.index("\n\n", head.index("| setting |"))]
    assert all(f"`{name}`" in columns.splitlines()[0] for name in PROTOCOLS)
    fields = set(ProtocolConstants.model_fields) - {"name"}
    assert all(f"`{name}`" in columns for name in fields)
    for name in ("selection", "task_list", "teacher_weights", "label_order", "bn", "pool"):
        for value in ProtocolConstants.model_fields[name].annotation.__args__:
            assert f"`{value}`" in hazards, (name, value)
    rows = [line.split(" | ")[0].strip("| ") for line in hazards.splitlines() if line[:3] == "| H"]
    assert rows == [f"H{i}" for i in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 18, 21, 22, 23)]
