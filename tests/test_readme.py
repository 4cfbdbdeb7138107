"""The README says what is there: its tables are the records', its names are the registry's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.cli.main import cli, main
from bench.registry import names
from bench.results.store import find_records
from bench.suites.suite import suite_names
from reports.rows.select import load_records
from reports.tables.build import build_tables
from reports.text.render import terminal_text

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


PAGES = [
    path
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
    if "<!-- results: " in path.read_text(encoding="utf-8")
]


def test_tables_are_rendered_from_the_stored_records() -> None:
    pages = [f"--update={page}" for page in PAGES]
    with pytest.raises(SystemExit) as end:
        main(["report", str(ROOT / "results"), *pages, "--check"])
    assert end.value.code == 0, "run tox -e report"


def test_the_report_environment_renders_every_page_with_tables() -> None:
    text = (ROOT / "tox.ini").read_text(encoding="utf-8")
    assert {f"--update {page.relative_to(ROOT)}" for page in PAGES} <= {
        line.strip(" \\") for line in text.splitlines()
    }


def test_stored_records_are_complete_and_clean() -> None:
    stored = find_records(ROOT / "results")
    assert {one.record.suite for one in stored} >= {"glyphs", "cifar_fs_ss"}
    for one in stored:
        assert one.folder.name == one.record.cell_hash
        assert one.record.environment.git_commit
        assert one.record.environment.git_dirty is False
        files = {path.name for path in one.folder.iterdir()}
        if one.record.status == "skipped":
            assert one.record.reason
            assert files == {"record.json"}
        else:
            assert one.record.status == "done"
            assert one.accuracies().mean() == pytest.approx(one.record.accuracy.mean)
            assert files == {"record.json", "tasks.parquet"}


def test_tables_of_the_stored_records_fit_a_terminal() -> None:
    tables = build_tables(load_records(ROOT / "results"), ["accuracy", "teachers", "hazards"])
    assert max(map(len, terminal_text(tables, 100).splitlines())) <= 100


def test_every_method_and_suite_is_listed() -> None:
    section = TEXT[TEXT.index("## What is compared") : TEXT.index("**What is a reading")]
    assert set(re.findall(r"`(\w+)`", section)) >= set(names("method")) | set(names("learner"))
    rows = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))
    assert rows >= set(suite_names())


def test_every_verb_exists() -> None:
    verbs = set(re.findall(r"^\| `bench (\w+)", TEXT, re.MULTILINE))
    assert verbs == set(cli.list_commands(None))


def test_every_stored_suite_is_in_the_results() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    named = set(re.findall(r"<!-- results: (\w+)(?: cost teachers)? -->", text))
    assert named == {folder.name for folder in (ROOT / "results").iterdir() if folder.is_dir()}


def test_links_inside_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
