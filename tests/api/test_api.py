"""The Python API has the numbers of the command line, and leaves the process as it was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import bench
from bench.cli.main import main
from bench.contract import Budget
from bench.nets.precision import allow_tf32
from bench.seeds import global_state
from bench.stats import mean_interval
from tests.api.small import METHODS, N_TASKS, SETTINGS


def fitted(
    in_python: SimpleNamespace, small: Budget, method: str, **more: Any
) -> bench.FittedLearner:
    words = {"n_query": 5, "budget": small, "cache": in_python.cache, "device": "cpu", **more}
    return bench.fit(method, words.pop("pool", in_python.pool), in_python.data, **words)


def test_importing_bench_loads_nothing_heavy() -> None:
    code = (
        "import sys, bench\n"
        "assert set(bench.__all__) <= set(dir(bench))\n"
        "print(sorted({'torch', 'pandas', 'numpy', 'mlflow', 'scipy'} & set(sys.modules)))\n"
        "bench.load_records, bench.Records\n"
        "print(sorted({'torch', 'pandas', 'mlflow', 'reports'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["[]", "[]", ""]


def test_every_name_of_the_api_is_there_and_no_other() -> None:
    for name in bench.__all__:
        assert getattr(bench, name) is not None
    with pytest.raises(AttributeError, match="'bench' has no attribute 'fitt'"):
        bench.fitt  # noqa: B018


@pytest.mark.parametrize("method", METHODS)
def test_numbers_are_those_of_the_command_line(
    by_command: SimpleNamespace, in_python: SimpleNamespace, small: Budget, method: str
) -> None:
    stored = by_command.stored[method]
    result = bench.evaluate(fitted(in_python, small, method), in_python.data, n_tasks=N_TASKS)
    np.testing.assert_array_equal(result.accuracies, stored.accuracies())
    np.testing.assert_array_equal(result.classes, stored.tasks()[1])
    assert result.task_list_sha256 == stored.record.task_list_sha256
    assert result.mean == pytest.approx(stored.record.scored.mean)
    assert result.interval == mean_interval(stored.accuracies())


def test_a_calibrated_learner_has_the_numbers_of_a_calibrated_cell(
    by_command: SimpleNamespace, in_python: SimpleNamespace, small: Budget
) -> None:
    learner = fitted(in_python, small, "average")
    words = {"n_tasks": 2, "calibration": "icfil", "steps": 1}
    result = bench.evaluate(learner, in_python.data, **words)
    suite = by_command.runs.parent / "calibrated.yaml"
    suite.write_text(
        "title: calibrated\ndatasets: [glyphs]\narchitectures: [conv4]\nbudget: micro\n"
        "methods: [{method: average, calibration: icfil}]\n"
    )
    settings = {**SETTINGS, "n_test_tasks": 2, "icfil.steps": 1}
    folders = {"runs": by_command.runs.parent / "others", "cache": by_command.cache}
    (stored,) = bench.run(suite, settings=settings, device="cpu", **folders)
    np.testing.assert_array_equal(result.accuracies, stored.accuracies())
    assert "icfil" in result.label
    with pytest.raises(bench.BenchError, match="unknown key of 'icfil' 'stepps'; did you mean"):
        bench.evaluate(learner, in_python.data, calibration="icfil", stepps=1)
    with pytest.raises(bench.BenchError, match="unknown calibration 'icfill'"):
        bench.evaluate(learner, in_python.data, calibration="icfill")


def test_a_run_finds_what_the_command_line_left_and_says_what_it_makes(
    by_command: SimpleNamespace,
) -> None:
    words = {"runs": by_command.runs, "cache": by_command.cache, "device": "cpu"}
    lines: list[str] = []
    only = [f"method={method}" for method in METHODS]
    found = bench.run("micro", settings=SETTINGS, only=only, say=lines.append, **words)
    expected = [by_command.stored[method].record for method in METHODS]
    assert [one.record.cell_hash for one in found] == [one.cell_hash for one in expected]
    assert [one.record.ended for one in found] == [one.ended for one in expected]
    assert lines == []
    one = bench.run("micro", settings=SETTINGS, only=["method=random"], say=lines.append, **words)
    assert len(one) == 1
    assert lines[0].startswith("[1/1] random · maml · glyphs 5-way 1-shot · seed 0: ")


def test_records_are_frames(by_command: SimpleNamespace) -> None:
    records = bench.load_records(by_command.runs, [f"method={one}" for one in METHODS])
    frame, tasks = records.frame(), records.tasks()
    assert len(records) == len(frame) == len(METHODS)
    assert len(tasks) == len(METHODS) * N_TASKS
    means = tasks.groupby("method")["accuracy"].mean()
    expected = frame.set_index("method")["accuracy_mean"]
    np.testing.assert_allclose(means[list(METHODS)], expected[list(METHODS)])
    assert repr(records) == "<3 records: average, ensemble_centroids, purer>"
    assert [one.record.method for one in records.only("method=purer")] == ["purer"]
    assert len(records[:2]) == 2
    assert bench.Records([]).tasks().empty
    with pytest.raises(bench.BenchError, match="unknown method in these records 'purerr'"):
        records.only("method=purerr")
    with pytest.raises(bench.BenchError, match=r"give a list, as in only=\['method=purer'\]"):
        bench.load_records(by_command.runs, only="method=purer")


def test_comparisons_of_results_of_records_and_by_command_agree(
    by_command: SimpleNamespace,
    in_python: SimpleNamespace,
    small: Budget,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("average", "ensemble_centroids")
    learners = [fitted(in_python, small, name) for name in names]
    a, b = (bench.evaluate(one, in_python.data, n_tasks=N_TASKS) for one in learners)
    found = bench.compare(a, b)
    records = bench.load_records(by_command.runs)
    sides = [records.only(f"method={name}") for name in names]
    (row,) = bench.compare(*sides, across_methods=True).frame().to_dict("records")
    assert (row["difference"], row["low"], row["high"]) == (found.mean, found.low, found.high)
    assert row["p_value"] == found.p_value
    assert found.mean == pytest.approx(b.mean - a.mean)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["compare", *names, f"--runs={by_command.runs}", "--json"])
    assert f'"p_value": {found.p_value!r},' in capsys.readouterr().out
    with pytest.raises(bench.BenchError, match="different test tasks"):
        bench.compare(a, bench.evaluate(learners[0], in_python.data, n_tasks=8))
    with pytest.raises(bench.BenchError, match="Result and Records cannot be compared"):
        bench.compare(a, records)


def test_any_learner_is_scored_on_the_same_tasks(in_python: SimpleNamespace, small: Budget) -> None:
    own, data = fitted(in_python, small, "ensemble_centroids"), in_python.data
    result = bench.evaluate(own, data, n_tasks=8)
    plain = bench.evaluate(own.learner, data, n_query=5, n_tasks=8, device="cpu")
    np.testing.assert_array_equal(plain.accuracies, result.accuracies)
    assert list(plain.frame()) == ["task", "accuracy", *(f"class_{way}" for way in range(5))]
    half = 100 * (result.interval.high - result.mean)
    assert str(result).endswith(f": {100 * result.mean:.1f} ± {half:.1f} % over 8 tasks")
    with pytest.raises(bench.BenchError, match="a calibration needs a learner"):
        bench.evaluate(own.learner, data, calibration="icfil")
    with pytest.raises(bench.BenchError, match="unknown argument 'n_task'; did you mean n_tasks"):
        bench.evaluate(own, data, n_task=8)


def test_a_fit_is_kept_and_shows_what_it_made(in_python: SimpleNamespace, small: Budget) -> None:
    stages: list[str] = []
    learner = fitted(in_python, small, "purer")
    again = fitted(in_python, small, "purer", progress=lambda at: stages.append(at.stage))
    assert again.seconds == learner.seconds
    assert "fit" not in stages
    images = learner.images()
    assert set(images) == {f"pseudo-images-{when}" for when in ("start", "middle", "end")}
    curve = learner.curve()
    assert set(curve) == {"step", "name", "value"}
    assert curve[curve["name"] == "outer_loss"]["step"].tolist() == [1, 2, 3, 4]
    assert fitted(in_python, small, "average").curve().empty
    assert "purer · maml" in repr(learner)
    assert learner.n_parameters == learner.learner.n_parameters


@pytest.fixture
def _tf32() -> Iterator[None]:
    """CUDA may round to TF32, as a user may have set it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32(True)
    yield
    allow_tf32(*before)


@pytest.mark.usefixtures("_tf32")
def test_the_process_is_left_as_it_was(in_python: SimpleNamespace, small: Budget) -> None:
    before, threads = global_state(), torch.get_num_threads()
    bench.evaluate(fitted(in_python, small, "average", seed=3), in_python.data, n_tasks=2)
    folders = {"runs": in_python.cache.parent / "runs", "cache": in_python.cache}
    words = {"settings": SETTINGS, "only": ["method=random"], "device": "cpu"}
    (stored,) = bench.run("micro", threads=threads + 1, **words, **folders)
    assert stored.record.device.threads == threads + 1
    assert (global_state(), torch.get_num_threads()) == (before, threads)
    assert torch.backends.cuda.matmul.allow_tf32 is True


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"method": "purerr"}, "unknown method 'purerr'; did you mean purer"),
        ({"pool": None}, "method 'purer' needs a pool of teachers"),
        ({"pixel_lrr": 1}, "unknown key of 'purer' 'pixel_lrr'; did you mean pixel_lr"),
        ({"n_way": "x"}, "n_way = 'x' in the arguments"),
        ({"learner": "centroids"}, "does not go with learner 'centroids'"),
        ({"budget": "shrt"}, "unknown budget 'shrt'; did you mean short"),
        ({"protocol": "cvpr"}, "unknown protocol 'cvpr'"),
        ({"net": "conv5"}, "unknown net 'conv5'"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"preset": "tunde"}, "unknown preset of 'purer' 'tunde'; did you mean tuned"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_one_line(
    in_python: SimpleNamespace, small: Budget, words: dict[str, Any], expected: str
) -> None:
    more = dict(words)
    with pytest.raises(bench.BenchError, match=expected) as caught:
        fitted(in_python, small, more.pop("method", "purer"), **more)
    assert "\n" not in str(caught.value)
