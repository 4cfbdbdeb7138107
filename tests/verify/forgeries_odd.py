"""Forged records: shapes, files and texts that mean to mislead or to break what reads them."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pyarrow
from forging import edit, forgery
from honest import read, rehash, write
from pyarrow.parquet import ParquetWriter

from bench.data.sets.glyphs import LETTERS, class_name
from bench.results.files import read_parquet, write_parquet
from bench.results.store import mark_done


def change_table(folder, name, **columns):
    """Change columns of a table by functions of them; None drops one."""
    table = read_parquet(folder / name)
    for column, change in columns.items():
        values = table.pop(column)
        if change is not None:
            table[column] = change(values)
    write_parquet(folder / name, table)
    mark_done(folder)


@forgery("task list", "its digest is ")
def tasks_of_another_number_of_shots(cells):
    rehash(cells["average"], read(cells["average"]), k_shot=5)


@forgery("shape", "n_way is 1e+09, not a number from 1 to 10000")
def a_billion_classes(cells):
    rehash(cells["average"], read(cells["average"]), n_way=10**9)


@forgery("shape", "n_way is 0, not")
def no_class_at_all(cells):
    rehash(cells["average"], read(cells["average"]), n_way=0)


@forgery("shape", "its tasks have more than")
def more_queries_than_memory(cells):
    rehash(cells["average"], read(cells["average"]), n_query=10_000, n_test_tasks=1_000_000)


@forgery("shape", "its seed is not")
def seed_of_three_hundred_digits(cells):
    rehash(cells["average"], read(cells["average"]), seed=10**300)


@forgery("place", "its record of x : 3 cells, 0 refused\\x1b[2J")
def hash_that_writes_lines_of_its_own(cells):
    edit(cells, cell_hash="x\n: 3 cells, 0 refused\x1b[2J")


@forgery("method", "not \\ud800 x")
def half_a_character(cells):
    edit(cells, "purer", knowledge="\ud800 x")


@forgery("names", "'pur\\u202eer' is not a name")
def name_that_turns_the_direction_of_writing(cells):
    rehash(cells["purer"], read(cells["purer"]), method="pur\u202eer")


@forgery("names", "'../../../etc' is not a name")
def name_that_is_a_path(cells):
    rehash(cells["purer"], read(cells["purer"]), method="../../../etc")


@forgery("rates", "are no times of ISO 8601")
def a_long_time_ago(cells):
    edit(cells, started="a long time ago", ended="yesterday")


@forgery("rates", "it ended (2026-11-29T10:30:00+05:00) before it started")
def ended_earlier_by_its_time_zone(cells):
    edit(cells, started="2026-11-29T10:00:00+00:00", ended="2026-11-29T10:30:00+05:00")


@forgery("rates", "energy_j is -5.0")
def energy_won(cells):
    edit(cells, energy_j=-5.0)


@forgery("rates", "it ran with 0 threads")
def without_a_thread(cells):
    edit(cells, device__threads=0)


@forgery("warnings", "its warnings lack: only 60 test tasks")
def warnings_left_out(cells):
    edit(cells, warnings=[])


@forgery("pool", "mean accuracy is 0.999 in the record")
def better_teachers(cells):
    edit(cells, "purer", pool__mean_accuracy=0.999)


@forgery("pool", "it counts 2 teachers and describes 1")
def a_teacher_left_out(cells):
    values = read(cells["purer"])
    values["pool"]["teachers"].pop()
    write(cells["purer"], values)


@forgery("pool", "its digest is not that of its teachers")
def another_teacher(cells):
    values = read(cells["purer"])
    values["pool"]["teachers"][0]["sha256"] = "0" * 64
    write(cells["purer"], values)


@forgery("pool", "of the test split of glyphs")
def teacher_of_test_classes(cells):
    values = read(cells["purer"])
    values["pool"]["teachers"][0]["classes"][0] = class_name(LETTERS["test"][0])
    write(cells["purer"], values)


@forgery("pool", "purer uses teachers, and the record has none")
def no_teachers(cells):
    edit(cells, "purer", pool=None)


@forgery("pool", "a teacher lacks its accuracy")
def teachers_without_values(cells):
    values = read(cells["purer"])
    values["pool"]["teachers"] = [{}, {}]
    write(cells["purer"], values)


@forgery("hash", "what it says was hashed describes no cell")
def identity_of_something_else(cells):
    values = read(cells["random"])
    values["identity"] = {"cell": {"versions": [1], "method_config": 5}, "datasets": {}}
    rehash_whole(cells["random"], {**values, "method": "forest"})


def rehash_whole(folder, values):
    from bench.results.files import content_hash

    values["cell_hash"] = content_hash(values["identity"])[:16]
    write(folder, values)
    folder.rename(folder.with_name(values["cell_hash"]))


@forgery("schema", "record.json is not readable JSON (seed stands twice)")
def a_value_for_each_reader(cells):
    path = cells["average"] / "record.json"
    path.write_text(path.read_text().rstrip()[:-1] + ', "seed": 0}')
    mark_done(cells["average"])


@forgery("schema", "record.json is not readable JSON (maximum recursion")
def record_without_a_bottom(cells):
    (cells["average"] / "record.json").write_text('{"a":' * 200_000)
    mark_done(cells["average"])


@forgery("files", "DONE is damaged")
def seal_without_a_bottom(cells):
    (cells["average"] / "DONE").write_text("[" * 200_000)


@forgery("manifest", "is not a readable manifest")
def manifest_without_a_bottom(cells):
    (cells["average"].parents[1] / "MANIFEST.json").write_text("[" * 200_000)


@forgery("manifest", "MANIFEST.json is not a readable manifest; restore it or write")
def manifest_of_half_a_million_files(cells):
    files = {f"glyphs/{n:016x}/record.json": "0" * 64 for n in range(200_000)}
    text = json.dumps({"version": 1, "files": files})
    (cells["average"].parents[1] / "MANIFEST.json").write_text(text)


@forgery("manifest", "has no digest of 'a'")
def manifest_of_numbers(cells):
    (cells["average"].parents[1] / "MANIFEST.json").write_text('{"version":1,"files":{"a":5}}')


@forgery("files", "predictions.parquet is not among the files of DONE")
def answers_without_a_seal(cells):
    path = cells["average"] / "DONE"
    sealed = json.loads(path.read_text())
    del sealed["predictions.parquet"]
    path.write_text(json.dumps(sealed))


@forgery("files", "images is a link")
def folder_that_is_a_link(cells):
    (cells["average"] / "images").symlink_to("/etc")


@forgery("files", "tasks.parquet is a link")
def file_that_is_a_link(cells):
    path = cells["average"] / "tasks.parquet"
    shutil.move(path, cells["average"].parents[1] / "elsewhere")
    path.symlink_to(cells["average"].parents[1] / "elsewhere")


@forgery("files", "record.json is no file")
def pipe_that_never_ends(cells):
    (cells["average"] / "record.json").unlink()
    os.mkfifo(cells["average"] / "record.json")


@forgery("schema", "its schema_version is True")
def version_that_is_no_number(cells):
    edit(cells, schema_version=True)


@forgery("tasks", "tasks.parquet has 20000000 rows; the record says 60")
def tasks_that_unpack_to_gigabytes(cells):
    path = cells["average"] / "tasks.parquet"
    table = pyarrow.table({"task": np.zeros(10**6, "i4"), "accuracy": np.zeros(10**6)})
    with ParquetWriter(path, table.schema) as writer:
        for _ in range(20):
            writer.write_table(table)
    mark_done(cells["average"])


@forgery("tasks", "tasks.parquet has accuracy as string, not double")
def accuracies_in_words(cells):
    change_table(cells["average"], "tasks.parquet", accuracy=lambda a: [str(one) for one in a])


@forgery("tasks", "tasks.parquet has class_0 as double")
def quarters_of_classes(cells):
    change_table(cells["average"], "tasks.parquet", class_0=lambda a: a + 0.25)


@forgery("predictions", "predictions.parquet has predicted as string")
def answers_in_words(cells):
    change_table(
        cells["average"], "predictions.parquet", predicted=lambda a: [str(one) for one in a]
    )


@forgery("predictions", "a margin is negative, or no number")
def margins_that_are_no_numbers(cells):
    change_table(cells["average"], "predictions.parquet", margin=lambda a: a * np.float16("nan"))


@forgery("hash", "its fields and what was hashed disagree: method_config")
def settings_that_are_no_numbers(cells):
    edit(cells, method_config={"head": float("nan")})
