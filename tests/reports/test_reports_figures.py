"""Figures: what they are made of, by hand; that each is drawn where it applies; the same bytes."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from report_records import BUDGET, PROTOCOL, accuracies, make_record, standard_suite
from test_reports_page import with_extras

from bench.results.select import load_records
from bench.results.store import mark_done
from bench.teachers.similarity import write_similarity
from reports.figures import build, fits
from reports.figures.build import MAX_DENSE, MAX_SETTINGS, across_drawings, group_drawings
from reports.figures.cost import pareto_front
from reports.figures.curves import curves_figure, hard_steps
from reports.figures.differences import cliques, critical_difference, mean_ranks
from reports.figures.drawing import write_drawing
from reports.figures.fits import similarities
from reports.figures.gallery import stage_order
from reports.figures.style import FORMATS, as_bytes, laid_out
from reports.rows.groups import make_groups
from reports.tables.build import build_tables
from reports.tables.summary import rate_rows


def drawings(folder):
    """Return the drawings of the only group below a folder, by the end of their names."""
    (group,) = make_groups(load_records(folder))
    return {one.name.removeprefix("x-"): one for one in group_drawings(group, "x")}


def test_the_front_is_what_nothing_beats_in_both():
    cost = np.array([5.0, 1, 3, 3, 9, 2])
    gain = np.array([6.0, 1, 4, 5, 6, 0.5])
    assert pareto_front(cost, gain).tolist() == [1, 3, 0]
    rng = np.random.default_rng(0)
    cost, gain = rng.random((2, 50))
    front = pareto_front(cost, gain)
    for i in range(50):
        beaten = (
            (cost <= cost[i]) & (gain >= gain[i]) & ((cost < cost[i]) | (gain > gain[i]))
        ).any()
        assert (i in front) != beaten


def test_critical_difference_is_demsars():
    """Demšar (2006), table 5: q = 2.343 for three classifiers, 2.728 for five."""
    assert critical_difference(3, 10) == pytest.approx(2.343 * np.sqrt(12 / 60), abs=2e-3)
    assert critical_difference(5, 14) == pytest.approx(2.728 * np.sqrt(30 / 84), abs=2e-3)


def test_cliques_are_the_longest_runs_within_the_distance():
    assert cliques(np.array([1.0, 1.4, 2.2, 3.9]), 1.0) == [(0, 1), (1, 2)]
    assert cliques(np.array([1.0, 1.5, 1.9, 5.0]), 1.0) == [(0, 2)]
    assert cliques(np.array([1.0, 3.0]), 1.0) == []


def test_ranks_by_hand():
    frame = pandas.DataFrame(
        {
            "setting": ["s", "s", "s", "t", "t"],
            "method": ["a", "b", "c", "a", "b"],
            "learner": "maml",
            "mean": [0.9, 0.5, 0.1, 0.2, 0.2],
        }
    )
    assert mean_ranks(frame).to_dict() == {"a": 1.25, "b": 1.75}  # c lacks a setting


def test_hard_steps_are_those_of_the_switch_and_marked_in_every_panel():
    steps = np.arange(1, 9)
    curve = pandas.DataFrame(
        {
            "fit": "f",
            "step": np.tile(steps, 2),
            "name": np.repeat(["adversarial", "outer_loss"], 8),
            "value": [0, 1, 1, 0, 0, 1, 0, 1, *np.geomspace(1000, 1, 8)],
        }
    )
    assert hard_steps(curve) == [2, 3, 6, 8]
    assert hard_steps(curve[:0]) == []
    (axes,) = curves_figure(curve).axes
    (ticks,) = (line for line in axes.lines if line.get_marker() == "|")
    assert list(ticks.get_xdata()) == [2, 3, 6, 8]
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["f"]


def test_grids_of_a_fit_go_from_start_to_end():
    names = [
        "pseudo-images-end.png",
        "pseudo-images-start.png",
        "x.png",
        "pseudo-images-middle.png",
    ]
    ordered = sorted(map(Path, names), key=stage_order)
    assert [path.stem.rpartition("-")[2] for path in ordered] == ["start", "middle", "end", "x"]


def test_each_figure_appears_where_it_applies(tmp_path, monkeypatch):
    places = standard_suite(tmp_path)
    found = drawings(tmp_path)
    assert set(found) == {
        "accuracy", "against-k-shot", "pareto-macs", "pareto-fit", "throughput", "differences",
    }  # fmt: skip
    assert "ensemble_centroids 47.5 %" in found["accuracy"].alt
    with_extras(places[2])
    assert set(drawings(tmp_path)) - set(found) == {"curves", "gallery"}
    monkeypatch.setattr(fits, "MAX_FITS", 1)
    with_extras(places[5])
    assert "The first" not in drawings(tmp_path)["gallery"].caption
    assert drawings(tmp_path)["curves"].caption.endswith(" The first 1 of 2 fits.")


def test_five_settings_give_ranks(tmp_path):
    for k_shot in range(1, 6):
        for place, method in enumerate(("random", "average", "best_teacher")):
            values = accuracies(0.3 + 0.05 * place, f"{method} {k_shot}")
            make_record(tmp_path, method, values, k_shot=k_shot)
    make_record(tmp_path, "zipit", accuracies(0.5, "z"))
    make_record(tmp_path, "ensemble_centroids", accuracies(0.5, "e"))
    (drawing,) = [d for name, d in drawings(tmp_path).items() if name.startswith("ranks")]
    assert drawing.title == "Mean ranks: transductive rows"
    assert "Left out: 1 row without a result in one." in drawing.caption
    figure = drawing.draw()
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "best_teacher  1.00" in texts


def test_means_that_are_drawn_beside_one_another_are_of_the_same_seeds(tmp_path):
    for method, seed, mean in (("average", 0, 0.5), ("random", 0, 0.6), ("random", 1, 0.2)):
        make_record(tmp_path, method, accuracies(mean, f"{method}{seed}"), seed=seed)
    found = drawings(tmp_path)
    for name in ("accuracy", "pareto-macs", "pareto-fit"):
        assert "random 60.0 %" in found[name].alt
        assert found[name].caption.endswith(" Seed 0, which all have.")
    cost = build_tables(load_records(tmp_path), ["cost"])[0]
    rows = {row[0].text: row[2] for section in cost.sections for row in section.rows}
    assert (rows["random"].text, rows["random"].strong) == ("40.0", True)
    assert not rows["average"].strong


def test_fits_of_several_devices_do_not_share_an_axis(tmp_path):
    for method in ("average", "random"):
        make_record(tmp_path, method, accuracies(0.3, method))
    gpu = {"type": "cuda", "name": "Example GPU", "threads": 2}
    make_record(tmp_path, "best_teacher", accuracies(0.9, "gpu"), device=gpu)
    found = drawings(tmp_path)
    assert "best_teacher" not in found["pareto-fit"].alt
    assert "Rows that ran on cpu (Example CPU, 2 threads)." in found["pareto-fit"].caption
    assert "best_teacher" in found["pareto-macs"].alt


def test_budgets_are_drawn_against_one_another(tmp_path):
    for iterations in (400, 800):
        budget = BUDGET | {"meta_iterations": iterations}
        make_record(tmp_path, "purer", accuracies(0.3 + iterations / 8000, "p"), budget=budget)
    (found,) = across_drawings(make_groups(load_records(tmp_path)))
    assert found.name == "all-against-meta-iterations"
    (axes,) = found.draw().axes
    (line, *_) = axes.containers[0]
    assert line.get_xydata()[:, 0].tolist() == [400, 800]
    assert line.get_xydata()[:, 1] == pytest.approx([35, 40])


def test_a_line_over_budgets_is_of_one_seed(tmp_path):
    for iterations, seed, mean in ((400, 0, 0.4), (400, 1, 0.2), (800, 0, 0.5)):
        budget = BUDGET | {"meta_iterations": iterations}
        make_record(tmp_path, "purer", accuracies(mean, f"{mean}"), budget=budget, seed=seed)
    (found,) = across_drawings(make_groups(load_records(tmp_path)))
    (line, *_) = found.draw().axes[0].containers[0]
    assert line.get_xydata()[:, 1] == pytest.approx([40, 50])
    assert found.caption.endswith(" Seed 0.")


def test_protocols_do_not_share_a_line(tmp_path):
    for name, n in (("cvpr23", 100), ("cvpr23", 200), ("other", 300)):
        budget = BUDGET | {"meta_iterations": n}
        protocol = PROTOCOL | {"name": name}
        make_record(tmp_path, "purer", accuracies(0.3, f"{n}"), budget=budget, protocol=protocol)
    (drawing,) = across_drawings(make_groups(load_records(tmp_path)))
    (lines,) = [axes.lines for axes in drawing.draw().axes if axes.lines]
    assert {tuple(line.get_xdata()) for line in lines} == {(100, 200)}


def test_rates_are_of_one_device_and_of_whole_tests(tmp_path):
    gpu = {"type": "cuda", "name": "Example GPU", "threads": 2}
    make_record(tmp_path, "average", accuracies(0.3, "a"), seed=0)
    make_record(tmp_path, "average", accuracies(0.3, "b"), seed=1)
    make_record(tmp_path, "purer", accuracies(0.3, "c"), device=gpu)
    place = make_record(tmp_path, "random", accuracies(0.3, "d"))
    record = json.loads((place / "record.json").read_text())
    record["timing"]["embeddings_reused"] = True
    (place / "record.json").write_text(json.dumps(record))
    mark_done(place)
    (group,) = make_groups(load_records(tmp_path))
    device, rows = rate_rows(group)
    assert device == "cpu (Example CPU, 2 threads)"
    assert [row["method"] for row in rows].count("average") == 2
    assert {row["method"] for row in rows} == {"average", "random"}
    assert [row["test_tasks_per_s"] for row in rows if row["method"] == "random"] == [None]
    assert all(row["test_tasks_per_s"] for row in rows if row["method"] == "average")
    (drawing,) = [one for one in group_drawings(group, "x") if one.name == "x-throughput"]
    assert "Rates on cpu (Example CPU, 2 threads)" in drawing.caption


def test_captions_say_that_settings_are_left_out(tmp_path):
    for k_shot in range(1, MAX_SETTINGS + 2):
        for method in ("average", "best_teacher", "random"):
            make_record(tmp_path, method, accuracies(0.3, f"{method}{k_shot}"), k_shot=k_shot)
    (group,) = make_groups(load_records(tmp_path))
    found = {one.name: one.caption for one in group_drawings(group, "x")}
    most = {"x-accuracy": MAX_SETTINGS, "x-pareto-macs": MAX_DENSE, "x-differences": MAX_DENSE}
    for name, n in most.items():
        assert found[name].endswith(f"The first {n} of {MAX_SETTINGS + 1} settings.")
    for name in ("x-throughput", "x-ranks-transductive", "x-against-k-shot"):
        assert "The first" not in found[name]


def test_data_sets_together_are_no_setting_of_the_ranks(tmp_path):
    names = ["cifar_fs", "cub", "mini_imagenet"]
    several = {"scenario": "MH", "datasets": names}
    for tested, k_shot in itertools.product([*([name] for name in names), []], (1, 5)):
        for method in ("average", "best_teacher", "random"):
            values = accuracies(0.3, f"{method}{tested}{k_shot}")
            make_record(tmp_path / "-".join([method, *tested, str(k_shot)]), method, values,
                        k_shot=k_shot, test_datasets=tested, **several)  # fmt: skip
    (group,) = make_groups(load_records(tmp_path))
    (drawing,) = [one for one in group_drawings(group, "x") if "x-ranks" in one.name]
    (axes,) = drawing.draw().axes
    assert axes.get_xlabel() == "mean rank over 6 settings"


def test_files_are_the_same_each_time_and_drawn_once(tmp_path):
    standard_suite(tmp_path / "runs")
    one = drawings(tmp_path / "runs")["accuracy"]
    assert as_bytes(one.draw(), "svg") == as_bytes(one.draw(), "svg")
    paths = write_drawing(tmp_path / "figures", one, "key")
    assert [path.suffix for path in paths] == [".svg", ".pdf", ".png"]
    assert paths[1].read_bytes().startswith(b"%PDF")
    drawn = paths[0].stat().st_ino
    for formats in (FORMATS, ["svg"]):
        assert write_drawing(tmp_path / "figures", one, "key", formats)[0].stat().st_ino == drawn
    paths[0].write_text("damaged")
    assert write_drawing(tmp_path / "figures", one, "key")[0].read_text() != "damaged"
    paths[0].write_text("of older records")
    other = write_drawing(tmp_path / "figures", one, "other", ["svg"])
    assert other[0].read_text() != "of older records"
    assert not paths[1].exists(), "a file of the older records would look current"


def test_similarity_is_drawn_once_a_pool_by_the_names_that_tell_teachers_apart(tmp_path):
    places = standard_suite(tmp_path)
    (group,) = make_groups(load_records(tmp_path))
    pool = next(one.record.pool for one in group.stored if one.record.pool)
    matrix = np.full((pool.n, pool.n), 0.25)
    np.fill_diagonal(matrix, 1)
    matrix[0, 1] = matrix[1, 0] = 0.75
    for place in places:
        write_similarity(place / "similarity.parquet", matrix)
    drawing = drawings(tmp_path)["similarity"]
    assert "0.25 to 0.75" in drawing.alt
    axes = drawing.draw().axes[0]
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert len(names) == len(set(names)) == pool.n
    assert not any("/" in name for name in names)
    texts = [text.get_text() for text in axes.texts]
    assert texts.count(".75") == 2
    assert texts.count("") == pool.n
    (found,) = similarities(group.stored)
    assert found.names == names
    assert found.values[0, 1] == 0.75


def test_a_layout_settled_once_is_the_layout_of_every_file(tmp_path):
    standard_suite(tmp_path / "runs")
    one = drawings(tmp_path / "runs")["accuracy"]
    figure = laid_out(one.draw())
    assert figure.get_layout_engine() is None
    alone, places = one.draw(), []
    for drawn in (figure, alone):
        as_bytes(drawn, "svg")
        places.append(np.array([axes.get_position().bounds for axes in drawn.axes]))
    assert places[0] == pytest.approx(places[1], abs=0.02)


def test_of_many_rows_the_best_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "MAX_ROWS", 2)
    for place, method in enumerate(("average", "best_teacher", "purer")):
        values = accuracies(0.3 + 0.05 * place, method)
        make_record(tmp_path, method, values, again=method == "purer")
    found = drawings(tmp_path)["differences"]
    assert "the 2 of 3 data-free rows that are best in cifar_fs 5-way 1-shot" in found.caption
    assert found.caption.endswith(" 2 of the 2 are of two pools of teachers, trained alike.")
    rows = [text.get_text() for text in found.draw().axes[0].get_yticklabels()]
    assert rows == ["purer", "best_teacher"]


def test_a_row_is_called_the_same_in_every_panel(tmp_path):
    """Also where only one of a method's learners has a result."""
    for k_shot, learners in ((1, ("maml", "protonet")), (5, ("maml",))):
        make_record(tmp_path, "average", accuracies(0.31, f"a {k_shot}"), k_shot=k_shot)
        for learner in learners:
            values = accuracies(0.33, f"{learner} {k_shot}")
            make_record(tmp_path, "purer", values, k_shot=k_shot, learner=learner)
    found = drawings(tmp_path)
    first = found["differences"].draw().axes[0]
    rows = {text.get_text() for text in first.get_yticklabels()}
    assert rows == {"purer · maml", "purer · protonet", "average"}
    names = [text.get_text() for text in found["against-k-shot"].draw().axes[0].texts]
    assert "purer · maml" in names


@pytest.mark.parametrize(
    ("backend", "kept"),
    [("no_such_backend", False), ("module://no_such.backend_inline", True), ("pdf", True)],
)
def test_a_backend_that_is_not_there_stops_no_figure(backend: str, kept: bool) -> None:
    script = (
        "import os; from reports.figures.style import as_bytes, axes_grid\n"
        "assert b'</svg>' in as_bytes(axes_grid(1, 2, 2)[0], 'svg')\n"
        "import matplotlib\n"
        "print(matplotlib.rcParams._get('backend'), os.environ['MPLBACKEND'], sep='\\n')"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    used, variable = result.stdout.splitlines()
    assert (used == backend, variable) == (kept, backend)
