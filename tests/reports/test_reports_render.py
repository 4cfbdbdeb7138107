"""Rendered texts: against stored ones, and properties that no stored text can lock in."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest
from report_records import accuracies, make_record, outputs, standard_suite
from write_golden import GOLDEN

from bench.results.frame import record_frame
from bench.results.select import load_records
from bench.results.store import read_record
from reports.tables.build import build_tables
from reports.tables.table import Column, Entry, Section, Table
from reports.text import latex as latex_module
from reports.text.markdown import escape
from reports.text.render import latex, markdown, terminal_text
from reports.text.terminal import split

NUMBER = re.compile(r"^(failed|–|[+-]?\d+(\.\d+)?[kMG]?( ± \d+\.\d)?( \[.*\])?|<0\.001)$")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return outputs(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standard")
    standard_suite(folder)
    return load_records(folder)


@pytest.mark.parametrize("suite", ["standard", "seeded"])
@pytest.mark.parametrize("kind", ["md", "tex", "txt"])
def test_text_equals_the_stored_one(texts, suite, kind):
    expected = (GOLDEN / f"{suite}.{kind}").read_text(encoding="utf-8")
    assert texts[f"{suite}.{kind}"] == expected


@pytest.mark.parametrize("suite", ["standard", "seeded"])
def test_csv_equals_the_stored_one(texts, suite):
    """Bootstrap limits may differ with the version of numpy, by less than half a point."""
    found = list(csv.DictReader(io.StringIO(texts[f"{suite}.csv"])))
    text = (GOLDEN / f"{suite}.csv").read_text(encoding="utf-8")
    expected = list(csv.DictReader(io.StringIO(text)))
    assert [list(row) for row in found] == [list(row) for row in expected]
    for row, other in zip(found, expected, strict=True):
        for key, value in row.items():
            if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", value):
                tolerance = 0.005 if key.startswith("bca") else 1e-12
                assert float(value) == pytest.approx(float(other[key]), abs=tolerance), key
            else:
                assert value == other[key], key


def test_csv_holds_every_cell_in_full_precision(texts, stored):
    rows = {row["cell_hash"]: row for row in csv.DictReader(io.StringIO(texts["standard.csv"]))}
    assert len(rows) == len(stored)
    for one in stored:
        row, accuracy = rows[one.record.cell_hash], one.record.accuracy
        assert (row["status"], row["reason"] or None) == (one.record.status, one.record.reason)
        if accuracy is None:
            assert row["accuracy_mean"] == ""
        else:
            assert float(row["accuracy_mean"]) == accuracy.mean
            assert float(row["t_low"]) < accuracy.mean < float(row["bca_high"])


def test_frame_has_a_row_a_record(stored):
    frame = record_frame(stored)
    assert len(frame) == len(stored)
    best = frame[frame.knowledge != "real_data"].groupby("k_shot").accuracy_mean.max()
    assert best.to_dict() == pytest.approx({1: 0.475, 5: 0.625})


def test_the_marked_best_is_the_best_and_no_oracle(texts, stored):
    """Read back from the Markdown alone, against the records alone."""
    accuracy = texts["standard.md"].split("**Paired")[0]
    rows = [line.strip("| ").split(" | ") for line in accuracy.splitlines() if line[:2] == "| "]
    header, body = rows[0], [row for row in rows if re.match(r"\**\d", row[-1])]
    for index, k_shot in ((2, 1), (3, 5)):
        assert f"{k_shot}-shot" in header[index]
        strong = [row for row in body if row[index].startswith("**")]
        records = [one.record for one in stored if one.record.k_shot == k_shot]
        free = [r for r in records if r.knowledge != "real_data" and r.accuracy]
        kinds = [[r for r in free if r.inference == one] for one in ("inductive", "transductive")]
        best = [max(one, key=lambda r: r.accuracy.mean).method for one in kinds]
        assert [row[0] for row in strong] == best
        oracle = max(r.accuracy.mean for r in records if r.knowledge == "real_data")
        assert oracle > max(r.accuracy.mean for r in free)


@pytest.mark.parametrize("suite", ["standard", "seeded"])
def test_markdown_rows_have_the_headers_columns(texts, suite):
    for block in re.split(r"\n\n", texts[f"{suite}.md"]):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        pipes = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(pipes) <= 1


@pytest.mark.parametrize("suite", ["standard", "seeded"])
def test_latex_is_balanced_and_even(texts, suite):
    text = texts[f"{suite}.tex"]
    bare = re.sub(r"\\[{}%&$#_]", "", text)
    assert bare.count("{") == bare.count("}") > 0
    assert bare.count("$") % 2 == 0
    assert sorted(re.findall(r"\\begin{(\w+)}", text)) == sorted(re.findall(r"\\end{(\w+)}", text))
    for shape, body in re.findall(r"\\begin{tabular}{([lr]+)}(.*?)\\end{tabular}", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 1
        for row in rows:
            spanned = [int(n) - 1 for n in re.findall(r"\\multicolumn{(\d+)}", row)]
            assert len(re.findall(r"(?<!\\)&", row)) + sum(spanned) + 1 == len(shape)


def test_every_value_parses_back(stored):
    for table in build_tables(stored, ["accuracy", "paired", "cost"]):
        for section in table.sections:
            for row in section.rows:
                assert len(row) == len(table.columns)
                for column, entry in zip(table.columns, row, strict=True):
                    assert not column.numeric or NUMBER.match(entry.text), entry.text


def test_footnotes_are_all_used_and_all_there(stored):
    for table in build_tables(stored):
        rows = [row for section in table.sections for row in section.rows]
        used = {number for row in rows for entry in row for number in entry.notes}
        assert used == set(range(1, len(table.notes) + 1))


@pytest.mark.parametrize("suite", ["standard", "seeded"])
def test_terminal_fits_a_hundred_columns(texts, suite):
    assert max(len(line) for line in texts[f"{suite}.txt"].splitlines()) <= 100


def test_two_settings_stay_side_by_side_at_a_hundred(stored):
    for table in build_tables(stored):
        one_setting_a_row = table.kind == "reproduction"
        assert one_setting_a_row or len(split(table, 100)) == 1


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_a_wide_table_is_split_by_data_set_then_setting(tmp_path, width):
    for name in ("cifar_fs", "mini_imagenet", "cub"):
        for k_shot in (1, 5):
            changes = {"datasets": [name], "dataset_digests": {name: "d"}, "k_shot": k_shot}
            make_record(tmp_path, "average", accuracies(0.5, name), **changes)
            make_record(tmp_path, "random", accuracies(0.4, name), **changes)
    for table in build_tables(load_records(tmp_path), ["accuracy", "paired"]):
        parts = split(table, width)
        shown = [i for part in parts for i in part if table.columns[i].block]
        assert shown == list(range(2, len(table.columns)))
        for part in parts:
            assert part[:2] == [0, 1]
            families = {table.columns[i].family for i in part[2:]}
            assert len(parts) == 1 or len(families) == 1
        blocks = [{table.columns[i].block for i in part[2:]} for part in parts]
        assert sum(map(len, blocks)) == 6
        if width >= 60:
            lines = terminal_text([table], width).splitlines()
            assert max(map(len, lines)) <= width
    assert len(split(table, 40)) == 6
    assert len(split(table, 100)) == 3


NASTY = r"a_b & 5% | $x^2 ~ {#} <b> *c* \d ± –"


def test_a_column_that_wraps_is_broken_between_words_and_nothing_is_lost():
    names = ", ".join(f"a_class_of_some_length_{i:02}" for i in range(23))
    columns = [Column("teacher", numeric=False), Column("classes", numeric=False, wraps=True)]
    rows = [[Entry("glyphs/00"), Entry(names)], [Entry("glyphs/01"), Entry("short")]]
    table = Table("teachers", "Teachers", columns, [Section("", rows)], "A caption.")
    for width in (40, 100):
        lines = terminal_text([table], width).splitlines()
        assert max(map(len, lines)) <= width
        shown = [line[11:] for line in lines if line.startswith(("glyphs/00", " " * 11))]
        assert " ".join(shown) == names
        assert "glyphs/01  short" in lines
    assert r"p{0.5\linewidth}" in latex([table])


def test_nasty_text_survives_each_renderer():
    table = Table(
        kind="accuracy",
        title=NASTY,
        columns=[Column("method", numeric=False), Column("x", "x")],
        sections=[Section(NASTY, [[Entry(NASTY), Entry("1.0 ± 0.1", True, False, (1,))]])],
        caption=NASTY,
        strong_means="the best",
        notes=[NASTY],
    )
    tex = latex([table])
    bare = re.sub(r"\\[{}%&$#_]", "", tex)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert r"a\_b \& 5\% \textbar{} \$x\textasciicircum{}2" in tex
    md = markdown([table])
    assert r"a_b &amp; 5% \| $x^2 ~ {#} &lt;b> \*c\* \\d" in md
    terminal = terminal_text([table], 100)
    assert terminal.count(NASTY) == 5
    assert "1.0 ± 0.1* [1]" in terminal


def test_markdown_keeps_underscores_within_words_only():
    assert escape("cifar_fs _x_") == r"cifar_fs \_x\_"


def test_latex_minus_is_for_numbers():
    assert latex_module.escape("-1.5 [-2.0] 5-way 2024-05-01") == "$-$1.5 [$-$2.0] 5-way 2024-05-01"


def test_same_records_same_text_in_any_order(stored):
    order = np.argsort([one.record.started + one.record.method for one in stored])
    shuffled = [stored[i] for i in order[::-1]]
    assert markdown(build_tables(shuffled)) == markdown(build_tables(stored))


def test_records_are_reread_the_same(stored):
    assert read_record(stored[0].folder).record == stored[0].record
