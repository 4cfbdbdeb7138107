"""What tables say: the best, ties, footnotes, seeds, pairs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from report_records import accuracies, make_record, seeded_suite, standard_suite
from report_tables import ONE_SHOT, entries, section_names, table_of

from bench.results.find import RecordWarning
from bench.results.paired import FLIPS
from bench.results.select import load_records
from bench.results.store import mark_done, read_record
from bench.stats import mean_interval
from reports.rows.groups import make_groups
from reports.rows.results import Result
from reports.tables.build import build_tables
from reports.tables.paired import comparisons


def test_best_tied_and_oracle(tmp_path):
    standard_suite(tmp_path)
    table = table_of(tmp_path)
    found = entries(table, ONE_SHOT)
    strong = [key[0] for key, entry in found.items() if entry.strong]
    assert strong == ["ensemble_centroids", "average"], "one of each kind"
    assert [key[0] for key, entry in found.items() if entry.tied] == ["purer (tuned)"]
    assert found["oracle_protonet", "protonet"].text.startswith("58.0")
    names = section_names(table)
    assert list(names) == [
        "Inductive, inversion",
        "Inductive, features",
        "Transductive, parameters",
        "Oracles (real data; not ranked)",
    ]
    assert names["Inductive, inversion"] == ["purer (tuned)", "purer"]


def test_percent_is_of_the_tasks_by_hand(tmp_path):
    """Accuracies 0.2 and 0.6: mean 40 %, population std 20 %, 1.96 · 20/√2 = 27.7."""
    make_record(tmp_path, "average", np.array([0.2, 0.6]), n_test_tasks=2)
    assert entries(table_of(tmp_path), ONE_SHOT)["average", "maml"].text == "40.0 ± 27.7"


@pytest.mark.parametrize(("gap", "tied"), [(0.001, True), (0.02, False)])
def test_a_tie_is_a_paired_interval_with_zero(tmp_path, gap, tied):
    best, other = accuracies(0.5, "best"), accuracies(0.5 - gap, "other")
    make_record(tmp_path, "average", best)
    make_record(tmp_path, "random", other)
    interval = mean_interval(best - other)
    assert (interval.low <= 0 <= interval.high) == tied
    unpaired_width = mean_interval(best).high - mean_interval(best).low
    assert unpaired_width > 0.04  # both intervals alone would overlap
    assert entries(table_of(tmp_path), ONE_SHOT)["random", "maml"].tied == tied


def test_other_tasks_cannot_be_tied(tmp_path):
    make_record(tmp_path, "average", accuracies(0.5, "a"))
    make_record(tmp_path, "random", accuracies(0.4999, "b"), task_list_sha256="0" * 64)
    found = entries(table_of(tmp_path), ONE_SHOT)
    assert found["average", "maml"].strong
    assert not found["random", "maml"].tied
    pairs = entries(table_of(tmp_path, "paired"), ONE_SHOT)
    assert pairs["average", "maml"].text == "–"
    assert table_of(tmp_path, "paired").notes == ["not the same test tasks"]


def test_equal_means_are_both_best(tmp_path):
    values = accuracies(0.5, "same")
    make_record(tmp_path, "average", values)
    make_record(tmp_path, "random", values)
    assert all(entry.strong for entry in entries(table_of(tmp_path), ONE_SHOT).values())


def test_skipped_failed_and_absent_cells_say_why(tmp_path):
    standard_suite(tmp_path)
    make_record(tmp_path, "random", accuracies(0.3, "r"), learner="anil")
    table = table_of(tmp_path)
    skipped = entries(table, ONE_SHOT)["average", "protonet"]
    failed = entries(table, "cifar_fs 5-way 5-shot")["average", "protonet"]
    absent = entries(table, "cifar_fs 5-way 5-shot")["random", "anil"]
    assert [one.text for one in (skipped, failed, absent)] == ["–", "failed", "–"]
    reasons = [table.notes[one.notes[0] - 1] for one in (skipped, failed, absent)]
    assert reasons == [
        "skipped: needs teachers of one | architecture",
        "failed: loss_inner is not finite at step 3",
        "not run",
    ]


def test_seeds_are_averaged_not_pooled(tmp_path):
    places = seeded_suite(tmp_path)
    records = [read_record(place).record for place in places]
    mine = [r.accuracy for r in records if r.method == "purer"]
    table = table_of(tmp_path)
    mean, ci95 = np.mean([a.mean for a in mine]), np.mean([a.ci95 for a in mine])
    assert entries(table, ONE_SHOT)["purer", "maml"].text == f"{100 * mean:.1f} ± {100 * ci95:.1f}"
    spread = entries(table, "over seeds")
    assert spread["purer", "maml"].text == "±1.0 over 3 seeds"  # 33, 34, 35
    assert spread["random", "maml"].text == "±0.0 over 2 seeds"
    partial = entries(table, ONE_SHOT)["random", "maml"]
    assert table.notes[partial.notes[0] - 1] == "without seed 2, failed: out of memory"
    assert "Seeds 0, 1, 2" in table.caption


def test_one_seed_has_no_column_of_spread(tmp_path):
    standard_suite(tmp_path)
    assert "over seeds" not in [column.title for column in table_of(tmp_path).columns]


def test_pairs_of_several_seeds_use_each_tasks_mean(tmp_path):
    places = [read_record(place) for place in seeded_suite(tmp_path)]
    (group,) = make_groups(load_records(tmp_path))
    found = {(c.row.method, c.reference.method): c for c in comparisons(group)}
    random = {p.record.seed: p for p in places if p.record.method == "random"}
    assert random[2].record.status == "failed"
    for reference, seeds in (("average", (0, 1, 2)), ("random", (0, 1))):
        values, purer = (
            np.mean(
                [
                    p.accuracies()
                    for p in places
                    if p.record.method == name and p.record.seed in seeds
                ],
                axis=0,
            )
            for name in (reference, "purer")
        )
        expected = mean_interval(purer - values)
        one = found["purer", reference]
        assert (one.seeds, one.partial) == (seeds, reference == "random")
        d = one.difference
        assert (d.mean, d.low, d.high) == pytest.approx(expected)
        assert d.n == 20


def test_what_has_no_seed_in_common_is_not_compared(tmp_path):
    for seed, method in ((0, "purer"), (1, "random")):
        make_record(tmp_path, method, accuracies(0.3, method), seed=seed)
    (group,) = make_groups(load_records(tmp_path))
    assert [one.reason for one in comparisons(group)] == ["no seed in common"]


def test_references_are_met_under_the_same_learner_and_once(tmp_path):
    standard_suite(tmp_path)
    (group,) = make_groups(load_records(tmp_path))
    pairs = {(c.row.method, c.row.learner, c.reference.method) for c in comparisons(group)}
    assert ("purer", "maml", "random") in pairs
    assert ("average", "maml", "random") in pairs
    assert ("random", "maml", "average") not in pairs
    assert ("ensemble_centroids", "centroids", "random") not in pairs
    assert ("teacher_centroids", "centroids", "ensemble_centroids") in pairs
    assert not any(method == "oracle_protonet" for method, _, _ in pairs)


def test_holm_is_over_the_table(tmp_path):
    """The smallest p is at least the number of comparisons over the flips and one."""
    standard_suite(tmp_path)
    (group,) = make_groups(load_records(tmp_path))
    made = [c for c in comparisons(group) if c.difference]
    assert min(c.p_holm for c in made) == pytest.approx(len(made) / (FLIPS + 1))
    assert all(c.p_holm >= c.difference.p_value for c in made)


def test_a_task_table_that_contradicts_its_record_is_left_out(tmp_path):
    make_record(tmp_path, "average", accuracies(0.5, "a"))
    place = make_record(tmp_path, "random", accuracies(0.4, "b"))
    other = make_record(tmp_path / "x", "random", accuracies(0.45, "c"))
    (other / "tasks.parquet").replace(place / "tasks.parquet")
    mark_done(place)
    shutil.rmtree(other)
    with pytest.warns(RecordWarning, match="tasks.parquet and the record disagree"):
        (stored,) = load_records(tmp_path)
    assert stored.record.method == "average"


def test_seed_order_does_not_matter(tmp_path):
    stored = [read_record(place) for place in seeded_suite(tmp_path)]
    mine = [one for one in stored if one.record.method == "purer"]
    assert Result(mine[::-1]).seeds == (0, 1, 2)
    assert Result(mine[::-1]).mean == pytest.approx(Result(mine).mean)


def test_a_single_task_and_no_result_at_all_still_make_tables(tmp_path):
    make_record(tmp_path / "one", "average", np.array([0.4]), n_test_tasks=1)
    make_record(tmp_path / "one", "random", np.array([0.4]), n_test_tasks=1)
    tables = build_tables(load_records(tmp_path / "one"))
    assert tables[1].notes == ["a single test task"]
    skipped = {"status": "skipped", "reason": "needs more teachers"}
    make_record(tmp_path / "none", "purer", None, **skipped)
    (table,) = build_tables(load_records(tmp_path / "none"))
    assert entries(table, ONE_SHOT)["purer", "maml"].text == "–"
    assert table.notes == ["skipped: needs more teachers"]


def test_a_difference_stands_out_where_its_adjusted_p_is_small(tmp_path):
    standard_suite(tmp_path)
    sections = {part.heading: part.rows for part in table_of(tmp_path, "paired").sections}
    rows = {row[0].text: row for row in sections["minus ensemble_centroids"]}
    assert not rows["purer (tuned)"][2].strong
    assert rows["purer (tuned)"][3].text == "1.000"
    assert rows["teacher_centroids"][2].strong
    assert float(rows["teacher_centroids"][3].text.lstrip("<")) < 0.05
