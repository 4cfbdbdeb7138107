"""The command: files, JSON, `--only`, files kept up to date, errors of one line."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from report_records import accuracies, make_record, standard_suite

from bench.cli.main import main as cli
from bench.errors import BenchError
from reports.cli import make_report, report
from reports.updating import Blocks, update_file

TEXTS = ["report.html", "results.csv", "summary.csv", "tables.md", "tables.tex"]
FILES = [".resampled.json", *TEXTS]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    standard_suite(folder / "cifar_fs_ss")
    return folder


@pytest.fixture
def runs(written, tmp_path):
    return shutil.copytree(written, tmp_path / "runs")


def invoke(*arguments):
    """Run the command without figures and return its output; an error is raised."""
    words = [*map(str, arguments), "--no-figures"]
    result = CliRunner().invoke(report, words, catch_exceptions=False)
    return result.exit_code, result.output


def test_writes_files_and_says_where(runs):
    status, output = invoke(runs)
    assert status == 0
    assert sorted(path.name for path in (runs / "report").iterdir()) == FILES
    assert str(runs / "report" / "report.html") in output
    assert all(name in output for name in TEXTS)
    assert "ensemble_centroids" in output


def test_a_second_report_is_the_same(runs):
    invoke(runs)
    before = [(runs / "report" / name).read_bytes() for name in FILES]
    invoke(runs)
    assert [(runs / "report" / name).read_bytes() for name in FILES] == before


def test_output_folder_and_suite_folder(runs, tmp_path):
    invoke(runs / "cifar_fs_ss", "-o", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert not (runs / "cifar_fs_ss" / "report").exists()


def test_bench_run_closes_with_it(runs, tmp_path, capsys):
    make_report(runs / "cifar_fs_ss", tmp_path / "out")
    assert "Accuracy: SS" in capsys.readouterr().out
    assert (tmp_path / "out" / "tables.md").exists()


def test_it_is_a_verb_of_the_command_line(runs, capsys):
    with pytest.raises(SystemExit) as exited:
        cli(["report", str(runs), "--no-figures", "--only=method=average", "--only=k_shot=1"])
    assert exited.value.code == 0
    assert "average" in capsys.readouterr().out


def test_json_holds_every_cell_and_comparison(runs):
    _, output = invoke(runs, "--json")
    content = json.loads(output)
    assert len(content["results"]) == 16
    assert {row["status"] for row in content["results"]} == {"done", "skipped", "failed"}
    tuned = [row for row in content["paired"] if row["method"] == "purer (tuned)"]
    references = {row["reference"] for row in tuned}
    assert references == {"random", "average", "ensemble_centroids", "purer"}
    assert all(row["low"] < row["difference"] < row["high"] for row in tuned)


def test_only_keeps_what_matches(runs):
    invoke(runs, "--only", "method=purer", "--only", "method=average", "--only", "k_shot=5")
    with (runs / "report" / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"purer", "average"}
    assert {row["k_shot"] for row in rows} == {"5"}


def test_a_cell_of_two_suites_counts_once_and_finished_comes_first(tmp_path):
    values = accuracies(0.5, "a")
    failed = {"status": "failed", "reason": "out of memory"}
    make_record(tmp_path / "a", "average", None, **failed)
    make_record(tmp_path / "b", "average", values)
    make_record(tmp_path / "c", "average", None, ended="2030-01-01T00:00:00+00:00", **failed)
    make_record(tmp_path / "mlartifacts", "random", values)
    _, output = invoke(tmp_path, "--json")
    rows = json.loads(output)["results"]
    assert [(row["method"], row["status"]) for row in rows] == [("average", "done")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "'missing' is not a folder"),
        (["empty"], "no finished record below 'empty'"),
        (["runs", "--only", "method"], "is not KEY=VALUE"),
        (["runs", "--only", "methd=purer"], "did you mean method"),
        (["runs", "--only", "method=puree"], "did you mean purer"),
        (["runs", "--only", "method=random", "--only", "learner=protonet"], "no record matches"),
        (["runs", "--check"], "--check without --update"),
        (["runs", "--update", "missing.md"], "'missing.md' is not a readable"),
        (["runs", "--update", "empty"], "no .md file in 'empty' has a marker"),
    ],
)
def test_errors_are_one_line_and_status_2(runs, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(runs.parent)
    (runs.parent / "empty").mkdir()
    with pytest.raises(SystemExit) as exited:
        cli(["report", *arguments])
    assert exited.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("\n") == 1


def page(tmp_path, marker="<!-- results: cifar_fs_ss accuracy -->", end="<!-- /results -->"):
    file = tmp_path / "page.md"
    file.write_text(f"Before.\n\n{marker}\nstale words\n{end}\n\nAfter.\n", encoding="utf-8")
    return file


def test_update_replaces_between_markers_and_check_agrees(runs, tmp_path):
    file = page(tmp_path)
    status, output = invoke(runs, "--update", file, "--check")
    assert (status, output.count("\n")) == (1, 1)
    assert "out of date" in output
    assert "stale words" in file.read_text(encoding="utf-8")
    assert invoke(runs, "--update", file)[0] == 0
    text = file.read_text(encoding="utf-8")
    assert text.startswith("Before.\n\n<!-- results: cifar_fs_ss accuracy -->\n")
    assert text.endswith("<!-- /results -->\n\nAfter.\n")
    assert "**47.5 ± 2.1**" in text
    assert "stale words" not in text
    assert "Paired differences" not in text
    status, output = invoke(runs, "--update", file, "--check")
    assert (status, "up to date" in output) == (0, True)
    assert not (runs / "report").exists()


def test_update_of_a_folder_takes_its_files_with_markers(runs, tmp_path):
    (tmp_path / "inner").mkdir()
    files = [page(tmp_path), page(tmp_path / "inner")]
    plain = tmp_path / "plain.md"
    plain.write_text("no table here\n", encoding="utf-8")
    assert invoke(runs, "--update", tmp_path)[0] == 0
    assert all("**47.5 ± 2.1**" in file.read_text(encoding="utf-8") for file in files)
    assert plain.read_text(encoding="utf-8") == "no table here\n"
    status, output = invoke(runs, "--update", tmp_path, "--check")
    assert (status, output.count("up to date")) == (0, 2)


def test_check_notices_a_changed_record(runs, tmp_path):
    file = page(tmp_path, "<!-- results: cifar_fs_ss -->")
    invoke(runs, "--update", file)
    assert update_file(file, Blocks(runs), write=False)
    make_record(runs / "cifar_fs_ss", "average", accuracies(0.5, "new"), learner="anil")
    assert not update_file(file, Blocks(runs), write=False)


@pytest.mark.parametrize("words", ["elsewhere accuracy", "cifar_fs_ss accuracy method=unheard"])
def test_a_planned_block_says_that_nothing_is_stored(runs, tmp_path, words):
    file = page(tmp_path, f"<!-- results: {words} planned -->")
    assert invoke(runs, "--update", file)[0] == 0
    text = file.read_text(encoding="utf-8")
    assert f"{words} planned -->\n\nNo stored records yet.\n\n<!-- /results -->" in text
    assert invoke(runs, "--update", file, "--check")[0] == 0


def test_a_planned_block_shows_what_is_stored_and_names_no_unknown_table(runs, tmp_path):
    file = page(tmp_path, "<!-- results: cifar_fs_ss planned accuracy -->")
    assert invoke(runs, "--update", file)[0] == 0
    assert "**47.5 ± 2.1**" in file.read_text(encoding="utf-8")
    with pytest.raises(BenchError, match="acuracy"):
        update_file(page(tmp_path, "<!-- results: cifar_fs_ss planned acuracy -->"), Blocks(runs))


def test_two_blocks_have_their_own_kinds(runs, tmp_path):
    file = tmp_path / "page.md"
    blocks = [
        f"<!-- results: cifar_fs_ss {k} -->\n<!-- /results -->\n" for k in ("pools", "cost paired")
    ]
    file.write_text("\nbetween\n".join(blocks), encoding="utf-8")
    invoke(runs, "--update", file)
    first, second = file.read_text(encoding="utf-8").split("between")
    assert ("Teacher pools" in first, "Throughput" in first) == (True, False)
    assert second.index("Throughput") < second.index("Paired")


@pytest.mark.parametrize(
    ("marker", "end", "words"),
    [
        ("nothing", "here", "do not pair up"),
        ("<!-- results: cifar_fs_ss -->", "", "do not pair up"),
        ("", "<!-- /results -->", "do not pair up"),
        ("<!-- results: cifar_fs_ss acuracy -->", "<!-- /results -->", "did you mean accuracy"),
        ("<!-- results: elsewhere -->", "<!-- /results -->", "is not a folder"),
        ("<!-- results:  -->", "<!-- /results -->", "lacks a name"),
        ("<!-- results: a -->\n<!-- /results -->\n<!-- results: b", "-->", "do not pair up"),
    ],
)
def test_a_bad_marker_changes_nothing(runs, tmp_path, marker, end, words):
    file = page(tmp_path, marker, end)
    before = file.read_text(encoding="utf-8")
    with pytest.raises(BenchError, match=words) as raised:
        update_file(file, Blocks(runs))
    assert "\n" not in str(raised.value)
    assert file.read_text(encoding="utf-8") == before


def test_a_fresh_interpreter_reports_without_heavy_imports(runs):
    code = (
        "import sys, reports.cli as c; light = set(sys.modules)\n"
        f"from pathlib import Path; c.make_report(Path({str(runs)!r}))\n"
        "heavy = {'torch', 'mlflow', 'pandas', 'matplotlib', 'scipy.stats'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not {'scipy', 'numpy', 'rich', 'pyarrow'} & light"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_another_verb_can_invoke_it_with_its_defaults(tmp_path):
    make_record(tmp_path / "runs", "random", accuracies(0.3, "random"))

    @click.command()
    @click.pass_context
    def closing(context):
        context.invoke(report, runs=tmp_path / "runs", output=tmp_path / "out")

    result = CliRunner().invoke(closing, catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "out" / "results.csv").exists()
