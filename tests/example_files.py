"""Quotations of the example in a page; `python -m tests.example_files` brings them up to date."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
_BLOCK = re.compile(r"<!-- file: (?P<path>\S+) -->\n```(?P<language>\w+)\n(?P<text>.*?)```", re.S)


def quoted(text: str) -> list[str]:
    """Return the paths of the files that a page quotes."""
    return [match["path"] for match in _BLOCK.finditer(text)]


def updated(text: str) -> str:
    """Return a page with each block as its file is now."""

    def block(match: re.Match[str]) -> str:
        content = (ROOT / match["path"]).read_text(encoding="utf-8")
        return f"<!-- file: {match['path']} -->\n```{match['language']}\n{content}```"

    return _BLOCK.sub(block, text)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
