"""Forged records: the numbers, the protocol, or whose they are."""

from __future__ import annotations

import json
import shutil

import numpy as np
from forging import answers_of, edit, forgery, put_answers, put_tasks, tasks_of
from honest import read, rehash, write

from bench.results.files import read_parquet, write_json, write_parquet
from bench.results.predictions import Predictions
from bench.results.store import mark_done
from bench.verify.manifest import write_manifest


@forgery("accuracy", "mean is 0.9 in the record")
def edited_mean(cells):
    edit(cells, accuracy__mean=0.9)


@forgery("files", "record.json has changed since the cell was finished")
def edited_mean_without_a_new_seal(cells):
    values = read(cells["average"])
    values["accuracy"]["mean"] = 0.9
    write_json(cells["average"] / "record.json", values)


@forgery("accuracy", "ci95 is 0.001 in the record")
def narrower_interval(cells):
    edit(cells, accuracy__ci95=0.001)


@forgery("predictions", "1 tasks have another accuracy by their predictions")
def edited_task(cells):
    columns = tasks_of(cells["average"])
    columns["accuracy"][7] = 0.96 if columns["accuracy"][7] < 0.9 else 0.04
    put_tasks(cells["average"], columns)


@forgery("tasks", "is none of 25 queries")
def tasks_moved_up_a_little(cells):
    columns = tasks_of(cells["average"])
    columns["accuracy"] = np.minimum(columns["accuracy"] + 0.003, 1)
    put_tasks(cells["average"], columns)


@forgery("tasks", "does not number its tasks from 0")
def tasks_in_another_order(cells):
    put_tasks(cells["average"], {k: v[::-1] for k, v in tasks_of(cells["average"]).items()})


@forgery("tasks", "tasks.parquet has 50 rows; the record says 60")
def worst_tasks_left_out(cells):
    columns = tasks_of(cells["average"])
    kept = np.sort(np.argsort(columns["accuracy"])[10:])
    columns = {name: values[kept] for name, values in columns.items()}
    columns["task"] = np.arange(50, dtype=np.int32)
    put_tasks(cells["average"], columns)


@forgery("task list", "that of the frozen list")
def another_list(cells):
    edit(cells, task_list_sha256="0" * 64)


@forgery("classes", "of other classes than those of the frozen list")
def tasks_of_other_classes(cells):
    columns = tasks_of(cells["average"])
    columns["class_0"] = columns["class_0"][::-1].copy()
    columns["class_1"], columns["class_0"] = columns["class_0"], columns["class_1"]
    put_tasks(cells["average"], columns)


@forgery("classes", "is outside the test split's")
def classes_of_another_split(cells):
    columns = tasks_of(cells["average"])
    columns["class_0"] = columns["class_0"] + 64
    put_tasks(cells["average"], columns)


@forgery("hash", "method random is average in what was hashed")
def swapped_method(cells):
    edit(cells, method="random")


@forgery("code", "its code does not reach baselines/simple/random.py")
def swapped_method_hashed_anew(cells):
    shutil.rmtree(cells["random"])
    values = read(cells["average"])
    rehash(cells["average"], values, method="random", method_config={})


@forgery("place", "its folder is of cell 0123456789abcdef")
def copied_cell(cells):
    shutil.copytree(cells["average"], cells["average"].with_name("0123456789abcdef"))


@forgery("duplicate", "stands twice in suite 'glyphs'")
def cell_twice(cells):
    shutil.copytree(cells["average"], cells["average"].with_name("again"))


@forgery("duplicate", "its accuracies and times are those of cell")
def copied_cell_under_another_seed(cells):
    copy = shutil.copytree(cells["random"], cells["random"].with_name("copy"))
    values = read(copy)
    values["fit"]["sha256"] = "1" * 64
    rehash(copy, values, seed=1)


@forgery("duplicate", "is also claimed by others: average (released) seed 0, purer")
def fit_of_another_method(cells):
    edit(cells, fit__sha256=read(cells["purer"])["fit"]["sha256"])


@forgery("protocol", "it names no constant as changed from cvpr23; changed are selection=test_max")
def selection_on_test_under_an_honest_name(cells):
    values = read(cells["purer"])
    protocol = {**values["protocol"], "selection": "test_max"}
    values["identity"]["cell"]["protocol"]["selection"] = "test_max"
    values["protocol"], values["selection"] = protocol, "test_max"
    rehash(cells["purer"], values)


@forgery("protocol", "its warnings lack: the checkpoint was selected on test tasks")
def selection_on_test_without_the_warning(cells):
    values = read(cells["purer"])
    values["identity"]["cell"]["protocol"]["selection"] = "test_max"
    values["protocol"]["selection"] = values["selection"] = "test_max"
    values["variant"] = "selection=test_max"
    rehash(cells["purer"], values)


@forgery("protocol", "the checkpoint was selected by test_max, the protocol says val")
def selection_on_test_in_one_field(cells):
    edit(cells, "purer", selection="test_max")


@forgery("preset", "preset 'released' has jitter=7 (not 2)")
def constant_of_a_preset_changed(cells):
    values = read(cells["purer"])
    values["identity"]["cell"]["method_config"]["jitter"] = 7
    values["method_config"]["jitter"] = 7
    rehash(cells["purer"], values)


@forgery("budget", "neither suite 'glyphs' nor the command says so")
def budget_larger_than_said(cells):
    values = read(cells["average"])
    values["identity"]["cell"]["budget"]["teacher_epochs"] = 60
    values["budget"]["teacher_epochs"] = 60
    rehash(cells["average"], values)


@forgery("rates", "a fit of 0 s at")
def meta_training_of_zero_seconds(cells):
    edit(cells, "purer", timing__fit_s=0.0)


@forgery("rates", "took 0.0 s, without a training task")
def meta_training_of_zero_seconds_without_a_rate(cells):
    edit(cells, "purer", timing__fit_s=0.0, timing__train_tasks_per_s=None)


@forgery("rates", "its test's time and rate do not come to its number of tasks")
def faster_test(cells):
    edit(cells, timing__test_tasks_per_s=1e6)


@forgery("rates", "before it started")
def ended_before_it_started(cells):
    edit(cells, ended="2001-01-01T00:00:00+00:00")


@forgery("predictions", "tasks have another accuracy by their predictions")
def predictions_all_right(cells):
    found = answers_of(cells["average"])
    put_answers(cells["average"], Predictions(found.true, found.true, found.margin))


@forgery("predictions", "the true classes are not those of the frozen queries")
def true_classes_changed_to_the_predicted(cells):
    found = answers_of(cells["average"])
    put_answers(cells["average"], Predictions(found.predicted, found.predicted, found.margin))


@forgery("predictions", "predictions.parquet has 1499 rows; the record says 1500")
def predictions_cut_short(cells):
    path = cells["average"] / "predictions.parquet"
    write_parquet(path, {k: v[:-1] for k, v in read_parquet(path).items()})
    mark_done(cells["average"])


@forgery("predictions", "a margin is negative")
def negative_margin(cells):
    found = answers_of(cells["average"])
    put_answers(cells["average"], Predictions(found.predicted, found.true, -found.margin - 1))


@forgery("hash", "dataset_digests")
def other_data(cells):
    edit(cells, dataset_digests={"glyphs": "0" * 64})


@forgery("hash", "its identity has another hash than the record names")
def edited_identity(cells):
    values = read(cells["average"])
    values["identity"]["cell"]["seed"] = 3
    write(cells["average"], values)


@forgery("method", "purer is of kind inversion, not features")
def other_kind_of_knowledge(cells):
    edit(cells, "purer", knowledge="features")


@forgery("inference", "it says inductive; by its learner, calibration and batch norm it is transd")
def transductive_as_inductive(cells):
    edit(cells, "purer", inference="inductive")


@forgery("files", "DONE names '../../../elsewhere', which is outside its folder")
def seal_that_leads_outside(cells):
    path = cells["average"] / "DONE"
    write_json(path, {**json.loads(path.read_text()), "../../../elsewhere": "0" * 64})


@forgery("files", "DONE is missing")
def unfinished_cell(cells):
    (cells["average"] / "DONE").unlink()


@forgery("schema", "it is of schema 99")
def record_of_the_future(cells):
    edit(cells, schema_version=99)


@forgery("schema", "is not readable JSON")
def record_of_half_a_file(cells):
    path = cells["average"] / "record.json"
    path.write_text(path.read_text()[:1000])
    mark_done(cells["average"])


@forgery("accuracy", "it is skipped and has an accuracy")
def skipped_with_a_number(cells):
    edit(cells, status="skipped", reason="needs more")


@forgery("manifest", "record.json has changed since MANIFEST.json was written")
def changed_and_sealed_after_the_manifest(cells):
    write_manifest(cells["average"].parents[1])
    edit(cells, command="bench run glyphs --set budget=micro")
