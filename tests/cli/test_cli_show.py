"""`bench list` and `bench show`: what is there, and which value is in force."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import registry
from bench.cli.listing import KINDS
from bench.cli.main import cli
from bench.suites.files import SUITES
from tests.plug_ins import installed

ALL = ("name", "description", "distribution")


def answer(*words: str) -> Any:
    result = CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def text(*words: str) -> str:
    result = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_listed_with_a_line_of_description(kind: str) -> None:
    rows = answer("list", kind)
    for row in rows:
        assert all(isinstance(row[name], str) for name in ALL)
        assert row["description"]
        assert "cannot be imported" not in row["description"]
    assert kind in ("tables", "figures") or rows
    listed = text("list", kind)
    assert all(row["name"] in listed for row in rows)


def test_methods_say_whose_they_are_and_whom_they_go_with() -> None:
    rows = {row["name"]: row for row in answer("list", "methods")}
    purer = rows["purer"]
    assert purer["knowledge"] == "inversion"
    assert purer["learners"][0] == "maml"
    assert "centroids" not in purer["learners"]
    assert purer["distribution"].startswith("purer-bench ")
    line = text("list", "methods").partition("purer\n")[2].splitlines()[1]
    assert line.strip().startswith("knowledge inversion · learners maml, anil, protonet")


def test_a_plug_in_that_cannot_be_imported_spoils_no_list(tmp_path: Path) -> None:
    points = "[purer_bench.methods]\nlost = other.nowhere:Lost\n"
    with installed(tmp_path, {"other/__init__.py": ""}, points):
        rows = {row["name"]: row for row in answer("list", "methods")}
    assert "other.nowhere:Lost) cannot be imported" in rows["lost"]["description"]
    assert rows["lost"]["distribution"] == "other 1.5"
    assert rows["average"]["description"].startswith("Mean of")


def test_a_list_loads_no_mlflow() -> None:
    code = (
        "import sys; from bench.cli.main import main\n"
        "try: main(['list', 'methods'])\n"
        "finally: assert 'mlflow' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


def test_a_method_shows_its_settings_with_default_and_presets() -> None:
    page = answer("show", "purer")
    settings = {row["name"]: row for row in page["settings"]}
    lr = settings["pixel_lr"]
    assert lr["meaning"].startswith("Adam's rate on the pixels")
    assert lr["unit"] == "normalised pixels"
    assert (lr["default"], lr["released"], lr["tuned"]) == (None, None, 0.1)
    assert settings["feature_normalisation"]["tuned (MetricLearner)"] == "l2"
    assert all(row["meaning"] for row in page["settings"])
    shown = text("show", "purer")
    assert "\njitter = 2 px\n    largest shift" in shown
    assert "\npixel_lr = – normalised pixels   (tuned 0.1;" in shown


@pytest.mark.parametrize("kind", ["method", "learner", "net", "dataset", "calibration"])
def test_every_plug_in_has_a_page(kind: registry.Kind) -> None:
    for name in registry.names(kind, registry.OWN):
        page = text("show", name, "--kind", kind)
        assert page.startswith(f"{kind} {name}\n")
        assert f"distribution  {registry.OWN} " in page


def test_constants_are_shown_beside_the_usual_ones() -> None:
    shown = text("show", "pool100")
    assert "\npool = overlapping   (cvpr23 disjoint)\n" in shown
    assert "\nouter_lr = 0.001\n" in shown
    assert "\nmeta_iterations = 60000   (short 400)\n" in text("show", "paper", "--kind", "budget")


def test_a_suite_shows_its_cells_and_a_cell_its_settings(cache: Path) -> None:
    place = f"--cache={cache}"
    rows = answer("show", "glyphs", place)["cells"]
    listed = text("show", "glyphs", place)
    assert all(f"{row['cell_hash']}  {row['label']}" in listed for row in rows)
    tuned = next(row for row in rows if row["label"].startswith("purer (tuned) · maml"))
    found = answer("show", "glyphs", "--cell", tuned["cell_hash"][:8], place)
    assert (found["cell_hash"], found["label"]) == (tuned["cell_hash"], tuned["label"])
    lr = next(row for row in found["settings"] if row["setting"] == "purer.pixel_lr")
    assert (lr["value"], lr["from"]) == (0.1, "preset tuned")
    shown = text("show", "glyphs", "--cell", tuned["cell_hash"], place)
    assert "preset tuned (over default: –)" in shown
    long = next(row["cell_hash"] for row in rows if row["label"].startswith("distill_ensemble"))
    shown = text("show", "glyphs", "--cell", long, place)
    settings = answer("show", "glyphs", "--cell", long, place)["settings"]
    assert all(f"\n{row['setting']}  " in shown for row in settings)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("purrer",), "unknown name 'purrer'; did you mean purer"),
        (("glyphs", "--kind", "method"), "unknown method 'glyphs'"),
        (("average", "--cell", "1"), "--cell belongs to a suite, and 'average' is a method"),
        (("glyphs", "--cell", "xyz"), "--cell 'xyz' begins no cell of suite 'glyphs'"),
        ((f"{SUITES / 'micro.yaml'}", "--cell", "xyz"), f"in bench show {SUITES / 'micro.yaml'}"),
        (("glyphs", "--cell", ""), "--cell '' begins 28 cells"),
    ],
)
def test_what_cannot_be_shown(words: tuple[str, ...], message: str, cache: Path) -> None:
    result = CliRunner().invoke(cli, ["show", *words, f"--cache={cache}"])
    assert message in str(result.exception)
