"""Pictures of the docs: what they are drawn from, and when they are out of date."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pandas
import pytest

from bench.results.files import write_parquet
from bench.results.record import Cost
from bench.results.select import load_records
from reports.cli import report
from reports.figures import frontier, student_size, untrustworthy
from reports.figures.budgets import (
    MARKS_PER_DECADE,
    budgets_drawing,
    budgets_figure,
    shown_records,
)
from reports.pictures import PICTURES, digest, stale_pictures, write_pictures
from tests.reports.report_records import BUDGET, PROTOCOL, accuracies, make_record

LONG = {**BUDGET, "name": "long", "meta_iterations": 6000}

DRAWN = [name for name in PICTURES if name not in ("untrustworthy", "student-size")]
"""The pictures of these records, which are of other suites than the rest."""


@pytest.fixture
def runs(tmp_path):
    """PURER at 400 and 6,000 meta-iterations, two references, and rows that are not shown."""
    for budget, mean in ((BUDGET, 0.32), (LONG, 0.36)):
        name = str(budget["meta_iterations"])
        place = make_record(tmp_path / name, "purer", accuracies(mean, name), budget=budget)
    steps = [0, 500, 1000, 1000]
    names = ["val_accuracy", "val_accuracy", "val_accuracy", "adversarial"]
    write_parquet(
        place / "curve.parquet", {"step": steps, "name": names, "value": [0.2, 0.3, 0.31, 1.0]}
    )
    for method, mean in (("random", 0.24), ("ensemble_centroids", 0.48)):
        make_record(tmp_path / "refs", method, accuracies(mean, method))
    glyphs = {"datasets": ["glyphs"], "dataset_digests": {"glyphs": "0" * 64}}
    make_record(tmp_path / "other", "purer", accuracies(0.9, "glyphs"), **glyphs)
    make_record(tmp_path / "other", "purer", accuracies(0.9, "x"), preset="no_switch")
    return tmp_path


def test_a_point_per_budget_lines_for_references_and_the_longest_curve(runs):
    stored = shown_records(load_records(runs), "cifar_fs")
    assert {one.record.method for one in stored} == {"purer", "random", "ensemble_centroids"}
    drawing = budgets_drawing(stored, "cifar_fs")
    (axes,) = [a for a in drawing.draw().axes if a.get_visible()]
    (container,) = axes.containers
    assert container.lines[0].get_xdata().tolist() == [400, 6000]
    assert container.lines[0].get_ydata() == pytest.approx([32, 36])
    levels = {round(line.get_ydata()[0]) for line in axes.lines if line.get_linestyle() == "--"}
    assert levels == {24, 48}
    validation = next(line for line in axes.lines if list(line.get_xdata()) == [500, 1000])
    assert validation.get_ydata() == pytest.approx([30, 31]), "from 1 on: the axis is logarithmic"
    ticks = next(line for line in axes.lines if line.get_marker() == "|")
    assert list(ticks.get_xdata()) == [1000]
    assert axes.get_xscale() == "log"
    assert {text.get_text() for text in axes.texts} == {"random", "ensemble_centroids"}
    assert "after 6000: 36.0 %" in drawing.alt


def test_marks_of_the_switch_that_would_touch_are_drawn_once():
    step = np.arange(100, 10_001)
    curve = pandas.DataFrame({"step": step, "name": "adversarial", "value": 1.0})
    line = {"line": "purer", "k_shot": 1, "meta_iterations": 10_000, "mean": 0.3, "ci95": 0.01}
    figure = budgets_figure(pandas.DataFrame([line]), pandas.DataFrame(), {1: curve})
    (axes,) = [a for a in figure.axes if a.get_visible()]
    (marks,) = [line.get_xdata() for line in axes.lines if line.get_marker() == "|"]
    assert len(marks) <= 2 * MARKS_PER_DECADE + 1
    assert np.diff(np.log10(marks)).max() < 2.5 / MARKS_PER_DECADE, "no gap can be seen"
    assert set(axes.get_xticks()) == {100, 400, 6_000, 10_000, 60_000}


def test_no_line_of_the_budgets_is_left_out_and_all_points_are_of_the_same_seeds(runs):
    for learner in "abcdefgh":
        make_record(runs / "learners", "purer", accuracies(0.3, learner), learner=learner)
    make_record(runs / "heads", "purer", accuracies(0.3, "head"), calibration="alpha_tim")
    make_record(runs / "seed", "purer", accuracies(0.2, "seed"), budget=BUDGET, seed=1)
    drawing = budgets_drawing(shown_records(load_records(runs), "cifar_fs"), "cifar_fs")
    (axes,) = [a for a in drawing.draw().axes if a.get_visible()]
    assert len(axes.containers) == 9
    assert {c.get_label() for c in axes.containers} >= {"purer · maml", "purer · h"}
    assert "purer · maml 1-shot after 400: 32.0 %" in drawing.alt
    assert "Seed 0, which all have." in drawing.caption


def test_one_number_of_meta_iterations_is_no_picture(runs):
    stored = [one for one in load_records(runs) if one.record.budget["name"] == "short"]
    assert budgets_drawing(shown_records(stored, "cifar_fs"), "cifar_fs") is None
    assert "budgets" not in {path.stem for path in write_pictures(stored, runs / "out")}


def test_files_are_written_beside_the_digest_of_their_records(runs, capsys):
    out = runs / "out"
    report([str(runs), "--pictures", str(out)], standalone_mode=False)
    kinds = ("svg", "txt", "sha256")
    assert {p.name for p in out.iterdir()} == {f"{name}.{kind}" for name in DRAWN for kind in kinds}
    assert ElementTree.parse(out / "budgets.svg").getroot().tag.endswith("svg")
    assert "budgets.svg drawn" in capsys.readouterr().out
    stored = load_records(runs)
    assert stale_pictures(stored, out) == []
    before = (out / "budgets.svg").read_bytes()
    write_pictures(stored, out)
    assert (out / "budgets.svg").read_bytes() == before


def test_another_result_makes_them_stale(runs):
    out = runs / "out"
    write_pictures(load_records(runs), out)
    make_record(runs / "refs", "average", accuracies(0.25, "average"))
    assert stale_pictures(load_records(runs), out) == DRAWN


def test_the_digest_knows_no_order_and_no_folder(runs):
    stored = load_records(runs)
    assert digest(stored) == digest(stored[::-1])
    assert digest(stored) != digest(stored[1:])


def frame_of(*rows):
    """Rows of one setting: method, knowledge, mean, operations."""
    import pandas

    names = ["method", "knowledge", "mean", "macs_per_query_image"]
    frame = pandas.DataFrame(rows, columns=names)
    shared = {"learner": "maml", "inference": "transductive", "ci95": 0.01}
    return frame.assign(setting="cifar_fs 5-way 1-shot", **shared)


def test_the_front_is_data_free_and_its_names_are_bold():
    frame = frame_of(
        ("cheap", "parameters", 0.4, 4e6),
        ("beaten", "features", 0.45, 60e6),
        ("dear", "features", 0.5, 50e6),
        ("oracle", "real_data", 0.9, 1e6),
    )
    (axes,) = frontier.frontier_figure(frame).axes
    bold = {text.get_text() for text in axes.texts if text.get_weight() == "bold"}
    assert bold == {"cheap", "dear"}
    assert {text.get_text() for text in axes.texts} == set(frame["method"])
    line = next(one for one in axes.lines if len(one.get_xdata()) == 2)
    assert list(line.get_xdata()) == [4e6, 50e6]
    assert list(line.get_ydata()) == pytest.approx([40, 50])


def test_the_dark_picture_differs_in_colours_only():
    frame = frame_of(("a", "parameters", 0.4, 4e6), ("b", "features", 0.5, 50e6))
    light, dark = (frontier.frontier_figure(frame, dark) for dark in (False, True))
    assert light.get_facecolor() != dark.get_facecolor()
    places = [[text.get_position() for text in one.axes[0].texts] for one in (light, dark)]
    assert places[0] == places[1]
    colours = [one.axes[0].texts[0].get_color() for one in (light, dark)]
    assert colours == ["black", "#e6edf3"]


def test_each_method_is_shown_with_its_best_learner():
    frame = frame_of(("a", "parameters", 0.4, 4e6), ("a", "parameters", 0.6, 4e6))
    frame["learner"] = ["maml", "protonet"]
    best = frontier.best_of_each_method(frame)
    assert list(best["learner"]) == ["protonet"]


def test_a_calibrated_row_does_not_stand_for_its_method():
    frame = frame_of(("a", "features", 0.5, 4e6), ("a", "features", 0.6, 4e6))
    frame["learner"] = ["maml", "maml + icfil"]
    assert list(frontier.best_of_each_method(frame)["learner"]) == ["maml"]


def test_the_best_learner_is_that_of_each_setting():
    """One that lacks the harder setting would have the greater mean."""
    frame = frame_of(*[("a", "parameters", mean, 4e6) for mean in (0.4, 0.6, 0.55)])
    frame["learner"] = ["protonet", "protonet", "maml"]
    frame["setting"] = ["1-shot", "5-shot", "5-shot"]
    assert list(frontier.best_of_each_method(frame)["learner"]) == ["protonet", "protonet"]


def test_the_frontier_is_of_one_group_and_of_the_seeds_that_all_have(tmp_path):
    for method, seed, mean in (("average", 0, 0.4), ("random", 0, 0.5), ("random", 1, 0.2)):
        make_record(tmp_path, method, accuracies(mean, f"{method}{seed}"), seed=seed)
    other = {**BUDGET, "meta_iterations": 100}
    make_record(tmp_path, "purer", accuracies(0.9, "p"), budget=other)
    shown = frontier.shown_records(load_records(tmp_path), "cifar_fs")
    assert {one.record.method for one in shown} == {"average", "random"}
    drawing = frontier.frontier_drawing(shown, dark=False)
    assert drawing.alt.endswith("Pareto front, cifar_fs 5-way 1-shot: random 50.0 % at 5.31M.")
    assert drawing.caption.endswith("Seed 0, which all have.")


def test_a_method_with_inductive_rows_is_not_shown_with_a_transductive_head():
    frame = frame_of(("a", "features", 0.5, 4e6), ("a", "features", 0.6, 4e6))
    frame["learner"] = ["centroids", "centroids + pt_map"]
    frame["inference"] = ["inductive", "transductive"]
    assert list(frontier.best_of_each_method(frame)["learner"]) == ["centroids"]


def test_one_data_free_method_with_known_cost_is_no_frontier(runs):
    stored = [one for one in load_records(runs) if one.record.method == "random"]
    assert frontier.frontier_drawing(stored, dark=False) is None


def test_untrustworthy_teachers_give_a_line_per_method_over_their_share(tmp_path):
    for share in (0.0, 0.4, 0.8):
        values = {**PROTOCOL, "untrustworthy_share": share, "untrustworthy_kind": "accuracy"}
        variant = f"untrustworthy_share={share}" * (share > 0)
        for method, mean in (("average", 0.4 - share / 4), ("ensemble_centroids", 0.5)):
            make_record(
                tmp_path / str(share),
                method,
                accuracies(mean, f"{method}{share}"),
                suite="untrustworthy" if share else "cifar_fs_ss",
                protocol=values,
                variant=variant,
            )
    make_record(tmp_path / "other", "random", accuracies(0.2, "random"))
    stored = untrustworthy.shown_records(load_records(tmp_path), "cifar_fs")
    assert {one.record.method for one in stored} == {"average", "ensemble_centroids"}
    drawing = untrustworthy.untrustworthy_drawing(stored, "cifar_fs")
    (axes,) = [a for a in drawing.draw().axes if a.get_visible()]
    found = {c.get_label(): c.lines[0] for c in axes.containers}
    assert [name.split(" ")[0] for name in found] == ["ensemble_centroids", "average"]
    line = next(line for name, line in found.items() if name.startswith("average"))
    assert line.get_xdata().tolist() == [0, 40, 80]
    assert line.get_ydata() == pytest.approx([40, 30, 20])
    one = [record for record in stored if not record.record.variant]
    assert untrustworthy.untrustworthy_drawing(one, "cifar_fs") is None


def test_students_give_a_line_per_network_over_their_steps(tmp_path):
    for net, params in (("conv4", 30_000), ("resnet10", 5_000_000)):
        for steps in (750, 1500):
            make_record(
                tmp_path / net / str(steps),
                "distill_ensemble",
                accuracies(0.3 + steps / 15_000 + (net == "resnet10") / 10, f"{net}{steps}"),
                suite="student_size",
                net=net,
                method_config={"steps": steps},
                cost=Cost(params=params, macs_per_query_image=40 * params),
            )
    tuned = {"preset": "tuned"}  # stored with another suite
    make_record(tmp_path / "all", "ensemble_centroids", accuracies(0.55, "all"), **tuned)
    heads = {**tuned, "calibration": "pt_map"}
    make_record(tmp_path / "head", "ensemble_centroids", accuracies(0.6, "head"), **heads)
    make_record(tmp_path / "other", "random", accuracies(0.2, "random"))
    stored = student_size.shown_records(load_records(tmp_path), "cifar_fs")
    assert {one.record.method for one in stored} == {"distill_ensemble", "ensemble_centroids"}
    drawing = student_size.student_size_drawing(stored, "cifar_fs")
    (axes,) = [a for a in drawing.draw().axes if a.get_visible()]
    found = {c.get_label(): c.lines[0] for c in axes.containers}
    assert [*found] == ["resnet10 (5.00 M, 200 M)", "conv4 (0.03 M, 1 M)"]
    assert found["conv4 (0.03 M, 1 M)"].get_xdata().tolist() == [750, 1500]
    assert "Seed" not in drawing.caption
    make_record(
        tmp_path / "seed",
        "distill_ensemble",
        accuracies(0.9, "seed"),
        suite="student_size",
        method_config={"steps": 750},
        cost=Cost(params=30_000, macs_per_query_image=1_200_000),
        seed=1,
    )
    again = student_size.shown_records(load_records(tmp_path), "cifar_fs")
    drawing_of_both = student_size.student_size_drawing(again, "cifar_fs")
    assert drawing_of_both.caption.endswith("Seed 0, which all have.")
    assert drawing_of_both.alt.replace(" Seed 0, which all have.", "") == drawing.alt
    assert found["conv4 (0.03 M, 1 M)"].get_ydata() == pytest.approx([35, 40])
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["750", "1,500"]
    assert [text.get_text() for text in axes.texts] == ["ensemble_centroids (tuned)"]
    dashed = [line.get_ydata() for line in axes.lines if line.get_linestyle() == "--"]
    assert [list(line) for line in dashed] == [pytest.approx([55, 55])]
    one = [s for s in stored if s.record.method_config.get("steps") != 750]
    assert student_size.student_size_drawing(one, "cifar_fs") is None
