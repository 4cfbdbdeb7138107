"""Exports agree with the published formats and with the records; twice, they are the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import jsonschema
import pytest
import schemas
import yaml
from click.testing import CliRunner

from bench import registry
from bench.cli.main import cli
from bench.errors import BenchError
from bench.exports.croissant import ORIGINS, croissant
from bench.exports.eval_results import entries
from bench.exports.every_eval_ever import evaluation
from bench.results.files import file_sha256
from bench.results.find import find_records
from bench.verify.folder import verify_folder

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "records"


def checked(value: object, schema: schemas.Schema) -> None:
    jsonschema.Draft202012Validator(schema).validate(value)


def export(*words: object) -> str:
    done = CliRunner().invoke(cli, ["export", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def stored():
    """One record of each version of the format."""
    return [one for version in ("1", "2") for one in find_records(GOLDEN / version)]


def test_every_eval_ever(stored, tmp_path):
    for one in stored:
        found = evaluation(one.record, "A laboratory", False)
        checked(found, schemas.EVERY_EVAL_EVER)
        (result,) = found["evaluation_results"]
        accuracy, score = one.record.accuracy, result["score_details"]
        assert score["score"] == accuracy.mean
        interval = score["uncertainty"]["confidence_interval"]
        assert interval["upper"] - interval["lower"] == pytest.approx(2 * accuracy.ci95)
        assert score["uncertainty"]["standard_error"]["value"] * 1.96 == pytest.approx(
            accuracy.ci95
        )
        assert one.record.dataset_digests["glyphs"] == result["source_data"]["source_id"]
    export("every-eval-ever", GOLDEN / "2", "--organisation", "A laboratory", "-o", tmp_path)
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text(encoding="utf-8")) == evaluation(
        stored[1].record, "A laboratory", False
    )


def test_eval_results(stored):
    record = stored[1].record
    text = export(
        *("eval-results", GOLDEN / "2", "--dataset", "lab/benchmark"), "--url", "https://a.org/x"
    )
    found = yaml.safe_load(text)
    checked(found, schemas.EVAL_RESULTS)
    assert found[0]["value"] == pytest.approx(100 * record.accuracy.mean, abs=1e-4)
    assert found[0]["dataset"]["task_id"] == "ss_glyphs_5way_1shot"
    assert found == entries([record], "lab/benchmark", "https://a.org/x")
    checked(entries([record], "lab/benchmark"), schemas.EVAL_RESULTS)
    with pytest.raises(BenchError, match="is no repository of the Hub"):
        entries([record], "benchmark")
    other = stored[0].record.model_copy(update={"method": "other"})
    with pytest.raises(BenchError, match="one file is of the model of one method"):
        entries([record, other], "lab/benchmark")


def test_ro_crate(tmp_path):
    runs = shutil.copytree(GOLDEN / "2", tmp_path / "my runs")
    export("ro-crate", runs, "--author", "A laboratory")
    text = (runs / "ro-crate-metadata.json").read_text(encoding="utf-8")
    graph = json.loads(text)["@graph"]
    by_id = {one["@id"]: one for one in graph}
    assert len(by_id) == len(graph), "an identifier stands twice"
    checked(by_id["ro-crate-metadata.json"], schemas.RO_CRATE_ENTITIES["descriptor"])
    checked(by_id["./"], schemas.RO_CRATE_ENTITIES["root"])
    for kind in ("SoftwareApplication", "CreateAction", "File"):
        some = [one for one in graph if one["@type"] == kind]
        assert some
        for one in some:
            checked(one, schemas.RO_CRATE_ENTITIES[kind])
    files = {one["@id"]: one for one in graph if one["@type"] == "File"}
    for name, one in files.items():
        assert file_sha256(runs / unquote(name)) == one["sha256"]
    assert {one["@id"] for one in by_id["./"]["hasPart"]} == set(files)
    for one in graph:
        for name, value in one.items():
            for reference in value if isinstance(value, list) else [value]:
                if isinstance(reference, dict) and name not in ("actionStatus",):
                    target = reference["@id"]
                    assert target in by_id or target == "https://w3id.org/ro/crate/1.1"
    assert not verify_folder(runs).is_refused
    export("ro-crate", runs, "--author", "A laboratory")
    assert (runs / "ro-crate-metadata.json").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", sorted(ORIGINS))
def test_croissant(name):
    source = registry.load("dataset", name)()
    found = croissant(source)
    checked(found, schemas.CROISSANT)
    assert {one["sha256"] for one in found["distribution"] if "sha256" in one} >= set(
        source.known_digests
    )
    splits, classes = found["recordSet"]
    assert splits["dataType"] == "cr:Split"
    assert [row["splits/name"] for row in splits["data"]] == ["train", "val", "test"]
    for split, (n, _) in source.expected.items():
        rows = [row for row in classes["data"] if row["classes/split"] == split]
        assert len(rows) == n
        assert [row["classes/name"] for row in rows] == sorted(r["classes/name"] for r in rows)
    for one in (splits, classes):
        fields = {field["@id"] for field in one["field"]}
        assert all(set(row) == fields for row in one["data"])
        assert one["key"]["@id"] in fields
    assert json.loads(export("croissant", name)) == found


def test_every_registered_data_set_is_described_and_no_other():
    assert set(registry.names("dataset", registry.OWN)) == set(ORIGINS)
    source = registry.load("dataset", "glyphs")()
    source.name = "mine"
    with pytest.raises(BenchError, match="'mine' is not of this package, which does not know its"):
        croissant(source)


def test_croissant_names_what_a_set_is_drawn_from_or_split_by():
    fonts = croissant(registry.load("dataset", "glyphs")())["distribution"]
    assert len(fonts) == 12
    assert {one["encodingFormat"] for one in fonts} == {"font/ttf"}
    (split,) = croissant(registry.load("dataset", "mini_imagenet")())["distribution"]
    path = ROOT / "bench" / "data" / "sets" / split["contentUrl"]
    assert file_sha256(path) == split["sha256"]


def test_citation_and_codemeta():
    """After a change of CITATION.cff: `bench export codemeta -o codemeta.json`."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    checked({**citation, "date-released": str(citation["date-released"])}, schemas.CFF)
    found = json.loads(export("codemeta", ROOT / "CITATION.cff"))
    checked(found, schemas.CODEMETA)
    stored = json.loads((ROOT / "codemeta.json").read_text(encoding="utf-8"))
    checked(stored, schemas.CODEMETA)
    assert {**found, "softwareRequirements": []} == {**stored, "softwareRequirements": []}


def test_a_citation_file_that_lacks_something_is_refused(tmp_path):
    path = tmp_path / "CITATION.cff"
    path.write_text("title: x\n")
    with pytest.raises(BenchError, match="is no complete citation file"):
        export("codemeta", path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("score", "0.5"), ("evaluation_name", None), ("lower_is_better", "no")],
)
def test_the_restated_schema_would_notice(stored, name, value):
    found = json.dumps(evaluation(stored[0].record, "A", True))
    changed = json.loads(found)
    rooms = [changed["evaluation_results"][0]]
    rooms += [rooms[0]["metric_config"], rooms[0]["score_details"]]
    (room,) = [one for one in rooms if name in one]
    room[name] = value
    with pytest.raises(jsonschema.ValidationError):
        checked(changed, schemas.EVERY_EVAL_EVER)
