"""The value of each setting in a cell, and the layer that it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import registry
from bench.contract import TaskShape
from bench.contract.descriptions import Description, descriptions
from bench.errors import BenchError
from bench.suites.cell import Cell
from bench.suites.expand import expand, merged
from bench.suites.explain import Setting, explain
from bench.suites.protocols import BUDGETS, PROTOCOLS
from bench.suites.suite import read_suite
from purer.config import PurerConfig

SUITE = """
title: seven layers
datasets: [glyphs]
architectures: [conv4]
budget: micro
budgets: {short: {meta_iterations: 20}, micro: {n_test_tasks: 9, validate_every: 3}}
variants: [{}, {set: {pixel_lr: 0.5}}]
methods:
  - {method: purer, preset: tuned, learner: [maml, protonet], config: {pixel_every: 2}}
  - {method: purer, budgets: {short: {pixel_lr: 0.3}, micro: {pixel_warmup: 1}}}
  - {method: average, calibration: [none, icfil]}
"""


@pytest.fixture
def suite(tmp_path: Path) -> str:
    """A suite whose values come from many places."""
    path = tmp_path / "layers.yaml"
    path.write_text(SUITE, encoding="utf-8")
    return str(path)


def settings_of(suite: str, cell: int, *words: str) -> tuple[Cell, dict[str, Setting]]:
    read, overrides = read_suite(suite, words)
    chosen = expand(read, overrides)[cell]
    return chosen, {one.name: one for one in explain(chosen, read, overrides, words)}


def test_the_last_layer_of_a_name_wins() -> None:
    assert merged([("a", {"x": 1, "y": 2}), ("b", {"x": 3})]) == {"x": 3, "y": 2}


def test_a_preset_wins_over_the_protocol_and_says_so(suite: str) -> None:
    cell, found = settings_of(suite, 0)
    assert (cell.preset, cell.learner) == ("tuned", "maml")
    assert (found["purer.pixel_lr"].value, found["purer.pixel_lr"].origin) == (0.1, "preset tuned")
    assert found["purer.pixel_lr"].overruled == (("default", None),)
    assert found["protocol.pixel_lr"].value is None
    assert found["protocol.pixel_lr"].origin == "replaced by purer.pixel_lr"
    assert found["purer.pixel_every"].origin == "suite layers, purer: config"
    assert found["purer.pixel_every"].overruled == (("default", 1), ("preset tuned", 4))


def test_the_presets_of_a_class_of_learners_count(suite: str) -> None:
    cell, found = settings_of(suite, 1)
    assert cell.learner == "protonet"
    assert found["purer.feature_normalisation"].value == "l2"


def test_budgets_of_an_entry_and_of_the_suite_count(suite: str) -> None:
    _, found = settings_of(suite, 2)
    origins = {name: found[name].origin for name in ("purer.pixel_lr", "purer.pixel_warmup")}
    assert origins == {
        "purer.pixel_lr": "suite layers, purer: budgets.short",
        "purer.pixel_warmup": "suite layers, purer: budgets.micro",
    }
    assert found["budget.validate_every"].origin == "suite layers, budgets.micro"
    assert (found["budget.meta_iterations"].value, found["budget.meta_iterations"].origin) == (
        20,
        "at most budget short",
    )
    assert found["purer.meta_iterations"].value == 20
    assert found["purer.meta_iterations"].origin == "derived by the method"
    assert found["suite.n_test_tasks"].value == 9
    assert found["suite.n_way"].origin == "default"


def test_what_is_left_open_is_the_protocols(suite: str) -> None:
    """A variant's, and the command line's over it."""
    path = Path(suite)
    path.write_text(SUITE.replace("preset: tuned, ", ""), encoding="utf-8")
    cell, found = settings_of(suite, 5)
    assert cell.variant == "pixel_lr=0.5"
    own = found["purer.pixel_lr"]
    assert (own.value, own.origin) == (0.5, "protocol.pixel_lr (suite layers, variants)")
    _, found = settings_of(suite, 0, "protocol.pixel_lr=0.7", "n_query=4")
    assert found["purer.pixel_lr"].value == 0.7
    assert found["purer.pixel_lr"].origin == "protocol.pixel_lr (--set)"
    assert found["suite.n_query"].origin == "--set"
    _, found = settings_of(suite, 0, "purer.pixel_lr=0.2")
    assert (found["purer.pixel_lr"].value, found["purer.pixel_lr"].origin) == (0.2, "--set")


def test_a_calibration_is_explained_too(suite: str) -> None:
    cell, found = settings_of(suite, 4, "icfil.steps=2")
    assert cell.calibration == "icfil"
    assert (found["icfil.steps"].value, found["icfil.steps"].origin) == (2, "--set")
    assert found["average.head"].origin == "default"


@pytest.mark.parametrize("name", ["glyphs", "hazards", "purer_paper", "mh", "paper", "ablation"])
def test_every_cell_of_a_suite_is_what_its_explanation_says(name: str) -> None:
    suite, overrides = read_suite(name)
    for cell in expand(suite, overrides):
        found = {one.name: one for one in explain(cell, suite, overrides)}
        for where, values in (
            ("protocol", cell.protocol.model_dump()),
            ("budget", cell.budget.model_dump()),
        ):
            for key in values.keys() - {"name"}:
                one = found[f"{where}.{key}"]
                own = one.overruled[-1][1] if one.origin.startswith("replaced") else one.value
                assert own == values[key]
        for key, value in cell.method_config.items():
            if value is not None:
                one = found[f"{cell.method}.{key}"]
                derived = one.origin.startswith("derived")
                own = one.overruled[-1][1] if derived else one.value
                assert json.loads(json.dumps(own)) == value


def test_another_suites_cell_is_refused(suite: str) -> None:
    read, overrides = read_suite(suite)
    stranger = expand(*read_suite("glyphs"))[0]
    with pytest.raises(BenchError, match="has no cell oracle_protonet"):
        explain(stranger, read, overrides)


@pytest.mark.parametrize("name", registry.names("method", registry.OWN))
def test_no_setting_that_is_left_open_stays_so(name: str) -> None:
    """Each is the protocol's or the budget's of that name, or derived; but for what None means."""
    method = registry.load("method", name)
    config, protocol, budget = method.Config(), PROTOCOLS["cvpr23"], BUDGETS["short"]
    derived = method.in_force(config, TaskShape(5, 1), budget, protocol)
    constants = {**protocol.model_dump(), **budget.model_dump(), **derived}
    left = {key for key, value in config.model_dump().items() if value is None}
    assert left <= constants.keys()
    assert {key for key in left if constants[key] is None} <= {"clip_pixels"}
    assert set(derived) <= set(method.Config.model_fields)


def test_descriptions_are_taken_apart() -> None:
    found = descriptions(PurerConfig)
    assert found["jitter"] == Description(
        "largest shift of a teacher's block in a pixel step, each way. Released.", "px", ""
    )
    assert set(found) == set(PurerConfig.model_fields)


def test_a_method_s_own_network_and_each_part_s_teachers_are_told(tmp_path: Path) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text(
        "title: wide\ndatasets: [glyphs]\narchitectures: [conv4]\nnet: conv4\nmethods:\n"
        "  - {method: average}\n  - {method: average, net: conv4_64}\n",
        encoding="utf-8",
    )
    plain, wide = (settings_of(str(path), cell)[1]["suite.net"] for cell in (0, 1))
    assert (plain.value, plain.origin) == ("conv4", "suite wide")
    assert (wide.value, wide.origin) == ("conv4_64", "suite wide, average: net")
    assert wide.overruled == (("suite wide", "conv4"),)
    read, overrides = read_suite("paper")
    cells = [one for one in expand(read, overrides) if one.datasets == ("cifar_fs",)]
    mixed = next(one for one in cells if one.scenario == "SH")
    found = {one.name: one for one in explain(mixed, read, overrides)}
    assert found["suite.architectures"].origin == "suite cifar_fs_sh"
