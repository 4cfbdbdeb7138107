"""What is called the best, tied or ahead compares rows on what both have: seeds and teachers."""

from __future__ import annotations

import numpy as np
import pytest
from report_records import accuracies, make_record, pool_of
from report_tables import ONE_SHOT, entries, table_of

from bench.results.find import find_records
from bench.results.select import load_records
from reports.page.content import leader_lines
from reports.rows.groups import make_groups
from reports.rows.results import best_first
from reports.sentences import sentences
from reports.tables.accuracy import OTHER_POOL
from reports.tables.build import build_tables
from reports.tables.summary import summary_rows


@pytest.fixture
def harder(tmp_path):
    """A row with an easy seed only, and one that is ahead on it and has a harder seed as well."""
    for name, seed, mean in (
        ("average", 0, 0.51),
        ("best_teacher", 0, 0.53),
        ("best_teacher", 1, 0.48),
    ):
        make_record(tmp_path, name, accuracies(mean, f"{name}{seed}"), seed=seed)
    return load_records(tmp_path)


def test_the_best_is_ahead_on_the_seeds_that_both_have(harder):
    table = table_of(harder[0].folder.parent)
    found = entries(table, ONE_SHOT)
    assert (found["average", "maml"].text[:4], found["average", "maml"].strong) == ("51.0", False)
    assert (found["best_teacher", "maml"].text[:4], found["best_teacher", "maml"].strong) == (
        "50.5",
        True,
    )
    assert "on the seeds that both have" in table.caption


def test_a_lead_is_of_the_best_and_says_on_which_seed(harder):
    groups = make_groups(harder)
    (line,) = leader_lines(groups[0])
    assert line["best"] == "best_teacher"
    assert line["lead"].startswith("+2.0 [")
    assert line["lead"].endswith("over average (on seed 0)")
    assert line["sure"] == "clear, on 95 % of tasks; 2 seeds"
    assert "points over average (on seed 0)." in sentences(groups).best


def test_with_equal_seeds_the_order_is_that_of_the_means(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("average", "random", "purer", "ensemble_centroids", "teacher_centroids"):
        for seed in range(3):
            values = accuracies(float(generator.uniform(0.3, 0.7)), f"{name}{seed}")
            make_record(tmp_path, name, values, seed=seed)
    (group,) = make_groups(load_records(tmp_path))
    results = {row: result for (row, _), result in group.results.items()}
    assert best_first(results) == sorted(results, key=lambda row: -results[row].mean)


def test_cells_of_one_seed_are_not_averaged_as_seeds(tmp_path):
    """They are of two imported pools, or of two versions of a plug-in."""
    pools = [pool_of(0).model_copy(update={"name": name}) for name in ("one", "two")]
    for mean, pool in zip((0.3, 0.5), pools, strict=True):
        make_record(tmp_path / str(mean), "average", accuracies(mean, "a"), pool=pool, n_way=5)
    for mean, versions in ((0.2, {}), (0.6, {"method purer": 2})):
        identity = {"cell": {"versions": versions}}
        make_record(tmp_path / str(mean), "purer", accuracies(mean, "p"), identity=identity)
    stored = find_records(tmp_path)
    (group,) = make_groups(stored)
    found = {row.name: result.mean for (row, _), result in group.results.items()}
    assert found == pytest.approx(
        {
            "average [pool=one]": 0.3,
            "average [pool=two]": 0.5,
            "purer [version=1, pool=trained]": 0.2,
            "purer [version=method purer 2, pool=trained]": 0.6,
        }
    )


def test_what_others_handed_in_is_not_averaged_with_ours(tmp_path):
    theirs = tmp_path / "community" / "median"
    make_record(tmp_path / "ours", "average", accuracies(0.3, "a"))
    make_record(theirs / "suite", "average", accuracies(0.5, "b"), seed=1)
    (theirs / "submission.json").write_text("{}", encoding="utf-8")
    (group,) = make_groups(load_records(tmp_path))
    means = {row["method"]: row["mean"] for row in summary_rows(group)}
    assert means == pytest.approx({"average": 0.3, "average (submitted)": 0.5})


def test_rows_without_a_common_seed_are_in_the_order_of_their_means(tmp_path):
    for name, seed, mean in (("average", 0, 0.4), ("random", 1, 0.5), ("purer", 2, 0.6)):
        make_record(tmp_path, name, accuracies(mean, name), seed=seed)
    (group,) = make_groups(load_records(tmp_path))
    results = {row: result for (row, _), result in group.results.items()}
    assert [row.method for row in best_first(results)] == ["purer", "random", "average"]


def test_a_row_with_other_teachers_than_the_best_is_marked_in_every_table_with_a_best(tmp_path):
    for place, name in enumerate(("ensemble_centroids", "teacher_centroids", "purer")):
        again = name == "teacher_centroids"
        make_record(tmp_path, name, accuracies(0.5 - place / 50, name), again=again)
    for k_shot in (1, 5):  # a second group, so that there is an overview
        values = accuracies(0.3, f"purer {k_shot}")
        make_record(tmp_path, "purer", values, scenario="MH", k_shot=k_shot)
    stored = load_records(tmp_path)
    tables = [t for t in build_tables(stored) if t.kind in ("accuracy", "overview")]
    marked = [t for t in tables if t.notes and OTHER_POOL in t.notes]
    assert [t.kind for t in marked] == ["overview", "accuracy"]
    for table in marked:
        number = table.notes.index(OTHER_POOL) + 1
        rows = [row for section in table.sections for row in section.rows]
        names = [row[0].text for row in rows if any(number in entry.notes for entry in row)]
        assert names == ["teacher_centroids"]
    group = next(one for one in make_groups(stored) if one.first.scenario == "SS")
    (line,) = leader_lines(group)
    assert line["lead"].endswith("over teacher_centroids (of another pool)")


def test_the_summary_names_the_iterations_that_an_oracle_ran(tmp_path):
    for method in ("oracle_protonet", "average"):
        make_record(tmp_path, method, accuracies(0.5, method))
    (group,) = make_groups(load_records(tmp_path))
    found = {row["method"]: row["meta_iterations"] for row in summary_rows(group)}
    assert found == {"oracle_protonet": 1000, "average": 400}
