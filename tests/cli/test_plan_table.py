"""The table of a plan: line by line where it fits, laid out by rich where it does not."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.cli import plan_table
from bench.cli.plan_table import COLUMNS, print_cells


def printed(cells: list[dict[str, str]], width: int = 100) -> list[str]:
    out = io.StringIO()
    print_cells(cells, Console(width=width, file=out))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def cell(**more: str) -> dict[str, str]:
    facts = dict.fromkeys(COLUMNS, "–") | {"method": "purer", "learner": "protonet + tie"}
    return facts | {"data": "SS cifar_fs", "time": "3.5 h", "memory": "12.1 GB"} | more


def test_lines_are_those_of_a_table_of_richs(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [cell(), cell(method="zipit (adapted)", stored="12/100", status="to do")]
    plain = printed(cells)
    monkeypatch.setattr(plan_table, "len", lambda text: 1000, raising=False)
    assert printed(cells) == plain
    assert plain[0].startswith("method          learner        data")
    assert len(plain) == 3


def test_what_does_not_fit_is_broken_in_its_own_column() -> None:
    lines = printed([cell(method="m" * 30), cell(method="purer\nfixed images")], width=90)
    assert all(len(line) <= 90 for line in lines)
    assert sum(line.count("m") for line in lines[1:] if line.startswith("mm")) >= 30
    assert any(line.startswith("fixed images") for line in lines)


def test_a_table_that_must_be_narrower_breaks_between_words_while_it_can() -> None:
    long = cell(
        method="distill_ensemble (tuned)\nquery_counts=dirichlet", learner="a + b_c_d_e_f_g_h"
    )
    words = {"distill_ensemble", "(tuned)", "query_counts=dirichlet", "b_c_d_e_f_g_h"}
    for width in (90, 100):
        lines = printed([long, cell()], width)
        assert words <= {word for line in lines for word in line.split()}
        assert all(len(line) <= width for line in lines)
    narrow = printed([long, cell()], 70)
    assert all(len(line) <= 70 for line in narrow)
    assert sum("3.5 h" in line for line in narrow) == 2, "no column is cut off"
