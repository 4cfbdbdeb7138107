"""Teachers: the recipe, the blocks of classes, the store that refuses what was changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.contract import Budget, NetSpec
from bench.data.base import ImageData, make_split
from bench.errors import BenchError
from bench.nets.build import build_net
from bench.results.maker import Judge
from bench.suites.protocols import budget, protocol
from bench.teachers.pool import TeacherSpec, disjoint_blocks, plan_pool
from bench.teachers.store import build_pool, is_stored, shared_start, split_images, teacher_folder
from bench.teachers.train import recipe_for, train_teacher

CPU = torch.device("cpu")


def separable_data(n_classes: int = 7, per_class: int = 20, size: int = 16) -> ImageData:
    """Classes that differ in colour: learnable in seconds."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (n_classes, 1, 1, 1, 3))
    noise = rng.integers(-20, 21, (n_classes, per_class, size, size, 3))
    images = np.clip(colours + noise, 0, 255).astype(np.uint8).reshape(-1, size, size, 3)
    names = [f"class{i}" for i in range(n_classes)]
    split = make_split("train", names, [per_class] * n_classes, images)
    return ImageData("toy", size, (0.5,) * 3, (0.25,) * 3, {"train": split}, "d" * 64, "ours")


def budget_of(epochs: int, max_teachers: int | None = None) -> Budget:
    counts = {"teacher_epochs": epochs, "max_teachers": max_teachers}
    return budget("short").model_copy(update=counts)


def plans(
    data: ImageData, epochs: int = 6, seed: int = 0, checkpoint: str = "best", shared: bool = False
) -> list[TeacherSpec]:
    return plan_pool(
        data.name,
        data.digest,
        len(data.splits["train"].classes),
        data.image_size,
        ["conv4"],
        budget_of(epochs),
        protocol("cvpr23").model_copy(
            update={"teacher_checkpoint": checkpoint, "shared_initialisation": shared}
        ),
        seed,
    )


@pytest.mark.parametrize(
    ("n_classes", "n_teachers", "last"), [(64, 13, 4), (100, 20, 5), (61, 12, 5), (7, 2, 2)]
)
def test_blocks_are_consecutive_and_disjoint(n_classes: int, n_teachers: int, last: int) -> None:
    blocks = disjoint_blocks(n_classes)
    assert len(blocks) == n_teachers
    assert len(blocks[-1]) == last
    flat = [c for block in blocks for c in block]
    assert flat == list(range(len(flat)))
    assert n_classes - len(flat) in (0, 1)


def test_architectures_cycle_by_teacher_number() -> None:
    kinds = ["conv4", "resnet10", "resnet18"]
    pool = plan_pool("d", "x", 64, 32, kinds, budget_of(60, 6), protocol("cvpr23"), 0)
    kinds = [plan.architecture for plan in pool]
    assert kinds == ["conv4", "resnet10", "resnet18"] * 2
    assert {plan.recipe.optimiser for plan in pool} == {"adam", "sgd"}


def test_recipes_are_the_papers() -> None:
    conv4, resnet = recipe_for("conv4", 60, "best"), recipe_for("resnet10", 60, "best")
    assert (conv4.optimiser, conv4.lr, conv4.batch_size) == ("adam", 0.01, 128)
    assert (resnet.lr, resnet.momentum, resnet.weight_decay) == (0.01, 0.9, 5e-4)
    assert [round(f * 60) for f in conv4.milestones] == [30, 40, 50]
    assert (conv4.decay, conv4.max_grad_norm, conv4.train_fraction) == (0.2, 50.0, 0.8)


def test_first_images_train_and_the_rest_is_held_out() -> None:
    data = separable_data()
    (train_x, train_y), (held_x, held_y) = split_images(plans(data)[1], data)
    assert train_x.shape == (32, 3, 16, 16)
    assert held_x.shape == (8, 3, 16, 16)
    assert train_y.tolist() == [0] * 16 + [1] * 16
    assert held_y.tolist() == [0] * 4 + [1] * 4
    pixels = data.splits["train"].class_images(5)[16] / 255
    expected = torch.from_numpy((pixels - 0.5) / 0.25).permute(2, 0, 1).float()
    torch.testing.assert_close(held_x[0], expected)


def test_training_learns_and_follows_its_generator() -> None:
    data = separable_data()
    train, held_out = split_images(plans(data)[0], data)
    recipe = recipe_for("conv4", 8, "best")

    def trained(seed: int):
        generator = torch.Generator().manual_seed(seed)
        return train_teacher(NetSpec("conv4", 5, 16), train, held_out, recipe, generator, CPU)

    before = torch.random.get_rng_state()
    a, b, c = trained(0), trained(0), trained(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    first, same, other = (one.snapshots["best"] for one in (a, b, c))
    assert first.accuracy >= 0.8
    assert all(torch.equal(first.state[k], same.state[k]) for k in first.state)
    assert not torch.equal(first.state["head.weight"], other.state["head.weight"])


def test_checkpoints_are_copies_with_their_own_accuracy() -> None:
    """The kept weights, scored again, have the accuracy that travels with them (H6)."""
    from bench.teachers.train import held_out_accuracy

    data = separable_data()
    train, held_out = split_images(plans(data)[0], data)
    generator = torch.Generator().manual_seed(3)
    spec = NetSpec("conv4", 5, 16)
    trained = train_teacher(spec, train, held_out, recipe_for("conv4", 5, "best"), generator, CPU)
    net = build_net(spec)
    for snapshot in trained.snapshots.values():
        net.load_state_dict(snapshot.state)
        assert held_out_accuracy(net, *held_out) == snapshot.accuracy
    best, last = trained.snapshots["best"], trained.snapshots["last"]
    assert best.accuracy >= last.accuracy
    assert best.epoch <= last.epoch == 5


def test_without_decay_the_rate_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    data = separable_data()
    train, held_out = split_images(plans(data)[0], data)
    rates: dict[float, list[float]] = {}
    build = torch.optim.Adam

    def watched(*args: object, **kwargs: object) -> torch.optim.Adam:
        made.append(build(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(torch.optim, "Adam", watched)
    made: list[torch.optim.Adam] = []
    for decay in (0.2, 1.0):
        seen = rates.setdefault(decay, [])
        train_teacher(
            NetSpec("conv4", 5, 16),
            train,
            held_out,
            recipe_for("conv4", 6, "last", decay),
            torch.Generator().manual_seed(0),
            CPU,
            lambda done, total, seen=seen: seen.append(made[-1].param_groups[0]["lr"]),
        )
    assert rates[1.0] == [0.01] * 6
    assert rates[0.2] == pytest.approx([0.01] * 3 + [0.002, 0.0004, 0.00008])


def test_the_pool_is_built_once(tmp_path: Path) -> None:
    data = separable_data()
    stages: list[str] = []

    def progress(label: str, done: int, total: int) -> None:
        stages.append(label)

    first = build_pool(tmp_path, plans(data), {"toy": data}, CPU, progress)
    n_stages = len(stages)
    assert n_stages == 2 * 6
    again = build_pool(tmp_path, plans(data), {"toy": data}, CPU, progress)
    assert len(stages) == n_stages
    assert first.sha256 == again.sha256
    assert [t.class_ids for t in first] == [(0, 1, 2, 3, 4), (5, 6)]
    assert first[1].class_names == ("class5", "class6")
    assert first.n_classes == 7
    assert not any(p.requires_grad for t in first for p in t.net.parameters())
    assert all(is_stored(tmp_path, plan) for plan in plans(data))


def test_another_recipe_seed_or_data_is_another_teacher(tmp_path: Path) -> None:
    data = separable_data()
    changed = [
        plans(data)[0],
        plans(data, epochs=7)[0],
        plans(data, seed=1)[0],
        plans(data, checkpoint="last")[0],
        plans(data)[0].model_copy(update={"dataset_digest": "e" * 64}),
    ]
    assert len({teacher_folder(tmp_path, plan) for plan in changed}) == len(changed)


def test_a_shared_initialisation_is_where_all_teachers_start(tmp_path: Path) -> None:
    """At a rate of next to nothing, one epoch leaves every teacher where it started."""
    data = separable_data()
    still = {"lr": 1e-12, "epochs": 1}
    shared = [
        plan.model_copy(update={"recipe": plan.recipe.model_copy(update=still)})
        for plan in plans(data, epochs=1, shared=True)
    ]
    pool = build_pool(tmp_path, shared, {"toy": data}, CPU)
    assert set(pool.initial_states) == {shared[0].spec}
    start = pool.initial_states[shared[0].spec]
    for teacher in pool:
        torch.testing.assert_close(teacher.net.head.weight, start["head.weight"], atol=1e-6, rtol=0)
    other = shared[0].model_copy(update={"seed": 1})
    assert not torch.equal(shared_start(other)["head.weight"], start["head.weight"])


def test_independent_teachers_publish_no_start_and_keep_their_names(tmp_path: Path) -> None:
    data = separable_data()
    plan, shared = plans(data, epochs=1)[0], plans(data, epochs=1, shared=True)[0]
    assert "shared_initialisation" not in plan.content
    assert teacher_folder(tmp_path, plan) != teacher_folder(tmp_path, shared)
    pool = build_pool(tmp_path, [plan], {"toy": data}, CPU)
    assert pool.initial_states == {}


@pytest.mark.parametrize(
    "damage", ["flipped byte", "truncated", "no weights", "card", "std", "no digest"]
)
def test_a_changed_teacher_is_trained_again_and_said(tmp_path: Path, damage: str) -> None:
    data = separable_data()
    plan = plans(data, epochs=1)[:1]
    before = build_pool(tmp_path, plan, {"toy": data}, CPU)
    folder = teacher_folder(tmp_path, plan[0])
    weights, card = folder / "net.safetensors", folder / "teacher.json"
    content = weights.read_bytes()
    if damage == "flipped byte":
        weights.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    elif damage == "truncated":
        weights.write_bytes(content[:100])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "card":
        card.write_text("{")
    elif damage == "std":
        values = json.loads(card.read_text())
        card.write_text(json.dumps({**values, "std": [9, *values["std"][1:]]}))
    else:
        card.write_text(json.dumps({"accuracy": 1.0}))
    lines: list[str] = []
    judge = Judge(say=lines.append)
    again = build_pool(tmp_path, plan, {"toy": data}, CPU, judge_of=lambda one: judge)
    assert (again.sha256, again[0].std) == (before.sha256, before[0].std)
    (line,) = lines
    assert str(folder) in line
    assert line.endswith("; training it again")
    build_pool(tmp_path, plan, {"toy": data}, CPU, judge_of=lambda one: judge)
    assert len(lines) == 1


def test_a_card_of_an_older_version_holds_no_digest_and_is_taken(tmp_path: Path) -> None:
    data = separable_data()
    plan = plans(data, epochs=1)[:1]
    before = build_pool(tmp_path, plan, {"toy": data}, CPU)
    card = teacher_folder(tmp_path, plan[0]) / "teacher.json"
    values = json.loads(card.read_text())
    del values["checksum"]
    card.write_text(json.dumps(values))
    judge = Judge(say=pytest.fail)
    again = build_pool(tmp_path, plan, {"toy": data}, CPU, judge_of=lambda one: judge)
    assert again.sha256 == before.sha256


def test_a_class_too_small_is_named() -> None:
    data = separable_data(per_class=1)
    with pytest.raises(BenchError, match="class 'class0' of toy has 1 images"):
        split_images(plans(data)[0], data)
