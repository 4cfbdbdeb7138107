"""The example package: CONTRIBUTING quotes its files, and it is installed, checked and run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bench.results.community import origin_of
from bench.results.files import write_json
from bench.results.find import find_records
from bench.results.select import load_records
from bench.results.store import mark_done
from bench.verify.folder import verify_folder
from bench.verify.packed import unpack
from reports.site.build import build_site
from reports.tables.build import build_tables
from reports.tables.collection import compute
from tests.example_files import PAGE, ROOT, quoted, updated
from tests.execute.test_run import ENVIRONMENT
from tests.processes import run

EXAMPLE = ROOT / "examples" / "plugin"
PLUG_INS = (
    "median",
    "cosine",
    "strided",
    "gratings",
    "balanced",
    "slow_inner",
    "minute",
    "example",
)


QUIETLY = ("--no-mlflow", "--no-figures")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example is installed in, from a wheel that is built offline."""
    pytest.importorskip("setuptools", reason="setuptools is not here to build the example with")
    folder = tmp_path_factory.mktemp("example")
    source = shutil.copytree(EXAMPLE, folder / "source")
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def bench(site: Path, *words: object) -> Any:
    """Run a verb with the example installed; every warning is an error. Return its JSON."""
    path = os.pathsep.join(map(str, (site, ROOT)))
    surroundings = {**ENVIRONMENT, "PYTHONPATH": path}
    result = run([*map(str, words), "--json"], env=surroundings, warn=["error::Warning"])
    assert result.returncode == 0, result.stderr or result.stdout
    return json.loads(result.stdout)


def test_contributing_quotes_the_example_as_it_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert updated(text) == text, "CONTRIBUTING.md is out of date: python -m tests.example_files"
    files = [path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".yaml", ".toml")]
    shown = {path.relative_to(ROOT).as_posix() for path in files if path.stem != "__init__"}
    assert set(quoted(text)) == shown
    assert len(shown) == 10


def test_every_part_of_the_example_passes_its_checks(site: Path) -> None:
    rows = bench(site, "check", *PLUG_INS)
    assert {row["name"] for row in rows} == set(PLUG_INS)
    assert {row["outcome"] for row in rows} == {"ok", "skipped"}
    skipped = {(row["name"], row["check"]) for row in rows if row["outcome"] == "skipped"}
    assert {name for name, _ in skipped} == {"median", "cosine"}


def test_the_example_is_listed_with_its_distribution(site: Path) -> None:
    rows = {row["name"]: row for row in bench(site, "list", "methods")}
    assert rows["median"]["distribution"] == "purer-bench-example 1.0"
    assert "cosine" in rows["purer"]["learners"]
    suites = {row["name"]: row for row in bench(site, "list", "suites")}
    assert suites["example"]["distribution"] == "purer-bench-example 1.0"
    settings = bench(site, "show", "median")["settings"]
    assert [(one["unit"], one["source"]) for one in settings] == [("fraction", "ours")]


def test_the_suite_of_the_example_runs_and_is_reported(site: Path, tmp_path: Path) -> None:
    places = (f"--cache={tmp_path / 'cache'}", f"--runs={tmp_path / 'runs'}")
    rows = bench(site, "run", "example", *places, *QUIETLY, "--device=cpu", "--threads=1")
    assert {row["status"] for row in rows} == {"done"}
    assert len(rows) == 8
    assert {row["calibration"] for row in rows} == {"none", "balanced"}
    best = max(row["accuracy"]["mean"] for row in rows)
    assert best > 0.25  # of five classes
    assert len(find_records(tmp_path / "runs")) == 8
    bench(site, "report", tmp_path / "runs" / "example", f"--output={tmp_path / 'report'}")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Accuracy by learner" in page
    assert 'id="figure-offered-fit_time"' in page
    assert (tmp_path / "report" / "figures" / "offered-fit_time.svg").stat().st_size > 1000
    _hand_in(site, tmp_path)


def _hand_in(site: Path, folder: Path) -> None:
    """Submit the cells, unpack them as a fork would, and show them beside the stored results."""
    for path in (folder / "runs").glob("*/*/record.json"):  # as from an installed package
        values = json.loads(path.read_text(encoding="utf-8"))
        values["environment"] |= {"git_commit": None, "git_dirty": None}
        dirty = "the checkout had uncommitted changes"
        values["warnings"] = [one for one in values["warnings"] if one != dirty]
        write_json(path, values)
        mark_done(path.parent)
    packed = folder / "median.zip"
    words = ["submit", folder / "runs" / "example", "-o", packed, "--author", "A. Author"]
    path = os.pathsep.join(map(str, (site, ROOT)))
    surroundings = {**ENVIRONMENT, "PYTHONPATH": path}
    done = run(list(map(str, words)), env=surroundings, warn=["error::Warning"])
    assert done.returncode == 0, done.stderr
    unpack(packed, folder / "community" / "median")
    text = packed.with_suffix(".md").read_text(encoding="utf-8")
    assert "Packages: purer-bench " in text
    assert ", purer-bench-example 1.0." in text
    assert "| median | cosine + balanced | gratings 5-way 1-shot |" in text
    verdict = verify_folder(folder / "community", submission=True)  # here without the plug-in
    assert not verdict.is_refused
    assert verdict.counts == dict.fromkeys(("digests", "hash", "predictions"), 8)
    assert set(_origins(folder).values()) == {"submitted"}
    _reproduce(site, folder)


def _origins(folder: Path) -> dict[str, str]:
    """Return what the tables say of each method's row, and the site of each cell."""
    stored = load_records(folder / "community")
    (table,) = build_tables(stored, ["accuracy"])
    rows = [row for section in table.sections for row in section.rows]
    build_site(compute(stored), folder / "site", figures=False)
    for one in stored:
        page = (folder / "site" / "cells" / f"{one.record.cell_hash}.html").read_text("utf-8")
        assert f"<dt>results</dt><dd>{origin_of(one.folder, one.record.cell_hash)}</dd>" in page
    return {f"{row[0].text} {row[1].text}": row[2].text for row in rows}


def _reproduce(site: Path, folder: Path) -> None:
    """Run a submitted cell again from its record alone; its badge changes what tables say."""
    cells = load_records(folder / "community", ["method=median", "learner=cosine"])
    (cell,) = (one for one in cells if one.record.calibration == "none")
    words = ["reproduce", cell.folder, f"--cache={folder / 'cache'}", "--keep=teachers"]
    row = bench(site, *words, "--device=cpu")
    assert (row["verdict"], row["tasks_equal"]) == ("bitwise", row["tasks"])
    path = folder / "community" / "median" / "badges" / f"{cell.record.cell_hash}.json"
    badge = json.loads(path.read_text(encoding="utf-8"))
    assert badge["verdict"] == "bitwise"
    assert badge["machine"].startswith("cpu (")
    assert {"commit", "date", "record_sha256"} <= badge.keys()
    assert not verify_folder(folder / "community", submission=True).is_refused
    found = _origins(folder)
    assert found.pop("median cosine") == "reproduced"
    assert set(found.values()) == {"submitted"}
