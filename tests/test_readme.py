"""README and docs agree with the project: tables with the records, names with the registry."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from bench.cli.main import cli, main
from bench.registry import names
from bench.results.find import find_records
from bench.results.select import each_cell_once
from bench.results.store import StoredRecord
from bench.suites.files import suite_names
from reports.pictures import stale_pictures
from reports.tables.build import build_tables
from reports.text.render import terminal_text
from reports.updating import marked_files

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
PAGES_WITH_LINKS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
PAGES = [path for path in PAGES_WITH_LINKS if "<!-- results: " in path.read_text(encoding="utf-8")]


def test_tables_are_rendered_from_the_stored_records() -> None:
    pages = [f"--update={page}" for page in PAGES]
    with pytest.raises(SystemExit) as end:
        main(["report", str(ROOT / "results"), *pages, "--check"])
    assert end.value.code == 0, "run tox -e report"


@pytest.fixture(scope="module")
def stored() -> list[StoredRecord]:
    return find_records(ROOT / "results")


def test_pictures_are_drawn_from_the_stored_records(stored: list[StoredRecord]) -> None:
    stale = stale_pictures(each_cell_once(stored), ROOT / "docs" / "figures")
    assert stale == [], "run tox -e report"


@pytest.fixture
def drawn_pictures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs/site"))
    return importlib.import_module("draw_pictures")


def test_pictures_of_fits_and_pages_are_of_what_they_would_be_made_of_now(
    drawn_pictures: ModuleType,
) -> None:
    for name, expected in drawn_pictures.DIGESTS.items():
        kept = (ROOT / f"docs/figures/{name}.sha256").read_text(encoding="utf-8").strip()
        assert kept == expected(), f"run tox -e pictures -- {name}"


def test_the_readme_shows_at_least_four_small_pictures() -> None:
    shown = set(re.findall(r"(?:\]\(|src=\"|srcset=\")([^)\"]+\.(?:svg|png))", TEXT))
    assert len(shown) >= 4
    for name in shown:
        assert (ROOT / name).stat().st_size <= 150_000, name


def test_the_constraints_permit_torch_with_and_without_cuda() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for name in ("torch", "torchvision"):
        (line,) = [one for one in lines if one.startswith(f"{name}==")]
        wanted = Requirement(line).specifier
        version = str(wanted).removeprefix("==")
        assert wanted.contains(version)
        assert wanted.contains(f"{version}+cpu")


def test_the_report_environment_renders_every_page_with_tables() -> None:
    section = (ROOT / "tox.ini").read_text(encoding="utf-8").split("[testenv:report]")[1]
    updated = [ROOT / path for path in re.findall(r"--update (\S+)", section)]
    assert {file for path in updated for file in marked_files(path)} == set(PAGES)


def test_stored_records_are_complete_and_clean(stored: list[StoredRecord]) -> None:
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
            assert {"record.json", "tasks.parquet"} <= files
            assert files <= {"record.json", "tasks.parquet", "predictions.parquet", "curve.parquet"}


def test_tables_of_the_stored_records_fit_a_terminal(stored: list[StoredRecord]) -> None:
    tables = build_tables(each_cell_once(stored), ["accuracy", "paired", "teachers", "hazards"])
    assert max(map(len, terminal_text(tables, 100).splitlines())) <= 100


def test_every_method_learner_and_suite_is_listed() -> None:
    page = (ROOT / "docs/methods/index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+)`", page)) >= set(names("method")) | set(names("learner"))
    assert set(re.findall(r"^\| `(\w+)` \|", COMMANDS, re.MULTILINE)) >= set(suite_names())


def test_every_verb_exists() -> None:
    verbs = set(re.findall(r"^\| `bench (\w+)", COMMANDS, re.MULTILINE))
    assert verbs == set(cli.list_commands(None))


def test_the_readme_is_short_and_shows_the_best_rows() -> None:
    assert TEXT.count("\n") <= 150
    complete = (ROOT / "docs/results/cifar_fs_ss.md").read_text(encoding="utf-8")
    first = complete.split("**Paired differences")[0]
    best = [line for line in first.splitlines() if "**" in line and line.startswith("| ")]
    assert best
    assert set(best) <= set(TEXT.splitlines())


def test_every_stored_suite_has_its_page_of_results() -> None:
    folder = ROOT / "docs" / "results"
    index = (folder / "index.md").read_text(encoding="utf-8")
    suites = {path.name for path in (ROOT / "results").iterdir() if path.is_dir()}
    pages = {page.stem: page.read_text(encoding="utf-8") for page in folder.glob("*.md")}
    assert {*suites, "index"} <= pages.keys()
    for name in pages.keys() - suites - {"index"}:
        assert "No stored records yet." in pages[name]
    for suite in suites:
        text = (folder / f"{suite}.md").read_text(encoding="utf-8")
        assert set(re.findall(r"<!-- results: (\w+)[^>]* -->", text)) == {suite}
        assert f"]({suite}.md)" in index


@pytest.mark.parametrize("page", PAGES_WITH_LINKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)[^)]*\)", text):
        assert (page.parent / target).exists(), target
