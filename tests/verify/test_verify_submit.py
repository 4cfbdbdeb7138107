"""Submissions and archives: packed alike, checked packed and unpacked, shown apart from ours."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from honest import copy_of

from bench.cli.main import cli
from bench.errors import BenchError
from bench.execute.reproduce import as_row, judge
from bench.results.community import origin_of, write_badge
from bench.results.files import write_json
from bench.results.find import find_records
from bench.results.record import SCHEMA
from bench.results.select import load_records
from bench.results.store import read_record
from bench.verify.folder import verify_folder
from bench.verify.packed import unpack, verify_path
from bench.verify.schema import SCHEMA_FILE, submission_schema
from bench.verify.submission import submit
from reports.tables.build import build_tables

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "records"


def bench(*words: object):
    return CliRunner().invoke(cli, [*map(str, words)])


@pytest.fixture(scope="module")
def packed(honest, tmp_path_factory) -> Path:
    """A submission of the honest cells, with the text of its pull request beside it."""
    target = tmp_path_factory.mktemp("packed") / "forest.zip"
    done = bench("submit", honest, "-o", target, "--author", "A. Author", "--url", "https://a.org")
    assert done.exit_code == 0, done.output
    assert "3 cells checked, none refused" in done.output
    return target


@pytest.fixture
def community(packed, tmp_path) -> Path:
    """The folder of the community with this submission."""
    unpack(packed, tmp_path / "community" / "forest")
    return tmp_path / "community"


def test_a_submission_holds_what_is_needed_and_no_more(packed):
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
        what = json.loads(archive.read("submission.json"))
        listed = json.loads(archive.read("MANIFEST.json"))["files"]
    assert names == sorted(names)
    assert {name.rpartition("/")[2] for name in names} == {
        *("submission.json", "MANIFEST.json"),
        *("record.json", "tasks.parquet", "predictions.parquet"),
    }
    assert set(listed) == {name for name in names if "/" in name}
    assert (what["name"], what["authors"]) == ("forest", ["A. Author"])
    assert len(what["cells"]) == 3
    text = packed.with_suffix(".md").read_text(encoding="utf-8")
    for cell in what["cells"]:
        assert f"`{cell}` |" in text
    assert "community/forest/" in text
    assert text.startswith("# Results: forest\n\nAuthors: A. Author. Packages: purer-bench ")


def test_the_same_records_give_the_same_bytes(honest, packed, tmp_path):
    cells = copy_of(honest, tmp_path / "runs")
    for folder in cells.values():
        for path in folder.rglob("*"):
            os.utime(path, (0, 0))
    again = tmp_path / "again.zip"
    submit(tmp_path / "runs", again, "forest", ["A. Author"], "https://a.org")
    assert again.read_bytes() == packed.read_bytes()
    for number in (1, 2):
        done = bench("archive", tmp_path / "runs", "-o", tmp_path / f"{number}.tar")
        assert done.exit_code == 0, done.output
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    verdict = verify_path(tmp_path / "1.tar")
    assert not verdict.is_refused
    assert verdict.counts["digests"] == 3


def test_it_is_checked_packed_and_unpacked(packed, community):
    for path in (packed, community, community / "forest"):
        done = bench("verify", path, "--submission")
        assert done.exit_code == 0, done.output
        assert "3 cells, 0 refused" in done.output


def test_a_changed_file_in_the_zip_is_refused(packed, tmp_path):
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("record.json"):
                content = content.replace(b'"seed": 0', b'"seed": 1')
            new.writestr(name, content)
    found = [one.text for _, one in verify_path(other, submission=True).located()]
    assert "record.json has changed since MANIFEST.json was written" in found


def test_an_archive_without_a_manifest_or_with_a_way_out_is_refused(honest, tmp_path):
    bare = tmp_path / "bare.zip"
    with zipfile.ZipFile(bare, "w") as archive:
        for path in honest.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(honest).as_posix())
    assert [one.text for one in verify_path(bare).findings] == ["it holds no MANIFEST.json"]
    with zipfile.ZipFile(bare, "a") as archive:
        archive.writestr("../outside", "x")
    with pytest.raises(BenchError, match="may lead outside"):
        verify_path(bare)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["a", "a/record.json"], "one member is both a file and a folder"),
        (["a/record.json", "a"], "one member is both a file and a folder"),
        (["x" * 300 + "/record.json"], "is too long for a file"),
        (["d/" * 3000 + "record.json"], "is too long for a file"),
        (["a/record.json", "./a/record.json"], "is there twice"),
        (["/etc/record.json"], "has an absolute path"),
        (["C:/record.json"], "has an absolute path"),
        (["readme"], "there is no record in "),
    ],
)
def test_an_archive_that_cannot_be_unpacked_is_refused_in_a_line(tmp_path, names, line):
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    with pytest.raises(BenchError, match=line) as refused:
        verify_path(tmp_path / "odd.zip")
    assert str(tmp_path / "odd.zip") in str(refused.value)


def test_what_cannot_be_handed_in_is_refused_before_packing(honest, tmp_path):
    cells = copy_of(honest, tmp_path / "runs")
    (cells["random"] / "predictions.parquet").unlink()
    with pytest.raises(BenchError, match="1 of 3 cells are refused, the first for files: pred"):
        submit(tmp_path / "runs", tmp_path / "x.zip", "forest", ["A"])
    with pytest.raises(BenchError, match=r"name 'A B' of the submission: .*; correct it"):
        submit(honest, tmp_path / "x.zip", "A B", ["A"])
    assert not (tmp_path / "x.zip").exists()
    for verb, name, more in (("submit", "x.tar", ["--author", "A"]), ("archive", "x.zip", [])):
        done = bench(verb, honest, "-o", tmp_path / name, *more)
        assert isinstance(done.exception, BenchError)
        assert f"does not end in .{'zip' if verb == 'submit' else 'tar'}" in str(done.exception)


def test_a_submission_must_say_who_hands_it_in(community):
    (community / "forest" / "submission.json").write_text('{"name": "forest"}')
    found = [one.text for one in verify_folder(community, submission=True).findings]
    assert "is not as its schema says" in found[0]
    (community / "forest" / "submission.json").unlink()
    found = [one.text for one in verify_folder(community, submission=True).findings]
    assert found[0].endswith("submission.json is missing; bench submit writes it")


def test_a_submission_holds_nothing_beside_its_cells(community):
    folder = community / "forest"
    (folder / ".hook.sh").write_text("x")
    (folder / "badges").mkdir()
    (folder / "badges" / "note.txt").write_text("x")
    (folder / "more").symlink_to("/etc")
    (folder / "glyphs" / "notes.md").write_text("x")
    found = {one.text for one in verify_folder(community).findings if one.level == "refused"}
    assert found == {
        ".hook.sh is neither of a cell nor in MANIFEST.json",
        "glyphs/notes.md is neither of a cell nor in MANIFEST.json",
        "more is a link, or no file",
        f"{folder / 'badges' / 'note.txt'} is no badge of a cell of its name",
    }
    for path in (folder / ".hook.sh", folder / "more", folder / "glyphs" / "notes.md"):
        path.unlink()


def badge(community: Path) -> Path:
    """Write the badge of the submitted cell of `average`, as if it was run again bitwise."""
    folder = copy_of(community / "forest", community.parent / "same")["average"]
    stored = read_record(community / "forest" / "glyphs" / folder.name)
    again = read_record(folder)
    path = write_badge(stored, as_row(judge(stored, again)), again.record)
    assert path == community / "forest" / "badges" / f"{folder.name}.json"
    return path


def test_tables_say_whose_results_they_are(honest, community, tmp_path):
    path = badge(community)
    stored = load_records(community)
    assert {one.record.method: origin_of(one.folder, one.record.cell_hash) for one in stored} == {
        "random": "submitted",
        "average": "reproduced",
        "purer": "submitted",
    }
    ours = copy_of(honest, tmp_path / "ours")
    for name in ("average", "purer"):
        shutil.rmtree(ours[name])
    both = load_records(tmp_path / "ours", beside=[community])
    assert len(both) == 3
    for kind in ("accuracy", "cost", "agreement"):
        (table,) = build_tables(both, [kind])
        place = [column.header for column in table.columns].index("results")
        rows = [row for section in table.sections for row in section.rows]
        found = {row[0].text: row[place].text for row in rows}
        assert found == {"random": "ours", "average": "reproduced", "purer": "submitted"}
    (table,) = build_tables(load_records(tmp_path / "ours"), ["accuracy"])
    assert "results" not in [column.header for column in table.columns]
    assert json.loads(path.read_text())["verdict"] == "bitwise"


def test_a_badge_is_of_one_record(community):
    path = badge(community)
    assert not verify_folder(community, submission=True).is_refused
    values = json.loads(path.read_text())
    write_json(path, {**values, "record_sha256": "0" * 64})
    (finding,) = verify_folder(community, submission=True).findings
    assert finding.text == f"{path} is of another record than the one that is here"
    assert origin_of(community / "forest" / "glyphs" / path.stem, path.stem) == "submitted"
    write_json(path, {**values, "verdict": "different"})
    assert origin_of(community / "forest" / "glyphs" / path.stem, path.stem) == "submitted"
    write_json(path, {**values, "verdict": "excellent"})
    (finding,) = verify_folder(community).findings
    assert finding.check == "badge"


def test_the_schema_in_the_repository_is_that_of_the_model():
    """After a change of the model: `python -m bench.verify.schema`."""
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == submission_schema()


@pytest.mark.parametrize("version", range(1, SCHEMA + 1))
def test_a_record_of_each_version_stays_readable(version):
    """A new version of the format adds a folder; none is ever changed."""
    (path,) = (GOLDEN / str(version)).glob("*/*/record.json")
    assert json.loads(path.read_text(encoding="utf-8"))["schema_version"] == version
    (stored,) = find_records(GOLDEN / str(version))
    assert stored.unknown == ()
    assert stored.record.scored.mean == pytest.approx(stored.accuracies().mean())
    verdict = verify_folder(GOLDEN / str(version))
    assert not verdict.is_refused
    assert ("predictions" in verdict.counts) == (version > 1)


def test_the_workflow_runs_the_base_branch_on_data_without_credentials():
    path = ROOT / ".github" / "workflows" / "submission.yml"
    flow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert flow["permissions"] == {"contents": "read"}
    assert set(flow[True]) == {"pull_request"}  # YAML reads the key `on` as true
    assert "secrets" not in path.read_text(encoding="utf-8")
    steps = flow["jobs"]["verify"]["steps"]
    code, data = [one["with"] for one in steps if one.get("uses", "").startswith("actions/check")]
    assert (code["path"], code["ref"]) == ("base", "${{ github.event.pull_request.base.sha }}")
    assert (data["path"], data["ref"]) == ("head", "${{ github.event.pull_request.head.sha }}")
    assert code["persist-credentials"] is data["persist-credentials"] is False
    runs = [one for one in steps if "run" in one]
    assert [one["working-directory"] for one in runs] == ["base", "head", "head", "head"]
    assert all("pip" not in one["run"] for one in runs if one["working-directory"] == "head")
    commands = [line.strip() for one in runs for line in one["run"].splitlines()]
    assert [line for line in commands if line.startswith("bench ")] == [
        "bench verify results --annotations",
        "bench verify community --submission --against ../base/results --annotations",
    ]
