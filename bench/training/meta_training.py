"""The meta-training loop of methods and oracles."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bench.contract import Backbone, FitContext, Learner, TaskBatch
from bench.errors import BenchError
from bench.nets.base import on_cpu


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


@runtime_checkable
class PreparedSource(TaskSource, Protocol):
    """A source that has long work to do before the tasks of some iterations."""

    @abstractmethod
    def prepare(self, iteration: int) -> Iterator[None]:
        """Do the work that comes before the tasks of a meta-iteration, piece by piece.

        After each piece the run may be saved; `prepare` of the same iteration then goes on from
        what `load_state_dict` was given.
        """


def meta_train(
    context: FitContext, net: Backbone, source: TaskSource, trained: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Meta-train a net in place and return the selected state.

    Each meta-iteration is one Adam step on the sum of the query losses of the source's tasks.
    Where the context validates, the start, every `validate_every`-th and the last iteration are
    scored, and the best state (the earliest of equals) is returned; otherwise the last one.
    After each step, and before each validation, it offers a checkpoint; an interrupted run
    continues bit by bit from the last one that was taken.

    Args:
        context: gives the learner's training settings, budget, outer rate, log, validation,
            resume state and `checkpoint`.
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
    """One run.

    `best` is (score, state); `validated` the iteration that was scored last; `last_saved` that of
    the last save; None before.
    """

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
        self.validated: int | None = None
        self.last_saved: int | None = None

    def run(self) -> dict[str, Tensor]:
        total, resume = self.context.budget.meta_iterations, self.context.resume
        start = 0 if resume is None else self._restore(resume)
        self._validate(start)
        for iteration in range(start + 1, total + 1):
            self._step(iteration)
            self._validate(iteration)
            self.context.log.progress(iteration, total)
            self._offer(iteration)
        return self._state() if self.best is None else self.best[1]

    def _step(self, iteration: int) -> None:
        if isinstance(self.source, PreparedSource):
            for _ in self.source.prepare(iteration):
                self._offer(iteration - 1)
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
        """Score the state where it is time and the context validates; keep it if it is the best."""
        budget = self.context.budget
        due = iteration % budget.validate_every == 0 or iteration == budget.meta_iterations
        if not due or iteration == self.validated:
            return
        state = self._state()
        if _first_not_finite(state) is not None:
            raise self._not_finite("a weight is not finite", iteration)
        if (validate := self.context.validate) is not None:
            self._offer(iteration)
            score = self._score(validate, iteration, state)
            self.context.log.scalars(iteration, {"val_accuracy": score})
            if self.best is None or score > self.best[0]:
                self.best = (score, state)
        self.validated = iteration

    def _score(
        self, validate: Callable[[Learner], float], iteration: int, state: dict[str, Tensor]
    ) -> float:
        """Return the validation accuracy; an interruption saves the state, to be scored later."""
        try:
            return validate(self.context.make_learner(state))
        except KeyboardInterrupt:
            self._offer(iteration)
            raise

    def _offer(self, iteration: int) -> None:
        self.context.checkpoint(iteration, functools.partial(self._saved, iteration))

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
        return on_cpu(dict(self.net.state_dict()))

    def _saved(self, iteration: int) -> dict[str, Any]:
        """Return a copy of all that is needed to go on after an iteration."""
        state = {
            "iteration": iteration,
            "validated": self.validated,
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best": None if self.best is None else {"score": self.best[0], "net": self.best[1]},
            "source": self.source.state_dict(),
        }
        state = on_cpu(state)
        if (name := _first_not_finite(state)) is not None:
            raise self._not_finite(f"state {name} is not finite", iteration)
        self.last_saved = iteration
        return state

    def _restore(self, saved: Mapping[str, Any]) -> int:
        """Continue from a saved state; return its iteration."""
        saved = deepcopy(saved)
        self.net.load_state_dict(saved["net"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.source.load_state_dict(saved["source"])
        if saved["best"] is not None:
            self.best = (saved["best"]["score"], saved["best"]["net"])
        self.validated = saved["validated"]
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
