"""A table, made of the frame of all records."""

from __future__ import annotations

import pandas


def by_learner(frame: pandas.DataFrame) -> pandas.DataFrame | None:
    """Accuracy by learner.

    Mean over the cells of each learner, in percent.
    """
    done = frame[frame["status"] == "done"]
    if done.empty:
        return None
    groups = done.groupby("learner")["accuracy_mean"]
    means, counts = groups.mean(), groups.size()
    return pandas.DataFrame(
        {"learner": means.index, "cells": counts.values, "accuracy %": 100 * means.values}
    )
