"""The claims of the paper's abstract, and the comparisons of stored rows that test each.

Source: Hu et al., CVPR 2023, arXiv 2303.11183, abstract. Which rows test a claim is our reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.rows.results import Row

PUBLISHED_META_ITERATIONS = 60_000
PROTOCOL = "cvpr23"
BUILT_IN = frozenset({"glyphs"})
"""Data sets of this suite that no paper uses: they test no claim of it."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the rows of a method under a preset and a calibration."""

    method: str
    preset: str = "released"
    calibration: str = "none"

    def is_row(self, row: Row) -> bool:
        """Tell whether a row of a table is this side, with any learner, unvaried."""
        named = (row.method, row.preset, row.calibration)
        return named == (self.method, self.preset, self.calibration) and not row.variant


@dataclass(frozen=True)
class Claim:
    """A claim, the pairs (claimed to be ahead, compared with) that test it, and where.

    `published` is the published number with its source, or why there is none; `limits` says what
    stands in the way of comparing with the paper.
    """

    key: str
    text: str
    pairs: Sequence[tuple[Side, Side]]
    scenarios: Sequence[str]
    published: str
    limits: str


_PURER = Side("purer")
_PARAMETER_SPACE = tuple((_PURER, Side(name)) for name in ("random", "average", "otfusion", "dro"))
_MIXED = tuple(
    (_PURER, side)
    for side in (
        Side("random"),
        Side("average", "largest_group"),
        Side("otfusion", "largest_group"),
    )
)
"""What parameter space can do with a mixed pool: merge its largest group of equal networks."""
_CALIBRATED = ("purer", "average", "random", "oracle_maml")
_NO_NUMBER = "none with a source that can be checked; see the published figures in the results"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "data space",
        "Meta-learning in data space beats parameter space (Random, Average, OTA, DRO)",
        _PARAMETER_SPACE,
        ("SS",),
        _NO_NUMBER,
        "OTA is read as otfusion; DRO has no public code, so the row is our reading",
    ),
    Claim(
        "curriculum",
        "The curriculum (gradient switch) helps",
        ((_PURER, Side("purer", "no_switch")), (_PURER, Side("purer", "random_switch"))),
        ("SS",),
        _NO_NUMBER,
        "in short budgets the switch's start is scaled with the number of meta-iterations",
    ),
    Claim(
        "icfil",
        "ICFIL narrows the gap between pseudo and real tasks, plug-and-play",
        tuple((Side(name, calibration="icfil"), Side(name)) for name in _CALIBRATED),
        ("SS", "SH", "MH"),
        _NO_NUMBER,
        "no code of ICFIL is public: constants and losses are our reading of the paper's figure",
    ),
    Claim(
        "architecture",
        "Architecture-agnostic: it works with pools of mixed architectures (SH)",
        _MIXED,
        ("SH",),
        _NO_NUMBER,
        "our short budget has 6 teachers, the paper more",
    ),
    Claim(
        "data set",
        "Data-set-agnostic: it works with pools of several data sets (MH)",
        _MIXED,
        ("MH",),
        "FREE, MH, 5-way 1-shot: 31.51 % (secondary source); none for PURER",
        "subsets of miniImageNet and CUB at 84 px, 6 teachers",
    ),
    Claim(
        "model scale",
        "Model-scale-agnostic: it works with large teachers",
        ((_PURER, Side("random")),),
        ("large",),
        _NO_NUMBER,
        "suite large runs ResNet50 and ViT-B/16 at 224 px with untrained teachers: it shows that "
        "the method runs and what it costs, and says nothing about accuracy",
    ),
)
