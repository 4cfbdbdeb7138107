"""Requirements that apply to several kinds of plug-ins."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from bench import registry
from bench.contract import Config, Learner, TaskBatch
from bench.contract.descriptions import descriptions
from bench.seeds import global_state
from bench.testing.checks import require
from bench.testing.tiny import tiny_tasks

PUBLIC = ("contract", "errors", "nets", "learners", "training", "inversion")
"""Modules of `bench` that any plug-in may import."""


def require_docstring(kind: type) -> str:
    """Return the first line of a plug-in's own docstring."""
    text = (vars(kind).get("__doc__") or "").strip()
    require(text, f"{kind.__name__} has no docstring; its first line is what `bench list` shows")
    return text.splitlines()[0]


def require_config(kind: type[Config]) -> None:
    """Require a configuration whose fields have docstrings and defaults."""
    require(issubclass(kind, Config), f"Config is {kind}; let it be a subclass of Config")
    bare = sorted(set(kind.model_fields) - set(descriptions(kind)))
    require(not bare, f"no docstring stands below {', '.join(bare)} of {kind.__name__}")
    kind()


def settings_among(kind: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that a configuration has settings for, and takes."""
    found: dict[str, Any] = {}
    for name in values.keys() & kind.model_fields.keys():
        try:
            kind.model_validate({name: values[name]})
            found[name] = values[name]
        except ValidationError:
            continue
    return found


def require_public_imports(kind: type, also: tuple[str, ...] = ()) -> None:
    """Require that the source of a plug-in's module imports only what plug-ins may import.

    Args:
        kind: the plug-in's class.
        also: modules of `bench` that its kind may import beside `PUBLIC`.
    """
    allowed = tuple(f"bench.{name}" for name in (*PUBLIC, *also))
    source = inspect.getsource(sys.modules[kind.__module__])
    found = {name for name in _imports(source) if name.split(".")[0] == "bench"}
    wrong = sorted(n for n in found if not any(f"{n}.".startswith(f"{a}.") for a in allowed))
    require(not wrong, f"imports {', '.join(wrong)}, which may change; use {', '.join(allowed)}")


def _imports(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module == "bench"
            yield from (f"bench.{a.name}" for a in node.names) if whole else (node.module,)


@contextmanager
def untouched_global_state() -> Iterator[None]:
    """Require that the code inside draws nothing from the global random streams."""
    before = global_state()
    yield
    changed = [name for name, value in global_state().items() if value != before[name]]
    require(not changed, f"draws from the global stream of {', '.join(changed)}; use a generator")


def state_of(net: torch.nn.Module) -> dict[str, Tensor]:
    """Return copies of a network's parameters and buffers."""
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def require_unchanged(net: torch.nn.Module, before: dict[str, Tensor], whose: str) -> None:
    """Require that a network has its former weights, no gradients and no hooks."""
    now = net.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, now[name])]
    require(not changed, f"changes {', '.join(changed[:3])} of {whose}")
    require(not any(p.grad is not None for p in net.parameters()), f"leaves gradients on {whose}")
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    require(not hooked, f"leaves hooks on {whose}")


def predicted(learner: Learner, tasks: TaskBatch) -> Tensor:
    """Return the logits of some tasks after checking their shape and values."""
    logits = learner.predict(tasks.support_x, tasks.support_y, tasks.query_x)
    n_way = int(tasks.support_y.max()) + 1
    wanted = (*tasks.query_y.shape, n_way)
    require(tuple(logits.shape) == wanted, f"logits are {tuple(logits.shape)}, wanted {wanted}")
    require(bool(logits.isfinite().all()), "logits are not finite")
    require(not logits.requires_grad, "logits carry a graph; predict without gradients")
    return logits


def learners_beside(kind: registry.Kind, name: str) -> list[str]:
    """Return the registered learners of this distribution and of the plug-in's own."""
    homes = registry.OWN, registry.distribution_of(kind, name)[0]
    found = registry.names("learner")
    return [one for one in found if registry.distribution_of("learner", one)[0] in homes]


def some_tasks() -> TaskBatch:
    """Return three tasks of five classes with two support and three query images each."""
    from bench.contract import TaskShape

    return tiny_tasks(torch.Generator().manual_seed(2), 3, TaskShape(5, 2, 3))


def task_slice(tasks: TaskBatch, part: slice) -> TaskBatch:
    """Return some of the tasks of a batch."""
    return replace(tasks, **{f.name: getattr(tasks, f.name)[part] for f in fields(tasks)})


def require_close(found: Tensor, expected: Tensor, what: str) -> None:
    """Require that two tensors agree up to rounding."""
    gap = (found - expected).abs().max().item()
    close = torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
    require(close, f"{what} (largest difference {gap:.2g})")


def require_tasks_apart(predict: Callable[[TaskBatch, int], Tensor], tasks: TaskBatch) -> None:
    """Require that the prediction of a task does not depend on the other tasks of its batch.

    Args:
        predict: (tasks, place of the first in the list) → logits.
        tasks: at least two.
    """
    whole = predict(tasks, 0)
    for place in range(len(tasks)):
        alone = predict(task_slice(tasks, slice(place, place + 1)), place)
        require_close(
            alone[0], whole[place], f"the prediction of task {place} changes if it is alone"
        )


def require_queries_alone(predict: Callable[[TaskBatch], Tensor], tasks: TaskBatch) -> None:
    """Require that a query is predicted alike whatever the task's other queries are."""
    fewer = tasks.query_x.shape[1] // 2
    part = replace(tasks, query_x=tasks.query_x[:, :fewer], query_y=tasks.query_y[:, :fewer])
    what = "queries change one another's logits; let `transductive` or a method's `bn_of` say so"
    require_close(predict(part), predict(tasks)[:, :fewer], what)
