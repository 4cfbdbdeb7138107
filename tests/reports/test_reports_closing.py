"""The closing screen: one screen, what it says, and the notes of rows near chance."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from report_records import BUDGET, PROTOCOL, _timing, accuracies, make_record, standard_suite
from report_tables import ONE_SHOT, entries, table_of

from bench.errors import BenchError
from bench.results.select import load_records
from reports.cli import report
from reports.closing import LINES, chosen_tables, shortened
from reports.rows.groups import make_groups
from reports.sentences import sentences
from reports.tables.build import build_tables
from reports.tables.collection import compute

OF_THE_RUN = 4
"""Lines that `bench run` prints below: records, MLflow's command, which may wrap, its address."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("closing")
    standard_suite(folder / "runs" / "cifar_fs_ss")
    return folder / "runs"


@pytest.fixture
def runs(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "runs")


def output_of(runs: Path, *words: str) -> str:
    words = (str(runs), "--no-figures", *words)
    result = CliRunner().invoke(report, words, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_one_screen_says_what_is_best_what_it_costs_and_what_not_to_conclude(runs: Path) -> None:
    lines = output_of(runs).splitlines()
    text = " ".join(" ".join(lines).split())
    assert lines[0].startswith("Accuracy: SS")
    assert "ensemble_centroids centroids 47.5 ± 2.1* 62.5 ± 2.2*" in text
    assert (
        "best Inductive: ensemble_centroids 47.5 and 62.5 % (5-way 1-shot, 5-way 5-shot), " in text
    )
    assert "+0.2 [-0.7, +1.1] points, tied with purer (tuned). Transductive: average" in text
    assert "+1.0 [+0.4, +1.6] points over random." in text
    assert "cost ensemble_centroids: no training, 5.31M MACs; purer (tuned): fit 120 s" in text
    assert "Longest fit: purer" in text
    assert "120 s" in text
    assert "caution One pool, one seed" in text
    assert "PURER ran 400 of the published 60,000 meta-iterations" in text
    assert f"page {runs}/report/report.html" in text
    assert f"{runs} --tables all" in text
    assert "bench show ensemble_centroids" in text
    assert "Paired differences" not in text


def test_many_rows_and_long_notes_still_fit_one_screen(tmp_path: Path) -> None:
    for method in ("random", "average", "purer"):
        for number in range(15):
            low = accuracies(0.2, f"{method} {number}")
            config = {"number": number}
            make_record(tmp_path / "suite", method, low, method_config=config)
    lines = output_of(tmp_path / "suite").splitlines()
    assert len(lines) + OF_THE_RUN <= LINES
    assert sum("more" in line and "…" in line for line in lines) == 2
    assert max(len(line) for line in lines if not line.startswith(("page", "next", "   "))) <= 100


def test_the_commands_that_it_names_print_all_tables_or_some(runs: Path) -> None:
    everything = output_of(runs, "--tables", "all")
    tables = compute(load_records(runs)).all_tables
    assert all(table.title in " ".join(everything.split()) for table in tables)
    assert everything.count("Protocol short") == 1, "the constants stand under one table"
    some = output_of(runs, "--tables", "cost,paired")
    assert "Paired differences" in some
    assert "Throughput" in some
    assert "Accuracy: SS" not in some
    with pytest.raises(BenchError, match="did you mean paired"):
        chosen_tables(compute(load_records(runs)), "pared")


def test_formats_are_drawn_as_asked_and_an_unknown_one_is_refused(runs: Path) -> None:
    result = CliRunner().invoke(report, [str(runs), "--formats", "png,gif"])
    assert isinstance(result.exception, BenchError)
    assert "gif" in str(result.exception)
    words = [str(runs), "--formats", "pdf", "--only", "k_shot=1", "--only", "method=average"]
    assert CliRunner().invoke(report, words, catch_exceptions=False).exit_code == 0
    figures = {path.suffix for path in (runs / "report" / "figures").iterdir() if path.suffix}
    assert figures >= {".svg", ".pdf"}
    assert ".png" not in figures


def test_shortened_keeps_the_first_rows_their_notes_and_says_how_many_are_left_out(
    tmp_path: Path,
) -> None:
    for number in range(5):
        values = accuracies(0.5 - 0.07 * number, f"{number}")
        make_record(tmp_path, "random", values, method_config={"number": number})
    (table,) = build_tables(load_records(tmp_path), ["accuracy"])
    assert [bool(row[2].notes) for row in table.sections[0].rows] == [False] * 4 + [True]
    short = shortened(table, 3)
    assert [row[0].text for row in short.sections[0].rows][-1] == "… 2 more"
    assert short.notes == []
    assert shortened(table, 4) == table, "a line for one row would take its place"


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        ("random", {}, "1 gradient step on weights without meta-training"),
        ("purer", {}, "400 meta-iterations are 0.67 % of the published 60,000"),
        (
            "purer",
            {"method_config": {"meta_iterations_factor": 3}},
            "1,200 meta-iterations are 2 % of the published 60,000",
        ),
        (
            "oracle_protonet",
            {"timing": _timing("purer"), "budget": BUDGET | {"oracle_iterations": 7}},
            "7 meta-iterations",
        ),
        (
            "average",
            {"protocol": PROTOCOL | {"teachers": "untrained"}},
            "the teachers are untrained",
        ),
        ("ensemble_centroids", {}, ""),
    ],
)
def test_a_row_near_chance_says_why(
    tmp_path: Path, method: str, changes: dict, expected: str
) -> None:
    values = np.full(20, 0.215)
    make_record(tmp_path, method, values, **changes)
    table = table_of(tmp_path)
    (entry,) = entries(table, ONE_SHOT).values()
    note = "within 2 points of chance (20 %)" + f": {expected}" * bool(expected)
    assert [table.notes[number - 1] for number in entry.notes] == [note]


@pytest.mark.parametrize(("mean", "noted"), [(0.219, True), (0.221, False)])
def test_near_is_a_matter_of_the_intervals_lower_end(
    tmp_path: Path, mean: float, noted: bool
) -> None:
    make_record(tmp_path, "average", np.full(20, mean))
    (entry,) = entries(table_of(tmp_path), ONE_SHOT).values()
    assert bool(entry.notes) == noted


@pytest.mark.parametrize(("differs", "noted"), [(0.0, True), (0.01, False)])
def test_a_meta_trained_row_says_where_it_is_still_at_its_start(
    tmp_path: Path, differs: float, noted: bool
) -> None:
    values = accuracies(0.5, "start")
    make_record(tmp_path, "average", values)
    make_record(tmp_path, "purer", values + differs * (np.arange(len(values)) == 0))
    table = table_of(tmp_path)
    notes = {name: entry.notes for name, entry in entries(table, ONE_SHOT).items()}
    said = "as average in every task: of its meta-training, validation kept the weights that it "
    assert table.notes == [f"{said}started from"] * noted
    assert [bool(one) for one in notes.values()].count(True) == noted


def test_sentences_of_several_groups_count_settings(tmp_path: Path) -> None:
    for name in ("cifar_fs", "cub", "glyphs"):
        changes = {"datasets": [name], "dataset_digests": {name: "d"}, "scenario": "SS"}
        for scenario in ("SS", "MH"):
            for method, mean in (("average", 0.4), ("random", 0.3)):
                values = accuracies(mean, f"{method} {name} {scenario}", noise=0.001)
                make_record(tmp_path, method, values, **(changes | {"scenario": scenario}))
    found = sentences(make_groups(load_records(tmp_path)))
    assert found is not None
    assert found.best.startswith(
        "Transductive: average: best in 6 of 6 settings, by 10.0 to 10.0 points"
    )
    assert "clearly in 6" in found.best
    assert "Numbers of different tables do not compare." in found.caution
    assert "Only 20 test tasks." in found.caution


def test_a_row_counts_once_whatever_learners_other_groups_have_it_with(tmp_path: Path) -> None:
    """In one group it has two learners, in the next one; a third has nothing beside it."""
    for scenario, learners in (("SS", ("maml", "protonet")), ("SH", ("protonet",)), ("MH", ())):
        for learner in learners:
            mean = 0.5 if learner == "protonet" else 0.2
            values = accuracies(mean, f"{learner}{scenario}")
            make_record(tmp_path, "best_teacher", values, learner=learner, scenario=scenario)
        make_record(tmp_path, "random", accuracies(0.3, scenario), scenario=scenario)
    said = sentences(make_groups(load_records(tmp_path)))
    assert said is not None
    assert said.best.startswith("Transductive: best_teacher · protonet 50.0 and 50.0 % (")
    assert "nothing to compare with" not in said.best
    assert said.caution.startswith("One pool, one seed")


def test_one_seed_of_several_pools_is_not_called_one_pool(tmp_path: Path) -> None:
    for again in (False, True):
        make_record(tmp_path, ("average", "purer")[again], accuracies(0.3, "a"), again=again)
    said = sentences(make_groups(load_records(tmp_path)))
    assert said is not None
    assert said.caution.startswith("One seed: ± covers the test tasks")


def test_a_row_alone_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    for k_shot in (1, 5):
        make_record(tmp_path, "average", accuracies(0.3, "a"), k_shot=k_shot)
    said = sentences(make_groups(load_records(tmp_path)))
    assert said is not None
    assert said.best.endswith("average 30.0 and 30.0 % (5-way 1-shot, 5-way 5-shot), "
                              "nothing to compare with.")  # fmt: skip


def test_without_a_data_free_result_there_are_no_sentences(tmp_path: Path) -> None:
    make_record(tmp_path, "oracle_protonet", accuracies(0.5, "o"))
    assert sentences(make_groups(load_records(tmp_path))) is None
    assert "oracle_protonet" in output_of(tmp_path)


def test_several_groups_without_a_data_free_result_show_the_first_one_s_accuracy(
    tmp_path: Path,
) -> None:
    for scenario in ("SS", "MH"):
        make_record(tmp_path, "oracle_protonet", accuracies(0.5, "o"), scenario=scenario)
    assert "oracle_protonet" in output_of(tmp_path)


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_leaders_of_several_groups_are_shown_at_every_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    for scenario in ("SS", "MH"):
        for method in ("average", "purer", "ensemble_centroids"):
            values = accuracies(0.5, method + scenario)
            make_record(tmp_path, method, values, scenario=scenario, preset="released_and_long")
    monkeypatch.setenv("COLUMNS", str(width))
    lines = output_of(tmp_path).splitlines()
    assert lines[0] == "The best data-free row of each setting"
    assert "accuracy" in " ".join(lines[1:4])
    table = "\n".join(lines[: next(i for i, line in enumerate(lines) if "Percent, ±" in line)])
    assert "50.0 ±" in table


def test_a_single_task_is_said_to_be_one_and_not_another(tmp_path: Path) -> None:
    few = {"n_test_tasks": 1, "n_query": 1, "budget": BUDGET | {"meta_iterations": 1}}
    for method in ("average", "random"):
        make_record(tmp_path / "runs" / "one", method, accuracies(0.5, method, 1), **few)
    text = " ".join(output_of(tmp_path / "runs").split())
    assert "a single task" in text
    assert "Only 1 test task." in text
    assert "other tasks" not in text
    assert "same tasks" not in text
    text = " ".join(output_of(tmp_path / "runs", "--tables", "accuracy").split())
    assert "over n = 1 test task with 1 query image per class" in text
    assert ": 1 meta-iteration (" in text
