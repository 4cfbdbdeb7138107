"""The site: every address is relative and leads somewhere, equal records give equal files, and a
new version says what changed."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from report_browser import evaluate
from report_records import standard_suite

from bench.results.select import load_records
from bench.results.store import mark_done
from reports.cli_site import site
from reports.site.build import build_site, page_name
from reports.tables.collection import compute

ATOM = "{http://www.w3.org/2005/Atom}"


class Addresses(HTMLParser):
    """The addresses and identifiers of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.identifiers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src"):
                self.found.append(value)
            if name == "id":
                self.identifiers.append(value)


def built(runs: Path, folder: Path, figures: bool = False) -> Path:
    build_site(compute(load_records(runs)), folder, figures)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    standard_suite(folder)
    return folder


@pytest.fixture(scope="module")
def pages(runs, tmp_path_factory) -> Path:
    return built(runs, tmp_path_factory.mktemp("site"))


def test_there_is_a_page_per_scenario_method_and_cell(runs, pages):
    records = [one.record for one in load_records(runs)]
    names = {path.stem for path in (pages / "cells").glob("*.html")}
    assert names == {record.cell_hash for record in records}
    methods = {path.stem for path in (pages / "methods").glob("*.html")}
    assert methods == {record.method for record in records}
    assert len(list((pages / "scenarios").glob("*.html"))) >= 1
    for record in records:
        page = (pages / "cells" / f"{record.cell_hash}.html").read_text(encoding="utf-8")
        assert f"methods/{record.method}.html" in page
        stored = json.loads((pages / "cells" / f"{record.cell_hash}.json").read_text("utf-8"))
        assert stored["cell_hash"] == record.cell_hash
    assert page_name("a/b ü.x") == "a-b--.x"


def test_every_address_is_relative_and_leads_somewhere(pages):
    files = [*pages.rglob("*.html")]
    parsed = {path: Addresses(path.read_text(encoding="utf-8")) for path in files}
    for path, page in parsed.items():
        assert len(set(page.identifiers)) == len(page.identifiers), path
        for address in page.found:
            if address.startswith("data:"):
                continue
            assert "://" not in address, address
            assert not address.startswith("/"), address
            name, _, anchor = address.partition("#")
            target = (path.parent / unquote(name)).resolve() if name else path
            assert target.is_file(), f"{address} of {path}"
            if anchor:
                assert anchor in parsed[target].identifiers, f"{address} of {path}"


def test_equal_records_give_equal_files(runs, pages, tmp_path):
    again = built(runs, tmp_path / "again")
    names = sorted(p.relative_to(pages) for p in pages.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    for name in names:
        assert (again / name).read_bytes() == (pages / name).read_bytes(), name
    before = (again / "changes.xml").read_bytes()
    built(runs, again)
    assert (again / "changes.xml").read_bytes() == before


def test_a_new_version_says_what_changed(runs, tmp_path):
    own = shutil.copytree(runs, tmp_path / "runs")
    folder = built(own, tmp_path / "site")
    first, second, *_ = sorted(path.parent for path in own.rglob("record.json"))
    values = json.loads((first / "record.json").read_text(encoding="utf-8"))
    (first / "record.json").write_text(json.dumps({**values, "command": "bench run other"}))
    mark_done(first)
    shutil.rmtree(second)
    built(own, folder)
    now, before = json.loads((folder / "site.json").read_text(encoding="utf-8"))["versions"]
    assert (list(now["changed"]), list(now["removed"])) == ([first.name], [second.name])
    assert not now["added"]
    assert now["title"] == "Cells: 1 changed, 1 removed"
    assert len(before["added"]) == len(list(own.rglob("record.json"))) + 1
    assert not (folder / "cells" / f"{second.name}.html").exists()
    feed = ElementTree.parse(folder / "changes.xml").getroot()
    titles = [one.findtext(f"{ATOM}title") for one in feed.iter(f"{ATOM}entry")]
    assert titles[0] == "Cells: 1 changed, 1 removed"
    assert all(one.findtext(f"{ATOM}id").startswith("urn:") for one in feed.iter(f"{ATOM}entry"))


def test_the_command_draws_figures_beside_the_pages(runs, tmp_path):
    words = [str(runs), "-o", str(tmp_path / "site"), "--only", "method=average"]
    done = CliRunner().invoke(site, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert " pages of " in done.output
    (page, *_) = (tmp_path / "site" / "scenarios").glob("*.html")
    pictures = [a for a in Addresses(page.read_text("utf-8")).found if a.endswith(".svg")]
    assert pictures
    assert all((page.parent / address).is_file() for address in pictures)


FILTER = """
const field = document.querySelector('input[data-filter="cells-t"]');
field.value = 'average';
field.dispatchEvent(new Event('input'));
const rows = [...document.querySelectorAll('#cells-t tbody tr')].filter(row => !row.hidden);
const methods = rows.map(row => row.cells[1].textContent);
document.querySelector('#cells-t thead th:nth-child(2) button').click();
const sorted = document.querySelector('#cells-t thead th:nth-child(2)').getAttribute('aria-sort');
return {methods: [...new Set(methods)], sorted, problems: window.problems,
        style: getComputedStyle(document.body).fontFamily !== ''};
"""


@pytest.mark.browser
def test_pages_work_in_a_browser(pages):
    found = evaluate(pages / "index.html", FILTER)
    assert found["methods"] == ["average"]
    assert found["sorted"] == "ascending"
    assert found["problems"] == []
    for folder in ("cells", "methods", "scenarios"):
        page = next((pages / folder).glob("*.html"))
        sheet = "return [window.problems, document.styleSheets.length]"
        assert evaluate(page, sheet) == [[], 1]
