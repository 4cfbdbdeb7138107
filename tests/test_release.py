"""One version, which the command, the package, the changelog and the citation agree on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import bench
from bench.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEADINGS = re.findall(r"^## (\S+), (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_the_version_stands_in_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "bench.__version__"}
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"bench, version {bench.__version__}\n")


def test_the_changelog_begins_with_the_version_and_the_citation_names_the_last_release() -> None:
    released, suffix, _ = bench.__version__.partition(".dev")
    newest, when = HEADINGS[0]
    assert newest == released
    assert (when == "in preparation") == bool(suffix)
    dated = [version for version, day in HEADINGS if re.fullmatch(r"\d{4}-\d\d-\d\d", day)]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == dated[0]


def test_every_file_that_the_code_reads_is_packaged() -> None:
    """The wheel holds what stands beside the modules, so that it works without the checkout."""
    packaged = PROJECT["tool"]["setuptools"]["package-data"]
    held = {
        path
        for package, patterns in packaged.items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    beside = {
        path
        for package in ("bench", "purer", "baselines", "reports")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    }
    assert beside <= held


@pytest.mark.parametrize(
    ("words", "expected"), [("bench ru", ["run"]), ("bench run --thr", ["--threads"])]
)
def test_the_shell_completes_commands_and_options(
    words: str,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("_BENCH_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0
    assert capsys.readouterr().out.split() == [f"plain,{word}" for word in expected]
