"""A smaller network rebuilt from its record, in the network that it was made of and in no other."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from paramtrans.errors import DataError
from paramtrans.networks.forward.attention import keep_plain_attention
from paramtrans.networks.graph.narrow import Setting
from paramtrans.networks.graph.numbers import numbers_of, recompile, set_number

log = logging.getLogger(__name__)

Shapes = dict[str, tuple[int, ...]]
"""Of the tensors of a network, by name."""


def shapes_of(network: nn.Module) -> Shapes:
    """The shapes of a network's tensors, by which `check_untranslated` knows it again."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network's state by name; what else it holds (`get_extra_state`) is named in a warning.

    Args:
        network: The network.
    """
    state = network.state_dict()
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if others := state.keys() - tensors.keys():
        log.warning("%s: is not written, as it is no tensor; whoever loads the network has its own", min(others))
    return tensors


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network all of its tensors; what else its state holds stays.

    Args:
        network: Is changed.
        tensors: By name, as `tensors_of` gives them.

    Raises:
        RuntimeError: one is missing, has no place, or is of another shape.
    """
    others = {name: value for name, value in network.state_dict().items() if not isinstance(value, Tensor)}
    network.load_state_dict({**others, **tensors})


def check_untranslated(network: nn.Module, shapes: Shapes) -> None:
    """Hold a network to the shapes of the one that a translated network was made of.

    A wider one could be cut to the same shapes, and would seem to be right.

    Args:
        network: What a translated network is to be rebuilt from.
        shapes: Of what it was made of.

    Raises:
        DataError: it is another network.
    """
    here = shapes_of(network)
    differing = [name for name in (shapes | here) if shapes.get(name) != here.get(name)]
    if differing:
        name, more = differing[0], f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        there, now = (list(side[name]) if name in side else "not there" for side in (shapes, here))
        raise DataError(
            f"it was made of another network, in which {name} is {there}, and here it is {now}{more}; give the "
            "untranslated network that it was made of"
        )


def rebuild(network: nn.Module, settings: Iterable[Setting], params: Mapping[str, Tensor]) -> None:
    """Give a fresh network the numbers and the sizes of tensors of a smaller one.

    Args:
        network: Is changed.
        settings: Numbers of its layers and modules that are others in the smaller network.
        params: Tensors of the smaller network by name; only their shapes are used.

    Raises:
        DataError: no translated network can have these: tensors or numbers are larger than the network's own, of
            other kinds, or were others before.
    """
    for setting in settings:
        try:
            module = network.get_submodule(setting.module)
        except AttributeError as error:
            raise DataError(f"there is no module {setting.module!r} in this network") from error
        current = numbers_of(module).get(setting.attribute)
        if current is None and "." in setting.attribute:
            raise DataError(
                f"{setting.attribute} is a number of a captured program, and this network has no such operation; give "
                "the program that was translated (as_program(network, inputs), export:FILE.pt2)"
            )
        if type(current) is not type(setting.after) or current is None or not _smaller(setting, current):
            raise DataError(f"{setting.module}.{setting.attribute}: {setting.after!r} takes the place of {current!r}")
        if current != setting.before:
            name = f"{setting.module}.{setting.attribute}".lstrip(".")
            raise DataError(
                f"it was made of another network, in which {name} was {setting.before}, and here it is {current}; give "
                "the untranslated network that it was made of"
            )
        set_number(module, setting.attribute, setting.after)
    recompile(network)
    resized: dict[int, Tensor] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        for slots in (module._parameters, module._buffers):
            for name, tensor in slots.items():
                param = params.get(f"{path}.{name}".lstrip("."))
                if tensor is None or param is None or param.shape == tensor.shape:
                    continue
                if param.ndim != tensor.ndim or any(a > b for a, b in zip(param.shape, tensor.shape, strict=True)):
                    raise DataError(f"{path}.{name} is {list(param.shape)}, larger than {list(tensor.shape)}")
                if id(tensor) not in resized:
                    empty = tensor.detach().new_empty(param.shape)
                    trained = isinstance(tensor, nn.Parameter)
                    resized[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if trained else empty
                slots[name] = resized[id(tensor)]
                module._non_persistent_buffers_set.discard(name)  # as the smaller network's file has it
    keep_plain_attention(network)


def _smaller(setting: Setting, before: Any) -> bool:
    """Whether a number, or a list of numbers, is positive and no larger than another.

    A position among the arguments of an operation may also be 0, or count from the end.
    """
    after = setting.after
    if isinstance(after, int):
        least = min(0, before) if "." in setting.attribute else 1
        return bool(least <= after <= max(before, 0))
    if len(after) != len(before):
        return False
    return all(type(number) is int and 0 < number <= limit for number, limit in zip(after, before, strict=True))
