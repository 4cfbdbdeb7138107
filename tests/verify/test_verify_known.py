"""What the package knows without data and plug-ins is what these say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.contract import TaskShape
from bench.data.tasks import lists_digest
from bench.results.store import read_record
from bench.verify import known
from bench.verify.configuration import configuration
from tests.verify.write_known import content, lists


def test_it_follows_from_data_sets_suites_and_plug_ins():
    """After a change of these: `python -m tests.verify.write_known`."""
    stored = json.loads(known.FILE.read_text(encoding="utf-8"))
    made = json.loads(json.dumps({**content(), "lists": lists()}))
    drawn = [one["data"]["glyphs"].pop("digests") for one in (stored, made)]
    assert stored == made
    assert all(len(one) == 1 for one in drawn)  # of the installed fonts, or of those of another


def test_a_record_may_lack_settings_that_came_after_it_but_no_others():
    """PURER's setting `class_weight` came after the stored records, which run at its default."""
    folder = Path(__file__).resolve().parents[2] / "results" / "glyphs"
    records = [read_record(path.parent).record for path in sorted(folder.glob("*/record.json"))]
    purer = [one for one in records if one.method == "purer"]
    assert purer
    for record in purer:
        config = {k: v for k, v in record.method_config.items() if k != "class_weight"}
        older = record.model_copy(update={"method_config": config})
        assert not [one for one in configuration(older) if one.level == "refused"]
        less = {k: v for k, v in config.items() if k != "bn_weight"}
        wrong = record.model_copy(update={"method_config": less})
        assert any("bn_weight" in one.text for one in configuration(wrong))


@pytest.mark.parametrize("k_shot", [1, 5])
def test_a_shipped_list_is_the_list_that_is_drawn(k_shot):
    shape = TaskShape(5, k_shot, 15)
    for name in ("glyphs", "cifar_fs", "mini_imagenet_subset", "cub_subset_cropped"):
        n_tasks = 200 if name == "glyphs" else 600
        listed = known.listed_digest((name,), shape, n_tasks)
        assert listed == lists_digest(known.drawn_lists((name,), shape, n_tasks))


def test_what_is_not_known_is_none():
    assert known.class_counts("nothing") is None
    assert known.data_digests("nothing") == {}
    assert known.settings("method", "nothing") is None
    assert known.frozen_digest(("vgg_flower",), TaskShape(5, 1, 15), 600) is None
    assert known.frozen_digest(("glyphs",), TaskShape(5, 1, 15), 599) is not None
    assert known.drawn_lists(("glyphs",), TaskShape(5, 1, 15), known.MOST_TASKS + 1) is None
