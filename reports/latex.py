"""Tables as LaTeX fragments for `\\input`; the document loads booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reports.model import Column, Entry, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "†": r"$^{\dagger}$",
    "√": r"$\surd$",
    "·": r"$\cdot$",
    "–": "--",
    "…": r"\ldots{}",
    "→": r"$\to$",
    "×": r"$\times$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "δ": r"$\delta$",
    "σ": r"$\sigma$",
}


def escape(text: str) -> str:
    """Return text that LaTeX sets as it is; a minus before a number becomes one."""
    escaped = "".join(_SPECIAL.get(character, character) for character in text)
    return re.sub(r"(?<![\w.)}])-(?=\d)", "$-$", escaped)


def latex(tables: Sequence[Table]) -> str:
    """Return one `table` environment a table."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(_one(table) for table in tables)


def _one(table: Table) -> str:
    wrapping = sum(column.wraps for column in table.columns)
    shapes = [_shape(column, wrapping) for column in table.columns]
    legend = f"Bold: {table.strong_means}. " if table.strong_means else ""
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape(table.title)}. {escape(legend + table.caption)}}}",
        rf"\begin{{tabular}}{{{''.join(shapes)}}}",
        r"\toprule",
        _row([escape(column.title) for column in table.columns]),
    ]
    for section in table.sections:
        lines.append(r"\midrule")
        if section.heading:
            heading = escape(section.heading)
            lines.append(rf"\multicolumn{{{len(shapes)}}}{{l}}{{\emph{{{heading}}}}} \\")
        lines += [_row([_entry(entry) for entry in row]) for row in section.rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    for number, note in enumerate(table.notes, start=1):
        lines += ["", rf"{{\footnotesize\textsuperscript{{{number}}} {escape(note)}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _shape(column: Column, wrapping: int) -> str:
    if column.wraps:
        return rf"p{{{0.5 / wrapping:g}\linewidth}}"
    return "r" if column.numeric else "l"


def _row(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


def _entry(entry: Entry) -> str:
    text = escape(entry.text)
    text = rf"\textbf{{{text}}}" if entry.strong else text
    text += escape("†") if entry.tied else ""
    numbers = ",".join(map(str, entry.notes))
    return text + (rf"\textsuperscript{{{numbers}}}" if entry.notes else "")
