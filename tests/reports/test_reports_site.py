"""The site: every address is relative and leads somewhere, equal records give equal files, and a
new version says what changed."""

from __future__ import annotations

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from report_browser import evaluate, node_module, served
from report_records import standard_suite

from bench.results.select import load_records
from bench.results.store import mark_done
from reports.cli_site import site
from reports.site.build import build_site, page_name
from reports.site.figures import group_pictures
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


def one_of_each(pages: Path) -> list[Path]:
    """Return a page of each kind."""
    folders = ("scenarios", "methods", "cells")
    inner = [min((pages / name).glob("*.html")) for name in folders]
    return [pages / "index.html", pages / "changes.html", *inner]


AXE = """
const report = await axe.run(document, {preload: false, resultTypes: ['violations']});
const found = report.violations.map((v) => v.id + ': ' + v.nodes.slice(0, 3).map((n) => n.html));
return [...window.problems, ...found];
"""


@pytest.mark.browser
def test_axe_finds_nothing_on_a_page_of_each_kind(pages):
    """No violation of any impact, and nothing on the console, from a file."""
    source = (node_module("axe-core") / "axe.min.js").read_text(encoding="utf-8")
    assert {page.name: evaluate(page, source + AXE) for page in one_of_each(pages)} == {
        page.name: [] for page in one_of_each(pages)
    }


LOADED = """
const styled = getComputedStyle(document.querySelector('nav ul')).display;
const kept = performance.getEntriesByType('resource').map((one) => [one.name, one.responseStatus]);
const broken = [...document.images].filter((one) => !one.naturalWidth).map((one) => one.src);
return [window.problems, styled, kept.filter((one) => one[1] !== 200), broken];
"""


@pytest.mark.browser
def test_pages_work_below_any_address(pages, tmp_path):
    site = shutil.copytree(pages, tmp_path / "some" / "where")
    with served(tmp_path) as address:
        for page in (site / "index.html", min((site / "cells").glob("*.html"))):
            assert evaluate(page, LOADED, address=address) == [[], "flex", [], []], page


@pytest.mark.browser
def test_the_nu_validator_finds_nothing(pages):
    """The validator of the W3C: neither an error nor a warning on a page of each kind."""
    jar = node_module("vnu-jar") / "build" / "dist" / "vnu.jar"
    java = shutil.which("java")
    if java is None:
        pytest.skip("no java on the path: apt install default-jre-headless")
    command = [java, "-jar", str(jar), "--skip-non-html", *map(str, one_of_each(pages))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_figures_drawn_by_several_processes_are_the_same(runs, tmp_path, monkeypatch):
    report = compute(load_records(runs, ["method=average", "method=random"]))
    groups = report.shown[:1] * 2
    for n in (1, 2):
        monkeypatch.setattr("reports.site.figures.available_cores", lambda n=n: n)
        found = group_pictures(groups, ["a", "b"], tmp_path / str(n))
        assert [[one.address for one in some] for some in found] == [
            [f"../figures/{one.name}.svg" for one in some] for some in found
        ]
    names = sorted(path.name for path in (tmp_path / "1" / "figures").glob("*.svg"))
    assert names
    for name in names:
        first, second = (tmp_path / n / "figures" / name for n in ("1", "2"))
        assert first.read_bytes() == second.read_bytes()


def test_records_of_every_version_have_their_pages(tmp_path):
    golden = Path(__file__).resolve().parents[1] / "golden" / "records"
    stored = [one for folder in sorted(golden.iterdir()) for one in load_records(folder)]
    named = {(one.record.cell_hash, one.folder) for one in stored}
    for number, one in enumerate(stored):
        assert build_site(compute([one]), tmp_path / str(number), figures=False) >= 4
    assert len(named) >= 3
