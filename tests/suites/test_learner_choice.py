"""Which learners a method goes with: those that offer what it needs, whoever wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import registry
from bench.errors import BenchError
from bench.suites.cell import Cell
from bench.suites.expand import expand, serving_learners
from bench.suites.suite import read_suite
from purer.method import TUNED, TUNED_PROTONET
from tests.helpers import cell_of, run_toy, toy_data
from tests.plug_ins import Cosine, Old, OtherProtoNet, register

HEAD = "title: x\ndatasets: [glyphs]\narchitectures: [conv4]\nbudget: micro\nmethods:\n"


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learner that is never meta-trained and a metric one, from elsewhere."""
    register(monkeypatch, "learner", cosine=Cosine, other_protonet=OtherProtoNet)
    register(monkeypatch, "method", old=Old)


def cells(folder: Path, entry: str) -> list[Cell]:
    path = folder / "mine.yaml"
    path.write_text(f"{HEAD}  - {{{entry}}}\n", encoding="utf-8")
    return expand(*read_suite(str(path)))


@pytest.mark.parametrize(
    ("method", "serving"),
    [
        ("average", {"maml", "anil", "protonet", "centroids", "cosine", "other_protonet"}),
        ("distill_ensemble", {"maml", "anil", "protonet", "centroids", "cosine", "other_protonet"}),
        ("purer", {"maml", "anil", "protonet", "other_protonet"}),
        ("oracle_maml", {"maml", "anil"}),
        ("oracle_protonet", {"protonet", "other_protonet"}),
        ("ensemble_centroids", {"centroids"}),
        ("old", {"protonet", "anil"}),
    ],
)
def test_who_serves_whom(method: str, serving: set[str]) -> None:
    kind = registry.load("method", method)
    names = serving_learners(kind)
    assert set(names) & {*serving, "cosine", "other_protonet"} == serving
    assert names[0] == kind.default_learner


def test_a_refusal_says_what_is_needed_and_what_serves(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"'cosine': the method needs a MetaLearner; use maml, "):
        cells(tmp_path, "method: purer, learner: cosine")
    with pytest.raises(BenchError, match=r"a learner of its own; use centroids$"):
        cells(tmp_path, "method: teacher_centroids, learner: maml")
    with pytest.raises(BenchError, match=r"the method lists protonet, anil; use protonet, anil$"):
        cells(tmp_path, "method: old, learner: maml")


def test_a_tuple_of_names_gives_the_default(tmp_path: Path) -> None:
    assert [cell.learner for cell in cells(tmp_path, "method: old")] == ["protonet"]


def test_presets_follow_what_a_learner_is_not_its_name(tmp_path: Path) -> None:
    entry = "method: purer, preset: tuned, learner: [maml, other_protonet]"
    maml, metric = cells(tmp_path, entry)
    assert TUNED.items() <= maml.method_config.items()
    assert TUNED_PROTONET.items() <= metric.method_config.items()


@pytest.mark.parametrize("method", ["average", "purer"])
def test_a_learner_from_elsewhere_scores(method: str, tmp_path: Path) -> None:
    learner = "cosine" if method == "average" else "other_protonet"
    cell = cell_of(method).model_copy(update={"learner": learner})
    record = run_toy(cell, toy_data(), tmp_path).record
    assert (record.status, record.learner) == ("done", learner)
    assert record.accuracy.mean > 0.2
