"""Draw the pictures of the README that are not made of stored records alone: `tox -e pictures`.

`docs/figures/pseudo-images.png`: pseudo images of PURER at the start, in the middle and at the end
of a fit, with the released constants and with the preset `tuned`. The two fits are made here.
`docs/figures/report-page.png`: the first screen of the report's page in Chromium, and
`docs/figures/mlflow-*.png` those of MLflow's pages. Beside each lies the digest of what it was made
from, which a test compares with what it would be made from now.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import mlflow_pictures  # beside this file
from mlflow_pictures import CLOSE_ASSISTANT, PAGES

from bench.cli.main import cli
from bench.results.files import content_hash, write_text
from bench.results.select import load_records
from bench.suites.cell import Cell
from bench.suites.expand import expand
from bench.suites.suite import read_suite
from reports.cli import make_report
from reports.pictures import digest

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"
PSEUDO, PAGE = "pseudo-images", "report-page"

SETTINGS = ("budget.meta_iterations=100", "budget.teacher_epochs=12", "budget.max_teachers=4")
ONLY = ("method=purer", "learner=maml", "k_shot=1")
STAGES = ("start", "middle", "end")
TEACHER, CLASSES = 3, {0: "ξ", 2: "A", 3: "B", 4: "D"}
"""Which row of a fit's grid is shown, and which of its classes, with their letters."""
TILE, GROUP, ROW, TOP = 64, (136, 80), 76, 14
"""Pixels of a grid: side of an image, place of a class, and of its first image below the name;
`ROW` is the height of a row of the sheet."""
LEFT, HEAD, GAP = 92, 40, 18
"""Pixels of the sheet: beside the rows, above them, and between the stages."""

PAGE_RECORDS = ROOT / "results" / "cifar_fs_ss"
PAGE_ONLY = ("variant=",)
WIDTH = 1280
HEIGHTS = {PAGE: 800, "mlflow-cells": 640, "mlflow-compare": 640, "mlflow-curve": 800}
"""Pixels of a window, which the picture shows."""
COLOURS = 256
"""Of the screenshot: fewer make the file small."""


def pseudo_cells() -> list[Cell]:
    """Return the two cells whose fits are shown, released first."""
    cells = expand(*read_suite("glyphs", list(SETTINGS)))
    wanted = dict(word.split("=") for word in ONLY)
    return [c for c in cells if all(str(getattr(c, k)) == v for k, v in wanted.items())]


def pseudo_digest() -> str:
    """Return the digest of what the two fits follow from: configuration, pool, iterations."""
    counts = ("meta_iterations", "teacher_epochs", "max_teachers")
    return content_hash(
        [
            [cell.preset, cell.method_config, {n: getattr(cell.budget, n) for n in counts}]
            for cell in pseudo_cells()
        ]
    )


def page_digest() -> str:
    """Return the digest of the records that the page is made of."""
    return digest(load_records(PAGE_RECORDS, PAGE_ONLY))


def stored_digest() -> str:
    """Return the digest of the records that MLflow's cells and comparison are made of."""
    return digest(load_records(mlflow_pictures.STORED))


def curve_digest() -> str:
    """Return the digest of what the fit whose curve grows follows from."""
    return content_hash([mlflow_pictures.FITTED, mlflow_pictures.SETTINGS])


DIGESTS = {
    PSEUDO: pseudo_digest,
    PAGE: page_digest,
    "mlflow-cells": stored_digest,
    "mlflow-compare": stored_digest,
    "mlflow-curve": curve_digest,
}
"""By name of the picture."""


def draw_sheet(folders: dict[str, Path], target: Path) -> None:
    """Draw stages side by side, a row per fit.

    Args:
        folders: of a cell's images, by what the row is called.
        target: a PNG.
    """
    from PIL import Image, ImageDraw

    panel = len(CLASSES) * (TILE + 2)
    size = LEFT + len(STAGES) * (panel + GAP), HEAD + len(folders) * ROW
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), _font(14)
    for number, (name, folder) in enumerate(folders.items()):
        top = HEAD + number * ROW
        draw.text((8, top + TILE // 2 - 8), name, "black", font)
        for place, stage in enumerate(STAGES):
            left = LEFT + place * (panel + GAP)
            if number == 0:
                draw.text((left, 2), stage, "black", font)
            with Image.open(folder / f"pseudo-images-{stage}.png") as grid:
                for column, (index, letter) in enumerate(CLASSES.items()):
                    x, y = index * GROUP[0] + 2, TEACHER * GROUP[1] + TOP
                    tile = grid.convert("RGB").crop((x, y, x + TILE, y + TILE))
                    sheet.paste(tile, (left + column * (TILE + 2), top))
                    if number == 0:
                        draw.text((left + column * (TILE + 2) + 28, 20), letter, "#555555", font)
    sheet.save(target, optimize=True)


def _font(size: int) -> object:
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


@contextlib.contextmanager
def browser_page(height: int) -> Iterator[Page]:
    """Give an empty page of Chromium, `WIDTH` wide.

    Raises:
        click.UsageError: there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        raise click.UsageError(f"no browser on the path ({', '.join(names)}); install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": height})
        page.add_init_script(CLOSE_ASSISTANT)
        page.set_default_timeout(120_000)
        yield page
        browser.close()


def draw_page(name: str, target: Path) -> None:
    """Take a picture of the report page's or one of MLflow's pages' first screen."""
    with browser_page(HEIGHTS[name]) as page, tempfile.TemporaryDirectory() as folder:
        if name == PAGE:
            make_report(PAGE_RECORDS, Path(folder), only=PAGE_ONLY, formats=("svg",))
            page.goto((Path(folder) / "report.html").resolve().as_uri())
        else:
            PAGES[name](page, Path(folder))
        page.screenshot(path=target)
    _reduce_colours(target)


def _reduce_colours(target: Path) -> None:
    from PIL import Image

    with Image.open(target) as image:
        coverage = Image.Quantize.MAXCOVERAGE  # keeps colours of small areas, as of points
        few = image.convert("RGB").quantize(COLOURS, coverage, dither=Image.Dither.NONE)
    few.save(target, optimize=True)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(DIGESTS)))
@click.option("--runs", type=click.Path(path_type=Path), default=ROOT / "build" / "pictures")
@click.option("--cache", type=click.Path(path_type=Path), help="As of `bench run`.")
def main(names: tuple[str, ...], runs: Path, cache: Path | None) -> None:
    """Draw the pictures NAMES, or all, into docs/figures."""
    for name in names or DIGESTS:
        target = FIGURES / f"{name}.png"
        if name == PSEUDO:
            words = [f"--set={one}" for one in SETTINGS] + [f"--only={one}" for one in ONLY]
            words += ["--no-mlflow", "--no-figures", "--runs", str(runs)]
            words += ["--cache", str(cache)] if cache else []
            cli.main(["run", "glyphs", *words], standalone_mode=False)
            found = {one.record.preset: one.folder for one in load_records(runs / "glyphs", ONLY)}
            draw_sheet({c.preset: found[c.preset] / "images" for c in pseudo_cells()}, target)
        else:
            draw_page(name, target)
        write_text(FIGURES / f"{name}.sha256", f"{DIGESTS[name]()}\n")
        click.echo(f"{target.relative_to(ROOT)} drawn")


if __name__ == "__main__":
    main()
