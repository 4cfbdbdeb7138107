"""Ours beside published figures: verdicts by hand, and that the shipped file is whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_records import accuracies, make_record

from bench.results.select import load_records
from reports.rows.groups import make_groups
from reports.tables.reproduction import Published, judge, published, reproduction_table

FIGURE = Published(
    method="Paper's own", ours="purer", learner="maml", scenario="SS", dataset="cifar_fs",
    n_way=5, k_shot=1, percent=40.0, ci95=0.6, protocol="short (cvpr23)", source="table 1",
    grade="primary", note="",
)  # fmt: skip


def group(tmp_path, mean=0.4, **changes):
    make_record(tmp_path, "purer", accuracies(mean, "p"), **changes)
    return make_groups(load_records(tmp_path))[0]


@pytest.mark.parametrize(
    ("mean", "changes", "verdict", "why"),
    [
        (0.40, {}, "consistent", ""),
        (0.45, {}, "higher", ""),
        (0.35, {}, "lower", ""),
        (0.45, {"ci95": 6.0}, "consistent", ""),
        (0.40, {"ci95": None}, "consistent", ""),
        (0.40, {"protocol": "cvpr23"}, "not comparable", "of protocol cvpr23"),
        (0.40, {"protocol": ""}, "not comparable", "not stated"),
        (0.40, {"note": "other channel width"}, "not comparable", "other channel width"),
    ],
)
def test_verdicts(tmp_path, mean, changes, verdict, why):
    found = group(tmp_path, mean)
    (result,) = found.results.values()
    assert 100 * result.ci95 < 3
    said, reason = judge(result, replace(FIGURE, **changes), "short (cvpr23)")
    assert said == verdict
    assert why in reason


def test_a_row_names_source_grade_and_protocol(tmp_path):
    table = reproduction_table(group(tmp_path), (FIGURE,))
    (row,) = table.sections[0].rows
    texts = [entry.text for entry in row]
    assert texts[3].startswith("40.0 ±")
    assert texts[4:] == ["40.0 ± 0.6", "Paper's own", "primary", "short (cvpr23)", "consistent"]
    assert table.notes == ["Paper's own: table 1"]


def test_a_method_of_the_paper_without_figure_has_no_source(tmp_path):
    make_record(tmp_path, "purer", accuracies(0.4, "p"), k_shot=5)
    table = reproduction_table(group(tmp_path), (FIGURE,))
    verdicts = [row[-1].text for row in table.sections[0].rows]
    assert verdicts == ["consistent", "no source"]


def test_a_table_without_any_source_is_left_out(tmp_path):
    assert reproduction_table(group(tmp_path, k_shot=5), (FIGURE,)) is None


def test_what_was_never_published_has_no_table(tmp_path):
    make_record(tmp_path, "average", accuracies(0.3, "a"))
    assert reproduction_table(make_groups(load_records(tmp_path))[0], (FIGURE,)) is None


def test_calibration_and_presets_are_not_the_published_method(tmp_path):
    assert reproduction_table(group(tmp_path / "a", calibration="icfil"), (FIGURE,)) is None
    assert reproduction_table(group(tmp_path / "b", preset="tuned"), (FIGURE,)) is None


def test_the_shipped_figures_have_source_and_grade():
    found = published()
    assert found
    for one in found:
        assert one.source
        assert one.grade in ("primary", "secondary")
        assert 0 < one.percent < 100
        assert one.protocol or one.note or one.grade == "secondary"
