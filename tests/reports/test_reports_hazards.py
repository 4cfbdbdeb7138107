"""What each choice is worth: which records form a family, and what its table says of them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_records import accuracies, make_record

from bench.contract import ProtocolConstants
from bench.results.select import load_records
from bench.stats import mean_interval
from bench.suites.protocols import differences, protocol
from reports.cli import make_report
from reports.rows.families import OF_THE_POOL, hazard_families
from reports.tables.build import build_tables
from reports.tables.hazards import hazard_rows, hazards_table
from reports.tables.paired import TWO_POOLS
from reports.text.render import latex, markdown, terminal_text

FROZEN = {"task_list": "frozen"}
OVERLAPPING = {**FROZEN, "pool": "overlapping", "n_teachers": 13}
MEANS = {
    "reference": ("cvpr23_as_published", FROZEN, 0.33),
    "redrawn": ("cvpr23_as_published", {}, 0.335),
    "val": ("cvpr23_as_published", {**FROZEN, "selection": "val"}, 0.32),
    "uniform": ("cvpr23_as_published", {**FROZEN, "teacher_weights": "uniform"}, 0.33),
    "overlapping": ("cvpr23_as_published", OVERLAPPING, 0.31),
    "mismatched": ("cvpr23_as_published", {**OVERLAPPING, "label_order": "mismatched"}, 0.25),
    "honest": ("cvpr23", {}, 0.315),
}


def values_of(name: str, seed: int = 0, k_shot: int = 1) -> np.ndarray:
    return accuracies(MEANS[name][2] + 0.1 * (k_shot == 5), f"{name} {seed} {k_shot}")


def write(folder: Path, *names: str, **changes: Any) -> None:
    """Write the records of some choices; the redrawn one has test tasks of its own."""
    for name in names or MEANS:
        named, departures, _ = MEANS[name]
        constants = protocol(named).model_copy(update=departures)
        fields: dict[str, Any] = {
            "protocol": constants.model_dump(),
            "variant": ", ".join(f"{k}={v}" for k, v in sorted(differences(constants).items())),
            "learner": "maml",
        } | changes
        if name == "redrawn":
            fields["task_list_sha256"] = f"{fields.get('seed', 0):064x}"
        values = values_of(name, fields.get("seed", 0), fields.get("k_shot", 1))
        make_record(folder, "purer", values, **fields)


def rows_of(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    (family,) = hazard_families(load_records(folder))
    return {(row["choice"], row["value"]): row for row in hazard_rows(family)}


def test_other_teachers_are_marked_where_the_choice_is_none_of_the_pool(tmp_path: Path) -> None:
    again = {"val", "overlapping", "mismatched"}
    write(tmp_path, *(name for name in MEANS if name not in again))
    write(tmp_path, *again, again=True)
    (table,) = build_tables(load_records(tmp_path), ["hazards"])
    number = table.notes.index(TWO_POOLS) + 1
    rows = [row for section in table.sections for row in section.rows]
    marked = [row[0].text for row in rows if any(number in entry.notes for entry in row)]
    assert marked == ["selection"]
    assert set(ProtocolConstants.model_fields) >= OF_THE_POOL


def test_a_difference_of_fewer_seeds_says_so(tmp_path: Path) -> None:
    write(tmp_path, seed=0)
    rows = rows_of(tmp_path)
    assert {row["seeds"] for row in rows.values() if row["paired"]} == {"0"}
    reference = next(iter(MEANS))
    write(tmp_path, reference, seed=1)
    rows = rows_of(tmp_path)
    assert {row["seeds"] for row in rows.values() if row["paired"]} == {"0"}
    (table,) = build_tables(load_records(tmp_path), ["hazards"])
    assert "on the seeds that both have: 0" in table.notes
    assert "Seeds 0, 1." in table.caption
    assert "One fit each" not in table.caption


def test_each_choice_is_compared_with_the_reference(tmp_path: Path) -> None:
    write(tmp_path)
    rows = rows_of(tmp_path)
    reference = "cvpr23_as_published, task_list=frozen"
    assert list(rows) == [
        (reference, "–"),
        ("pool", "disjoint → overlapping"),
        ("label_order", "aligned → mismatched"),
        ("selection", "test_max → val"),
        ("task_list", "frozen → redrawn"),
        ("teacher_weights", "cumulative → uniform"),
        ("cvpr23", "teacher_checkpoint, selection, teacher_weights"),
    ]
    against = {key[0]: row["against"] for key, row in rows.items()}
    overlapping = "cvpr23_as_published, n_teachers=13, pool=overlapping, task_list=frozen"
    assert against.pop("label_order") == overlapping
    assert against.pop(reference) is None
    assert set(against.values()) == {reference}


def test_differences_are_paired_by_task_and_by_hand(tmp_path: Path) -> None:
    write(tmp_path)
    row = rows_of(tmp_path)["selection", "test_max → val"]
    expected = mean_interval(values_of("val") - values_of("reference"))
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(expected)
    assert row["paired"] is True
    assert row["accuracy"] == pytest.approx(values_of("val").mean())
    made = [r for r in rows_of(tmp_path).values() if r["p_holm"] is not None]
    assert len(made) == 5
    assert all(r["p_holm"] >= r["p_value"] for r in made)
    smallest = min(made, key=lambda r: r["p_value"])
    assert smallest["p_holm"] == pytest.approx(5 * smallest["p_value"])


def test_redrawn_tasks_are_not_paired_and_say_so(tmp_path: Path) -> None:
    write(tmp_path)
    row = rows_of(tmp_path)["task_list", "frozen → redrawn"]
    assert row["paired"] is False
    assert row["p_value"] is row["p_holm"] is None
    a, b = values_of("redrawn"), values_of("reference")
    assert row["difference"] == pytest.approx(a.mean() - b.mean())
    paired = mean_interval(a - b)
    assert row["high"] - row["low"] > 2 * (paired.high - paired.low)
    (family,) = hazard_families(load_records(tmp_path))
    table = hazards_table(family)
    line = next(r for part in table.sections for r in part.rows if r[0].text == "task_list")
    assert "Welch" in table.notes[line[3].notes[0] - 1]
    assert line[4].text == "–"


def test_seeds_are_averaged_task_by_task(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, "reference", "val", "uniform", seed=seed)
    row = rows_of(tmp_path)["selection", "test_max → val"]
    per_seed = [values_of("val", s) - values_of("reference", s) for s in (0, 1)]
    expected = mean_interval(np.mean(per_seed, axis=0))
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(expected)


def test_a_choice_without_result_says_why(tmp_path: Path) -> None:
    write(tmp_path, "reference", "val", "uniform")
    constants = protocol("cvpr23_as_published").model_copy(update={**FROZEN, "bn": "running"})
    make_record(
        tmp_path,
        "purer",
        None,
        protocol=constants.model_dump(),
        variant="bn=running, task_list=frozen",
        status="skipped",
        reason="bn = running needs stored statistics",
    )
    (family,) = hazard_families(load_records(tmp_path))
    table = hazards_table(family)
    line = next(r for part in table.sections for r in part.rows if r[0].text == "bn")
    assert [entry.text for entry in line[1:]] == ["transductive → running", "–", "–", "–"]
    assert "stored statistics" in table.notes[line[2].notes[0] - 1]
    assert rows_of(tmp_path)["bn", "transductive → running"]["reason"]


@pytest.mark.parametrize("names", [("reference", "val"), ("reference", "honest"), ("overlapping",)])
def test_two_protocols_are_no_family(tmp_path: Path, names: tuple[str, ...]) -> None:
    write(tmp_path, *names)
    stored = load_records(tmp_path)
    assert hazard_families(stored) == []
    assert {table.kind for table in build_tables(stored)} >= {"accuracy"}


def test_other_budgets_learners_and_configs_are_other_families(tmp_path: Path) -> None:
    write(tmp_path, "reference", "val", "uniform")
    write(tmp_path, "redrawn", learner="anil")
    write(tmp_path, "honest", method_config={"pixel_lr": 0.1})
    (family,) = hazard_families(load_records(tmp_path))
    assert len(family.choices) == 3


def test_a_named_protocol_is_the_reference_of_equals(tmp_path: Path) -> None:
    """Three BN modes: each is one choice from both others."""
    for bn in ("transductive", "support", "running"):
        constants = protocol("cvpr23").model_copy(update={"bn": bn})
        make_record(
            tmp_path,
            "purer",
            accuracies(0.3, bn),
            protocol=constants.model_dump(),
            variant="" if bn == "transductive" else f"bn={bn}",
        )
    assert list(rows_of(tmp_path)) == [
        ("cvpr23", "–"),
        ("bn", "transductive → running"),
        ("bn", "transductive → support"),
    ]


def test_every_output_holds_the_table_and_no_group_repeats_it(tmp_path: Path) -> None:
    write(tmp_path / "runs")
    write(tmp_path / "runs", k_shot=5)
    paths = make_report(tmp_path / "runs", tmp_path / "out")
    assert {path.name for path in paths} == {
        "tables.md",
        "tables.tex",
        "results.csv",
        "summary.csv",
        "hazards.csv",
        "report.html",
    }
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count(">What each choice is worth") == 2  # the section and its one table
    assert 'id="summary-t"' in page
    tables = build_tables(load_records(tmp_path / "runs"))
    assert [table.kind for table in tables] == ["hazards"]
    assert "accuracy" in {
        t.kind for t in build_tables(load_records(tmp_path / "runs"), ["accuracy"])
    }
    for text in (markdown(tables), latex(tables), terminal_text(tables, 100)):
        assert "What each choice is worth" in text
        assert "label" in text
        assert "mismatched" in text
    with (tmp_path / "out/hazards.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(MEANS)
    assert {row["k_shot"] for row in rows} == {"1", "5"}


def test_the_overview_leaves_out_what_a_table_of_hazards_holds(tmp_path):
    write(tmp_path)
    (hazards,) = build_tables(load_records(tmp_path), ["overview", "hazards"])
    assert hazards.title.startswith("What each choice is worth")
    for scenario in ("SS", "SH"):
        values = accuracies(0.3, scenario)
        make_record(tmp_path, "average", values, scenario=scenario)
    overview, _ = build_tables(load_records(tmp_path), ["overview", "hazards"])
    assert [row[0].text for section in overview.sections for row in section.rows] == ["average"]
