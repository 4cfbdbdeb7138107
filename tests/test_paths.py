"""Paths that users write: `~` is their home in options, pairs and variables."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from bench.cli.main import main
from bench.errors import BenchError
from bench.paths import UserPath, user_path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, and a working folder beside it that must stay empty."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_a_tilde_is_the_home_and_other_paths_stay(home: Path) -> None:
    assert user_path("~/x") == home / "x"
    assert user_path("~") == home
    assert user_path("a/~/b") == Path("a/~/b")
    assert user_path("./~x") == Path("./~x")


def test_a_home_that_is_not_known_is_refused() -> None:
    with pytest.raises(BenchError, match=r"~nobody-has-this-name/x.*in full"):
        user_path("~nobody-has-this-name/x")


def test_options_variables_and_defaults_are_expanded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    @click.command()
    @click.option("--a", type=UserPath())
    @click.option("--b", type=UserPath(), envvar="PURER_TEST_B")
    @click.option("--c", type=UserPath(), default=lambda: Path("~/c"))
    def command(**paths: Path) -> None:
        seen.append(paths)

    monkeypatch.setenv("PURER_TEST_B", "~/b")
    command(["--a=~/a"], standalone_mode=False)
    assert seen == [{"a": home / "a", "b": home / "b", "c": home / "c"}]


@pytest.mark.parametrize("variable", [None, "PURER_BENCH_CACHE", "XDG_CACHE_HOME"])
def test_data_is_prepared_in_the_home_and_not_in_a_folder_of_that_name(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    if variable:
        monkeypatch.setenv(variable, "~/own")
    words = [] if variable else ["--cache=~/own"]
    with pytest.raises(SystemExit) as end:
        main(["data", "prepare", "glyphs", *words])
    assert end.value.code == 0
    assert list((home / "own").glob("**/data/*/meta.json"))
    assert not list(Path.cwd().iterdir())


def test_the_place_of_a_data_set_is_expanded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "list", "--dataset-dir", "cub=~/birds"])
    line = capsys.readouterr().err
    assert "home/birds" in line
    assert "~" not in line
