"""ICFIL as a calibration: any learner with an inner loop, calibrated on each test task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import vmap

from bench.contract import Calibration, DrawingLearner, Learner
from bench.learners.batching import batches_tasks, channels_last, tasks_per_chunk
from bench.learners.maml import GradientLearner
from bench.learners.norms import query_output
from purer.icfil import IcfilConfig, calibrate


class Icfil(Calibration[IcfilConfig]):
    """Inversion calibration following the inner loop (ICFIL), in our reading.

    Hu et al., "Architecture, Dataset and Model-Scale Agnostic Data-free Meta-Learning",
    CVPR 2023, arXiv 2303.11183. The paper describes it in a figure, and no code is public: the
    steps are the paper's, every constant is ours (`IcfilConfig`, `docs/icfil.md`).

    For each test task, the inner loop on the real support set gives an adapted model; a pseudo
    support set with the same labels is inverted from it; a contrastive loss pulls real features to
    the pseudo features of their class, and the head is trained with cross-entropy; then the queries
    are predicted. The calibration uses no query image.
    """

    name = "icfil"
    Config = IcfilConfig

    @classmethod
    def refuse(cls, learner: type[Learner]) -> str | None:
        """Refuse learners without an inner loop."""
        if issubclass(learner, GradientLearner):
            return None
        return f"{learner.__name__} has no inner loop; use maml or anil, or calibration none"

    def wrap(
        self,
        learner: Learner,
        config: IcfilConfig,
        generator: Callable[[int], torch.Generator],
    ) -> Learner:
        """Return the calibrated learner; see `Calibration.wrap`."""
        if not isinstance(learner, GradientLearner):
            raise TypeError(self.refuse(type(learner)))
        return CalibratedLearner(learner, config, generator)


class CalibratedLearner(DrawingLearner):
    """A learner with an inner loop, calibrated after it.

    Args:
        learner: with the test settings; never changed.
        config: the constants.
        generator: returns the CPU generator of a task's first pixels, by its place in the list.

    Attributes:
        net: the meta-model, the learner's own.
    """

    def __init__(
        self,
        learner: GradientLearner,
        config: IcfilConfig,
        generator: Callable[[int], torch.Generator],
    ) -> None:
        self._learner, self._config, self._generator = learner, config, generator
        self.net = learner.net

    @property
    def n_parameters(self) -> int:
        """The number of parameters that prediction uses."""
        return self._learner.n_parameters

    @torch.no_grad()
    def predict_from(
        self, first: int, support_x: Tensor, support_y: Tensor, query_x: Tensor
    ) -> Tensor:
        """Return logits (T, Q, n_way); see `DrawingLearner.predict_from`.

        Raises:
            BenchError: a class has no support image, or the net has no output for it.
        """
        n_way = self._learner.check_labels(support_y)
        pixels, labels = self._first_pixels(first, support_x, n_way)
        params = {name: p.detach() for name, p in self._learner.net.named_parameters()}

        def one(support_x: Tensor, support_y: Tensor, query_x: Tensor, pixels: Tensor) -> Tensor:
            return self._task_logits(params, support_x, support_y, query_x, pixels, labels)

        apply = batched if batches_tasks(support_x.device) else one_by_one
        return apply(one, support_x.detach(), support_y, query_x.detach(), pixels)

    def _first_pixels(self, first: int, support_x: Tensor, n_way: int) -> tuple[Tensor, Tensor]:
        """Draw the first pixels (T, P, 3, H, W), N(0, 1), and return them with labels (P,)."""
        labels = torch.arange(n_way, device=support_x.device)
        labels = labels.repeat_interleave(self._config.pseudo_images_per_class)
        size = (len(labels), *support_x.shape[2:])
        drawn = [
            torch.randn(size, generator=self._generator(first + task))
            for task in range(len(support_x))
        ]
        return torch.stack(drawn).to(support_x), labels

    def _task_logits(
        self,
        params: Mapping[str, Tensor],
        support_x: Tensor,
        support_y: Tensor,
        query_x: Tensor,
        pixels: Tensor,
        labels: Tensor,
    ) -> Tensor:
        """Adapt to one task, calibrate, and return its logits (Q, n_way)."""
        learner = self._learner
        adapted = learner.adapt(params, support_x, support_y)
        final = calibrate(learner, adapted, support_x, support_y, pixels, labels, self._config)
        return query_output(
            learner.settings.bn, lambda x, norm: learner.logits(final, x, norm), support_x, query_x
        )


Task = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(support images, support labels, query images, first pixels) of one task → logits (Q, n_way)."""


def one_by_one(
    one: Task, support_x: Tensor, support_y: Tensor, query_x: Tensor, pixels: Tensor
) -> Tensor:
    """Apply a function of one task to T tasks in turn, with channels last in memory."""
    tasks = zip(support_x, support_y, query_x, pixels, strict=True)
    return torch.stack(
        [one(channels_last(s), y, channels_last(q), channels_last(p)) for s, y, q, p in tasks]
    )


def batched(
    one: Task, support_x: Tensor, support_y: Tensor, query_x: Tensor, pixels: Tensor
) -> Tensor:
    """Apply a function of one task to T tasks at once, in chunks of bounded memory."""
    size = min(tasks_per_chunk(support_x, query_x), tasks_per_chunk(support_x, pixels))
    return vmap(one, chunk_size=size)(support_x, support_y, query_x, pixels)
