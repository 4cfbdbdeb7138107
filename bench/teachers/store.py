"""Storage of teachers: safetensors and a JSON card, named by content, checked when read.

`<cache>/teachers/<hash of the plan>/` holds `net.safetensors` and `teacher.json`; the card is
written last and carries the digest of the weights and its own. A teacher of which a file is damaged
is trained again. Cells and suites that plan the same teacher share it; processes that want the same
pool train different teachers of it. One training gives two teachers, its best epoch and its last,
so that protocols that differ in which is kept share the work and differ in nothing else.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import Tensor

from bench.checkpoints import Checkpoints, Keeping
from bench.contract import Checkpoint, Pool, Teacher
from bench.data.base import ImageData
from bench.data.images import normalise
from bench.errors import BenchError
from bench.leases import Busy, hold
from bench.nets.base import initialise, placed, resize
from bench.nets.build import build_net
from bench.results.files import content_hash, file_sha256, write_bytes, write_checked
from bench.results.maker import Judge
from bench.seeds import torch_generator
from bench.teachers.cards import CARD, WEIGHTS, trained_card
from bench.teachers.pool import TeacherSpec, number_classes
from bench.teachers.train import Snapshot, TrainedTeacher, train_teacher

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, done, total)."""
JudgeOf = Callable[[TeacherSpec], Judge]


def teacher_folder(cache: Path, plan: TeacherSpec) -> Path:
    """Return the folder of a planned teacher, whether it exists or not."""
    return cache / "teachers" / content_hash(plan.content)[:20]


def is_stored(cache: Path, plan: TeacherSpec, judge: Judge | None = None) -> bool:
    """Tell whether a planned teacher is there and taken; does not read its weights."""
    return _lacking(teacher_folder(cache, plan), judge or Judge(), deep=False) is None


def pool_digest(cache: Path, plans: Sequence[TeacherSpec]) -> str | None:
    """Return the digest of a planned pool; None unless all of its teachers are stored."""
    try:
        return content_hash([trained_card(teacher_folder(cache, plan))["sha256"] for plan in plans])
    except (OSError, BenchError):
        return None


def build_pool(
    cache: Path,
    plans: Sequence[TeacherSpec],
    data: dict[str, ImageData],
    device: torch.device,
    progress: Progress = lambda label, done, total: None,
    keeping: Keeping = Keeping(),  # noqa: B008  frozen
    judge_of: JudgeOf = lambda plan: Judge(),
) -> Pool:
    """Return the planned pool on a device, training the teachers that are not stored yet.

    Args:
        cache: the cache folder.
        plans: the teachers, in order.
        data: the data sets by name.
        device: where they are trained and returned.
        progress: called while one is trained.
        keeping: how often checkpoints are written, and whether to end.
        judge_of: returns who decides whether a stored teacher is taken; without it, all are.

    Raises:
        OSError: the folder is not writable, or a stored file not readable.
        Busy: other processes are training the teachers that are lacking.
    """
    _train_lacking(cache, plans, data, device, progress, keeping, judge_of)
    teachers = []
    class_ids = number_classes(plans)
    for index, plan in enumerate(plans):
        ids = tuple(class_ids[plan.dataset, c] for c in plan.classes)
        name = f"{plan.dataset}/{index:02d}"
        teachers.append(_load(teacher_folder(cache, plan), plan, name, ids, judge_of(plan)))
    for teacher in teachers:
        placed(teacher.net, device)
    starts = {
        plan.spec: {name: value.to(device) for name, value in shared_start(plan).items()}
        for plan in plans
        if plan.shared_initialisation
    }
    return Pool(teachers, content_hash([teacher.sha256 for teacher in teachers]), starts)


def _train_lacking(
    cache: Path,
    plans: Sequence[TeacherSpec],
    data: dict[str, ImageData],
    device: torch.device,
    progress: Progress,
    keeping: Keeping,
    judge_of: JudgeOf,
) -> None:
    """Train the teachers that are not stored and that no other process is training.

    Raises:
        Busy: there are such that others are training.
    """
    others = None
    for index, plan in enumerate(plans):
        label = f"teacher {index + 1} of {len(plans)} ({plan.architecture}, {plan.dataset})"
        judge = judge_of(plan)
        if (reason := _lacking(teacher_folder(cache, plan), judge)) is None:
            continue
        if reason:
            judge.say(f"{label}: {reason}; training it again")
        try:
            _train_once(cache, plan, data[plan.dataset], device, label, progress, keeping, judge)
        except Busy as busy:
            others = others or busy
    if others is not None:
        raise others


def shared_start(plan: TeacherSpec) -> dict[str, Tensor]:
    """Return the shared initialisation of a plan's teachers with this spec and seed, on the CPU."""
    net = build_net(plan.spec)
    spec = (plan.architecture, plan.n_outputs, plan.image_size)
    initialise(net, torch_generator("shared initialisation", *spec, plan.seed))
    return net.state_dict()


def _lacking(folder: Path, judge: Judge, deep: bool = True) -> str | None:
    """Return None where a teacher is stored, intact and taken, else why not.

    Empty where it is not there.

    Args:
        folder: of the teacher.
        judge: decides whether it is taken.
        deep: compare the content of its weights with their digest.
    """
    weights = folder / WEIGHTS
    try:
        card = trained_card(folder)
    except FileNotFoundError:
        return ""
    except BenchError as error:
        return str(error)
    if not weights.exists():
        return f"{weights} is missing"
    if deep and file_sha256(weights) != card["sha256"]:
        return f"{weights} is damaged: it is not what was written"
    return judge.objection(card, card["sha256"], "this teacher")


def _train_once(
    cache: Path,
    plan: TeacherSpec,
    data: ImageData,
    device: torch.device,
    label: str,
    progress: Progress,
    keeping: Keeping,
    judge: Judge,
) -> None:
    """Train a teacher, and store its best and its last epoch, each under a plan of its own."""
    twins: dict[Checkpoint, TeacherSpec] = {
        "best": plan.with_checkpoint("best"),
        "last": plan.with_checkpoint("last"),
    }
    if plan.recipe.epochs == 0:
        twins = {plan.recipe.checkpoint: plan}
    training = content_hash([twin.content for twin in twins.values()])[:20]
    (cache / "teachers").mkdir(parents=True, exist_ok=True)
    folder = cache / "teachers" / f".{training}"
    with hold(folder.with_suffix(".lease"), label):
        if _lacking(teacher_folder(cache, plan), judge) is None:
            return
        checkpoints = Checkpoints(folder, label, keeping, judge)
        say = functools.partial(progress, label)
        trained = train_planned(plan, data, device, say, checkpoints)
        for kind, twin in twins.items():
            if _lacking(teacher_folder(cache, twin), judge) is not None:
                kept = trained.snapshots[kind]
                _store(teacher_folder(cache, twin), twin, data, trained, kept, judge.stamp())
        checkpoints.clear()


def train_planned(
    plan: TeacherSpec,
    data: ImageData,
    device: torch.device,
    progress: Callable[[int, int], None],
    checkpoints: Checkpoints,
) -> TrainedTeacher:
    """Train a planned teacher on the images of its classes; nothing is stored."""
    train, held_out = split_images(plan, data)
    return train_teacher(
        plan.spec,
        train,
        held_out,
        plan.recipe,
        torch_generator("teacher", plan.dataset, plan.architecture, *plan.classes, plan.seed),
        device,
        progress,
        shared_start(plan) if plan.shared_initialisation else None,
        checkpoints,
    )


def _store(
    folder: Path,
    plan: TeacherSpec,
    data: ImageData,
    trained: TrainedTeacher,
    kept: Snapshot,
    stamp: dict[str, Any],
) -> None:
    weights = serialise_safetensors(kept.state)
    write_bytes(folder / WEIGHTS, weights)
    card = {
        "plan": plan.content,
        "class_names": [data.splits["train"].classes[i] for i in plan.classes],
        "mean": list(data.mean),
        "std": list(data.std),
        "accuracy": kept.accuracy,
        "epoch": kept.epoch,
        "best_accuracy": trained.snapshots["best"].accuracy,
        "images_per_s": trained.images_per_s,
        "sha256": hashlib.sha256(weights).hexdigest(),
        **stamp,
    }
    write_checked(folder / CARD, card)


def split_images(
    plan: TeacherSpec, data: ImageData
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return normalised (images, labels) that train, and those held out, at the teacher's size.

    The first share of each class's images, in sorted file order, trains (H11: never the file
    system's listing order).
    """
    train, held_out = [], []
    for label, class_index in enumerate(plan.classes):
        images = torch.from_numpy(data.splits["train"].class_images(class_index).copy())
        cut = int(len(images) * plan.recipe.train_fraction)
        if cut == 0 or cut == len(images):
            raise BenchError(
                f"class '{data.splits['train'].classes[class_index]}' of {data.name} has "
                f"{len(images)} images; a teacher needs at least 2 per class"
            )
        train.append((images[:cut], torch.full((cut,), label)))
        held_out.append((images[cut:], torch.full((len(images) - cut,), label)))
    return _join(train, data, plan.image_size), _join(held_out, data, plan.image_size)


def _join(parts: list[tuple[Tensor, Tensor]], data: ImageData, size: int) -> tuple[Tensor, Tensor]:
    images = normalise(torch.cat([images for images, _ in parts]), data.mean, data.std)
    return resize(images, size), torch.cat([labels for _, labels in parts])


def _load(
    folder: Path, plan: TeacherSpec, name: str, class_ids: tuple[int, ...], judge: Judge
) -> Teacher:
    card, payload = trained_card(folder), (folder / WEIGHTS).read_bytes()
    recorded = card["sha256"]
    if hashlib.sha256(payload).hexdigest() != recorded:
        raise BenchError(
            f"{folder / WEIGHTS} was changed while it was read; run the same command again"
        )
    net = build_net(plan.spec)
    net.load_state_dict(parse_safetensors(payload))
    net.eval().requires_grad_(False)
    maker = judge.made(card, recorded)
    return Teacher(
        name=name,
        dataset=plan.dataset,
        spec=plan.spec,
        class_names=tuple(card["class_names"]),
        class_ids=class_ids,
        mean=tuple(card["mean"]),
        std=tuple(card["std"]),
        accuracy=card["accuracy"],
        sha256=recorded,
        net=net,
        code=maker.code.digest if maker else None,
        threads=maker.threads if maker else None,
    )
