"""Every command that the pages quote is run here, or its page says why not.

A block of commands without a mark is run, in a folder with what its page speaks of. A comment just
before the block is its mark: `planned: WHY` where a run takes hours (it is resolved into its
cells), `run by tests/FILE` where another test runs it, `not run: WHY` where none can.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

import bench
from bench.cli.main import cli
from bench.cli.options import resolve
from bench.results.files import write_json
from bench.results.store import mark_done
from bench.suites.protocols import BUDGETS
from tests.api.small import COUNTS
from tests.helpers import few_images, tiny_net

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
BLOCK = re.compile(
    r"(?:<!-- (?P<kind>planned|run by|not run):? (?P<why>[^>]+) -->\n)?"
    r"```(?:console|bash)\n(?P<text>.*?)```",
    re.DOTALL,
)
COMMITS = {"a": "1f2e3d4", "b": "5a6b7c8"}
"""Of the records in `runs/a` and `runs/b`, which docs/reports.md compares."""
CELLS = ("average", "purer")
"""Methods whose cells of MAML with 1 shot the folders of runs hold."""


@dataclass(frozen=True)
class Block:
    """A block of commands, with its mark."""

    page: str
    kind: str | None
    why: str
    lines: tuple[str, ...]


@functools.cache
def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            lines = match["text"].replace("\\\n", " ").splitlines()
            place = page.relative_to(ROOT).as_posix()
            found.append(
                Block(place, match["kind"], match["why"] or "", tuple(filter(None, lines)))
            )
    return found


def words_of(line: str) -> list[str]:
    """Return the words of a command, without the comment behind it."""
    return shlex.split(line, comments=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages speak of, in a folder per page: runs, or images and a classifier of them."""
    folder = tmp_path_factory.mktemp("prepared")
    for cell in sorted((ROOT / "results/glyphs").iterdir()):
        values = json.loads((cell / "record.json").read_text(encoding="utf-8"))
        shape = values["learner"], values["k_shot"], values["preset"]
        if values["method"] not in CELLS or shape != ("maml", 1, "released"):
            continue
        shutil.copytree(cell, folder / "submit" / "runs" / "glyphs" / cell.name)
        for name, commit in COMMITS.items():
            values["environment"]["git_commit"] = commit.ljust(40, "0")
            copied = shutil.copytree(cell, folder / "reports" / "runs" / name / cell.name)
            write_json(copied / "record.json", values)
    for path in folder.glob("*/runs/*/*"):
        mark_done(path)
    _draw_birds(folder / "data")
    return folder


def _draw_birds(folder: Path) -> None:
    """Make 30 classes of noise, and a network for them that was never trained."""
    from torchvision.models import resnet18  # takes seconds

    names = [f"bird{number:02d}" for number in range(30)]
    for number, name in enumerate(names):
        (folder / "birds" / name).mkdir(parents=True)
        for image in range(20):
            pixels = np.random.default_rng([number, image]).integers(0, 256, (84, 84, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "birds" / name / f"{image}.bmp")
    (folder / "classes.txt").write_text("\n".join(names))
    save_file(resnet18(num_classes=len(names)).state_dict(), folder / "net.safetensors")


PAGES_WITH_BLOCKS = sorted({block.page for block in blocks()})


@pytest.mark.parametrize("page", PAGES_WITH_BLOCKS)
def test_commands_run_or_their_page_says_why_not(
    page: str, prepared: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PURER_BENCH_CACHE", str(cache))
    monkeypatch.delenv("PURER_BENCH_DATA", raising=False)
    folder = prepared / Path(page).stem
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "here") if folder.exists() else tmp_path)
    for block in blocks():
        if block.page == page:
            _try(block)


def _try(block: Block) -> None:
    if block.kind == "not run":
        return  # `bench` lines are parsed below
    if block.kind == "run by":
        _check_runs_it(ROOT / block.why, block)
        return
    for line in block.lines:
        words = words_of(line)
        assert words[0] == "bench", f"no test runs {line}: mark the block"
        if block.kind == "planned":
            _plan(words[1:])
        else:
            done = CliRunner().invoke(cli, words[1:], catch_exceptions=False)
            assert done.exit_code == 0, done.output


def _plan(words: list[str]) -> None:
    """Resolve a run into its cells, as it does before it begins."""
    run, rest = command_of(words)
    resolved, request = resolve(run.make_context("run", rest).params, quiet=True)
    assert resolved.cells
    assert str(request.data_dir or "DIR") == "DIR"


def _check_runs_it(test: Path, block: Block) -> None:
    """Check that a test's file names each verb of a block."""
    text = test.read_text(encoding="utf-8")
    verbs = {words[1] for line in block.lines if (words := words_of(line))[:1] == ["bench"]}
    assert verbs
    assert {verb for verb in verbs if f'"{verb}"' not in text} == set()


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that words name, or the group that lacks it, and the words after it."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            break
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize(
    "line",
    sorted({line for one in blocks() for line in one.lines if line.startswith("bench ")}),
)
def test_quoted_commands_parse(line: str) -> None:
    command, words = command_of(words_of(line)[1:])
    command.make_context(line, words)


def test_python_from_the_page_runs(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks run one after the other, with smaller budgets and numbers of tasks."""
    monkeypatch.setitem(BUDGETS, "micro", BUDGETS["micro"].model_copy(update=COUNTS))
    monkeypatch.setenv("PURER_BENCH_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    load = bench.load_data
    monkeypatch.setattr(bench, "load_data", lambda *words: few_images(load(*words)))
    monkeypatch.setattr(bench, "evaluate", functools.partial(bench.evaluate, n_tasks=8))
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    found = re.findall(r"(<!-- not run: [^>]+ -->\n)?```python\n(.*?)```", text, re.DOTALL)
    drawn = torch.Generator().manual_seed(0)
    names = {"first": tiny_net(drawn, n_classes=3), "second": tiny_net(drawn, n_classes=2)}
    for mark, code in found:
        if not mark:
            exec(compile(code, "docs/python.md", "exec"), names)
    assert names["found"].n == 8
    assert len(names["pool"]) == 2


PLACEHOLDER = re.compile(r"[A-Z]+\b|…|\w+\\\|")
"""A word that stands for others, where a command is meant."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_sentences_exist_with_their_options(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for quoted in re.findall(r"`bench ([^`]+)`", text):
        words = quoted.partition(" | ")[0].split()
        command, rest = command_of(words)
        if isinstance(command, click.Group):
            assert all(map(PLACEHOLDER.match, rest[:1])), f"bench {quoted}"
            continue
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        options = {word.partition("=")[0] for word in rest if word.startswith("-")} - {"--help"}
        assert options <= known, f"bench {quoted}"


def test_environments_of_tox_in_the_pages_exist() -> None:
    known = re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text("utf-8"), re.MULTILINE)
    named = {
        name for page in PAGES for name in re.findall(r"tox -e (\w+)", page.read_text("utf-8"))
    }
    assert named <= set(known)
    listed = re.findall(r"^\| `tox -e (\w+)", (ROOT / "docs/commands.md").read_text("utf-8"), re.M)
    assert sorted(listed) == sorted(known)
