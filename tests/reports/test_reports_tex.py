"""The LaTeX tables go through a real TeX, where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_records import seeded_suite, standard_suite

from bench.results.select import load_records
from reports.tables.build import build_tables
from reports.tables.table import Column, Section, Table, label
from reports.text.render import latex

DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage[a4paper,margin=2cm]{geometry}
\usepackage{booktabs,graphicx,longtable}
\begin{document}
\input{tables}
\end{document}
"""


def compiled(folder: Path, tables: str) -> str:
    """Set tables in a document and return TeX's log; skips where there is no TeX."""
    program = shutil.which("pdflatex") or shutil.which("lualatex")
    if program is None:
        pytest.skip("no pdflatex or lualatex on the path")
    (folder / "tables.tex").write_text(tables, encoding="utf-8")
    (folder / "main.tex").write_text(DOCUMENT, encoding="utf-8")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    for _ in range(2):  # a longtable finds its widths in the first pass
        found = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300,
            check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stdout[-3000:]
    assert (folder / "main.pdf").read_bytes().startswith(b"%PDF")
    return (folder / "main.log").read_text(errors="replace")


@pytest.mark.tex
def test_tables_compile(tmp_path):
    standard_suite(tmp_path / "standard")
    seeded_suite(tmp_path / "seeded")
    log = compiled(tmp_path, latex(build_tables(load_records(tmp_path))))
    assert "Missing character" not in log
    assert "Float too large" not in log
    assert not re.findall(r"Overfull \\hbox \((?:\d{2,})", log)


@pytest.mark.tex
def test_a_table_of_many_rows_and_columns_stays_on_its_pages(tmp_path):
    columns = [Column("method", numeric=False)]
    columns += [Column(f"accuracy {i}", f"{i}", f"{i}") for i in range(30)]
    rows = [[label(f"method {i}"), *[label("47.6 ± 0.9")] * 30] for i in range(120)]
    table = Table("accuracy", "Many", columns, [Section("all of them", rows)], "Percent.")
    text = latex([table])
    assert text.count(r"\begin{longtable}") > 1
    log = compiled(tmp_path, text)
    assert not re.findall(r"Overfull \\[hv]box \((?:\d{2,})", log)
    assert "Float too large" not in log
