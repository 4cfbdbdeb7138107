"""Every check finds what it is for, and says so in one line; `bench check` exits 1."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from bench import registry
from bench.cli.main import cli
from bench.testing.checks import (
    CheckFailed,
    Result,
    checks_of,
    require,
    run_check,
    run_checks,
    text_of,
)
from tests.plug_ins import register
from tests.testing import broken

METHODS = [
    ("sound", "imports_only_what_plug_ins_may", "imports bench.execute, which may change; use ben"),
    ("misnamed", "declares_what_the_contract_asks", "name is 'other', registered 'misnamed'"),
    ("bare", "describes_itself", "no docstring stands below width of Undocumented"),
    ("unwilling", "serves_one_architecture", "skips three teachers of conv4: it is Monday"),
    ("global", "serves_one_architecture", "draws from the global stream of torch; use a generat"),
    ("meddling", "serves_one_architecture", "changes head.bias of teacher tiny/00"),
    ("forgetful", "follows_its_seed", "two fits of one seed differ in 'head.bias'"),
    ("seeded", "draws_from_its_streams_alone", "fits differ by seed, and no generator was asked"),
    ("infinite", "predicts_every_task", "logits are not finite"),
    ("infinite", "predicts_from_a_mixed_pool", "logits are not finite"),
]
LEARNERS = [
    ("bare_learner", "declares_what_the_contract_asks", "BareLearner has no docstring"),
    ("bare_learner", "predicts_every_task", "logits carry a graph"),
    ("shifty", "predicts_each_task_by_itself", "the prediction of task 0 changes if it is alone"),
    ("shifty", "follows_the_order_of_queries", "the order of the queries changes their logits"),
    ("leaning", "predicts_queries_alone_unless_transductive", "queries change one another's lo"),
    ("restless", "leaves_its_network_alone", "changes head.bias of its network"),
    ("untrained", "can_be_meta_trained", "no gradient reaches parameters"),
    ("cold", "serves_normalised_features", "logits do not scale"),
]
NETS = [
    ("mixing", "sees_images_one_by_one", "the features of an image change if it is alone"),
    ("mixing", "lets_the_caller_normalise", "norm normalise without asking the norm"),
    ("mixing", "can_be_trained", "no gradient reaches spare"),
]
CALIBRATIONS = [
    ("idle", "says_whom_it_serves", "refuses anil, centroids, maml, protonet without a reason"),
    ("idle", "predicts_every_task", "it refuses every registered learner"),
    ("still", "changes_predictions", "predictions are equal to those without it"),
]
BROKEN = [
    *(("method", *one) for one in METHODS),
    *(("learner", *one) for one in LEARNERS),
    *(("net", *one) for one in NETS),
    *(("calibration", *one) for one in CALIBRATIONS),
]


def offer(monkeypatch: pytest.MonkeyPatch, kind: registry.Kind, name: str) -> None:
    """Register what is broken, under its class's name in small letters."""
    value = getattr(broken, "".join(part.title() for part in name.split("_")))
    register(monkeypatch, kind, **{name: value})


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, str], list[Result]]:
    """Results of all checks by kind and name, each plug-in checked once."""
    return {}


@pytest.mark.parametrize(("kind", "name", "check", "reason"), BROKEN)
def test_a_check_finds_what_it_is_for(
    kind, name, check, reason, results, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, kind, name)
    if (kind, name) not in results:
        results[kind, name] = list(run_checks(kind, name))
    found = results[kind, name]
    wanted = next(text_of(one) for one in checks_of(kind) if one.__name__ == check)
    result = next(result for result in found if result.check == wanted)
    assert result.outcome == "failed"
    assert reason in result.detail
    assert "\n" not in result.detail


def test_a_plug_in_that_cannot_be_loaded_is_one_failed_line() -> None:
    (result,) = run_checks("method", "nowhere")
    assert (result.check, result.outcome) == ("can be loaded", "failed")
    assert "unknown method 'nowhere'" in result.detail


def test_nothing_that_a_check_raises_gets_through() -> None:
    def wrong(subject: str) -> None:
        """Asks for much."""
        raise KeyError("x")

    def unmet(subject: str) -> None:
        """Asks for more."""
        require(False, "it is not there")

    assert run_check("net", "x", wrong, "").detail == "KeyError: 'x'"
    assert run_check("net", "x", unmet, "") == Result(
        "net", "x", "Asks for more", "failed", "it is not there"
    )
    with pytest.raises(CheckFailed, match="so"):
        require([], "so")


def test_the_command_exits_1_and_prints_one_line_per_check(monkeypatch) -> None:
    offer(monkeypatch, "method", "bare")
    run = CliRunner().invoke
    good = run(cli, ["check", "micro", "cvpr23"])
    assert good.exit_code == 0
    lines = good.output.splitlines()
    assert [line for line in lines if line[0].isalpha()] == [
        *("budget micro", "suite micro", "protocol cvpr23"),
    ]
    assert all(line.startswith("  ok      ") for line in lines if not line[0].isalpha())
    bad = run(cli, ["check", "bare", "--json"])
    assert bad.exit_code == 1
    rows = json.loads(bad.output)
    assert {row["outcome"] for row in rows} >= {"ok", "failed"}
    assert {(row["kind"], row["name"]) for row in rows} == {("method", "bare")}


def test_what_the_command_is_told_reaches_the_checks() -> None:
    run = CliRunner().invoke
    other = run(cli, ["check", "average", "--kind", "method", "--net", "conv4_64", "--json"])
    rows = {row["check"]: row for row in json.loads(other.output)}
    assert other.exit_code == 0
    assert len(rows) == 9
    wrong = run(cli, ["check", "average", "--set", "head=none", "--json"])
    assert wrong.exit_code == 1
    assert "head = 'none' in 'average'" in json.loads(wrong.output)[0]["detail"]
    unknown = run(cli, ["check", "avreage"]).exception
    assert str(unknown).startswith("unknown plug-in 'avreage'; did you mean average")
