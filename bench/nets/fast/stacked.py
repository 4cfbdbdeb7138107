"""Networks of one shape computed as one: stacked parameters, vectorised passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from bench.contract import Backbone


class _Applied(nn.Module):
    """A function of a network, as a module, so that the network's state can be replaced in it."""

    def __init__(self, net: Backbone, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.net = net
        self._function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._function(self.net, *inputs)


class StackedNets:
    """A function of a network, applied to N networks of one shape and their inputs at once.

    The networks' states are copied once; later changes of theirs are not seen.

    Args:
        nets: networks of one shape, on one device; frozen.
        function: (network, inputs …) → tensor, in operations that `vmap` knows.
    """

    def __init__(self, nets: Sequence[Backbone], function: Callable[..., Tensor]) -> None:
        applied = [_Applied(net, function) for net in nets]
        parameters, buffers = stack_module_state(applied)
        self._state = {name: value.detach() for name, value in {**parameters, **buffers}.items()}
        self._module = applied[0]

    def __call__(self, members: Tensor, *inputs: Tensor) -> Tensor:
        """Return the results (m, …) of some of the networks; differentiable in the inputs.

        Args:
            members: numbers of networks (m,).
            inputs: what each of them gets, (m, …) each.
        """
        state = {name: value[members] for name, value in self._state.items()}

        def one(state: dict[str, Tensor], *inputs: Tensor) -> Tensor:
            return functional_call(self._module, state, inputs)

        return vmap(one)(state, *inputs)
