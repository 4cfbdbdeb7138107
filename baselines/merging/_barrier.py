"""Loss barrier between two teachers (linear mode connectivity)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from baselines.merging._channels import State
from baselines.merging._merging import on_host
from bench.contract import Backbone, FitLog
from bench.nets.norm import batch_norm
from bench.training.initialisation import average_state

POINTS = 11
Images = tuple[Tensor, Tensor]
"""A teacher's images (B, 3, H, W) and labels (B,)."""


@dataclass(frozen=True)
class Interpolation:
    """Loss and accuracy along the line between two teachers, at `POINTS` places equally far apart.

    They are means over both teachers' images; `own_loss` is the mean of the teachers' losses, each
    on its own images.
    """

    losses: list[float]
    accuracies: list[float]
    own_loss: float

    @property
    def barrier(self) -> float:
        """The loss at the midpoint, where a mean of the two lies, above the teachers' own.

        Ainsworth et al. (arXiv 2209.04836), definition 2.1, for networks of the same classes: the
        highest point of the line above the mean of its ends. Here each end knows the classes of
        one teacher only, so that the ends are no reference and may be the highest points.
        """
        return self.losses[POINTS // 2] - self.own_loss


@torch.no_grad()
def answers(net: Backbone, body: State, head: State, images: Images) -> Tensor:
    """Return cross-entropy and accuracy (2,) of a body with a head, batch norm by the batch.

    Args:
        net: of the architecture; its own weights play no part.
        body: a state whose entries but the head's are used.
        head: a state whose head is used.
        images: what is shown, and the head's labels of it.
    """
    state = {**head, **{k: v for k, v in body.items() if not k.startswith("head.")}}
    logits = functional_call(net, state, (images[0], batch_norm))
    hits = (logits.argmax(1) == images[1]).float().mean()
    return torch.stack([F.cross_entropy(logits, images[1]), hits])


def interpolate(
    net: Backbone, first: State, second: State, shown: Images, shown_second: Images
) -> Interpolation:
    """Evaluate on the line between two bodies; each teacher's images use its own head.

    Args:
        net: of the architecture.
        first: a complete state.
        second: another one.
        shown: the first teacher's own images.
        shown_second: the second's.
    """
    bodies = [_between(first, second, step / (POINTS - 1)) for step in range(POINTS)]
    met = [(answers(net, b, first, shown), answers(net, b, second, shown_second)) for b in bodies]
    own = answers(net, first, first, shown), answers(net, second, second, shown_second)
    *along, ends = [_mean_of(*both) for both in _numbers([*met, own])]
    losses, accuracies = zip(*along, strict=True)
    return Interpolation(list(losses), list(accuracies), ends[0])


def _numbers(pairs: Sequence[Sequence[Tensor]]) -> list[list[list[float]]]:
    """Return several sequences of answers as numbers, read together."""
    return on_host(torch.stack([torch.stack(list(pair)) for pair in pairs])).tolist()


def _mean_of(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2


def _between(first: State, second: State, share: float) -> dict[str, Tensor]:
    return {
        name: torch.lerp(value, second[name], share) if value.is_floating_point() else value
        for name, value in first.items()
    }


def measure_barriers(
    log: FitLog,
    net: Backbone,
    kinds: Mapping[str, Sequence[State]],
    images: Sequence[Images],
    reference: int,
) -> None:
    """Log barriers of several versions of the same teachers, as matched and unmatched.

    For each kind: `interpolation_loss_…` and `…_accuracy_…`, the mean over the pairs of the
    reference with another teacher, at steps 0 to 100 for the percentage of the way; at step 50
    their mean `barrier_…`, and `merge_loss_…`, `merge_accuracy_…` of the mean of all teachers'
    bodies under each one's own head and on its own images; and at the other teacher's number
    `pair_barrier_…`.

    Args:
        log: where scalars go.
        net: of the architecture.
        kinds: by name, every teacher's complete state.
        images: every teacher's.
        reference: number of the teacher that is in every pair.
    """
    for kind, states in kinds.items():
        pairs = {
            other: interpolate(net, states[reference], state, images[reference], images[other])
            for other, state in enumerate(states)
            if other != reference
        }
        for other, pair in pairs.items():
            log.scalars(other, {f"pair_barrier_{kind}": pair.barrier})
        for point in range(POINTS):
            log.scalars(
                round(100 * point / (POINTS - 1)),
                {
                    f"interpolation_loss_{kind}": _mean([p.losses[point] for p in pairs.values()]),
                    f"interpolation_accuracy_{kind}": _mean(
                        [p.accuracies[point] for p in pairs.values()]
                    ),
                },
            )
        merged = average_state(states)
        shown = zip(states, images, strict=True)
        (met,) = _numbers([[answers(net, merged, state, one) for state, one in shown]])
        log.scalars(
            50,
            {
                f"barrier_{kind}": _mean([pair.barrier for pair in pairs.values()]),
                f"merge_loss_{kind}": _mean([loss for loss, _ in met]),
                f"merge_accuracy_{kind}": _mean([accuracy for _, accuracy in met]),
            },
        )


def measure_merges(
    log: FitLog,
    net: Backbone,
    kinds: Mapping[str, Sequence[State]],
    merge: Callable[[Sequence[State], Tensor], State],
    images: Sequence[Images],
    reference: int,
) -> None:
    """Log barriers as `measure_barriers`, and beside them those of merges that are no mean.

    Under the kind `merged` stand the same names, for what a function makes of two teachers, or of
    all, in place of the midpoint of a line: `barrier_merged`, `pair_barrier_merged` and so on.

    Args:
        log: where scalars go.
        net: of the architecture.
        kinds: see `measure_barriers`; the last kind is what is merged.
        merge: (states, images of their teachers) → the merged state.
        images: every teacher's.
        reference: number of the teacher that is in every pair.
    """
    measure_barriers(log, net, kinds, images, reference)
    states = list(kinds.values())[-1]
    barriers, accuracies = [], []
    for other in (number for number in range(len(states)) if number != reference):
        pair = [reference, other]
        body = merge([states[i] for i in pair], torch.cat([images[i][0] for i in pair]))
        met = [answers(net, body, states[i], images[i]) for i in pair]
        own = [answers(net, states[i], states[i], images[i]) for i in pair]
        (loss, accuracy), (own_loss, _) = (_mean_of(*both) for both in _numbers([met, own]))
        log.scalars(other, {"pair_barrier_merged": loss - own_loss})
        barriers.append(loss - own_loss)
        accuracies.append(accuracy)
    whole = merge(states, torch.cat([shown for shown, _ in images]))
    shown = zip(states, images, strict=True)
    (met_by_all,) = _numbers([[answers(net, whole, state, one) for state, one in shown]])
    log.scalars(
        50,
        {
            "barrier_merged": _mean(barriers),
            "interpolation_accuracy_merged": _mean(accuracies),
            "merge_loss_merged": _mean([loss for loss, _ in met_by_all]),
            "merge_accuracy_merged": _mean([accuracy for _, accuracy in met_by_all]),
        },
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
