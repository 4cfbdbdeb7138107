"""`bench compare`: folders, methods, commits; what changed; exit status for CI."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from report_records import BUDGET, PROTOCOL, accuracies, make_record, seeded_suite, standard_suite

from bench.errors import BenchError
from bench.results.codebase import installed_code
from bench.results.compare import compare_sides, resolve
from bench.results.record import Code, Environment, Record
from bench.results.store import mark_done
from bench.stats import mean_interval
from reports.cli_compare import compare


def invoke(*arguments):
    """Run the command and return status, output and errors."""
    result = CliRunner().invoke(compare, [str(a) for a in arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def pair(tmp_path, gain, noise=0.02, **changes):
    """Write one method's record in two folders; the second is better by `gain`."""
    first = accuracies(0.5, "first", 200)
    second = accuracies(0.5 + gain, "second", 200, noise)
    many = {"n_test_tasks": 200}
    make_record(tmp_path / "a", "average", first, **many)
    make_record(tmp_path / "b", "average", second, **many, **changes)
    return first, second


def environment(commit):
    return Environment(
        python="3.12", platform="Linux", packages={"torch": "9"}, git_commit=commit, git_dirty=False
    )


def rows(*arguments):
    _, output, _ = invoke(*arguments, "--json")
    return json.loads(output)


@pytest.mark.parametrize(
    ("gain", "verdict", "failing"),
    [
        (-0.03, "lower", {"lower", "different", "changed"}),
        (0.03, "higher", {"different", "changed"}),
        (0.0, "equivalent", {"changed"}),
    ],
)
def test_verdicts_and_exit_status(tmp_path, gain, verdict, failing):
    first, second = pair(tmp_path, gain)
    found = rows(tmp_path / "a", tmp_path / "b")["changes"]
    assert [one["verdict"] for one in found] == [verdict]
    assert found[0]["difference"] == pytest.approx(mean_interval(second - first).mean)
    for condition in ("lower", "different", "changed"):
        status, _, errors = invoke(tmp_path / "a", tmp_path / "b", "--fail-if", condition)
        assert status == (condition in failing)
        assert (f"--fail-if {condition}" in errors) == (condition in failing)


def test_equal_tasks_are_the_same_and_pass_everything(tmp_path):
    standard_suite(tmp_path / "a")
    standard_suite(tmp_path / "b")
    content = rows(tmp_path / "a", tmp_path / "b", "--only", "status=done")
    assert {one["verdict"] for one in content["changes"]} == {"same"}
    assert content["configuration"] == content["environment"] == {}
    arguments = (tmp_path / "a", tmp_path / "b", "--only", "status=done", "--fail-if", "changed")
    assert invoke(*arguments)[0] == 0


def test_cells_of_several_data_sets_are_told_apart_by_what_they_test(tmp_path):
    several = {"scenario": "MH", "datasets": ["cifar_fs", "cub"]}
    for folder in ("a", "b"):
        for tested in (["cifar_fs"], ["cub"], []):
            values = accuracies(0.4 + 0.1 * len(tested), str(tested))
            make_record(tmp_path / folder / str(tested), "average", values, **several,
                        test_datasets=tested)  # fmt: skip
    found = rows(tmp_path / "a", tmp_path / "b")["changes"]
    assert [one["verdict"] for one in found] == ["same"] * 3
    assert sorted(one["name"].split(",")[1].split()[0] for one in found) == [
        "cifar_fs",
        "cifar_fs+cub",
        "cub",
    ]


@pytest.mark.parametrize("condition", ["lower", "different", "changed"])
def test_a_result_that_is_lost_fails_every_condition(tmp_path, condition):
    values = accuracies(0.5, "a")
    for folder in ("a", "broken", "less"):
        make_record(tmp_path / folder, "random", values)
    make_record(tmp_path / "a", "average", values)
    make_record(tmp_path / "broken", "average", None, status="failed", reason="out of memory")
    arguments = ("--fail-if", condition)
    for folder in ("broken", "less"):
        status, _, errors = invoke(tmp_path / "a", tmp_path / folder, *arguments)
        assert status == 1
        assert "1 with a result in A have none in B" in errors
        assert invoke(tmp_path / folder, tmp_path / "a", *arguments)[0] == (
            condition == "changed" and folder == "broken"
        )


def test_cells_skipped_for_the_same_reason_are_the_same(tmp_path):
    for folder, reason in (("a", "needs more"), ("b", "needs more"), ("c", "needs less")):
        make_record(tmp_path / folder, "random", accuracies(0.5, "a"))
        make_record(tmp_path / folder, "average", None, status="skipped", reason=reason)
    arguments = ("--fail-if", "changed")
    assert invoke(tmp_path / "a", tmp_path / "b", *arguments)[0] == 0
    assert invoke(tmp_path / "a", tmp_path / "c", *arguments)[0] == 1


def test_swapping_turns_every_sign(tmp_path):
    pair(tmp_path, 0.03)
    (forth,) = rows(tmp_path / "a", tmp_path / "b")["changes"]
    (back,) = rows(tmp_path / "b", tmp_path / "a")["changes"]
    assert (back["difference"], back["low"]) == pytest.approx(
        (-forth["difference"], -forth["high"])
    )
    assert back["ahead"] == pytest.approx(1 - forth["ahead"])


def test_a_wide_difference_is_undecided_until_the_margin_is_wide(tmp_path):
    pair(tmp_path, 0.0, noise=0.3)
    folders = (tmp_path / "a", tmp_path / "b")
    assert rows(*folders)["changes"][0]["verdict"] == "undecided"
    assert rows(*folders, "--margin", 20)["changes"][0]["verdict"] == "equivalent"


def test_it_says_what_changed(tmp_path):
    changed = {
        "protocol": PROTOCOL | {"bn": "support"},
        "budget": BUDGET | {"meta_iterations": 800},
        "environment": environment("fedcba9876543210"),
    }
    pair(tmp_path, 0.03, **changed)
    content = rows(tmp_path / "a", tmp_path / "b")
    assert set(content["configuration"]) == {
        "protocol.bn: transductive → support",
        "budget.meta_iterations: 400 → 800",
    }
    assert content["environment"]["commit"] == ["0123456789", "fedcba9876"]
    assert content["environment"]["torch"] == ["absent", "9"]
    assert content["speed"]["test_tasks_per_s"] == {"ratio": 1.0, "cells": 1}
    _, output, _ = invoke(tmp_path / "a", tmp_path / "b")
    assert "protocol.bn: transductive → support (all cells)" in output
    assert all(len(line) <= 100 for line in output.splitlines() if "→" not in line)


def test_it_names_the_module_whose_code_is_no_longer_the_one_that_made_a_side(tmp_path):
    other = Code(digest="0" * 64, files={"baselines/merging/average.py": "0" * 12})
    pair(tmp_path, 0.03, code=other)
    content = rows(tmp_path / "a", tmp_path / "b")
    expected = ["unknown", "baselines/merging/average.py"]  # of the first, not even a commit
    assert content["environment"] == {"code changed since": expected}
    _, output, _ = invoke(tmp_path / "b", tmp_path / "b")
    assert f"code changed since: {expected[1]} → {expected[1]}" in output


def test_it_is_silent_on_code_that_is_as_it_was(tmp_path):
    pair(tmp_path, 0.03)
    for folder in tmp_path.glob("*/*/record.json"):
        content = json.loads(folder.read_text())
        now = installed_code().cell(Record.model_validate(content), trains=True)
        folder.write_text(json.dumps(content | {"code": now.model_dump()}))
        mark_done(folder.parent)
    assert rows(tmp_path / "a", tmp_path / "b")["environment"] == {}


def test_two_methods_of_one_folder(tmp_path):
    standard_suite(tmp_path / "runs" / "cifar_fs_ss")
    content = rows("average maml", "purer maml", "--runs", tmp_path / "runs")
    assert [one["name"] for one in content["changes"]] == [
        "cifar_fs 5-way 1-shot, seed 0",
        "cifar_fs 5-way 5-shot, seed 0",
    ]
    assert all(one["verdict"] == "higher" for one in content["changes"])
    tuned = rows("purer (tuned) maml", "purer maml", "--runs", tmp_path / "runs")
    assert all(one["verdict"] == "lower" for one in tuned["changes"])


def test_two_commits_of_one_folder(tmp_path):
    for suite, commit, mean in (("old", "aaaa1111", 0.4), ("new", "bbbb2222", 0.45)):
        changes = {"environment": environment(commit), "suite": suite}
        make_record(tmp_path / suite, "average", accuracies(mean, suite), **changes)
    content = rows("aaaa", "bbbb2", "--runs", tmp_path)
    assert content["changes"][0]["verdict"] == "higher"
    assert content["environment"]["commit"] == ["aaaa1111", "bbbb2222"]


def test_what_cannot_be_compared_says_why(tmp_path):
    seeded_suite(tmp_path / "a")
    seeded_suite(tmp_path / "b")
    make_record(tmp_path / "a", "teacher_centroids", accuracies(0.3, "only"))
    make_record(tmp_path / "a", "purer", accuracies(0.4, "x"), k_shot=5)
    lists = {"k_shot": 5, "task_list_sha256": "0" * 64}
    make_record(tmp_path / "b", "purer", accuracies(0.4, "y"), **lists)
    content = rows(tmp_path / "a", tmp_path / "b")
    assert content["only_a"] == ["teacher_centroids centroids, cifar_fs 5-way 1-shot, seed 0"]
    reasons = {one["reason"] for one in content["changes"]} - {None}
    assert reasons == {"not the same test tasks", "the first is failed: out of memory"}


def test_holm_is_over_the_whole_table(tmp_path):
    for seed in range(8):
        generator = np.random.default_rng(seed)
        values = np.clip(generator.normal(0.5, 0.1, 100), 0, 1)
        shape = {"n_test_tasks": 100, "seed": seed}
        make_record(tmp_path / "a", "average", values, **shape)
        near = np.clip(values + generator.normal(0.02, 0.1, 100), 0, 1)
        make_record(tmp_path / "b", "average", near, **shape)
    found = compare_sides(*resolve(str(tmp_path / "a"), str(tmp_path / "b"), tmp_path))
    smallest = min(found.changes, key=lambda one: one.p_value)
    assert smallest.p_holm == pytest.approx(min(1, 8 * smallest.p_value))


def test_errors_are_one_line(tmp_path):
    standard_suite(tmp_path / "runs")
    pair(tmp_path / "other", 0.0, k_shot=5)
    cases = [
        (("purer", "averag"), "not two folders, two methods or two commits"),
        ((tmp_path / "runs", "purer"), "not two folders"),
        (("purer", "average"), "'purer' has several cells for purer"),
        ((tmp_path / "other/a", tmp_path / "other/b"), "no cell of"),
    ]
    for words, message in cases:
        with pytest.raises(BenchError) as raised:
            invoke(*words, "--runs", tmp_path / "runs")
        assert message in str(raised.value), words
        assert "\n" not in str(raised.value)


def test_cells_that_a_suite_has_several_of_are_matched_by_what_tells_them_apart(tmp_path):
    """As those of suites that compare protocols, meta-models or settings."""
    support = {"protocol": PROTOCOL | {"bn": "support"}, "variant": "bn=support"}
    many = ({}, support, {"net": "resnet10"}, {"net": "resnet10", "method_config": {"steps": 3}})
    for folder, gain in (("a", 0.0), ("b", 0.03)):
        for n, changes in enumerate(many):
            values = accuracies(0.4 + 0.1 * n + gain, str(n))
            make_record(tmp_path / folder, "average", values, **changes)
    found = rows(tmp_path / "a", tmp_path / "b")
    assert not found["only_a"] + found["only_b"]
    assert [one["difference"] for one in found["changes"]] == pytest.approx([0.03] * 4, abs=1e-3)
    names = [one["name"] for one in found["changes"]]
    assert len(set(names)) == 4
    assert any("bn=support, conv4 meta-model" in name for name in names)
    _, output, _ = invoke(tmp_path / "a", tmp_path / "b")
    assert max(map(len, output.splitlines())) <= 100
