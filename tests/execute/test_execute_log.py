"""What a fit reports: kept as reported, written as files, drawn as a grid."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from bench.errors import BenchError
from bench.execute.log import CellLog, _shortened, caption_font, drawable, save_grid
from bench.results.files import read_parquet


def test_scalars_are_kept_as_they_were_when_noted(tmp_path: Path) -> None:
    log, live = CellLog(), torch.zeros(())
    for step in range(3):
        live += 1
        log.scalars(step, {"live": live, "plain": 0.5})
    log.write(tmp_path)
    curve = read_parquet(tmp_path / "curve.parquet")
    values = [v for n, v in zip(curve["name"], curve["value"], strict=True) if n == "live"]
    assert values == [1.0, 2.0, 3.0]


def test_state_round_trips(tmp_path: Path) -> None:
    log = CellLog()
    log.scalars(1, {"loss": torch.tensor(2.0)})
    log.count("queries", 3)
    log.images("x", torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), ["a", "b"])
    other = CellLog()
    torch.save(log.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    other.count("queries", 1)
    assert other.counters == {"queries": 4}
    other.write(tmp_path)
    assert (tmp_path / "images" / "x.png").exists()
    assert read_parquet(tmp_path / "curve.parquet")["value"].tolist() == [2.0]


@pytest.mark.parametrize("captions", [(), ("apple", "bear", "chair")])
def test_a_grid_shows_every_image_once(tmp_path: Path, captions: tuple[str, ...]) -> None:
    levels = torch.tensor([40, 80, 120, 160, 200, 240], dtype=torch.uint8)
    pixels = levels[:, None, None, None].expand(6, 3, 8, 8).contiguous()
    save_grid(tmp_path / "grid.png", pixels, captions)
    shown = torch.frombuffer(
        bytearray(Image.open(tmp_path / "grid.png").convert("L").tobytes()), dtype=torch.uint8
    )
    for level in levels:
        area = (shown == level).sum().item()
        assert area >= 16 * 16
        assert area < 2 * 16 * 16


def test_a_grid_keeps_to_its_columns_and_a_log_hands_them_on(tmp_path: Path) -> None:
    """Three groups of two 8 px images in rows of one: narrow and high; in rows of three: wide."""
    pixels = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    sizes = {}
    for columns in (1, 3):
        log, other = CellLog(), CellLog()
        log.images("x", pixels.float(), ["a", "b", "c"], columns)
        other.load_state_dict(log.state_dict())
        other.write(tmp_path / str(columns))
        with Image.open(tmp_path / str(columns) / "images" / "x.png") as picture:
            sizes[columns] = picture.size
    assert sizes[3][0] == 3 * sizes[1][0]
    assert sizes[1][1] == 3 * sizes[3][1]


def test_long_captions_keep_the_end_that_tells_them_apart() -> None:
    names = [f"3 greek_small_letter_{x}" for x in ("alpha", "omega")]
    short = [_shortened(name, 15, len) for name in names]
    assert short == ["3 gr..ter_alpha", "3 gr..ter_omega"]
    assert _shortened("3 apple", 15, len) == "3 apple"


def test_values_for_the_record_survive_a_checkpoint_and_must_be_json() -> None:
    log = CellLog()
    log.extra("weights", (0.5, 1))
    again = CellLog()
    again.load_state_dict(log.state_dict())
    assert again.extras == {"weights": [0.5, 1]}
    for value in (float("nan"), torch.zeros(1), {1, 2}):
        with pytest.raises(BenchError, match="extra 'weights' cannot be stored"):
            log.extra("weights", value)
    assert log.extras == again.extras


def test_captions_show_letters_of_any_alphabet_and_name_those_that_no_font_has(
    tmp_path: Path,
) -> None:
    font = caption_font()
    assert drawable("0 été Ελλ Жук", font) == "0 été Ελλ Жук"
    assert drawable("1 日a", font) == "1 U+65E5a"
    assert drawable("a\nb\t c", font) == "a b c"
    log = CellLog()
    log.images("x", torch.zeros(2, 3, 8, 8), ["a\nb", "日"])
    log.write(tmp_path)
    assert (tmp_path / "images" / "x.png").exists()
