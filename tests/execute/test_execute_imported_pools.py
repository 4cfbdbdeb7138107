"""Cells on imported pools, and on networks without batch norm."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from bench import registry
from bench.cli.main import main
from bench.contract import NetSpec, Pool
from bench.execute.state import RunState, obtain_pool, own_pool
from bench.nets.imported import Imported
from bench.results import codebase
from bench.suites.cell import Cell, PoolChoice, described_cell
from bench.suites.expand import expand
from bench.suites.suite import read_suite
from bench.teachers.adapt import digest_of, normalises_otherwise
from bench.teachers.transfer import export_pool, import_pool, load_pool
from tests.execute.toy_scenarios import CPU, SETS, TINY, run
from tests.helpers import tiny_pool


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


def test_what_trained_imported_teachers_is_unknown_and_nothing_is_made_again_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = ss_cell("ensemble_centroids", imported(tmp_path, ["conv4", "conv4"]))
    stored = run(cell, tmp_path)
    assert [(one["code"], one["threads"]) for one in stored.record.pool.teachers] == [
        (None, None)
    ] * 2
    assert not any("code" in line or "thread" in line for line in stored.record.warnings)
    done = (stored.folder / "DONE").stat().st_mtime_ns
    other = (*codebase.TEACHER, "bench.stats.intervals:mean_interval")
    before = codebase.installed_code().teacher("conv4")
    monkeypatch.setattr(codebase, "TEACHER", other)
    assert codebase.installed_code().teacher("conv4") != before
    assert run(cell, tmp_path).folder == stored.folder
    assert (stored.folder / "DONE").stat().st_mtime_ns == done
    with pytest.raises(SystemExit):
        main(["teachers", "list", f"--cache={tmp_path / 'cache'}"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(", code unknown, threads unknown: " in line for line in lines)


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
        few = ("fisher.inversion_steps=2", "fisher.images_per_class=2", "fisher.group=largest")
        merged = run(ss_cell("fisher", choice, *few, "n_way=3"), folder).record
        assert merged.status == "done", merged.reason
        everyone = run(ss_cell("distill_ensemble", choice), folder).record
        assert (everyone.status, "flat" in everyone.reason) == ("skipped", True)
        few = (f"single_dfkd.{one}=2" for one in ("inversion_steps", "images_per_class", "steps"))
        single = run(ss_cell("single_dfkd", choice, *few), folder).record
        assert single.status == ("done" if name == "worst" else "skipped"), single.reason


def test_a_record_of_an_imported_pool_with_replaced_teachers_describes_its_cell(
    tmp_path: Path,
) -> None:
    """Its pool has a digest of its own, and what was hashed that of the imported one."""
    choice = imported(tmp_path, ["conv4", "conv4"])
    cell = ss_cell("ensemble_centroids", choice, "protocol.untrustworthy_share=0.5")
    record = run(cell, tmp_path).record
    assert record.pool.sha256 == digest_of(choice.sha256, cell.protocol, cell.seed) != choice.sha256
    again = described_cell(record.model_dump(mode="json"))
    assert again.pool == choice
    assert again.hash(record.dataset_digests) == record.cell_hash
    other = record.pool.model_copy(update={"sha256": "0" * 64})
    forged = described_cell(record.model_copy(update={"pool": other}).model_dump(mode="json"))
    assert forged.hash(record.dataset_digests) != record.cell_hash


def test_an_imported_pool_is_not_called_untrained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path, ["conv4"])
    words = ("--set=datasets=[glyphs]", "--pool=mine", f"--cache={tmp_path / 'cache'}")
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "cifar_fs_ss", *words, "--set=protocol.teachers=untrained"])
    assert "leave one of the two out" in capsys.readouterr().err
