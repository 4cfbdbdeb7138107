"""What tests of tables read from them."""

from __future__ import annotations

from bench.results.select import load_records
from reports.tables.build import build_tables


def table_of(folder, kind="accuracy"):
    """Return the only table of a kind."""
    tables = build_tables(load_records(folder), [kind])
    assert len(tables) == 1
    return tables[0]


def entries(table, column):
    """Return {(method, learner): entry} of the column with that header."""
    index = [one.title for one in table.columns].index(column)
    return {(row[0].text, row[1].text): row[index] for part in table.sections for row in part.rows}


def section_names(table):
    """Return {heading: methods}, in order."""
    return {part.heading: [row[0].text for row in part.rows] for part in table.sections}


ONE_SHOT = "cifar_fs 5-way 1-shot"
