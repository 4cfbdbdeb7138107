"""The LaTeX tables go through a real TeX, where one is installed."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from report_records import seeded_suite, standard_suite

from reports.render import latex
from reports.select import load_records
from reports.tables import build_tables

DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage[landscape,a2paper]{geometry}
\usepackage{booktabs}
\begin{document}
\input{tables}
\end{document}
"""


@pytest.mark.tex
def test_tables_compile(tmp_path):
    program = shutil.which("pdflatex") or shutil.which("lualatex")
    if program is None:
        pytest.skip("no pdflatex or lualatex on the path")
    standard_suite(tmp_path / "standard")
    seeded_suite(tmp_path / "seeded")
    tables = build_tables(load_records(tmp_path))
    (tmp_path / "tables.tex").write_text(latex(tables), encoding="utf-8")
    (tmp_path / "main.tex").write_text(DOCUMENT, encoding="utf-8")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    found = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=300,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-3000:]
    assert (tmp_path / "main.pdf").read_bytes().startswith(b"%PDF")
    assert "Missing character" not in (tmp_path / "main.log").read_text(errors="replace")
