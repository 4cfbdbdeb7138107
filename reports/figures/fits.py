"""Figures of fits and pools: curves, pseudo images, similarity of the teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.results.files import read_parquet
from bench.results.store import CURVE, StoredRecord
from reports.figures.curves import PANELS, curves_figure
from reports.figures.drawing import Drawing
from reports.figures.gallery import gallery_figure, stage_order
from reports.figures.similarity import Similarity, similarity_figure
from reports.rows.groups import Group

MAX_GRIDS = 6
"""More grids of images, and more pools, than this are not drawn."""
MAX_FITS = 8
"""More fits than this are not told apart in one panel of curves."""


def fit_drawings(group: Group, prefix: str) -> list[Drawing]:
    """Return training curves and pseudo images of a group's fits, if its cells store them."""
    import pandas

    fits = _fits(group.stored)
    found = []
    parts = [
        pandas.DataFrame(read_parquet(one.folder / CURVE)).assign(fit=name)
        for name, one in fits.items()
        if one.has(CURVE)
    ]
    curves = pandas.concat(parts[:MAX_FITS]) if parts else pandas.DataFrame({"name": []})
    if curves["name"].isin(list(PANELS)).any():
        found.append(
            Drawing(
                f"{prefix}-curves",
                "Training",
                "Validation as measured, training averaged over 25 iterations. Ticks above: "
                "iterations for which the curriculum asked for harder pseudo images."
                f"{_first(MAX_FITS, len(parts), 'fits')}",
                f"Training curves of {', '.join(dict.fromkeys(curves['fit']))}.",
                lambda: curves_figure(curves),
            )
        )
    images = [
        (f"{name}: {path.stem.replace('-', ' ')}", path)
        for name, one in fits.items()
        for path in sorted(one.folder.glob("images/*.png"), key=stage_order)
    ]
    if shown := images[:MAX_GRIDS]:
        found.append(
            Drawing(
                f"{prefix}-gallery",
                "Pseudo images",
                "Inverted from the teachers; no real image is shown."
                f"{_first(MAX_GRIDS, len(images), 'grids')}",
                f"Grids of pseudo images of {', '.join(title for title, _ in shown)}.",
                lambda: gallery_figure(dict(shown)),
            )
        )
    return found


def _first(most: int, n: int, things: str) -> str:
    """Say that only the first of many are drawn, where that is so."""
    return f" The first {most} of {n} {things}." * (n > most)


def pool_drawings(group: Group, prefix: str) -> list[Drawing]:
    """Return the similarity of the teachers in a group's pools, if its cells store it."""
    stored = similarities(group.stored)
    if not stored:
        return []
    found = stored[:MAX_GRIDS]
    pairs = {one.pool: one.values[~np.eye(len(one.names), dtype=bool)] for one in found}
    words = [f"{p}: {v.min():.2f} to {v.max():.2f}" for p, v in pairs.items() if len(v)]
    return [
        Drawing(
            f"{prefix}-similarity",
            "Teacher similarity",
            "Linear CKA (unbiased) of the teachers' features on validation images, of classes that "
            "none was trained on: 1 is the same up to rotation and scale, 0 unrelated."
            f"{_first(MAX_GRIDS, len(stored), 'pools')}",
            f"Similarity of each pair of teachers. Range over pairs: {'; '.join(words)}.",
            lambda: similarity_figure(found),
        )
    ]


def similarities(stored: Sequence[StoredRecord]) -> list[Similarity]:
    """Return the similarity of the teachers of each pool for which it is stored."""
    found: dict[str, Similarity] = {}
    for one in stored:
        pool = one.record.pool
        if pool is None or pool.sha256 in found:
            continue
        matrix = one.similarity()
        if matrix is None:
            continue
        names = _teacher_names(pool.teachers)
        title = f"{pool.name or '+'.join(one.record.datasets)} seed {one.record.seed}"
        found[pool.sha256] = Similarity(f"{title} ({pool.sha256[:6]})", names, matrix)
    return list(found.values())


def _teacher_names(teachers: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of teachers in a figure, without the parts that all share."""
    mixed = len({one["architecture"] for one in teachers}) > 1
    sets = len({one["dataset"] for one in teachers}) > 1
    names = []
    for one in teachers:
        name = one["name"] if sets else one["name"].rpartition("/")[2]
        names.append(f"{name} {one['architecture']}" if mixed else name)
    return names if len(set(names)) == len(names) else [one["name"] for one in teachers]


def _fits(stored: Sequence[StoredRecord]) -> dict[str, StoredRecord]:
    """Return one record for each distinct fit, by a name that tells fits apart."""
    found: dict[str, StoredRecord] = {}
    seen: set[str] = set()
    for one in stored:
        r = one.record
        if r.status == "done" and r.fit and r.fit.sha256 not in seen:
            seen.add(r.fit.sha256)
            shots = f"{r.n_way}w{r.k_shot}s"
            preset = "" if r.preset == "released" else f" ({r.preset})"
            name = f"{r.method}{preset} {r.learner} {'+'.join(r.datasets)} {shots} seed {r.seed}"
            found[name if name not in found else f"{name} {r.cell_hash[:4]}"] = one
    return found
