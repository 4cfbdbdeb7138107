"""Suites, settings and hashes of cells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench import registry
from bench.contract import Config, added
from bench.errors import BenchError
from bench.execute.reproduce import cell_of
from bench.results.migrations import parse_record
from bench.suites.cell import Cell, select
from bench.suites.expand import expand
from bench.suites.files import SUITES, suite_names
from bench.suites.protocols import BUDGETS, PROTOCOLS
from bench.suites.suite import read_suite, suite_parts

RESULTS = Path(__file__).parents[2] / "results"
DIGESTS = {"glyphs": "a" * 64, "cifar_fs": "b" * 64}


def cells(name: str = "micro", *settings: str, seeds: int | None = None) -> list[Cell]:
    return expand(*read_suite(name, settings), seeds)


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_expands_to_distinct_cells(name: str) -> None:
    own = ["datasets=glyphs"] if name == "own" else []
    found = cells(name, *own)
    assert found
    assert len({cell.hash(DIGESTS) for cell in found}) == len(found)


def test_settings_reach_the_cells_and_the_hash() -> None:
    plain = {c.method: c for c in cells()}
    for setting, read in {
        "purer.pixel_lr=0.1": lambda c: c.method_config["pixel_lr"] == 0.1,
        "budget.meta_iterations=7": lambda c: c.budget.meta_iterations == 7,
        "protocol.bn=support": lambda c: c.protocol.bn == "support",
        "n_test_tasks=11": lambda c: c.n_test_tasks == 11,
        "k_shot=5": lambda c: c.k_shot == 5,
        "budget=short": lambda c: c.budget.name == "short",
        "protocol=cvpr23_as_published": lambda c: c.protocol.selection == "test_max",
    }.items():
        changed = {c.method: c for c in cells("micro", setting)}
        assert read(changed["purer"]), setting
        assert not read(plain["purer"]), setting
        assert changed["purer"].hash(DIGESTS) != plain["purer"].hash(DIGESTS), setting


def test_a_methods_setting_leaves_other_methods_alone() -> None:
    plain, changed = cells(), cells("micro", "purer.pixel_lr=0.1")
    differs = {a.method for a, b in zip(plain, changed, strict=True) if a != b}
    assert differs == {"purer"}


def test_the_hash_depends_on_seed_and_data() -> None:
    first, second = (c for c in cells(seeds=2) if c.method == "average")
    assert first.hash(DIGESTS) != second.hash(DIGESTS)
    assert first.hash(DIGESTS) != first.hash({"glyphs": "c" * 64})
    assert first.hash(DIGESTS) == first.hash(dict(DIGESTS, cifar_fs="c" * 64))


class Before(Config):
    steps: int = 1


class After(Config):
    steps: int = 1
    warmup: int = added(0, ge=0)


class Holder(Config):
    inner: After = After()


def test_an_added_field_counts_only_away_from_its_default() -> None:
    assert After(steps=3).identity() == Before(steps=3).identity() == {"steps": 3}
    assert After(warmup=2).identity() == {"steps": 1, "warmup": 2}
    assert Holder().identity() == {"inner": {"steps": 1}}
    with pytest.raises(ValidationError):
        After(warmup=-1)


def test_a_cell_knows_the_same_method_and_calibration_again() -> None:
    cell = cells("cifar_fs_ss")[8]
    assert cell.calibration == "icfil"
    for room in ("method_config", "calibration_config"):
        bare = cell.model_copy(update={room: {}})
        assert bare.hash(DIGESTS) == cell.hash(DIGESTS), room
    steps = {"calibration_config": {**cell.calibration_config, "steps": 7}}
    assert cell.model_copy(update=steps).hash(DIGESTS) != cell.hash(DIGESTS)


@pytest.mark.parametrize("suite", sorted(path.name for path in RESULTS.iterdir() if path.is_dir()))
def test_every_stored_record_has_its_hash_and_inference_in_this_version(suite: str) -> None:
    paths = list((RESULTS / suite).glob("*/record.json"))
    assert paths
    for path in paths:
        record, _ = parse_record(json.loads(path.read_text(encoding="utf-8")))
        record = record.model_copy(update={"status": "done"})  # a skipped cell's settings count
        cell = cell_of(record)
        assert cell.hash(record.dataset_digests) == path.parent.name
        assert cell.inference == record.inference, f"{path}: plug-ins and migration differ"


@pytest.mark.parametrize("name", ["2024", "null", "true", "mine"])
def test_a_pools_name_is_taken_as_it_stands(name: str) -> None:
    assert read_suite("micro", [f"pool={name}"])[0].pool == name


def test_a_part_does_not_lose_its_pool_silently(tmp_path: Path) -> None:
    part = tmp_path / "part.yaml"
    micro = (SUITES / "micro.yaml").read_text(encoding="utf-8")
    part.write_text(micro + "\npool: mine\n", encoding="utf-8")
    whole = tmp_path / "whole.yaml"
    whole.write_text(f"title: both\nparts: ['{part}']\n", encoding="utf-8")
    with pytest.raises(BenchError, match="names pool 'mine'"):
        read_suite(str(whole))
    suite, _ = read_suite(str(whole), ["pool=mine"])
    assert {one.pool for one in suite_parts(suite)} == {"mine"}


def test_the_papers_budget_runs_methods_as_released() -> None:
    """What a suite makes smaller for two cores holds in the short budget only."""
    smaller = set()
    for cell in cells("paper"):
        kind = registry.load("method", cell.method)
        learner = registry.load("learner", cell.learner)
        released = kind.Config.model_validate(kind.preset_values(cell.preset, learner))
        assert cell.budget.name == "paper"
        assert cell.method_config == released.model_dump(mode="json"), cell.label
    for cell in expand(*read_suite("paper", ["budget=short"])):
        kind = registry.load("method", cell.method)
        learner = registry.load("learner", cell.learner)
        released = kind.Config.model_validate(kind.preset_values(cell.preset, learner))
        if cell.method_config != released.model_dump(mode="json"):
            smaller.add(cell.method)
    distilling = {"single_dfkd", "distill_average", "distill_ensemble"}
    assert smaller == {"bidf_mkd", "free", "tgr", *distilling}


def test_the_micro_budget_takes_what_is_made_smaller_for_the_short_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    head = (SUITES / "micro.yaml").read_text(encoding="utf-8").partition("methods:")[0]
    path.write_text(
        f"{head}methods:\n"
        "  - {method: free, budgets: {short: {patience: 3}}}\n"
        "  - method: bidf_mkd\n"
        "    budgets: {short: {directions: 4, latent_size: 8}, micro: {directions: 2}}\n",
        "utf-8",
    )

    def said(budget: str) -> list[int]:
        free, mkd = expand(*read_suite(str(path), [f"budget={budget}", "k_shot=1"]))
        return [
            free.method_config["patience"],
            mkd.method_config["directions"],
            mkd.method_config["latent_size"],
        ]

    free, mkd = (registry.load("method", name).Config() for name in ("free", "bidf_mkd"))
    assert said("short") == [3, 4, 8]
    assert said("micro") == [3, 2, 8]
    assert said("paper") == [free.patience, mkd.directions, mkd.latent_size]


@pytest.mark.parametrize("name", suite_names())
def test_no_count_of_the_micro_budget_is_over_that_of_the_short_one(name: str) -> None:
    own = ["datasets=glyphs"] if name == "own" else []
    micro, short = (cells(name, f"budget={b}", *own)[0].budget for b in ("micro", "short"))
    for count in ("teacher_epochs", "meta_iterations", "oracle_iterations", "n_val_tasks"):
        assert getattr(micro, count) <= getattr(short, count)
    assert micro.max_teachers <= (short.max_teachers or 3)


def test_the_micro_budget_may_do_nothing_where_the_short_one_does(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    micro = (SUITES / "micro.yaml").read_text(encoding="utf-8")
    path.write_text(f"{micro}\nbudgets: {{micro: {{meta_iterations: 0}}}}\n", "utf-8")
    assert {cell.budget.meta_iterations for cell in expand(*read_suite(str(path)))} == {0}


def test_settings_of_an_unknown_budget_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    micro = (SUITES / "micro.yaml").read_text(encoding="utf-8")
    path.write_text(micro + "  - {method: free, budgets: {shrot: {patience: 3}}}\n", "utf-8")
    with pytest.raises(BenchError, match="unknown budget 'shrot'; did you mean short"):
        expand(*read_suite(str(path)))


def test_only_selects() -> None:
    found = cells("glyphs")
    assert {c.method for c in select(found, ["method=purer", "method=average"])} == {
        "purer",
        "average",
    }
    chosen = select(found, ["method=purer", "k_shot=5"])
    assert {(c.method, c.k_shot) for c in chosen} == {("purer", 5)}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["budget=shrot"], ["shrot", "short"]),
        (["protocol=cvpr32"], ["cvpr32", "cvpr23"]),
        (["bugdet=short"], ["bugdet", "budget"]),
        (["purer.pixel_rl=0.1"], ["pixel_rl", "pixel_lr"]),
        (["purer.pixel_lr=fast"], ["pixel_lr", "fast"]),
        (["pruer.pixel_lr=0.1"], ["pruer", "purer"]),
        (["protocol.bn=batch"], ["bn", "batch", "transductive"]),
        (["budget.teacher_epochs=0"], ["teacher_epochs", "0"]),
        (["budget.max_teachers=0"], ["max_teachers", "0", "greater than or equal to 1"]),
        (["budget.meta_iterations=-5"], ["meta_iterations", "-5", "equal to 0"]),
        (["budget.validate_every=0"], ["validate_every", "0", "equal to 1"]),
        (["n_way=1"], ["n_way", "1"]),
        (["datasets=glyph"], ["glyph", "glyphs"]),
        (["architectures=[conv5]"], ["conv5", "conv4"]),
        (["budget"], ["budget", "KEY=VALUE"]),
        (["k_shot=[1,5"], ["k_shot=[1,5", "YAML"]),
        (["n_way=2001-13-45"], ["n_way=2001-13-45", "YAML"]),
        (["purer.pixel_lr=.inf"], ["pixel_lr = inf", "finite"]),
        (["protocol.inner_lr=.inf"], ["inner_lr = inf", "finite"]),
        (["protocol.inner_lr=.nan"], ["inner_lr = nan", "finite"]),
        (["seeds=0"], ["seeds = 0", "1"]),
        (["k_shot=[]"], ["k_shot = []", "1 item"]),
    ],
)
def test_wrong_settings_are_one_line(settings: list[str], words: list[str]) -> None:
    with pytest.raises(BenchError) as caught:
        cells("micro", *settings)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ("methd=purer", ["methd", "method"]),
        ("method=purr", ["purr", "purer"]),
        ("method", ["KEY=VALUE"]),
    ],
)
def test_wrong_selections_are_one_line(only: str, words: list[str]) -> None:
    with pytest.raises(BenchError) as caught:
        select(cells(), [only])
    assert all(word in str(caught.value) for word in words), caught.value


def test_unknown_suites_methods_and_learners(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="did you mean glyphs"):
        read_suite("glyhps")
    suite = tmp_path / "mine.yaml"
    head = "title: x\nscenario: SS\ndatasets: [glyphs]\narchitectures: [conv4]\nmethods:\n"
    suite.write_text(head + "  - method: avreage\n")
    with pytest.raises(BenchError, match="average"):
        cells(str(suite))
    suite.write_text(head + "  - {method: purer, learner: centroids}\n")
    with pytest.raises(BenchError, match="maml, anil, protonet"):
        cells(str(suite))
    suite.write_text(head + "  - {method: purer, preset: best}\n")
    with pytest.raises(BenchError, match="released"):
        cells(str(suite))
    suite.write_text("title: [")
    with pytest.raises(BenchError, match="not readable"):
        read_suite(str(suite))


def test_suite_files_that_are_wrong(tmp_path: Path) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text("architectures: [conv4]\nmethods: [{method: average}]\n")
    with pytest.raises(BenchError, match=r"mine\.yaml' lacks 'title'; add it$"):
        read_suite(str(suite))
    suite.write_text(f"title: x\nparts: [micro, {suite}]\n")
    with pytest.raises(BenchError, match=r"part '.*mine\.yaml' of suite 'mine' has parts itself"):
        read_suite(str(suite))
    suite.write_bytes(b"title: \xff")
    with pytest.raises(BenchError, match="not readable"):
        read_suite(str(suite))


def test_named_constants_are_the_papers() -> None:
    honest, published = PROTOCOLS["cvpr23"], PROTOCOLS["cvpr23_as_published"]
    assert (honest.inner_lr, honest.outer_lr, honest.pixel_lr) == (0.01, 1e-3, 0.25)
    assert honest.tasks_per_meta_batch == 4
    changed = {k for k, v in honest.model_dump().items() if published.model_dump()[k] != v}
    assert changed == {"name", "selection", "task_list", "teacher_weights", "teacher_checkpoint"}
    assert BUDGETS["paper"].meta_iterations == 60_000
    assert BUDGETS["paper"].validate_every == 500
