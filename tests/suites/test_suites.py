"""The suites that compare protocols and repeat the paper, end to end at a tiny budget."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.cli.main import main
from bench.errors import BenchError
from bench.results.find import find_records
from bench.results.store import StoredRecord
from bench.suites.expand import expand
from bench.suites.protocols import protocol
from bench.suites.suite import read_suite
from tests.helpers import write_birds

TINY = (
    "budget.teacher_epochs=1",
    "budget.max_teachers=2",
    "budget.meta_iterations=1",
    "budget.validate_every=1",
    "budget.n_val_tasks=2",
    "n_test_tasks=2",
    "n_query=3",
)


BRIEF = ("--set=icfil.steps=1", "--set=icfil.inversion_steps=1")


def bench(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return end.value.code or 0


def run(suite: str, folder: Path, *more: str) -> list[StoredRecord]:
    """Run a suite on few images, of which teachers take no time; return its records."""
    images = write_birds(folder / "birds")
    places = [f"--cache={folder / 'cache'}", f"--runs={folder / 'runs'}"]
    words = [*places, f"--dataset-dir=birds={images}", "--device=cpu", "--no-mlflow"]
    settings = ["datasets=[birds]", "budget=micro", *TINY]
    assert (
        bench("run", suite, *words, "--no-figures", *(f"--set={s}" for s in settings), *more) == 0
    )
    return find_records(folder / "runs")


def test_hazards_flip_one_choice_at_a_time() -> None:
    cells = expand(*read_suite("hazards"))
    reference, *others = [cell.protocol.model_dump() for cell in cells]
    assert reference == protocol("cvpr23_as_published").model_dump() | {"task_list": "frozen"}
    honest = others.pop()
    assert honest == protocol("cvpr23").model_dump()
    flips = [{k for k, v in other.items() if reference[k] != v} for other in others]
    towards_honest = {k for k, v in honest.items() if reference[k] != v and k != "name"}
    assert towards_honest == {"selection", "teacher_weights", "teacher_checkpoint"}
    assert all({key} in flips for key in towards_honest | {"task_list"})
    several = [flip for flip in flips if len(flip) > 1]
    assert several == [{"pool", "n_teachers"}, {"pool", "n_teachers", "label_order"}]
    assert {cell.budget.meta_iterations for cell in cells} == {100}
    paper = expand(*read_suite("hazards", ["budget=paper"]))
    assert {cell.budget.meta_iterations for cell in paper} == {6000}
    assert {cell.n_test_tasks for cell in paper} == {600}


def test_the_budget_may_decide_the_test_tasks_but_a_setting_wins() -> None:
    def tasks(*settings: str) -> int:
        return expand(*read_suite("hazards", settings))[0].n_test_tasks

    assert tasks() == 600
    assert tasks("budget=micro") == 50
    assert tasks("budget=micro", "n_test_tasks=7") == tasks("n_test_tasks=7") == 7


def test_hazards_run_and_show_their_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = run("hazards", tmp_path)
    assert {one.record.status for one in stored} == {"done"}
    assert len(stored) == len(expand(*read_suite("hazards")))
    lists = {one.record.task_list_sha256 for one in stored}
    assert len(lists) == 3, "frozen tasks are shared by all but redrawn ones and unequal queries"
    as_published = next(one.record for one in stored if one.record.selection == "test_max")
    assert "the checkpoint was selected on test tasks" in as_published.warnings
    text = capsys.readouterr().out
    assert "What each choice is worth: purer with maml" in text
    assert "minus cvpr23_as_published, task_list=frozen" in text
    assert "test_max → val" in text
    assert "Accuracy: SS" not in text
    assert (tmp_path / "runs/hazards/report/hazards.csv").exists()
    commands = {one.record.command for one in stored}
    assert len(commands) == len(stored) - 1, "a record's command names its variant"


def test_the_paper_s_cells_come_in_their_order() -> None:
    cells = expand(*read_suite("purer_paper"))
    assert {(c.budget.meta_iterations, c.protocol.name) for c in cells} == {(60_000, "cvpr23")}
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert {cell.seed for cell in cells} == {0, 1, 2}
    purer = [c for c in cells if c.method == "purer" and c.seed == 0]
    assert cells[: len(purer)] == purer
    assert [(c.learner, c.k_shot, c.calibration) for c in purer] == [
        ("maml", 1, "none"),
        ("maml", 1, "icfil"),
        ("maml", 5, "none"),
        ("maml", 5, "icfil"),
        ("anil", 1, "none"),
        ("anil", 1, "icfil"),
        ("anil", 5, "none"),
        ("anil", 5, "icfil"),
        ("protonet", 1, "none"),
        ("protonet", 5, "none"),
    ]


@pytest.mark.parametrize("k_shot", [1, pytest.param(5, marks=pytest.mark.faults)])
def test_the_paper_s_cells_run(tmp_path: Path, k_shot: int) -> None:
    only = ("--only=method=purer", "--only=method=ensemble_centroids")
    words = ("--seeds=1", f"--only=k_shot={k_shot}", *only, *BRIEF)
    stored = run("purer_paper", tmp_path, *words)
    assert {one.record.status for one in stored} == {"done"}
    assert {one.record.learner for one in stored if one.record.method == "purer"} == {
        "maml",
        "anil",
        "protonet",
    }


def test_plans_name_variants_and_estimate(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--set=datasets=[glyphs]", "--set=budget=micro")
    places = (f"--cache={cache}", f"--runs={tmp_path}", "--device=cpu")
    assert bench("plan", "hazards", *settings, *places, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["variant"] == "task_list=frozen"
    assert all(row["seconds"] > 0 for row in rows)
    by_variant = {row["variant"]: row["seconds"] for row in rows}
    assert by_variant["selection=last, task_list=frozen"] < by_variant["task_list=frozen"]
    assert bench("plan", "hazards", *settings, *places) == 0
    assert "selection=val, task_list=frozen" in capsys.readouterr().out


def test_the_mixed_suite_s_budget() -> None:
    cells = expand(*read_suite("cifar_fs_sh"))
    (budget,) = {c.budget.model_dump_json(): c.budget for c in cells}.values()
    assert budget.max_teachers == 6
    assert max(budget.teacher_epochs_of.values()) <= 5
    assert {cell.scenario for cell in cells} == {"SH"}
    sharing = expand(*read_suite("cifar_fs_pool100"))
    assert {c.budget.teacher_epochs for c in sharing} == {10}
    assert {c.protocol.n_teachers for c in sharing} == {100}


SMALL = "title: small\ndatasets: [glyphs]\narchitectures: [conv4]\nmethods:\n"
ONE = "  - {method: average, learner: protonet}\n"


def test_cells_that_come_to_the_same_are_planned_once(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(SMALL + ONE + ONE + ONE.replace("protonet", "[protonet, maml]"))
    assert [cell.learner for cell in expand(*read_suite(str(path)))] == ["protonet", "maml"]


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        ("my suite", ("", ""), "'my suite' is no name of a suite; rename its file"),
        ("a", ("title", "name: ..\ntitle"), "'..' is no name of a suite"),
        ("a", ("glyphs", "glyphs, glyphs"), "datasets names glyphs more than once; name it once"),
        ("a", ("conv4", "conv4, conv4"), "architectures names conv4 more than once"),
        ("a", ("title", "k_shot: [1, 5, 1]\ntitle"), "k_shot names 1 more than once"),
    ],
)
def test_names_that_no_record_may_have_and_repeated_ones_are_refused(
    name: str, change: tuple[str, str], line: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text((SMALL + ONE).replace(*change, 1))
    with pytest.raises(BenchError, match=re.escape(line)):
        read_suite(str(path))
