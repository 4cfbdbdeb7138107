"""Pseudo-image galleries: what was inverted from the teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.figures.style import axes_grid, look

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


def gallery_figure(frame: pandas.DataFrame) -> Figure:
    """Show stored grids of pseudo images, a panel a grid.

    Args:
        frame: columns title and path, a row a PNG that a fit left.
    """
    import numpy as np
    from PIL import Image

    with look():
        figure, panels = axes_grid(len(frame), 4.4, 4.4)
        for axes, row in zip(panels, frame.itertuples(), strict=True):
            with Image.open(row.path) as image:
                axes.imshow(np.asarray(image.convert("RGB")), interpolation="nearest")
            axes.set_title(row.title)
            axes.set_axis_off()
    return figure
