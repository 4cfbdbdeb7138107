"""A submission: checked records and who hands them in, in one file; the pull request's text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from bench import registry
from bench.errors import BenchError
from bench.results.community import SUBMISSION
from bench.results.record import Distribution, Record
from bench.results.store import PREDICTIONS, RECORD, TASKS, read_record
from bench.verify.findings import Verdict, refuse_to_go_on
from bench.verify.folder import verify_folder
from bench.verify.packed import pack
from bench.verify.schema import Submission

PARTS = (RECORD, TASKS, PREDICTIONS)
"""The files of a cell that are handed in."""


def submit(
    runs: Path,
    target: Path,
    name: str,
    authors: Sequence[str],
    url: str | None = None,
    paper: str | None = None,
    against: Path | None = None,
) -> tuple[Verdict, str]:
    """Check a folder of records and pack it for a pull request.

    Args:
        runs: the folder of runs, or of one suite.
        target: the zip that is written.
        name: of the submission: small letters, digits, hyphens.
        authors: as they want to be cited.
        url: of the code.
        paper: where the method is described.
        against: a folder of stored records to compare with.

    Returns:
        The verdict, and the text of the pull request.

    Raises:
        BenchError: a record is refused, the name cannot be that of a folder, or no cell is done.
    """
    verdict = verify_folder(runs, submission=True, against=against)
    refuse_to_go_on(verdict)
    stored = [read_record(cell.folder) for cell in verdict.cells]
    records = [one.record for one in stored]
    if not any(record.status == "done" for record in records):
        raise BenchError(f"no cell below '{runs}' is done; run the suite first")
    try:
        what = Submission(
            name=name,
            authors=list(authors),
            url=url,
            paper=paper,
            packages=packages_of(records),
            harness=registry.own_distribution()[1],
            cells=sorted(record.cell_hash for record in records),
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BenchError(
            f"{place} '{first['input']}' of the submission: {first['msg']}; correct it"
        ) from None
    files = {
        f"{one.record.suite}/{one.record.cell_hash}/{part}": one.folder / part
        for one in stored
        for part in PARTS
        if (one.folder / part).is_file()
    }
    pack(files, target, {SUBMISSION: what.model_dump_json(indent=1) + "\n"})
    return verdict, pull_request(what, records, verdict)


def packages_of(records: Sequence[Record]) -> list[Distribution]:
    """Return the distributions that the records' plug-ins came from, each once."""
    found = {
        (one.name, one.version, one.commit or ""): one
        for record in records
        if record.code
        for one in record.code.distributions
    }
    return [found[key] for key in sorted(found)]


def pull_request(what: Submission, records: Sequence[Record], verdict: Verdict) -> str:
    """Return the text of the pull request that hands the records in."""
    packages = ", ".join(f"{one.name} {one.version}" for one in what.packages) or "none"
    counts = ", ".join(f"{check} {n}" for check, n in verdict.counts.items())
    lines = [
        f"# Results: {what.name}",
        "",
        f"Authors: {', '.join(what.authors)}. Packages: {packages}.",
        f"Code: {what.url or 'not public'}. Paper: {what.paper or 'none'}.",
        f"Records: {what.licence}.",
        "",
        "| suite | method | learner | test tasks | accuracy | seed | cell |",
        "|---|---|---|---|---|---|---|",
        *(_line(record) for record in sorted(records, key=_order)),
        "",
        f"`bench verify`: {len(verdict.cells)} cells, none refused; recomputed: {counts}.",
    ]
    for level, where, text in verdict.lines():
        if level == "doubt" or text.startswith("baseline: "):
            lines.append(f"- {Path(where).name}: {text}")
    lines += [
        "",
        "- [ ] The pull request changes nothing outside "
        f"`community/{what.name}/` and adds no badge.",
        "- [ ] No image or label of a test split was used in training or in choosing settings.",
        "- [ ] Others may use the records under the licence above.",
    ]
    return "\n".join(lines) + "\n"


def _order(record: Record) -> tuple[str, ...]:
    return (record.suite, record.method, record.learner, record.cell_hash)


def _line(record: Record) -> str:
    data = f"{'+'.join(record.tested)} {record.n_way}-way {record.k_shot}-shot"
    accuracy = record.reason or ""
    if record.accuracy is not None:
        mean, ci95 = 100 * record.accuracy.mean, 100 * record.accuracy.ci95
        accuracy = f"{mean:.2f} ± {ci95:.2f} %"
    learner = record.learner + ("" if record.calibration == "none" else f" + {record.calibration}")
    names = (record.suite, record.method, learner, data, accuracy, str(record.seed))
    return f"| {' | '.join(names)} | `{record.cell_hash}` |"
