"""Named settings of PURER, beside the released constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TUNED: Mapping[str, Any] = {
    "initialisation": "best_teacher",
    "zero_head": True,
    "feature_scale": 10.0,
    "outer_lr": 2e-4,
    "pixel_warmup": 150,
    "pixel_every": 4,
    "pixel_lr": 0.1,
    "bn_weight": 0.1,
}
"""Chosen on validation tasks of glyphs and CIFAR-FS; docs/purer.md says what mattered."""

TUNED_PROTONET: Mapping[str, Any] = {
    "initialisation": "best_teacher",
    "feature_normalisation": "l2",
    "temperature": 0.1,
    "trained": "norms",
    "outer_lr": 1e-3,
    "pixel_warmup": 150,
    "pixel_every": 4,
    "pixel_lr": 0.1,
    "bn_weight": 0.1,
}
"""The same for ProtoNet, which has no use for a head and is easily spoilt by training it all."""

ABLATION: Mapping[str, Mapping[str, Any]] = {
    "noise_images": {"pixels": "noise"},
    "fixed_images": {"pixels": "fixed"},
    "no_switch": {"curriculum": False},
    "random_switch": {"random_switches": {1: 27, 5: 31}},
}
"""The released constants less one part of the method each.

The numbers of random switches are those of the gradient switch with MAML on CIFAR-FS, budget
`short`, seed 0, by k_shot: 27 and 31 of the 400 meta-iterations."""


STARTS: Mapping[str, Mapping[str, Any]] = {
    "from_teacher": {"initialisation": "best_teacher"},
    "from_student": {"initialisation": None, "other_fit": "distill_ensemble"},
    "from_cross_teacher": {"initialisation": None, "other_fit": "cross_teacher"},
}
LOSSES: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "_with_classes": {"class_weight": 1.0},
    "_classes_only": {"class_weight": 1.0, "task_weight": 0.0},
}
COMPARED: Mapping[str, Mapping[str, Any]] = {
    f"{name}{suffix}": {
        **TUNED_PROTONET,
        **start,
        "trained": "all",
        "outer_lr": 2e-4,
        "augment_flip": True,
        "augment_shift": 4,
        **losses,
    }
    for name, start in STARTS.items()
    for suffix, losses in LOSSES.items()
}
"""With ProtoNet, from three starts: pseudo tasks, the same with a classification loss, and a plain
classifier, all on the same pseudo images and with all weights trained."""
