"""Run the notebooks of docs/notebooks, and write each as Markdown with its outputs beside it.

A notebook is a Python file with cells `# %%` and `# %% [markdown]` (the format py:percent), which
editors and jupytext open as a notebook. `python docs/site/notebooks.py` writes `<name>.md`, and for
each picture `<name>-<cell>.png`.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pandas import DataFrame
from PIL.Image import Image

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
OUTPUT = '```text title="output"\n'


class Cell(NamedTuple):
    """A cell: Markdown, or code."""

    is_markdown: bool
    text: str


class Output(NamedTuple):
    """What a cell of code printed, and what its last line came to."""

    printed: str
    value: object


def read_cells(text: str) -> list[Cell]:
    """Return the cells of a notebook."""
    parts = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)[1:]
    cells = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        markdown = kind.strip() == "[markdown]"
        lines = [re.sub(r"^# ?", "", line) if markdown else line for line in body.splitlines()]
        cells.append(Cell(markdown, "\n".join(lines).strip()))
    return cells


def run_cells(cells: list[Cell], name: str) -> Iterator[Output | None]:
    """Run the cells of code one after another, and yield what came of each; None of Markdown."""
    names: dict[str, Any] = {"__name__": name}
    for cell in cells:
        yield None if cell.is_markdown else _run(cell.text, names, name)


def _run(code: str, names: dict[str, Any], name: str) -> Output:
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), names)
    return Output(printed.getvalue(), value)


def as_markdown(cells: list[Cell], outputs: list[Output | None], name: str, folder: Path) -> str:
    """Return a notebook as a page, and write its pictures to the folder of the page."""
    parts = []
    for number, (cell, output) in enumerate(zip(cells, outputs, strict=True)):
        if output is None:
            parts.append(cell.text)
            continue
        parts.append(f"```python\n{cell.text}\n```")
        if output.printed:
            parts.append(f"{OUTPUT}{output.printed.rstrip()}\n```")
        if output.value is not None:
            parts.append(_shown(output.value, folder / f"{name}-{number}.png"))
    source = f"This page is made of `docs/notebooks/{name}.py`, which opens as a notebook."
    return "\n\n".join([*parts, source]) + "\n"


def _shown(value: object, picture: Path) -> str:
    if isinstance(value, Image):
        value.save(picture)
        return f"![output of the cell above]({picture.name})"
    if isinstance(value, DataFrame):
        index = value.index.dtype == object or str(value.index.dtype) == "str"
        return _table(value.reset_index(names="") if index else value)
    return f"{OUTPUT}{value!r}\n```"


def _table(frame: DataFrame) -> str:
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def without_outputs(page: str) -> str:
    """Return a page without what its cells gave, which differs between machines."""
    text = re.sub(re.escape(OUTPUT) + r".*?\n```", "", page, flags=re.DOTALL)
    text = re.sub(r"^\|.*\|$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{2,}", "\n\n", text)


def render(path: Path, folder: Path) -> Path:
    """Run a notebook and write its page and pictures to a folder; return the page's path."""
    cells = read_cells(path.read_text(encoding="utf-8"))
    outputs = list(run_cells(cells, path.stem))
    page = folder / f"{path.stem}.md"
    page.write_text(as_markdown(cells, outputs, path.stem, folder), encoding="utf-8")
    return page


if __name__ == "__main__":
    chosen = sys.argv[1:] or sorted(path.stem for path in NOTEBOOKS.glob("*.py"))
    for stem in chosen:
        print(render(NOTEBOOKS / f"{stem}.py", NOTEBOOKS))
