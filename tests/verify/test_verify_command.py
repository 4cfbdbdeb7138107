"""`bench verify`: what it prints, its exit status, the manifest, and what it does not import."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from honest import copy_of, read, rehash, write

from bench.cli.main import cli
from bench.errors import BenchError
from bench.results.store import mark_done
from bench.verify.folder import verify_folder
from bench.verify.manifest import MANIFEST, manifest_of, read_manifest, write_manifest

ROOT = Path(__file__).resolve().parents[2]


def called(*words: object):
    return CliRunner().invoke(cli, ["verify", *map(str, words)])


@pytest.fixture
def cells(honest, tmp_path):
    return copy_of(honest, tmp_path / "runs")


def test_a_forged_mean_is_one_line_an_exit_status_and_an_annotation(cells, tmp_path):
    values = read(cells["average"])
    values["accuracy"]["mean"] = 0.9
    write(cells["average"], values)
    runs = tmp_path / "runs"
    shown = called(runs)
    assert shown.exit_code == 1
    (line,) = [one for one in shown.output.splitlines() if "mean is" in one and "tasks" in one]
    assert line.startswith(f"refused {cells['average']}: accuracy: mean is 0.9 in the record, ")
    assert f"{runs}: 3 cells, 1 refused, " in shown.output
    assert "not numbers that were made up consistently" in shown.output
    found = json.loads(called(runs, "--json").output)
    assert (found["cells"], found["cells_refused"], found["refused"]) == (3, 1, True)
    marked = called(runs, "--annotations")
    assert marked.exit_code == 1
    assert f"::error file={cells['average'] / 'record.json'}," in marked.output


def test_annotations_keep_to_one_line():
    from bench.cli.verify import annotation
    from bench.verify.findings import Finding

    found = annotation(Path("a,b"), Finding("doubt", "c:d", "50 %\nof"))
    assert found == "::warning file=a%2Cb/record.json,title=bench verify%2C c%3Ad::50 %25%0Aof"


def test_a_folder_without_records_is_an_error(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(BenchError, match=r"no record below|is not there"):
            verify_folder(path)


def test_a_submission_needs_answers_and_a_clean_checkout(cells, tmp_path):
    (cells["random"] / "predictions.parquet").unlink()
    mark_done(cells["random"])
    values = read(cells["average"])
    dirty = {"environment": {**values["environment"], "git_dirty": True}}
    dirty["warnings"] = [*values["warnings"], "the checkout had uncommitted changes"]
    write(cells["average"], {**values, **dirty})
    values = read(cells["purer"])
    write(cells["purer"], {**values, "identity": None, "code": None})
    assert not verify_folder(tmp_path / "runs").is_refused
    verdict = verify_folder(tmp_path / "runs", submission=True)
    texts = {one.text for _, one in verdict.located() if one.check == "submission"}
    assert texts == {
        "predictions.parquet is missing: run it again with this version",
        "the checkout had uncommitted changes: commit, run it again",
        "it keeps no identity: run it again with this version",
        "it keeps no digest of its code: run it again",
    }


def test_a_method_of_another_package_is_taken_at_its_word(cells, tmp_path):
    """Its settings are of its own; what was hashed must still be what the record says."""
    values = read(cells["random"])
    values["method_config"] = {"depth": 3, "later": 0}
    values["identity"]["cell"]["method_config"] = {"depth": 3}
    place = rehash(cells["random"], values, method="forest")
    found = {f.text for w, f in verify_folder(tmp_path / "runs").located() if w == place}
    assert "the hash leaves out later of forest: right if that is the default, which only its" in {
        text[:81] for text in found
    }
    values["method_config"] = {"depth": 4, "later": 0}
    write(place, values)
    verdict = verify_folder(tmp_path / "runs")
    refused = [one.text for _, one in verdict.located() if one.level == "refused"]
    doubts = [one for _, one in verdict.located() if one.level == "doubt"]
    assert any(one.text == "suite 'glyphs' of this package does not run forest" for one in doubts)
    assert refused[0].startswith("its fields and what was hashed disagree: method_config")


def test_records_are_compared_with_stored_ones(cells, honest, tmp_path):
    shown = called(tmp_path / "runs", "--against", honest)
    lines = [one for one in shown.output.splitlines() if "baseline" in one]
    assert len(lines) == 3
    assert all(one.endswith("equal to the stored cell on every task") for one in lines)
    alone = tmp_path / "stored"
    shutil.rmtree(copy_of(honest, alone)["average"])
    verdict = verify_folder(tmp_path / "runs", against=alone)
    (line,) = [
        one.text
        for where, one in verdict.located()
        if where == cells["average"] and one.check == "baseline"
    ]
    assert "points [" in line
    assert line.endswith("the best stored without data")


def test_a_manifest_takes_the_place_of_seals(cells, tmp_path):
    runs = tmp_path / "runs"
    write_manifest(runs)
    for folder in cells.values():
        (folder / "DONE").unlink()
        (folder / "config.json").unlink()
    assert called(runs).exit_code == 1  # both are in the manifest
    shown = called(runs, "--write-manifest")
    assert shown.exit_code == 0
    assert f"{runs / MANIFEST} written" in shown.output
    assert called(runs).exit_code == 0
    (cells["average"] / "tasks.parquet").unlink()
    found = [one.text for _, one in verify_folder(runs).located() if one.check == "manifest"]
    name = f"glyphs/{cells['average'].name}/tasks.parquet"
    assert found == [f"{name} of MANIFEST.json is missing"]


def test_the_stored_results_are_as_their_manifest_says():
    """After a change of results: `bench verify results --write-manifest`."""
    results = ROOT / "results"
    assert read_manifest(results) == manifest_of(results)


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.faults), 12])
def test_no_stored_result_is_refused_and_torch_is_not_imported(every, tmp_path):
    """All of them in a long campaign, here one in twelve of each suite."""
    results = ROOT / "results"
    if every > 1:
        for suite in (path for path in results.iterdir() if path.is_dir()):
            for cell in sorted(suite.iterdir())[::every]:
                shutil.copytree(cell, tmp_path / "some" / suite.name / cell.name)
        results = tmp_path / "some"
        write_manifest(results)
    script = (
        "import sys\n"
        "from bench.cli.main import cli\n"
        "status = cli.main(['verify', sys.argv[1], '--json'], standalone_mode=False)\n"
        "heavy = {'torch', 'pandas', 'mlflow', 'purer', 'baselines'} & set(sys.modules)\n"
        "print(heavy or '', file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(results)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert done.stderr.strip() == ""
    found = json.loads(done.stdout)
    assert found["cells"] > 500 // every
    assert found["cells_refused"] == 0
    assert found["checked"]["digests"] == found["checked"]["hash"] == found["cells"]
    assert found["checked"]["task list"] > 500 // every


def test_a_stored_cell_under_another_name_and_other_costs_are_doubted(cells, honest, tmp_path):
    values = read(cells["average"])
    values["identity"]["cell"]["method_config"] = values["method_config"]
    place = rehash(cells["average"], values, method="forest")
    values = read(cells["purer"])
    values["cost"]["params"] = 10
    write(cells["purer"], values)
    verdict = verify_folder(tmp_path / "runs", against=honest)
    doubts = {(where, one.check): one.text for where, one in verdict.located()}
    stored = read(copy_of(honest, tmp_path / "same")["average"])["cell_hash"]
    text = f"every accuracy equals that of average in the stored cell {stored}"
    assert doubts[place, "duplicate"] == text
    assert doubts[cells["purer"], "cost"].startswith("params is 10; ")
    assert (cells["random"], "cost") not in doubts
