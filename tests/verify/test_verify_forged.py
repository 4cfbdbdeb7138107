"""Forged records: each is refused by the check that it belongs to; honest ones are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import forgeries  # noqa: F401  fills the corpus
import forgeries_odd  # noqa: F401
import numpy as np
import pytest
from click.testing import CliRunner
from forging import FORGERIES, answers_of, edit, put_answers, put_tasks, tasks_of
from honest import copy_of, read, rehash, write

from bench.cli.main import cli
from bench.results.predictions import Predictions
from bench.results.store import read_record
from bench.verify.copies import copies
from bench.verify.findings import Checked
from bench.verify.folder import verify_folder


def test_there_are_enough() -> None:
    assert len(FORGERIES) >= 60
    assert len({line for _, _, line in FORGERIES.values()}) == len(FORGERIES)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_record_is_refused(honest, tmp_path, name):
    forge, check, line = FORGERIES[name]
    cells = copy_of(honest, tmp_path / "runs")
    forge(cells)
    verdict = verify_folder(tmp_path / "runs")
    lines = [
        one.text for _, one in verdict.located() if (one.level, one.check) == ("refused", check)
    ]
    assert any(line in text for text in lines), [
        (one.level, one.check, one.text) for _, one in verdict.located() if one.level == "refused"
    ]
    assert verdict.is_refused


def test_a_setting_that_came_later_makes_no_other_fit(honest, tmp_path):
    """An older record and a newer one of one fit; another value of a setting is another fit."""
    stored = read_record(copy_of(honest, tmp_path / "runs")["purer"])
    record = stored.record.model_copy(update={"accuracy": None})

    def said(**settings) -> list[str]:
        older, newer = Checked(Path("a")), Checked(Path("b"))
        beside = {"suite": "other", "method_config": {**record.method_config, **settings}}
        copies([(older, record), (newer, record.model_copy(update=beside))])
        return [one.text for one in (*older.findings, *newer.findings)]

    assert said(came_later=1) == []
    assert len(said(tv_weight=7)) == 2


def test_honest_cells_are_not_refused(honest):
    verdict = verify_folder(honest, submission=True)
    found = {(one.level, one.check) for _, one in verdict.located()}
    assert found <= {("note", "preset"), ("note", "commit"), ("doubt", "duplicate")}
    counted = ("code", "digests", "hash", "predictions", "task list")
    assert verdict.counts == dict.fromkeys(counted, 3)


def test_what_a_suite_of_one_s_own_changes_is_a_doubt(honest, tmp_path):
    """`verify` has the record, not the suite's file, which may set counts and constants."""
    cells = copy_of(honest, tmp_path / "runs")
    for name in ("budget_larger_than_said", "constant_of_a_preset_changed"):
        FORGERIES[name][0](cells)
    for folder in {path.parent for path in cells.values()}:
        folder.rename(folder.with_name("mine"))
    for path in (tmp_path / "runs" / "mine").iterdir():
        write(path, {**read(path), "suite": "mine"})
    verdict = verify_folder(tmp_path / "runs")
    found = {(one.level, one.check): one.text for _, one in verdict.located()}
    assert not verdict.is_refused
    assert "teacher_epochs=60 (not 4)" in found["doubt", "budget"]
    assert found["doubt", "preset"].endswith("suite 'mine', not of this package, may say so")


def test_what_a_forger_writes_can_be_printed(honest, tmp_path):
    """Nothing of a record reaches the terminal as a command, a line or half a letter."""
    cells = copy_of(honest, tmp_path / "runs")
    edit(cells, "purer", knowledge="\ud800\x1b[2J\nrefused 0")
    strange = tmp_path / "runs" / "glyphs" / "a\nb\x1b"
    shutil.copytree(cells["average"], strange)
    for more in ([], ["--json"], ["--annotations"]):
        done = CliRunner().invoke(cli, ["verify", str(tmp_path / "runs"), *more])
        assert done.exit_code == 1, done.exception
        assert "\x1b" not in done.output
        assert "\nb" not in done.output


def test_a_submission_names_the_classes_of_its_tasks(honest, tmp_path):
    cells = copy_of(honest, tmp_path / "runs")
    columns = tasks_of(cells["average"])
    put_tasks(cells["average"], {k: v for k, v in columns.items() if not k.startswith("class")})
    assert not verify_folder(tmp_path / "runs").is_refused
    found = [one.text for _, one in verify_folder(tmp_path / "runs", True).located()]
    assert "tasks.parquet does not name the classes of its tasks" in found


def test_lies_that_agree_are_not_found_and_the_limits_say_so(honest, tmp_path):
    """Made-up answers with all that follows from them, and a cell under another seed."""
    cells = copy_of(honest, tmp_path / "runs")
    found = answers_of(cells["average"])
    put_answers(cells["average"], Predictions(found.true, found.true, found.margin))
    columns = tasks_of(cells["average"])
    put_tasks(cells["average"], {**columns, "accuracy": np.ones(60)})
    shutil.rmtree(cells["random"])
    rehash(cells["purer"], read(cells["purer"]), seed=1)
    done = CliRunner().invoke(cli, ["verify", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    assert "not numbers that were made up consistently; bench reproduce CELL finds those" in (
        done.output
    )
