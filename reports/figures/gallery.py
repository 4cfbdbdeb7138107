"""Galleries of pseudo images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reports.figures.style import axes_grid, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure


WIDTH, TITLE = 4.4, 0.35
"""Inches of a panel's width, and of its title's height."""
STAGES = ("start", "middle", "end")
"""Of a fit, as the names of its grids end, in their order."""


def stage_order(path: Path) -> tuple[int, str]:
    """Return the sort key of a fit's grids: the stage at the end of the name, then the name."""
    stage = path.stem.rpartition("-")[2]
    return (STAGES.index(stage) if stage in STAGES else len(STAGES)), path.name


def gallery_figure(paths: Mapping[str, Path]) -> Figure:
    """Show stored grids of pseudo images, one panel per grid, with their titles."""
    import numpy as np
    from PIL import Image

    grids = []
    for path in paths.values():
        with Image.open(path) as image:
            grids.append(np.asarray(image.convert("RGB")))
    tallest = max(len(grid) / grid.shape[1] for grid in grids)
    with look():
        figure, panels = axes_grid(len(grids), WIDTH, WIDTH * tallest + TITLE)
        for axes, grid, title in zip(panels, grids, paths, strict=True):
            axes.imshow(grid, interpolation="nearest")
            axes.set_title(title)
            axes.set_axis_off()
    return figure
