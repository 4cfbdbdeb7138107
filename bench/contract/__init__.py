"""The interface of plug-ins: what they import, must implement and are given.

A *method* turns a pool of teachers into a learner without seeing data; a *learner* adapts to a
support set and predicts a query set; a *network* is the backbone of a teacher or a meta-model.
The harness owns data, tasks, files, the clock and the record.
"""

from bench.contract.config import BnMode, Budget, Config, ProtocolConstants, added, with_added
from bench.contract.learners import (
    Calibration,
    DrawingLearner,
    EmbeddingLearner,
    Inference,
    InnerLoopLearner,
    Learner,
    MetaLearner,
    MetricLearner,
    TaskBatch,
    TaskEmbeddingLearner,
    TaskShape,
)
from bench.contract.methods import (
    FitContext,
    FitLog,
    Knowledge,
    MakeLearner,
    Method,
    Need,
    OtherFit,
)
from bench.contract.pools import (
    Backbone,
    Checkpoint,
    NetSpec,
    OptimiserRecipe,
    Pool,
    Teacher,
    TeacherRecipe,
)
from bench.errors import Skip

__all__ = [
    "Backbone",
    "BnMode",
    "Budget",
    "Calibration",
    "Checkpoint",
    "Config",
    "DrawingLearner",
    "EmbeddingLearner",
    "FitContext",
    "FitLog",
    "Inference",
    "InnerLoopLearner",
    "Knowledge",
    "Learner",
    "MakeLearner",
    "MetaLearner",
    "Method",
    "MetricLearner",
    "Need",
    "NetSpec",
    "OptimiserRecipe",
    "OtherFit",
    "Pool",
    "ProtocolConstants",
    "Skip",
    "TaskBatch",
    "TaskEmbeddingLearner",
    "TaskShape",
    "Teacher",
    "TeacherRecipe",
    "added",
    "with_added",
]


def __getattr__(name: str) -> object:
    """Return what an old name stands for, with a warning."""
    from bench.contract.deprecated import old_name

    return old_name(__name__, name)
