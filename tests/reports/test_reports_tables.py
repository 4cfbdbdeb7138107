"""What tables say: the best, ties, footnotes, seeds, pairs, and what never shares a table."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from report_records import BUDGET, PROTOCOL, accuracies, make_record, seeded_suite, standard_suite

from bench.results.find import RecordWarning
from bench.results.store import mark_done, read_record
from bench.stats import mean_interval
from bench.suites.protocols import budget, protocol
from reports.rows.groups import Group, make_groups
from reports.rows.results import Result, Row, Setting
from reports.rows.select import load_records
from reports.tables.build import build_tables
from reports.tables.paired import FLIPS, comparisons, signed


def table_of(folder, kind="accuracy"):
    """Return the only table of a kind."""
    tables = build_tables(load_records(folder), [kind])
    assert len(tables) == 1
    return tables[0]


def entries(table, column):
    """Return {(method, learner): entry} of the column with that header."""
    index = [one.title for one in table.columns].index(column)
    return {(row[0].text, row[1].text): row[index] for part in table.sections for row in part.rows}


def section_names(table):
    """Return {heading: methods}, in order."""
    return {part.heading: [row[0].text for row in part.rows] for part in table.sections}


ONE_SHOT = "cifar_fs 5-way 1-shot"


def test_best_tied_and_oracle(tmp_path):
    standard_suite(tmp_path)
    table = table_of(tmp_path)
    found = entries(table, ONE_SHOT)
    assert [key[0] for key, entry in found.items() if entry.strong] == ["ensemble_centroids"]
    assert [key[0] for key, entry in found.items() if entry.tied] == ["purer (tuned)"]
    assert found["oracle_protonet", "protonet"].text.startswith("58.0")
    names = section_names(table)
    assert list(names) == [
        "Parameters",
        "Inversion",
        "Features",
        "Oracles (real data; not ranked)",
    ]
    assert names["Inversion"] == ["purer (tuned)", "purer"]


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


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.0312, "+3.1"), (-0.0004, "+0.0"), (0, "+0.0"), (-0.5, "-50.0")]
)
def test_signed(fraction, text):
    assert signed(fraction) == text


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": PROTOCOL | {"name": "cvpr23_as_published"}},
        {"budget": BUDGET | {"name": "micro"}},
        {"budget": BUDGET | {"teacher_epochs": 30}},
        {"protocol": PROTOCOL | {"bn": "support"}},
        {"net": "resnet10"},
        {"scenario": "SH", "architectures": ["conv4", "resnet10"]},
        {"architectures": ["resnet10"]},
        {"n_query": 10},
    ],
)
def test_what_differs_in_a_constant_never_shares_a_table(tmp_path, changes):
    make_record(tmp_path / "a", "average", accuracies(0.5, "a"))
    make_record(tmp_path / "b", "random", accuracies(0.4, "b"), **changes)
    tables = build_tables(load_records(tmp_path), ["accuracy"])
    assert [len(entries(table, ONE_SHOT)) for table in tables] == [1, 1]
    assert build_tables(load_records(tmp_path), ["paired"]) == []
    if "n_query" not in changes:
        assert tables[0].title != tables[1].title


def test_a_longer_task_list_is_another_table(tmp_path):
    make_record(tmp_path, "average", accuracies(0.5, "a"))
    make_record(tmp_path, "random", accuracies(0.4, "b", n=30), n_test_tasks=30)
    assert len(build_tables(load_records(tmp_path), ["accuracy"])) == 2


def test_a_set_constant_is_in_the_title(tmp_path):
    make_record(tmp_path, "average", accuracies(0.5, "a"))
    make_record(tmp_path, "average", accuracies(0.4, "b"), protocol=PROTOCOL | {"bn": "support"})
    titles = [table.title for table in build_tables(load_records(tmp_path), ["accuracy"])]
    assert ["bn=support" in title for title in titles] == [True, False]
    assert ["bn=transductive" in title for title in titles] == [False, True]


def test_paper_budget_carries_the_protocols_own_name(tmp_path):
    make_record(tmp_path, "average", accuracies(0.5, "a"), budget=BUDGET | {"name": "paper"})
    assert "protocol cvpr23," in table_of(tmp_path).title


def test_other_settings_of_a_method_are_other_rows(tmp_path):
    for rate in (0.1, 0.25):
        values = accuracies(0.3 + rate / 10, str(rate))
        config = {"pixel_lr": rate, "steps": 4}
        make_record(tmp_path, "purer", values, method_config=config)
    methods = section_names(table_of(tmp_path))["Inversion"]
    assert methods == ["purer [pixel_lr=0.25]", "purer [pixel_lr=0.1]"]


def test_other_image_files_are_another_column(tmp_path):
    make_record(tmp_path, "average", accuracies(0.5, "a"))
    make_record(tmp_path, "average", accuracies(0.5, "b"), dataset_digests={"cifar_fs": "e" * 64})
    headers = [column.title for column in table_of(tmp_path).columns][2:]
    assert headers == [f"cifar_fs @{six} 5-way 1-shot" for six in ("dddddd", "eeeeee")]


def test_calibration_shows_beside_the_learner(tmp_path):
    make_record(tmp_path, "purer", accuracies(0.5, "a"), calibration="icfil")
    assert list(entries(table_of(tmp_path), ONE_SHOT)) == [("purer", "maml + icfil")]


def test_a_calibrated_row_stands_beside_itself_without(tmp_path):
    """Also a reference's own row; rows of other settings are not mixed up."""
    for method, learner in (("average", "maml"), ("purer", "maml"), ("purer", "anil")):
        make_record(tmp_path, method, accuracies(0.4, method + learner), learner=learner)
        values = accuracies(0.45, method + learner + "c")
        make_record(tmp_path, method, values, learner=learner, calibration="icfil")
    sections = table_of(tmp_path, "paired").sections
    found = {
        (section.heading.removeprefix("minus "), row[0].text, row[1].text): row[2].text
        for section in sections
        for row in section.rows
    }
    assert found["average", "average", "maml + icfil"].startswith("+5.0 [")
    assert found["purer with maml", "purer", "maml + icfil"].startswith("+5.0 [")
    assert found["purer with anil", "purer", "anil + icfil"].startswith("+5.0 [")
    assert ("purer with anil", "purer", "maml + icfil") not in found


def test_a_preset_is_compared_with_the_released_one_of_its_learner(tmp_path):
    for learner, gain in (("maml", 0.05), ("protonet", 0.08)):
        make_record(tmp_path, "purer", accuracies(0.4, learner), learner=learner)
        values = accuracies(0.4 + gain, learner)
        make_record(tmp_path, "purer", values, learner=learner, preset="tuned")
    found = {
        section.heading: [(row[0].text, row[2].text) for row in section.rows]
        for section in table_of(tmp_path, "paired").sections
    }
    assert found == {
        "minus purer with protonet": [("purer (tuned)", "+8.0 [+8.0, +8.0]")],
        "minus purer with maml": [("purer (tuned)", "+5.0 [+5.0, +5.0]")],
    }


def test_other_constants_of_a_calibration_are_other_rows(tmp_path):
    make_record(tmp_path, "purer", accuracies(0.3, "n"))
    for temperature in (0.1, 0.5):
        values = accuracies(0.4 + temperature / 10, str(temperature))
        config = {"temperature": temperature, "steps": 3}
        make_record(tmp_path, "purer", values, calibration="icfil", calibration_config=config)
    assert section_names(table_of(tmp_path))["Inversion"] == [
        "purer [icfil.temperature=0.5]",
        "purer [icfil.temperature=0.1]",
        "purer",
    ]
    sections = table_of(tmp_path, "paired").sections
    assert [row[0].text for row in sections[-1].rows] == [
        "purer [icfil.temperature=0.5]",
        "purer [icfil.temperature=0.1]",
    ]


def test_the_front_of_accuracy_against_cost_is_over_all_devices(tmp_path):
    """Both are of equal cost; the better one ran elsewhere."""
    gpu = {"type": "cuda", "name": "Example GPU", "threads": 2}
    make_record(tmp_path, "average", accuracies(0.3, "a"))
    make_record(tmp_path, "purer", accuracies(0.5, "p"), device=gpu)
    found = {
        row[0].text: row[2].strong
        for section in table_of(tmp_path, "cost").sections
        for row in section.rows
    }
    assert found == {"average": False, "purer": True}


def test_cost_leaves_absent_figures_out_and_devices_apart(tmp_path):
    standard_suite(tmp_path)
    table = table_of(tmp_path, "cost")
    rates = entries(table, "pseudo images/s")
    assert rates["purer", "maml"].text == "1042"
    assert rates["average", "maml"].text == "–"
    assert entries(table, "peak GB")["purer", "maml"].text == "0.81"
    gpu = {"type": "cuda", "name": "Example GPU", "threads": 2}
    make_record(tmp_path, "average", accuracies(0.5, "g"), learner="anil", device=gpu)
    headings = list(section_names(table_of(tmp_path, "cost")))
    assert f"{ONE_SHOT}, cuda (Example GPU)" in headings
    assert f"{ONE_SHOT}, cpu (Example CPU, 2 threads)" in headings


def test_pools_by_seed(tmp_path):
    seeded_suite(tmp_path)
    rows = table_of(tmp_path, "pools").sections[0].rows
    assert [row[1].text for row in rows] == ["0", "1", "2"]
    assert [row[4].text for row in rows] == ["86.0", "86.1", "86.2"]
    assert rows[0][3].text == "13 conv4"
    assert rows[2][5].text == "80.2 to 92.2"


def test_every_teacher_with_its_classes(tmp_path):
    (path, *_) = seeded_suite(tmp_path)
    table = table_of(tmp_path, "teachers")
    names = [section.heading.rpartition(",")[0] for section in table.sections]
    assert names == [f"cifar_fs, seed {seed}" for seed in range(3)]
    stored = read_record(path).record.pool.teachers
    rows = [[entry.text for entry in row] for row in table.sections[0].rows]
    assert [row[0] for row in rows] == [one["name"] for one in stored]
    assert rows[1] == ["cifar_fs/01", "conv4", "32", "81.0", ", ".join(stored[1]["classes"])]


def test_caption_names_the_epochs_of_architectures_that_have_their_own(tmp_path):
    own = {"resnet10": 5, "resnet18": 5, "resnet50": 3}
    make_record(
        tmp_path,
        "average",
        accuracies(0.5, "a"),
        architectures=["conv4", "resnet10", "resnet18"],
        budget={**budget("short").model_dump(mode="json"), "teacher_epochs_of": own},
    )
    caption = table_of(tmp_path).caption
    assert "60 epochs a teacher, 5 a resnet10 or resnet18 (best checkpoint)" in caption


def test_caption_names_what_makes_the_numbers_comparable(tmp_path):
    make_record(
        tmp_path,
        "average",
        accuracies(0.5, "a"),
        protocol=protocol("cvpr23").model_dump(mode="json"),
        budget=budget("short").model_dump(mode="json"),
        environment={
            "python": "3.11",
            "platform": "Linux",
            "packages": {},
            "git_commit": "fedcba9876543210",
            "git_dirty": True,
        },
    )
    caption = table_of(tmp_path).caption
    for words in (
        "1.96·std/√n over n = 20 test tasks",
        "cifar_fs 13 teachers, mean held-out accuracy 86.0 %",
        f"{budget('short').teacher_epochs} epochs a teacher",
        "inner steps 1 in training, 1 at test",
        "BN transductive; selection val",
        f"{budget('short').meta_iterations} meta-iterations",
        "cpu (Example CPU, 2 threads); 2024-05-01; commit fedcba9876 (dirty)",
    ):
        assert words in caption


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


def test_captions_say_how_teachers_came_to_their_weights(tmp_path):
    values = accuracies(0.3, "random")
    make_record(tmp_path / "a", "random", values)
    make_record(tmp_path / "b", "random", values, protocol=PROTOCOL | {"teachers": "untrained"})
    captions = [table.caption for table in build_tables(load_records(tmp_path), ["accuracy"])]
    assert [("epochs a teacher" in c, "untrained teachers" in c) for c in captions] == [
        (True, False),
        (False, True),
    ]


def test_the_overview_keeps_variants_of_a_protocol_apart(tmp_path):
    for scenario in ("SS", "SH"):
        make_record(tmp_path, "average", accuracies(0.3, scenario), scenario=scenario)
    variant = {"shared_initialisation": True}
    make_record(
        tmp_path,
        "average",
        accuracies(0.4, "other"),
        protocol={**PROTOCOL, **variant},
        variant="shared_initialisation=True",
    )
    (table,) = build_tables(load_records(tmp_path), ["overview"])
    headers = [column.title.split()[0] for column in table.columns if column.block]
    assert headers == ["SS", "SH"]
    assert "shared_initialisation" not in table.title


def test_the_overview_has_a_table_for_each_shape_of_tasks(tmp_path):
    for scenario, shots in (("SS", 1), ("SS", 5), ("SH", 1)):
        values = accuracies(0.3, f"{scenario}{shots}")
        make_record(tmp_path, "average", values, scenario=scenario, k_shot=shots)
    make_record(tmp_path, "random", accuracies(0.4, "z"), scenario="SS", k_shot=5)
    one, five = build_tables(load_records(tmp_path), ["overview"])
    assert ["5-way 1-shot" in one.title, "5-way 5-shot" in five.title] == [True, True]
    assert [c.title for c in one.columns if c.block] == ["SS cifar_fs", "SH cifar_fs"]
    assert [c.title for c in five.columns if c.block] == ["SS cifar_fs"]
    names = [[r[0].text for section in t.sections for r in section.rows] for t in (one, five)]
    assert names == [["average"], ["average", "random"]]


def test_tasks_of_all_data_sets_together_stand_last():
    row = Row("parameters", "average", "released", "maml", "none", "")
    sets = [("cifar_fs",), ("cifar_fs", "cub"), ("cub",)]
    places = {(row, Setting(one, 5, 1, ("d",) * len(one))): Result([]) for one in sets}
    group = Group("any", [], places)
    assert [one.data for one in group.settings] == ["cifar_fs", "cub", "all 2"]
