"""What never shares a table, and what titles, captions and overviews tell apart."""

from __future__ import annotations

import pytest
from report_records import BUDGET, PROTOCOL, accuracies, make_record, seeded_suite, standard_suite
from report_tables import ONE_SHOT, entries, section_names, table_of

from bench.results.select import load_records
from bench.results.store import read_record
from bench.suites.protocols import budget, protocol
from reports.rows.groups import Group
from reports.rows.results import Result, Row, Setting
from reports.tables.build import build_tables
from reports.tables.paired import signed


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
    methods = section_names(table_of(tmp_path))["Inductive, inversion"]
    assert methods == ["purer [pixel_lr=0.25]", "purer [pixel_lr=0.1]"]


@pytest.mark.parametrize(("value", "rows"), [(1.0, 1), (2.0, 2)])
def test_what_a_method_has_gained_since_stands_at_the_value_that_changes_nothing(
    tmp_path, value, rows
):
    """An older record lacks `late`; a newer one leaves 1, its default, out of what is hashed."""
    hashed = {} if value == 1.0 else {"late": value}
    newest = {"identity": {"cell": {"method_config": {}}}, "method_config": {"late": 1.0}}
    newer = {"identity": {"cell": {"method_config": hashed}}, "method_config": {"late": value}}
    make_record(tmp_path / "a", "average", accuracies(0.5, "a"), method_config={})
    make_record(tmp_path / "b", "average", accuracies(0.5, "b"), seed=1, **newer)
    make_record(tmp_path / "c", "average", accuracies(0.5, "c"), seed=2, **newest)
    assert len(table_of(tmp_path).sections[0].rows) == rows


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
    assert section_names(table_of(tmp_path))["Inductive, inversion"] == [
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
    """All are of equal cost; the better one of its kind ran elsewhere, the third is inductive."""
    gpu = {"type": "cuda", "name": "Example GPU", "threads": 2}
    make_record(tmp_path, "average", accuracies(0.3, "a"))
    make_record(tmp_path, "random", accuracies(0.5, "p"), device=gpu)
    make_record(tmp_path, "purer", accuracies(0.4, "i"))
    found = {
        row[0].text: row[2].strong
        for section in table_of(tmp_path, "cost").sections
        for row in section.rows
    }
    assert found == {"average": False, "random": True, "purer": True}


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


@pytest.mark.parametrize(
    ("threads", "cpu_s", "fit", "tests"),
    [
        (1, {"fit_cpu_s": 50.0, "test_cpu_s": 1.0}, "50.0", "20.0"),
        (2, {"fit_cpu_s": 50.0, "test_cpu_s": 1.0}, "200", "10.0"),
        (1, {}, "200", "10.0"),
    ],
)
def test_of_one_cpu_thread_the_cost_is_in_processor_seconds(tmp_path, threads, cpu_s, fit, tests):
    """20 tasks in 2 s by the clock, 1 s of the processor; two threads' seconds do not compare."""
    timing = {"fit_s": 200.0, "test_s": 2.0, "test_tasks_per_s": 10.0, **cpu_s}
    device = {"type": "cpu", "name": "Example CPU", "threads": threads}
    make_record(tmp_path, "average", accuracies(0.3, "a"), timing=timing, device=device)
    table = table_of(tmp_path, "cost")
    shown = [entries(table, name)["average", "maml"].text for name in ("fit s", "test tasks/s")]
    assert shown == [fit, tests]


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
    assert "60 epochs per teacher, 5 per resnet10 or resnet18 (best checkpoint)" in caption


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
        f"{budget('short').teacher_epochs} epochs per teacher",
        "inner steps 1 in training, 1 at test",
        "BN transductive; selection val",
        f"{budget('short').meta_iterations} meta-iterations",
        "cpu (Example CPU, 2 threads); 2024-05-01; commit fedcba9876 (dirty)",
    ):
        assert words in caption


def test_captions_say_how_teachers_came_to_their_weights(tmp_path):
    values = accuracies(0.3, "random")
    make_record(tmp_path / "a", "random", values)
    make_record(tmp_path / "b", "random", values, protocol=PROTOCOL | {"teachers": "untrained"})
    captions = [table.caption for table in build_tables(load_records(tmp_path), ["accuracy"])]
    assert [("epochs per teacher" in c, "untrained teachers" in c) for c in captions] == [
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
    row = Row("parameters", "transductive", "average", "released", "maml", "none", "")
    sets = [("cifar_fs",), ("cifar_fs", "cub"), ("cub",)]
    places = {(row, Setting(one, 5, 1, ("d",) * len(one))): Result([]) for one in sets}
    group = Group("any", [], places)
    assert [one.data for one in group.settings] == ["cifar_fs", "cub", "all 2"]
