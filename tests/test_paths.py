"""Paths that users write: `~` is their home in options, pairs and variables."""

from __future__ import annotations

import getpass
import itertools
import os
import pwd
from pathlib import Path

import click
import pytest
from PIL import Image

from bench.cli.main import main
from bench.errors import BenchError
from bench.paths import UserPath, default_cache, give_home, user_path


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
    for split, number in itertools.product(("train", "val", "test"), range(5)):
        folder = home / "birds" / split / f"{split}{number}"
        folder.mkdir(parents=True)
        for image in range(2):
            Image.new("RGB", (32, 32), (number, image, 0)).save(folder / f"{image}.png")
    with pytest.raises(SystemExit) as end:
        main(["data", "prepare", "birds", "--dataset-dir=birds=~/birds", *words])
    assert end.value.code == 0
    assert list((home / "own").glob("**/data/*/meta.json"))
    assert not list(Path.cwd().iterdir())


def test_the_place_of_a_data_set_is_expanded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["data", "list", "--dataset-dir", "cub=~/birds"])
    line = capsys.readouterr().err
    assert "home/birds" in line
    assert "~" not in line


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user of whom neither the system nor the environment knows anything."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_home_is_asked_for_a_cache(capsys: pytest.CaptureFixture[str]) -> None:
    for words, status in ((["plan", "micro"], 2), (["list", "methods"], 0)):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert (end.value.code or 0) == status
    line = capsys.readouterr().err
    assert line.startswith("Error: this user has no home folder")
    assert "--cache DIR or PURER_BENCH_CACHE" in line
    assert line.count("\n") == 1


@pytest.mark.usefixtures("nobody")
def test_libraries_find_a_home_and_a_user_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give_home()
    assert Path.home().is_dir()
    assert getpass.getuser() == f"uid{os.getuid()}"
    with pytest.raises(BenchError, match="no home folder"):
        default_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/purer-bench")
