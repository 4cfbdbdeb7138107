"""The table of device-hours: what the fits and tests of each suite took, by method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bench.results.record import Record
from bench.results.store import StoredRecord
from reports.tables.caption import device_name
from reports.tables.table import Column, Entry, Section, Table, label

ALL_SUITES, ALL_METHODS = "all suites", "all methods"
LEAST = 0.005
"""Hours that are shown as 0.01; fewer as <0.01."""


def hours_tables(stored: Sequence[StoredRecord]) -> list[Table]:
    """Return the table of device-hours per suite and method; none where no cell is done.

    Kinds of devices have sections of their own: their hours do not add up.
    """
    done = [one.record for one in stored if one.record.status == "done"]
    if not done:
        return []
    energy = any(record.energy_j is not None for record in done)
    suites = sorted({record.suite for record in done})
    parts = [(name, [r for r in done if r.suite == name]) for name in suites]
    if len(suites) > 1:
        parts.insert(0, (ALL_SUITES, done))
    names = ["cells", "fits", "fit h", "test h", "device-hours", *["kWh"] * energy]
    return [
        Table(
            kind="hours",
            title="Device-hours per suite and method",
            columns=[Column("method", numeric=False), *(Column(name, name) for name in names)],
            sections=[
                _section(f"{name}, {kind}", [r for r in records if r.device.type == kind], energy)
                for name, records in parts
                for kind in sorted({record.device.type for record in records})
            ],
            caption=_caption(done, energy),
        )
    ]


def _section(heading: str, records: Sequence[Record], energy: bool) -> Section:
    by_method: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_method[record.method].append(record)
    rows = sorted(by_method.items(), key=lambda one: -sum(device_seconds(one[1])))
    if len(rows) > 1:
        rows.append((ALL_METHODS, [*records]))
    return Section(heading, [_row(name, some, energy) for name, some in rows])


def _row(name: str, records: Sequence[Record], energy: bool) -> list[Entry]:
    fit, test = device_seconds(records)
    n_fits = len({record.fit.sha256 for record in records if record.fit})
    texts = [str(len(records)), str(n_fits), *map(hours, (fit, test, fit + test))]
    if energy:
        joules = [record.energy_j for record in records if record.energy_j is not None]
        texts.append(f"{sum(joules) / 3.6e6:.3g}" if joules else "–")
    return [label(name), *map(Entry, texts)]


def device_seconds(records: Sequence[Record]) -> tuple[float, float]:
    """Return the seconds of fits and of tests; a fit that several cells share counts once."""
    fits = {r.fit.sha256: r.fit_seconds or 0.0 for r in records if r.fit is not None}
    return sum(fits.values()), sum(record.test_seconds or 0.0 for record in records)


def hours(seconds: float) -> str:
    """Return seconds as hours with two decimals."""
    value = seconds / 3600
    return "0" if not seconds else f"{value:.2f}" if value >= LEAST else "<0.01"


def _caption(done: Sequence[Record], energy: bool) -> str:
    text = (
        "Hours, of a single CPU thread processor hours where the record knows them, else by the "
        "clock, without the training of teachers; a fit that several cells share counts once, a "
        "cell of several suites for the one that ran it last."
    )
    if energy:
        text += (
            " kWh: energy of the device while the cells ran, all that ran on it included, where "
            "the machine counts it."
        )
    return f"{text} On {'; '.join(sorted({device_name(record) for record in done}))}."
