"""Claims: which records test them, how a verdict follows from intervals, what the tables say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.results.files import write_json
from bench.results.select import load_records
from bench.results.store import mark_done
from reports.claims.claims import CLAIMS, Claim, Side
from reports.claims.verdicts import judge
from reports.tables.build import build_tables
from reports.tables.claims import claims_tables
from reports.tables.paired import TWO_POOLS
from reports.text.markdown import markdown
from tests.reports.report_records import N_TASKS, PROTOCOL, accuracies, make_record

PURER, RANDOM, AVERAGE = Side("purer"), Side("random"), Side("average")
BEATS = Claim("beats", "PURER beats both", ((PURER, RANDOM), (PURER, AVERAGE)), ("SS",), "–", "–")


def write(folder, means: dict[str, float], **changes) -> None:
    for method, mean in means.items():
        make_record(folder, method, accuracies(mean, method), **changes)


def verdict_of(tmp_path, means: dict[str, float], claim: Claim = BEATS, **changes) -> list[str]:
    write(tmp_path / "suite", means, **changes)
    return [one.verdict for one in judge(load_records(tmp_path), [claim])]


@pytest.mark.parametrize(
    ("means", "verdict"),
    [
        ({"purer": 0.5, "random": 0.3, "average": 0.4}, "reproduced"),
        ({"purer": 0.5, "random": 0.3, "average": 0.6}, "in part"),
        ({"purer": 0.5, "random": 0.5, "average": 0.6}, "not reproduced"),
        ({"purer": 0.5}, "not testable here"),
        ({"random": 0.5, "average": 0.3}, "not testable here"),
    ],
)
def test_verdict_follows_from_the_intervals(tmp_path, means, verdict):
    assert verdict_of(tmp_path, means) == [verdict]


def test_interval_by_hand(tmp_path):
    """Differences +0.1 and +0.3 in turn: mean 0.2, s = 0.1·√(20/19), t(19) = 2.093."""
    low = np.full(N_TASKS, 0.4)
    make_record(tmp_path / "suite", "random", low)
    make_record(tmp_path / "suite", "purer", low + np.tile([0.1, 0.3], N_TASKS // 2))
    (judgement,) = judge(load_records(tmp_path), [BEATS])
    (one,) = judgement.evidence
    half = 2.0930 * 0.1 * np.sqrt(20 / 19) / np.sqrt(20)
    assert (one.mean, one.low, one.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-5)


def test_budgets_have_verdicts_of_their_own_smallest_first(tmp_path):
    write(tmp_path / "long", {"purer": 0.6, "random": 0.3}, budget=counts("long", 6000))
    write(tmp_path / "short", {"purer": 0.3, "random": 0.3}, budget=counts("short", 400))
    found = judge(load_records(tmp_path), [BEATS])
    assert [(one.budget, one.verdict) for one in found] == [
        ("short", "not reproduced"),
        ("long", "reproduced"),
    ]


def counts(name: str, iterations: int) -> dict:
    fields = {"teacher_epochs": 60, "oracle_iterations": 1000, "validate_every": 50}
    return {"name": name, "meta_iterations": iterations, "n_val_tasks": 100, **fields}


@pytest.mark.parametrize(
    "changes",
    [
        {"datasets": ["glyphs"], "dataset_digests": {"glyphs": "0" * 64}},
        {"protocol": {**PROTOCOL, "name": "cvpr23_as_published"}},
        {"protocol": {**PROTOCOL, "bn": "support"}, "variant": "bn=support"},
        {"protocol": {**PROTOCOL, "teachers": "untrained"}, "variant": "teachers=untrained"},
        {"scenario": "MH"},
    ],
    ids=["built-in data", "other protocol", "variant", "untrained", "other scenario"],
)
def test_records_that_test_no_claim_are_passed_over(tmp_path, changes):
    assert verdict_of(tmp_path, {"purer": 0.9, "random": 0.1}, **changes) == ["not testable here"]


def test_learners_are_compared_with_their_equals(tmp_path):
    write(tmp_path / "suite", {"purer": 0.5}, learner="maml")
    write(tmp_path / "suite", {"random": 0.3}, learner="protonet")
    (judgement,) = judge(load_records(tmp_path), [BEATS])
    assert judgement.evidence == []


def test_tables_name_counts_share_and_records(tmp_path):
    write(tmp_path / "suite", {"purer": 0.5, "random": 0.3, "average": 0.6}, learner="maml")
    stored = load_records(tmp_path)
    verdicts, claims, evidence = claims_tables(stored, ("verdicts", "claims", "evidence"))
    assert len(verdicts.sections[0].rows) == len(CLAIMS)
    assert verdicts.sections[0].rows[0][1].text == (
        "in part (1 of 2 comparisons ahead; budget short, 0.67 % of the published meta-iterations)"
    )
    first = [entry.text for entry in claims.sections[0].rows[0]]
    assert first[3] == "1 of 2"
    assert first[-1] == "in part"
    text = markdown([evidence], tmp_path / "docs")
    hashes = {one.record.method: one.record.cell_hash for one in stored}
    name = hashes["random"]
    assert f"[{name[:8]}](../suite/{name}/record.json)" in text
    assert text.count("| purer, maml |") == 2
    assert "**+20" in text, "the difference that is ahead stands out"


def test_no_table_where_nothing_tests_a_claim(tmp_path):
    write(tmp_path / "suite", {"random": 0.3, "average": 0.4})
    stored = load_records(tmp_path)
    assert claims_tables(stored) == []
    assert build_tables(stored, ["claims", "evidence"]) == []


def test_they_are_made_by_name_only(tmp_path):
    write(tmp_path / "suite", {"purer": 0.5, "random": 0.3}, learner="maml")
    stored = load_records(tmp_path)
    assert [table.kind for table in build_tables(stored, ["verdicts"])] == ["verdicts"]
    assert "claims" not in [table.kind for table in build_tables(stored)]


def test_other_settings_of_a_method_do_not_hide_that_the_pools_differ(tmp_path):
    make_record(tmp_path, "average", accuracies(0.3, "a"))
    for steps in (1, 2):
        values = accuracies(0.4, f"{steps}")
        make_record(tmp_path, "purer", values, again=True, method_config={"steps": steps})
    (table,) = build_tables(load_records(tmp_path), ["paired"])
    assert table.notes == [TWO_POOLS]


def test_a_difference_of_two_pools_is_marked_here_and_among_paired_differences(tmp_path):
    """Not a comparison with a method that needs no teachers."""
    write(tmp_path / "suite", {"purer": 0.5, "random": 0.3, "average": 0.4}, learner="maml")
    tables = ("evidence", "paired")
    assert [table.notes for table in build_tables(load_records(tmp_path), tables)] == [[], []]
    (before,) = build_tables(load_records(tmp_path), ["claims"])
    assert not any("two pools" in note for note in before.notes)
    (average,) = load_records(tmp_path, ["method=average"])
    values = json.loads((average.folder / "record.json").read_text(encoding="utf-8"))
    values["pool"]["sha256"] = "0" * 64
    write_json(average.folder / "record.json", values)
    mark_done(average.folder)
    (counted,) = build_tables(load_records(tmp_path), ["claims"])
    assert f"1 of these 2 is {TWO_POOLS}" in counted.notes
    for table in build_tables(load_records(tmp_path), tables):
        assert table.notes == [TWO_POOLS]
        rows = [row for section in table.sections for row in section.rows]
        (marked,) = (row for row in rows if any(entry.notes for entry in row))
        named = [entry.text for entry in marked[:2]]
        assert named in (["purer, maml", "average, maml"], ["purer", "maml"])
