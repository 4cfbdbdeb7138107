"""How commands end: one line for any exception, and output in any encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bench import registry
from bench.cli.main import main, similar_characters
from bench.errors import BenchError, BrokenOff
from tests.processes import run

STORED = Path(__file__).parents[2] / "results" / "glyphs"


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException, *words: str) -> int:
    """Return the exit status of a command inside which an exception is raised."""

    def fail(kind: str) -> list[str]:
        raise error

    monkeypatch.setattr(registry, "names", fail)
    with pytest.raises(SystemExit) as end:
        main(["list", "methods", *words])
    return end.value.code


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (
            ZeroDivisionError("by\nzero"),
            1,
            "Error: ZeroDivisionError: by; run again with --debug for the traceback\n",
        ),
        (
            KeyError(),
            1,
            "Error: KeyError: no message; run again with --debug for the traceback\n",
        ),
        (BrokenOff("it is gone"), 1, "Error: it is gone\n"),
        (BenchError("n = 3 is\nwrong; use 4"), 2, "Error: n = 3 is wrong; use 4\n"),
        (
            PermissionError(13, "Permission denied", "x.json"),
            2,
            "Error: x.json: Permission denied; make it readable and writable, or name another\n",
        ),
        (
            OSError(28, "No space left on device", "x.json"),
            1,
            "Error: x.json: No space left on device; free space there, or name a folder on "
            "another disk\n",
        ),
        (
            OSError("cannot write mode P"),
            1,
            "Error: file: cannot write mode P; make it readable and writable, or name another\n",
        ),
        (
            EOFError("No data left in file"),
            1,
            "Error: EOFError: No data left in file; run again with --debug for the traceback\n",
        ),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
    ],
)
def test_an_exception_is_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    line: str,
) -> None:
    assert ending(monkeypatch, error) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err.lstrip("\n")) == ("", line)


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        ending(monkeypatch, ZeroDivisionError(), "--debug")


def test_similar_characters_keep_the_width() -> None:
    text = "5 × 3 – é → … Ω"

    def encoded(encoding: str) -> bytes:
        found, position = b"", 0
        while position < len(text):
            try:
                return found + text[position:].encode(encoding)
            except UnicodeEncodeError as error:
                good = text[position : position + error.start]
                wrong = UnicodeEncodeError(encoding, text[position:], error.start, error.end, "")
                new, end = similar_characters(wrong)
                found += good.encode(encoding) + new.encode(encoding)
                position += end
        return found

    assert encoded("ascii") == b"5 x 3 - e > . ?"
    assert encoded("cp1252") == "5 × 3 – é > … ?".encode("cp1252")
    assert encoded("latin-1") == "5 × 3 - é > . ?".encode("latin-1")
    assert encoded("utf-8").decode() == text


def test_a_report_is_printed_whatever_the_encoding(tmp_path: Path) -> None:
    words = ["report", str(STORED), "-o", str(tmp_path), "--no-figures", "--only=method=average"]
    result = run(words, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "average" in result.stdout


def test_work_goes_on_after_what_reads_its_output_has_ended() -> None:
    code = (
        "import sys; from bench.cli.main import accept_all_characters, outlive_reader;"
        "accept_all_characters(); outlive_reader();"
        "print('first é'); sys.stdin.readline(); [print(n) for n in range(9)];"
        "print('done', file=sys.stderr)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    ) as work:
        assert work.stdout is not None
        assert work.stdin is not None
        assert work.stderr is not None
        assert work.stdout.readline().decode() == "first é\n"
        work.stdout.close()
        work.stdin.write(b"go on\n")
        work.stdin.close()
        lines = work.stderr.read().decode().splitlines()
    assert lines == ["standard output is closed; the work goes on without it", "done"]
    assert work.returncode == 0
