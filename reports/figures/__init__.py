"""Figures, drawn into files without a display.

`MPLBACKEND` may name a backend that this environment lacks, since a notebook exports its own to all
that it starts. matplotlib refuses to be imported then; here it is imported, with its default.
"""

import contextlib
import os
import sys

if "matplotlib" not in sys.modules and "MPLBACKEND" in os.environ:
    _backend = os.environ.pop("MPLBACKEND")
    try:
        import matplotlib

        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = _backend
    finally:
        os.environ["MPLBACKEND"] = _backend
