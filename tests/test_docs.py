"""The website's hook and its navigation."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from bench import registry

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("root_pages", ROOT / "docs/site/root_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("folder", "link", "expected"),
    [
        (".", "[a](docs/start.md)", "[a](start.md)"),
        (".", "[a](docs/methods/free.md#needs)", "[a](methods/free.md#needs)"),
        (".", "[a](CHANGELOG.md)", "[a](changelog.md)"),
        (".", "[a](results)", "a"),
        (".", '<img src="docs/tables.css">', '<img src="tables.css">'),
        (".", '<source srcset="docs/tables.css">', '<source srcset="tables.css">'),
        (".", '<img src="nowhere.svg">', '<img src="nowhere.svg">'),
        (".", "[a](https://example.org/b.md)", "[a](https://example.org/b.md)"),
        ("docs", "[a](../CONTRIBUTING.md#rules)", "[a](contributing.md#rules)"),
        ("docs/methods", "[a](../../README.md)", "[a](../index.md)"),
        ("docs", "[a](../bench/results/record.schema.json)", "[a](record.schema.json)"),
        ("docs/methods", "[a](free.md)", "[a](free.md)"),
        ("docs/methods", "[a](nowhere.md)", "[a](nowhere.md)"),
    ],
)
def test_links_are_rewritten_for_the_website(
    hook: ModuleType, folder: str, link: str, expected: str
) -> None:
    assert hook.site_links(f"See {link}.", Path(folder), ROOT) == f"See {expected}."


def test_the_navigation_lists_every_page(hook: ModuleType) -> None:
    entries = [yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]]
    listed = []
    while entries:
        entry = entries.pop()
        if isinstance(entry, str):
            listed.append(entry)
        else:
            entries += entry.values() if isinstance(entry, dict) else entry
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")]
    assert sorted(listed) == sorted([*pages, *hook.ROOT_PAGES.values()])


def test_every_method_has_its_page_with_a_table_of_its_results() -> None:
    index = (ROOT / "docs" / "methods" / "index.md").read_text(encoding="utf-8")
    for name in registry.names("method", registry.OWN):
        link = rf"\[[^|\]]*`{name}`[^|\]]*\]\(([\w./]+)\)"
        found = re.search(rf"^\| [^|]*{link}", index, re.MULTILINE)
        assert found, f"docs/methods/index.md has no row of {name} with a link to its page"
        page = (ROOT / "docs" / "methods" / found[1]).read_text(encoding="utf-8")
        tables = re.findall(r"<!-- results: (.*?) -->", page)
        assert any(f"method={name}" in one.split() for one in tables), found[1]


def test_pages_about_results_lead_to_the_website_of_the_records(hook: ModuleType) -> None:
    """Each link leads to the page that `tox -e site` writes."""
    for name in hook.LEADS_THERE:
        markdown = (ROOT / "docs" / name).read_text(encoding="utf-8")
        changed = hook.with_records(markdown, name)
        title, _, link = changed.splitlines()[:3]
        assert markdown.startswith(title)
        assert len(changed.splitlines()) == len(markdown.splitlines()) + 2
        address = link.partition("](")[2].partition(")")[0]
        place = (ROOT / "docs" / name).parent / address
        assert place.resolve() == (ROOT / "docs" / hook.RECORDS).resolve()
    assert hook.with_records("# A\n\nb\n", "start.md") == "# A\n\nb\n"
    assert hook.RECORDS.partition("/")[0] in (ROOT / "tox.ini").read_text(encoding="utf-8")
