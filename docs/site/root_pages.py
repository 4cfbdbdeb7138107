"""A hook of MkDocs that adds files from outside docs/ to the website: pages, a schema, the records.

README.md becomes the home page. Links keep working in the repository and on the website: a link
to one of these files leads to its copy, a link to another file outside docs/ is shown as text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
FILES = ROOT_PAGES | {"bench/results/record.schema.json": "record.schema.json"}
"""Files outside docs/ by their path in the repository, and their path on the website."""
RECORDS = "records/index.html"
"""The website of the records, which `tox -e site` writes in the place of this page."""
PLACEHOLDER = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Records</title></head>
<body><p>Made by <code>tox -e site</code>, after <code>tox -e docs</code>.</p></body>
</html>
"""
LEADS_THERE = {"results/index.md": "../", "reports.md": ""}
"""Pages that say where the website of the records is, and the way from each to the top."""
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?!https?:|mailto:|#)(?P<target>[^)\s]+)\)")

_SOURCE = re.compile(r'(?P<name>src|srcset)="(?!https?:|data:)(?P<target>[^"\s]+)"')
"""A picture in HTML, as Markdown has no `<picture>`."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add one generated file for each of `FILES`."""
    from mkdocs.structure.files import File

    root = Path(config.config_file_path).parent
    for source, target in FILES.items():
        text = (root / source).read_text(encoding="utf-8")
        content = site_links(text, Path(), root) if source in ROOT_PAGES else text
        files.append(File.generated(config, target, content=content))
    files.append(File.generated(config, RECORDS, content=PLACEHOLDER))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Redirect the links of a page in docs/ that lead out of docs/."""
    if page.file.generated_by:
        return markdown
    root = Path(config.config_file_path).parent
    return with_records(
        site_links(markdown, Path("docs", page.file.src_uri).parent, root), page.file.src_uri
    )


def with_records(markdown: str, name: str) -> str:
    """Let a page that `LEADS_THERE` begin, below its title, with a link to all records."""
    if name not in LEADS_THERE:
        return markdown
    title, _, rest = markdown.partition("\n")
    address = LEADS_THERE[name] + RECORDS
    link = (
        f"[All scenarios, methods and cells of the stored results]({address}), to search and sort."
    )
    return f"{title}\n\n{link}\n{rest}"


def site_links(text: str, folder: Path, root: Path) -> str:
    """Rewrite the links of a page, as seen from its folder in the repository, for the website.

    Args:
        text: Markdown.
        folder: the page's folder relative to the repository.
        root: the repository.

    Returns:
        Markdown whose links inside the repository are relative to the page's place on the website.
    """
    place = (root / folder).resolve()
    docs = (root / "docs").resolve()
    here = docs if not place.is_relative_to(docs) else place

    def rewrite(match: re.Match[str]) -> str:
        path, _, anchor = match["target"].partition("#")
        target = (place / path).resolve()
        if target.is_relative_to(docs):
            goal = target
        elif (source := os.path.relpath(target, root)) in FILES:
            goal = docs / FILES[source]
        elif target.exists():
            return match["text"]
        else:
            return match[0]
        link = Path(os.path.relpath(goal, here)).as_posix()
        return f"[{match['text']}]({link}{'#' + anchor if anchor else ''})"

    def placed(match: re.Match[str]) -> str:
        target = (place / match["target"]).resolve()
        if not (target.exists() and target.is_relative_to(docs)):
            return match[0]
        return f'{match["name"]}="{Path(os.path.relpath(target, here)).as_posix()}"'

    return _SOURCE.sub(placed, _LINK.sub(rewrite, text))
