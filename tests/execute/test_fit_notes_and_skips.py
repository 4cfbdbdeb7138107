"""What a method says while it fits ends in the record; what it cannot serve is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import cell_of, run_toy, toy_data
from tests.plug_ins import GivingUp, Talking, register


def other(method: str, k_shot: int = 1):
    update = {"method": method, "method_config": {}, "learner": "protonet"}
    return cell_of("average", k_shot=k_shot).model_copy(update=update)


def test_sentences_of_a_fit_reach_every_record_that_shares_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, "method", talking=Talking)
    first = run_toy(other("talking"), toy_data(), tmp_path).record
    second = run_toy(other("talking", k_shot=2), toy_data(), tmp_path).record
    assert not first.fit.reused
    assert second.fit.reused
    for record in (first, second):
        assert record.warnings[-2:] == ["3 of 5 channels moved", "one pass"]
        assert record.extra == {"barrier": {"of teachers": [0, 1], "height": 0.25}}


def test_a_method_may_skip_in_the_middle_of_its_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, "method", giving_up=GivingUp)
    record = run_toy(other("giving_up"), toy_data(), tmp_path).record
    assert record.status == "skipped"
    assert record.reason == "a layer of this network cannot be merged; use another architecture"
    assert record.accuracy is None
    assert not list((tmp_path / "cache").rglob("checkpoint-*.pt"))
