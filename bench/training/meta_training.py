"""The meta-training loop of methods and oracles."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.contract import Backbone, FitContext, TaskBatch
from bench.errors import BenchError


class TaskSource(Protocol):
    """A source of training tasks, which may adapt to the accuracy on them."""

    @abstractmethod
    def next_tasks(self, iteration: int) -> TaskBatch:
        """Return the tasks of a meta-iteration, counted from 1; detached, on the device."""

    def observe(self, iteration: int, accuracy: float) -> None:
        """Receive the mean query accuracy on the iteration's tasks, a fraction."""

    @abstractmethod
    def watched(self) -> Mapping[str, Tensor]:
        """Return 0-d tensors of the iteration's own losses by name, causes before effects.

        They are read together with the outer loss; one that is not finite stops the run.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that is needed to continue bit by bit."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""


def meta_train(
    context: FitContext, net: Backbone, source: TaskSource, trained: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Meta-train a net in place and return the selected state.

    Each meta-iteration is one Adam step on the sum of the query losses of the source's tasks.
    Where the context validates, the start, every `validate_every`-th and the last iteration are
    scored, and the best state (the earliest of equals) is returned; otherwise the last one.
    An interrupted run continues bit by bit from its last save.

    Args:
        context: gives the learner's training settings, budget, outer rate, log, validation,
            resume state and `save`.
        net: the meta-model at its starting point, on the device.
        source: the tasks.
        trained: names of the parameters that learn; None takes all.

    Returns:
        The net's complete state dict: clones on the CPU.

    Raises:
        BenchError: the outer loss, a loss that the source watches, the weights, or the source's
            own state stopped being finite; what was saved last is finite throughout.
    """
    return _MetaTraining(context, net, source, trained).run()


class _MetaTraining:
    """One run. `best` is (score, state); `last_saved` the iteration of the last save, or None."""

    def __init__(
        self,
        context: FitContext,
        net: Backbone,
        source: TaskSource,
        trained: Collection[str] | None,
    ) -> None:
        self.context, self.net, self.source = context, net, source
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(trained is None or name in trained)
        self.learner = context.training_learner(net)
        self.parameters = dict(net.named_parameters())
        lr = context.protocol.outer_lr
        learning = [p for p in self.parameters.values() if p.requires_grad]
        self.optimiser = torch.optim.Adam(learning, lr=lr, fused=True)
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.last_saved: int | None = None

    def run(self) -> dict[str, Tensor]:
        total, every = self.context.budget.meta_iterations, self.context.budget.validate_every
        if self.context.resume is None:
            start = 0
            self._validate(0)
        else:
            start = self._restore(self.context.resume)
        for iteration in range(start + 1, total + 1):
            self._step(iteration)
            if iteration % every == 0 or iteration == total:
                self._validate(iteration)
            self.context.log.progress(iteration, total)
            if iteration % every == 0:
                self._save(iteration)
        return self._state() if self.best is None else self.best[1]

    def _step(self, iteration: int) -> None:
        tasks = self.source.next_tasks(iteration)
        self.optimiser.zero_grad(set_to_none=True)
        losses, logits = self.learner.outer_loss(self.parameters, tasks)
        losses.sum().backward()
        self.optimiser.step()
        hits = (logits.detach().argmax(-1) == tasks.query_y).to(losses.dtype)
        # all that is read travels together: one wait for the device in each iteration
        watched = {n: v.detach().to(losses) for n, v in self.source.watched().items()}
        read = [losses.detach().mean(), hits.mean(), *watched.values()]
        loss, accuracy, *values = torch.stack(read).tolist()
        self._check(dict(zip(watched, values, strict=True)), loss, iteration)
        log = self.context.log
        log.scalars(iteration, {"outer_loss": loss, "query_accuracy": accuracy})
        log.count("train_tasks", len(tasks))
        self.source.observe(iteration, accuracy)

    def _check(self, watched: Mapping[str, float], loss: float, iteration: int) -> None:
        for name, value in watched.items():
            if not math.isfinite(value):
                remedy = "lower pixel_lr or set clip_pixels"
                raise self._not_finite(f"inversion term {name} is {value}", iteration, remedy)
        if not math.isfinite(loss):
            raise self._not_finite(f"outer loss is {loss}", iteration)

    def _validate(self, iteration: int) -> None:
        """Score the state if the context validates; keep it if it is the best so far."""
        state = self._state()
        if _first_not_finite(state) is not None:
            raise self._not_finite("a weight is not finite", iteration)
        if self.context.validate is None:
            return
        score = self.context.validate(self.context.make_learner(state))
        self.context.log.scalars(iteration, {"val_accuracy": score})
        if self.best is None or score > self.best[0]:
            self.best = (score, state)

    def _not_finite(
        self, what: str, iteration: int, remedy: str = "lower outer_lr or pixel_lr"
    ) -> BenchError:
        kept = (
            "no earlier state was saved"
            if self.last_saved is None
            else f"the last good state, of iteration {self.last_saved}, is kept"
        )
        return BenchError(f"{what} at meta-iteration {iteration}; {remedy}; {kept}")

    def _state(self) -> dict[str, Tensor]:
        """Return clones of all parameters and buffers, on the CPU."""
        return {name: v.detach().cpu().clone() for name, v in self.net.state_dict().items()}

    def _save(self, iteration: int) -> None:
        state = {
            "iteration": iteration,
            "net": self._state(),
            "optimiser": self.optimiser.state_dict(),
            "best": None if self.best is None else {"score": self.best[0], "net": self.best[1]},
            "source": self.source.state_dict(),
        }
        if (name := _first_not_finite(state)) is not None:
            raise self._not_finite(f"state {name} is not finite", iteration)
        self.context.save(iteration, deepcopy(state))
        self.last_saved = iteration

    def _restore(self, saved: Mapping[str, Any]) -> int:
        """Continue from a saved state; return its iteration."""
        saved = deepcopy(saved)
        self.net.load_state_dict(saved["net"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.source.load_state_dict(saved["source"])
        if saved["best"] is not None:
            self.best = (saved["best"]["score"], saved["best"]["net"])
        self.last_saved = saved["iteration"]
        return saved["iteration"]


def _first_not_finite(state: object, name: str = "") -> str | None:
    """Return the dotted name of the first tensor of a nested state that is not finite, or None."""
    if isinstance(state, Tensor):
        return None if bool(state.isfinite().all()) else name
    parts: Iterable[tuple[object, object]] = ()
    if isinstance(state, Mapping):
        parts = state.items()
    elif isinstance(state, list | tuple):
        parts = enumerate(state)
    names = (_first_not_finite(part, f"{name}.{key}".lstrip(".")) for key, part in parts)
    return next((found for found in names if found is not None), None)
