"""The page: what it says first, that it stands alone, and how it behaves in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from report_browser import evaluate, node_module
from report_records import PROTOCOL, accuracies, make_record, seeded_suite, standard_suite

from bench.results.files import write_parquet
from bench.results.select import load_records
from reports.page import content
from reports.report import write_report
from reports.rows.groups import make_groups
from reports.tables.collection import compute

WIDTHS = (400, 700, 1000, 1280, 1600)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of two groups with figures, curves and an image."""
    root = tmp_path_factory.mktemp("page")
    places = standard_suite(root / "runs" / "cifar_fs_ss")
    with_extras(next(p for p in places if '"tuned"' in (p / "record.json").read_text()))
    seeded_suite(root / "runs" / "seeds")
    write_report(compute(load_records(root / "runs")), root / "out")
    return root / "out" / "report.html"


def with_extras(folder):
    """Give a cell curves and a grid of images."""
    from PIL import Image

    steps = np.arange(1, 61)
    write_parquet(
        folder / "curve.parquet",
        {
            "step": np.tile(steps, 3),
            "name": np.repeat(["outer_loss", "val_accuracy", "adversarial"], 60).astype(object),
            "value": np.concatenate([1 / steps, steps / 100, steps > 30]).astype(float),
        },
    )
    (folder / "images").mkdir()
    Image.new("RGB", (900, 600), "teal").save(folder / "images" / "step-60.png")


def text_of(page):
    return page.read_text(encoding="utf-8")


def test_it_stands_alone(page):
    text = text_of(page)
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text)
    assert "@import" not in text
    assert "url(" not in text.split("<body>")[0]


def test_the_summary_comes_first_and_says_it_all(page):
    text = text_of(page)
    top = re.sub(r"<[^>]+>", " ", text[text.index("<main>") : text.index('class="warnings"')])
    top = " ".join(top.split())
    assert "What is best Inductive: ensemble_centroids 47.5 and 62.5 % (5-way 1-shot, 5-" in top
    assert "What it costs" in top
    assert "What not to conclude" in top
    assert 'id="figure-ss-short-cvpr23-cifar-fs-1-frontier"' in text
    assert "cifar_fs 5-way 1-shot" in top
    assert "47.5 ±" in top
    assert "tied with purer (tuned)" in top
    assert "MACs per query" in top
    assert "58.0 (oracle_protonet)" in top


def test_every_cell_is_there_and_its_links_lead_somewhere(page):
    text = text_of(page)
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    links = set(re.findall(r'href="#([^"]+)"', text))
    assert links <= set(ids)
    assert sum(i.startswith("c") and len(i) == 17 for i in ids) == 16 + 9 - 3  # seed 0 is in both


def test_figures_have_words_and_cells_their_curves(page):
    text = text_of(page)
    pictures = re.findall(r"<img [^>]*>", text)
    assert pictures
    assert all(re.search(r'alt="[^"]{20,}"', one) for one in pictures)
    assert "data:image/jpeg;base64," in text
    assert "val_accuracy, 0.01 to 0.6, 60 iterations" in text


def test_warnings_name_what_weakens_numbers(tmp_path):
    make_record(tmp_path, "random", accuracies(0.3, "r"), warnings=["only 20 test tasks"])
    make_record(tmp_path, "average", None, status="failed", reason="no <b>memory</b>")
    stored = load_records(tmp_path)
    report = compute(stored)
    found = content.warnings(report.groups, stored)
    assert any("one seed" in text for text in found)
    assert "1 cell failed; the tables say why" in found
    assert "only 20 test tasks (1 cell)" in found
    write_report(report, tmp_path / "out", ())
    text = text_of(tmp_path / "out" / "report.html")
    assert "&lt;b&gt;memory&lt;/b&gt;" in text
    assert "<b>memory" not in text


def test_a_second_report_is_the_same_and_draws_nothing(page, monkeypatch):
    from reports.figures.drawing import Drawing

    before = page.read_bytes()
    monkeypatch.setattr(Drawing, "files", lambda self: pytest.fail("drawn again"))
    write_report(compute(load_records(page.parents[1] / "runs")), page.parent)
    assert page.read_bytes() == before


SORT = """
const table = document.querySelector('table[id$="-accuracy-t"]');
const heads = [...table.tHead.rows[0].cells];
const column = heads.findIndex((h) => h.textContent.includes('1-shot'));
const read = () => [...table.tBodies].map((b) => [...b.rows].slice(1).map(
  (r) => r.cells[column].textContent.trim()));
const before = read();
heads[column].querySelector('button').click();
const down = read(), first = heads[column].getAttribute('aria-sort');
heads[column].querySelector('button').click();
return {before, down, up: read(), first, second: heads[column].getAttribute('aria-sort'),
        problems: window.problems};
"""


@pytest.mark.browser
def test_tables_sort_within_their_sections(page):
    found = evaluate(page, SORT)
    assert found["problems"] == []
    assert (found["first"], found["second"]) == ("descending", "ascending")

    def numbers(texts):
        return [float(re.match(r"[\d.]+", t)[0]) for t in texts if t[0].isdigit()]

    for before, down, up in zip(found["before"], found["down"], found["up"], strict=True):
        assert sorted(before) == sorted(down) == sorted(up)
        assert numbers(down) == sorted(numbers(before), reverse=True)
        assert numbers(up) == sorted(numbers(before))
        assert all(t[0].isdigit() for t in up[: len(numbers(up))])  # what has no number is last


SORT_CELLS = """
const table = document.getElementById('cells-t');
const heads = [...table.tHead.rows[0].cells];
const found = {};
for (const name of ['task', 'cell', 'accuracy']) {
  const column = heads.findIndex((h) => h.textContent.trim().startsWith(name));
  const button = heads[column].querySelector('button');
  button.click();
  if (heads[column].getAttribute('aria-sort') !== 'ascending') button.click();
  found[name] = [...table.tBodies[0].rows].map((r) => r.cells[column].textContent.trim());
}
return {found, problems: window.problems};
"""


@pytest.mark.browser
def test_cells_sort_by_words_and_by_numbers(page):
    found = evaluate(page, SORT_CELLS)
    assert found["problems"] == []
    tasks, cells, means = (found["found"][name] for name in ("task", "cell", "accuracy"))
    assert len(set(tasks)) > 1
    assert tasks == sorted(tasks)
    assert cells == sorted(cells)
    numbers = [float(text.split()[0]) for text in means if text != "–"]
    assert numbers == sorted(numbers)
    assert "–" not in means[: len(numbers)]
    assert "–" in means


FILTER = """
const field = document.querySelector('input[data-filter="cells-t"]');
const rows = () => [...document.querySelectorAll('#cells-t tbody tr')].filter((r) => !r.hidden);
const all = rows().length;
field.value = 'purer 1-shot';
field.dispatchEvent(new Event('input'));
const few = rows().map((r) => r.textContent);
const link = rows()[0].querySelector('a');
const said = document.querySelector('[data-count="cells-t"]').textContent;
link.click();
await new Promise((done) => setTimeout(done, 200));
const cell = document.getElementById(link.hash.slice(1));
return {all, few, said, open: cell.open, text: cell.textContent, problems: window.problems};
"""


@pytest.mark.browser
def test_cells_filter_and_links_open_them(page):
    found = evaluate(page, FILTER)
    assert found["problems"] == []
    assert found["all"] == 22
    assert 0 < len(found["few"]) < 22
    assert all("purer" in text and "1-shot" in text for text in found["few"])
    assert found["said"] == f"{len(found['few'])} of 22 rows"
    assert found["open"]
    assert "bench reproduce" in found["text"]


def test_the_summary_names_variants_and_passes_untrained_pools_over(tmp_path):
    plain = {**PROTOCOL, "teachers": "trained"}
    for method, value in (("teacher_centroids", 0.3), ("purer", 0.4)):
        make_record(tmp_path, method, accuracies(value, method), protocol=plain)
        other = {**plain, "shared_initialisation": True}
        make_record(
            tmp_path,
            method,
            accuracies(value, method + "s"),
            protocol=other,
            variant="shared_initialisation=True",
        )
        make_record(
            tmp_path,
            method,
            accuracies(value, method + "u"),
            protocol={**plain, "teachers": "untrained"},
        )
    groups = make_groups(load_records(tmp_path))
    assert len(groups) == 3
    named = [
        line["scenario"]
        for group in content.compared(groups)
        for line in content.leader_lines(group)
    ]
    label = groups[0].first.protocol_label
    assert sorted(named) == [f"SS, {label}", f"SS, {label}, shared_initialisation=True"]
    (heading, text), *rest = content.answer(content.compared(groups))
    assert heading == "What is best"
    assert text.count("purer ") == 1
    assert text.count("5-way 1-shot") == 2, "the untrained teachers' row counts for nothing"
    assert len(rest) == 2
    alone = [group for group in groups if group.first.protocol["teachers"] == "untrained"]
    assert content.compared(alone) == alone


WIDE = """
const sizes = [];
for (const width of %s) {
  const frame = document.createElement('iframe');
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.srcdoc = '<!doctype html>' + document.documentElement.outerHTML
    .replace(/<script[^]*?<\\/script>/g, '');
  document.body.append(frame);
  await new Promise((done) => { frame.onload = done; });
  const inner = frame.contentDocument, box = document.createRange();
  const answer = inner.querySelector('.answer').getBoundingClientRect();
  const hero = inner.querySelector('.answer img').getBoundingClientRect();
  const small = [...inner.querySelectorAll('img')].every(
    (i) => i.getBoundingClientRect().width <= width);
  const field = inner.querySelector('#summary-t td'), name = getComputedStyle(field, '::before');
  const named = name.content === 'none' || parseFloat(getComputedStyle(field).paddingLeft)
    + parseFloat(name.marginLeft) >= 0;
  sizes.push([width, inner.documentElement.scrollWidth, small && named, answer.top, hero.bottom]);
  frame.remove();
}
return {sizes, problems: window.problems};
"""


@pytest.mark.browser
def test_nothing_is_wider_than_the_window(page):
    found = evaluate(page, WIDE % list(WIDTHS), width=1700)
    assert found["problems"] == []
    assert [size[0] for size in found["sizes"]] == list(WIDTHS)
    for width, content_width, seen, top, hero in found["sizes"]:
        assert content_width <= width
        assert seen  # pictures fit, and names of fields stand within the window
        assert top < 520  # the answer begins on the first screen
        assert width < 1280 or hero < 800, "and there the figure is in sight, too"


AXE = """
const report = await axe.run(document, {resultTypes: ['violations']});
return report.violations.filter((v) => ['serious', 'critical'].includes(v.impact))
  .map((v) => v.id + ': ' + v.nodes.slice(0, 3).map((n) => n.html).join(' | '));
"""


@pytest.mark.browser
def test_axe_finds_nothing_serious(page):
    source = (node_module("axe-core") / "axe.min.js").read_text(encoding="utf-8")
    assert evaluate(page, source + AXE) == []


@pytest.mark.browser
def test_an_html_validator_finds_nothing(page):
    program = node_module("html-validate") / "bin" / "html-validate.mjs"
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on the path")
    rules = ["no-inline-style", "long-title", "no-trailing-whitespace", "prefer-native-element"]
    config = page.with_name("validate.json")
    off = ",".join(f'"{rule}":"off"' for rule in rules)
    config.write_text(f'{{"extends":["html-validate:standard"],"rules":{{{off}}}}}')
    command = [node, str(program), "--config", str(config), str(page)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stdout[-3000:]
