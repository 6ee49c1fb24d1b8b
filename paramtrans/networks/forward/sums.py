"""What the outputs of layers are added to, seen in a pass of a network.

A block of a residual network adds what its last layer gives to its own input. Where that layer is solved for in a
smaller network, it can make up for what the input has lost before. Where the other part of the sum is computed behind
the layer, as by the convolution on the skip of some residual blocks, it is known if no layer that is solved for is in
it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from paramtrans.networks.forward.lockstep import AddedTo, Place, operation_name, positional, weight_position
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.utils.fast_path import layer_by_layer

SUMS = ("add", "add_", "__add__", "__iadd__", "__radd__")
"""Operations that add two tensors, but for those with a factor before the second one (`alpha`)."""
SAME_ROWS = ("batch_norm", "clone", "contiguous", "dropout", "dropout_", "float", "reshape", "to", "type_as", "view")
"""Operations behind which each row is what the layer gave, in eval mode, but for a normalisation's scale."""


def added_to(forward: Callable[[], Any], layers: Mapping[int, str]) -> dict[str, AddedTo]:
    """Follow the output of each layer through the sums that it goes into, as long as nothing else uses it.

    Args:
        forward: A pass of the network; one or two examples are enough.
        layers: Weights of layers by their `id`, with the names of the layers.

    Returns:
        For each layer that is passed once and whose output is added to what was computed before it.
    """
    follow = _Follow(layers)
    with torch.no_grad(), layer_by_layer(), follow:
        forward()
    chains = {name: values[0].whole_chain() for name, values in follow.outputs.items() if len(values) == 1}
    return {
        name: AddedTo(
            end.at,
            tuple(place for place in end.places if place[0] < end.at),
            tuple(place for place in end.places if place[0] > end.at),
        )
        for name, end in chains.items()
        if end.places
    }


class _Enough(Exception):
    """All wanted values are known."""


@torch.no_grad()
def values_at(forward: Callable[[], Any], places: Sequence[Place]) -> list[Tensor] | None:
    """What a pass of a network gives at some places; it is run no further.

    Args:
        forward: The pass.
        places: In it.

    Returns:
        None where the pass does not come to all of them.
    """
    watch = _At(places)
    with suppress(_Enough), layer_by_layer(), watch:
        forward()
    return [watch.values[place] for place in places] if len(watch.values) == len(places) else None


class _At(TorchFunctionMode):
    """Keeps the values at some places of a pass, and ends it at the last."""

    def __init__(self, places: Sequence[Place]) -> None:
        super().__init__()
        self.places, self.number = {*places}, 0
        self.values: dict[Place, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        number, self.number = self.number, self.number + 1
        result = func(*args, **(kwargs or {}))
        for position, tensor in enumerate(tensors_in(result)):
            if (number, position) in self.places:
                self.values[number, position] = tensor.clone()  # what follows may work in place
        if len(self.values) == len(self.places):
            raise _Enough
        return result


@dataclass(eq=False)
class _Value:
    """A layer's output, and what was added to it so far."""

    at: int
    """Number of the layer's operation."""
    places: tuple[Place, ...] = ()
    uses: int = 0
    following: _Value | None = None

    def whole_chain(self) -> _Value:
        """The last value of which all before are used for nothing else."""
        value = self
        while value.uses == 1 and value.following is not None:
            value = value.following
        return value


class _Follow(TorchFunctionMode):
    """Numbers the operations of a pass, and follows the outputs of layers."""

    def __init__(self, layers: Mapping[int, str]) -> None:
        super().__init__()
        self.layers, self.number = layers, 0
        self.outputs: dict[str, list[_Value]] = {}
        self._layers_at: list[int] = []
        # By the `id` of tensors, as long as they live: all that a pass computes is much to hold.
        self._made: dict[int, tuple[Place, weakref.ref[Tensor]]] = {}
        self._values: dict[int, _Value] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        number, self.number = self.number, self.number + 1
        args, kwargs = positional(func, args, kwargs or {})
        result = func(*args, **kwargs)
        results = tensors_in(result)
        if results:
            for tensor in tensors_in([*args, *kwargs.values()]):
                if id(tensor) in self._values:
                    self._values[id(tensor)].uses += 1
            following = self._following(func, args, kwargs, number, results[0]) if result is results[0] else None
            for tensor in results:
                self._values.pop(id(tensor), None)  # what it was before it was changed in place
            if following is not None:
                self._values[id(result)] = following
            for position, tensor in enumerate(results):
                self._made[id(tensor)] = ((number, position), weakref.ref(tensor, partial(self._forget, id(tensor))))
        return result

    def _forget(self, number: int, reference: weakref.ref[Tensor]) -> None:
        """A tensor is gone, and its `id` may become that of another."""
        if number in self._made and self._made[number][1] is reference:
            del self._made[number]
            self._values.pop(number, None)

    def _following(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], number: int, result: Tensor
    ) -> _Value | None:
        """The value that an operation gives, where it is one of those that are followed."""
        name, position = operation_name(func), weight_position(func, args, self.layers)
        if position is not None:
            value = _Value(number)
            self._layers_at.append(number)
            self.outputs.setdefault(self.layers[id(args[position])], []).append(value)
            return value
        tensors = [argument for argument in args if isinstance(argument, Tensor)]
        if name in SAME_ROWS and tensors and result.ndim and result.shape[-1] == tensors[0].shape[-1]:
            return self._go_on(tensors[0], ())
        is_sum = name in SUMS and len(args) == len(tensors) == 2 and kwargs.get("alpha", 1) == 1
        if is_sum and tensors[0].shape == tensors[1].shape:
            return self._go_on(tensors[0], self._older(tensors)) or self._go_on(tensors[1], self._older(tensors[::-1]))
        return None

    def _older(self, operands: Sequence[Tensor]) -> tuple[Place, ...] | None:
        """Where the second operand is from: nowhere for what is given to the network; None where a layer that is solved
        for after this one may be in it."""
        value, made = self._values.get(id(operands[0])), self._made.get(id(operands[1]))
        if value is None or made is None:
            return ()
        return (made[0],) if made[0][0] < value.at or value.at == self._layers_at[-1] else None

    def _go_on(self, tensor: Tensor, places: tuple[Place, ...] | None) -> _Value | None:
        value = self._values.get(id(tensor))
        if value is None or places is None:
            return None
        value.following = _Value(value.at, value.places + places)
        return value.following
