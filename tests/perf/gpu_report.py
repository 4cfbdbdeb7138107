"""What an accelerator does with the suite, in one file to send in: `tox -e gpu`.

The tests that need the device, the speed of a meta-iteration against the reference loop, and one
cell of PURER with MAML, 1 shot. `tox -e gpu -- --device cpu --budget micro` tries it without one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.execute.devices import accelerators, limits, use_device
from bench.execute.machine import describe_device, describe_environment, prepare_process
from bench.results.files import write_json
from bench.results.find import find_records
from bench.results.store import StoredRecord
from tests.perf.meta_iteration import MetaIterations, drawn_pool

SUITES = {"cifar_fs": "cifar_fs_ss", "glyphs": "glyphs"}
"""Data set → suite whose cell is run."""
CELL = ("method=purer", "learner=maml", "calibration=none", "preset=released", "k_shot=1", "seed=0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the summary; return the exit status: 1 where a test or the cell failed, 2 without a
    device."""
    options = _parser().parse_args(arguments)
    if options.device is None and not accelerators():
        print("torch finds no accelerator; name one with --device", file=sys.stderr)
        return 2
    try:
        device = use_device(options.device)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    options.device = str(device)
    options.out.mkdir(parents=True, exist_ok=True)
    prepare_process()
    summary = {
        "device": describe_device(device).model_dump(mode="json"),
        "lacks": limits(device),
        "environment": describe_environment().model_dump(mode="json"),
        "tests": run_tests(options.tests, options.out),
        "meta_iteration": {f"{k_shot} shot": ratio(k_shot, options) for k_shot in options.k_shot},
        "cell": run_cell(options),
    }
    write_json(options.out / "summary.json", summary)
    print(f"written: {options.out / 'summary.json'}")
    return 0 if summary["cell"].get("status") == "done" and not summary["tests"]["failed"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", help="as for `bench run`")
    parser.add_argument("--data", type=Path, help="folder with CIFAR-FS; else the built-in glyphs")
    parser.add_argument("--budget", default="long", help="of the cell")
    parser.add_argument("--set", action="append", default=[], help="as for `bench run`")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder of the summary")
    parser.add_argument("--rounds", type=int, default=20, help="meta-iterations that are timed")
    parser.add_argument("--teachers", type=int, default=13)
    parser.add_argument("--k-shot", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--tests", default="tests", help="where the tests are")
    return parser


def run_tests(tests: str, folder: Path) -> dict[str, Any]:
    """Run the tests marked `cuda` and count how they ended."""
    found = folder / "tests.xml"
    found.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", tests, f"--junitxml={found}"]
    subprocess.run(command, check=False)
    cases = list(ElementTree.parse(found).iter("testcase"))
    ended = [{child.tag for child in case} for case in cases]
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case, tags in zip(cases, ended, strict=True)
        if tags & {"failure", "error"}
    ]
    skipped = sum("skipped" in tags for tags in ended)
    return {
        "passed": len(cases) - skipped - len(failed),
        "skipped": skipped,
        "failed": failed,
    }


def ratio(k_shot: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of a meta-iteration, ours and the reference's, and the backend of ours."""
    device = use_device(options.device)
    pool = drawn_pool(options.teachers)
    both = MetaIterations(pool, options.out, k_shot, device=device)
    found = both.compare(options.rounds)
    for file in options.out.glob("*.pt"):
        file.unlink()
    return {**found, "backend": both.pixels.backend}


def cell_words(options: argparse.Namespace) -> list[str]:
    """Return the suite and the options that choose the cell, for `bench plan` and `bench run`."""
    words = [SUITES["cifar_fs" if options.data else "glyphs"]]
    words += [word for value in CELL for word in ("--only", value)]
    words += [
        word for value in (f"budget={options.budget}", *options.set) for word in ("--set", value)
    ]
    words += ["--data", str(options.data)] if options.data else []
    return [*words, "--device", options.device]


def run_cell(options: argparse.Namespace) -> dict[str, Any]:
    """Run the cell as a user would, and return what its record says."""
    runs, cache = options.out / "runs", options.out / "cache"
    where = ["--runs", str(runs), "--cache", str(cache), "--no-mlflow", "--no-figures"]
    subprocess.run(
        [sys.executable, "-m", "bench", "run", *cell_words(options), *where], check=False
    )
    stored = [one for one in find_records(runs) if one.record.method == "purer"]
    return described(max(stored, key=lambda one: one.record.ended)) if stored else {}


def described(stored: StoredRecord) -> dict[str, Any]:
    """Return the parts of a record that tell speed and accuracy."""
    record = json.loads(stored.record.model_dump_json())
    names = ("cell_hash", "status", "reason", "datasets", "budget", "accuracy", "timing", "fit")
    return {name: record[name] for name in names}


if __name__ == "__main__":
    sys.exit(main())
