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


def decode_image(tree: Tree, member: str, image_size: int) -> np.ndarray:
    """Return one image as RGB, uint8 (H, W, 3); another size is resized bilinearly.

    Raises:
        BenchError: the image cannot be read; the line names the member.
    """
    from PIL import Image

    size = (image_size, image_size)
    content = io.BytesIO(tree.read(member))
    try:
        with Image.open(content) as image:
            rgb = to_rgb(image)
    except Exception as error:  # Pillow raises a dozen kinds for damaged input
        reason = " ".join(str(error).split())
        raise BenchError(
            f"image '{member}' in '{tree.path}' cannot be read ({reason}); replace it or "
            "download the archive again"
        ) from error
    if rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def to_rgb(image: Image) -> Image:
    """Return an image as RGB of 8 bits; 16 bits of grey are scaled, where Pillow would clip them.

    Args:
        image: of any mode. Whole numbers of 32 bits are taken for 8 bits where none exceeds 255,
            for 16 bits otherwise.

    Raises:
        ValueError: its values are no brightness of 8 or 16 bits.
    """
    from PIL import Image

    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image.convert("RGB")
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F" or low < 0 or high > _DEEP:
        raise ValueError(f"its values, {low} to {high}, are not those of 8 or 16 bits")
    if image.mode != "I" or high > 255:
        values = np.rint(values * (255 / _DEEP))
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")
