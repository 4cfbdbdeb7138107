"""Decoding of one image to RGB with one byte per channel, from any file format."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError

if TYPE_CHECKING:
    from PIL.Image import Image

    from bench.data.reading.tree import Tree

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""What is read; of an animation or a file of several pages, the first."""
UNREAD = (
    *(".avif", ".cr2", ".dng", ".eps", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".jxl"),
    *(".nef", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".raw", ".svg", ".svgz", ".tga"),
)
"""What may be images, too, and is not read."""
_DEEP = 65535


ORIENTATION = 0x0112
"""EXIF's tag that says how a camera was held."""
_TURNED = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""What puts an image upright."""
UPRIGHT, COMPOSED = "orientation 1", "transparency 1"
"""What was done to images that older versions read otherwise, with its version."""


def decode_image(
    tree: Tree, member: str, image_size: int, otherwise: set[str] | None = None
) -> np.ndarray:
    """Return one image as RGB, uint8 (H, W, 3); another size is resized bilinearly.

    It is turned as its EXIF orientation says; what is transparent is composed on white.

    Args:
        tree: where it lies.
        member: its name.
        image_size: side in pixels.
        otherwise: takes `UPRIGHT` and `COMPOSED` where the image asked for them.

    Raises:
        BenchError: the image cannot be read; the line names the member.
    """
    from PIL import Image

    size = (image_size, image_size)
    content = io.BytesIO(tree.read(member))
    try:
        with Image.open(content) as image:
            rgb = to_rgb(_upright(image, otherwise), otherwise)
    except Exception as error:  # Pillow raises a dozen kinds for damaged input
        reason = " ".join(str(error).split())
        raise BenchError(
            f"image '{member}' in '{tree.path}' cannot be read ({reason}); replace it or "
            "download the archive again"
        ) from error
    if rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def _upright(image: Image, otherwise: set[str] | None) -> Image:
    """Return an image turned as its EXIF orientation says; nothing is said by damaged EXIF."""
    from PIL import Image as images

    try:
        turn = _TURNED.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises a dozen kinds for damaged EXIF
        turn = None
    if turn is None:
        return image
    _note(otherwise, UPRIGHT)
    return image.transpose(images.Transpose[turn])


def _note(otherwise: set[str] | None, what: str) -> None:
    if otherwise is not None:
        otherwise.add(what)


def to_rgb(image: Image, otherwise: set[str] | None = None) -> Image:
    """Return an image as RGB of 8 bits; 16 bits of grey are scaled, where Pillow would clip them.

    Args:
        image: of any mode. Whole numbers of 32 bits are taken for 8 bits where none exceeds 255,
            for 16 bits otherwise. What is transparent is composed on white.
        otherwise: takes `COMPOSED` where it is.

    Raises:
        ValueError: its values are no brightness of 8 or 16 bits.
    """
    from PIL import Image

    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return _composed(image, otherwise) if image.has_transparency_data else image.convert("RGB")
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F" or low < 0 or high > _DEEP:
        raise ValueError(f"its values, {low} to {high}, are not those of 8 or 16 bits")
    if image.mode != "I" or high > 255:
        values = np.rint(values * (255 / _DEEP))
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _composed(image: Image, otherwise: set[str] | None) -> Image:
    from PIL import Image as images

    layers = image.convert("RGBA")
    if np.asarray(layers)[..., 3].min() == 255:  # nothing is transparent
        return image.convert("RGB")
    _note(otherwise, COMPOSED)
    white = images.new("RGBA", layers.size, "white")
    return images.alpha_composite(white, layers).convert("RGB")
