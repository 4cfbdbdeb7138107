"""Files of weights: parsed safely, and loaded only if they match the network exactly."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn

from bench.errors import BenchError

PICKLES = (".pth", ".pt", ".bin", ".pkl")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema")
"""Keys under which checkpoints hold a state dict, beside other things."""
COUNTER = ".num_batches_tracked"


def read_state(path: Path, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a file; its digest was compared before if one is known."""
    if path.suffix.lower() in PICKLES:
        return _unpickle(path, allow_pickle)
    try:
        return parse_safetensors(path.read_bytes())
    except (SafetensorError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise BenchError(
            f"'{path}' is not a safetensors file ({reason}); save the state dict with "
            "safetensors.torch.save_file, or name a .pth with --allow-pickle"
        ) from None


def _unpickle(path: Path, allowed: bool) -> dict[str, Tensor]:
    if not allowed:
        raise BenchError(
            f"'{path}' is a pickle, which can run code when read carelessly; pass --allow-pickle "
            "to read its weights only, or save it as safetensors"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # of a pickle's protocol, which is no matter
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds, all of which refuse the file
        raise BenchError(
            f"'{path}' holds {_refused(error)}; save the state dict alone, as safetensors"
        ) from None
    content = _unwrapped(content)
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise BenchError(f"'{path}' holds no state dict; save net.state_dict() alone")
    return dict(content)


def _refused(error: Exception) -> str:
    """Return what a pickle holds, without the page of advice around it, and its colours."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2]
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"more than weights: {found[1]}"
    reason = "".join(filter(str.isprintable, text.strip().partition("\n")[0]))
    return f"more than weights, or is damaged ({type(error).__name__}: {reason[:120]})"


def _unwrapped(content: object) -> object:
    """Return the state dict of a checkpoint that holds it under one of the usual keys."""
    inner = [content.get(key) for key in WRAPPERS] if isinstance(content, dict) else []
    return next((one for one in inner if isinstance(one, dict)), content)


def fitted(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return a state dict under a network's names, as far as what wraps networks changed them.

    DataParallel, torch.compile, Lightning and others put a prefix before every name; versions of
    torch before 0.4.1 counted no batches in batch norm.

    Returns:
        The state dict, and what was done to it, in words.
    """
    state, done = dict(state), []
    while state and not set(state) & set(expected):
        prefix = next(iter(state)).partition(".")[0] + "."
        if not all(name.startswith(prefix) for name in state):
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        done.append(f"the prefix '{prefix}' was taken off all names")
    uncounted = [n for n in expected if n.endswith(COUNTER) and n not in state]
    if uncounted and not any(name.endswith(COUNTER) for name in state):
        state |= {name: expected[name].clone() for name in uncounted}
        done.append("batch norm layers count no batches; 0 is taken, which changes no output")
    return state, done


def load_state(net: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict into a network that must have exactly these entries and shapes.

    Raises:
        BenchError: an entry is missing, unknown, of another shape, or not finite.
    """
    expected = net.state_dict()
    problem = _misfit(expected, state)
    if problem is not None:
        raise BenchError(
            f"'{path}' does not fit the network: {problem}; name the right network, and the size "
            "of the images that it was built for"
        )
    if (problem := _unusable(state)) is not None:
        raise BenchError(
            f"'{path}' holds weights that no network can use: {problem}; take an earlier checkpoint"
        )
    net.load_state_dict(state)


def _misfit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    missing, unknown = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing:
        return f"entry '{missing[0]}' is missing ({len(missing)} in all)"
    if unknown:
        return f"entry '{unknown[0]}' is unknown ({len(unknown)} in all)"
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            return (
                f"entry '{name}' has shape {tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            )
    return None


def _unusable(state: Mapping[str, Tensor]) -> str | None:
    """Say which entry no network can compute with, None where all can."""
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor.float()).all()):
            return f"entry '{name}' is not finite"
        if name.endswith("running_var") and bool((tensor.float() < 0).any()):
            return f"entry '{name}' has variances below 0"
    return None
