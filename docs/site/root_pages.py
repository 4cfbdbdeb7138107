"""A hook of MkDocs that adds the pages which live at the root of the repository to the website.

README.md becomes the home page. Links keep working in the repository and on the website: a link
to a root page leads to its copy, and a link to another file outside docs/ is shown as plain text.
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
_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?!https?:|mailto:|#)(?P<target>[^)\s]+)\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add one generated page for each file of `ROOT_PAGES`."""
    from mkdocs.structure.files import File

    root = Path(config.config_file_path).parent
    for source, page in ROOT_PAGES.items():
        text = (root / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=site_links(text, Path(), root)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Redirect the links of a page in docs/ that lead out of docs/."""
    if page.file.generated_by:
        return markdown
    root = Path(config.config_file_path).parent
    return site_links(markdown, Path("docs", page.file.src_uri).parent, root)


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
        elif target.parent == root.resolve() and target.name in ROOT_PAGES:
            goal = docs / ROOT_PAGES[target.name]
        elif target.exists():
            return match["text"]
        else:
            return match[0]
        link = Path(os.path.relpath(goal, here)).as_posix()
        return f"[{match['text']}]({link}{'#' + anchor if anchor else ''})"

    return _LINK.sub(rewrite, text)
