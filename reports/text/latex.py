r"""Tables as LaTeX fragments for `\\input`; their first line names the packages needed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reports.tables.table import Column, Entry, Table
from reports.text.terminal import split

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


PREAMBLE = r"% needs \usepackage{booktabs,graphicx,longtable}"
TALL = 40
"""Lines; a table of more is broken over pages."""
LINES_OF_WRAPPED = 3
"""Lines that a row is taken for where a column of words is broken."""
WIDE, WIDE_TALL = 160, 100
"""Characters side by side, of a table that is shrunk to the page and of one over several pages."""
SHRUNK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def latex(tables: Sequence[Table]) -> str:
    """Return the tables: one `table` each, several where it is too wide for a page.

    A table that is too long for a page is a `longtable`.
    """
    return PREAMBLE + "\n" + "\n".join(_one(table) for table in tables)


def _one(table: Table) -> str:
    n_lines = LINES_OF_WRAPPED if any(column.wraps for column in table.columns) else 1
    tall = sum(1 + n_lines * len(section.rows) for section in table.sections) > TALL
    parts = split(table, WIDE_TALL if tall else WIDE)
    texts = []
    for number, chosen in enumerate(parts, start=1):
        part = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
        legend = f"Bold: {table.strong_means}. " if table.strong_means else ""
        title = rf"\caption{{{escape(table.title + part)}. {escape(legend + table.caption)}}}"
        notes = _notes(table) if number == len(parts) else []
        texts.append((_long if tall else _float)(table, chosen, title, notes))
    return "\n".join(texts)


def _float(table: Table, chosen: Sequence[int], title: str, notes: Sequence[str]) -> str:
    """Return a part that stands on one page, shrunk to the width of the text if it is wider."""
    return "\n".join(
        [
            r"\begin{table}[!htbp]",
            r"\centering",
            title,
            SHRUNK,
            rf"\begin{{tabular}}{{{_shapes(table, chosen)}}}",
            r"\toprule",
            _head(table, chosen),
            *_body(table, chosen),
            r"\bottomrule",
            r"\end{tabular}}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def _long(table: Table, chosen: Sequence[int], title: str, notes: Sequence[str]) -> str:
    """Return a part that goes over several pages, its head on each."""
    head = [r"\toprule", _head(table, chosen)]
    return "\n".join(
        [
            r"\begingroup\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\begin{{longtable}}{{{_shapes(table, chosen)}}}",
            title + r" \\",
            *head,
            r"\endfirsthead",
            *head,
            r"\midrule",
            r"\endhead",
            r"\bottomrule",
            r"\endfoot",
            *_body(table, chosen),
            r"\end{longtable}",
            r"\endgroup",
            *notes,
            "",
        ]
    )


def _shapes(table: Table, chosen: Sequence[int]) -> str:
    columns = [table.columns[i] for i in chosen]
    wrapping = sum(column.wraps for column in columns)
    return "".join(_shape(column, wrapping) for column in columns)


def _head(table: Table, chosen: Sequence[int]) -> str:
    return _row([escape(table.columns[i].title) for i in chosen])


def _body(table: Table, chosen: Sequence[int]) -> list[str]:
    lines = []
    for section in table.sections:
        lines.append(r"\midrule")
        if section.heading:
            heading = escape(section.heading)
            lines.append(rf"\multicolumn{{{len(chosen)}}}{{l}}{{\emph{{{heading}}}}} \\")
        lines += [_row([_entry(row[i]) for i in chosen]) for row in section.rows]
    return lines


def _notes(table: Table) -> list[str]:
    lines = []
    for number, note in enumerate(table.notes, start=1):
        lines += ["", rf"{{\footnotesize\textsuperscript{{{number}}} {escape(note)}}}"]
    return lines


def _shape(column: Column, wrapping: int) -> str:
    if column.wraps:
        return rf"p{{{0.5 / wrapping:g}\linewidth}}"
    return "r" if column.numeric else "l"


def _row(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


def _entry(entry: Entry) -> str:
    text = escape(entry.shown)
    text = rf"\textbf{{{text}}}" if entry.strong else text
    text += escape("†") if entry.tied else ""
    numbers = ",".join(map(str, entry.notes))
    return text + (rf"\textsuperscript{{{numbers}}}" if entry.notes else "")
