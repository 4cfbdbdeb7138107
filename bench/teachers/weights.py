"""Files of weights: parsed safely, and loaded only if they match the network exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn

from bench.errors import BenchError

PICKLES = (".pth", ".pt", ".bin", ".pkl")


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
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds, all of which refuse the file
        reason = " ".join(str(error).split())[:120]
        raise BenchError(
            f"'{path}' holds more than weights, or is damaged ({type(error).__name__}: {reason}…); "
            "save the state dict alone, as safetensors"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise BenchError(f"'{path}' holds no state dict; save net.state_dict() alone")
    return dict(content)


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
        if not bool(torch.isfinite(tensor).all()):
            return f"entry '{name}' is not finite"
    return None
