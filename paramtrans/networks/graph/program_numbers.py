"""Numbers that surely follow where units are left out: in captured programs, and channels that norms remember.

The network's own code may hold a number anywhere; in a captured program it stands among the arguments of the operation
that needs it, and labels say what it becomes: sizes, positions, numbers of groups. So nothing is tried here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.fx import Node

from paramtrans.networks.graph.capture import module_path
from paramtrans.networks.graph.labels import axes_of
from paramtrans.networks.graph.narrow import Removal, Setting, new_sizes
from paramtrans.networks.graph.numbers import arguments_of, has_tensors
from paramtrans.networks.graph.operators import Value, name_of

Change = tuple[str, int]
"""A place among the arguments of an operation, and the number there afterwards."""

SIZES = {
    "view": 1, "reshape": 1, "_unsafe_view": 1, "expand": 1, "broadcast_to": 1, "layer_norm": 1, "rms_norm": 1,
    "full": 0, "zeros": 0, "ones": 0, "empty": 0, "new_full": 1, "new_zeros": 1, "new_ones": 1, "new_empty": 1,
}  # fmt: skip
"""Operations with a list of sizes of their result, its last axes at least, and where that stands."""
GROUPS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
"""Operations whose seventh argument is a number of groups."""


def program_numbers(removal: Removal) -> list[Setting]:
    """The numbers in captured programs inside a network that follow.

    Args:
        removal: The units that are left out.
    """
    settings: dict[tuple[str, str], Setting] = {}
    for node in removal.labelled.program.nodes:
        operation = removal.labelled.program.operations.get(node.name)
        if operation is None:
            continue
        path, origin = operation
        numbers = dict(arguments_of(origin))  # others are computed while the program runs
        for place, after in _changes(node, removal):
            before = numbers.get(place, after)
            if before != after:
                name = f"{origin.name}.{place}"
                settings.setdefault((path, name), Setting(path, name, before, after))
    return list(settings.values())


def remembered_channels(network: nn.Module, removal: Removal) -> list[Setting]:
    """The numbers of channels that norms of PyTorch without tensors remember. They compute the same with any.

    Args:
        network: The network.
        removal: The units that are left out.
    """
    modules, settings = dict(network.named_modules()), dict[Setting, None]()
    for node in removal.labelled.program.nodes:
        if name_of(node) not in ("instance_norm", "group_norm", "batch_norm"):
            continue
        path, value = module_path(node), removal.labelled.values.get(node.name)
        module = modules.get(path)
        if module is None or has_tensors(module) or not isinstance(value, Value):
            continue
        size, size_after = value.shape[1], new_sizes(value, removal).get(1)
        for name in ("num_features", "num_channels"):
            if size_after is not None and getattr(module, name, None) == size:
                settings[Setting(path, name, size, size_after)] = None
    return list(settings)


def _changes(node: Node, removal: Removal) -> Iterator[Change]:
    name, result = name_of(node), removal.labelled.values.get(node.name)
    if name in SIZES and isinstance(result, Value):
        yield from _sizes(node, SIZES[name], result, removal)
    elif name in RULES:
        yield from RULES[name](node, result, removal)
    elif name in GROUPS and len(node.args) > 6:
        yield from _convolution_groups(node, removal)


def _sizes(node: Node, position: int, result: Value, removal: Removal) -> Iterator[Change]:
    """A list of sizes, the last of which is that of the last axis; -1 stays what it is."""
    sizes: Any = node.args[position]
    first = len(result.shape) - len(sizes)
    for axis, size in new_sizes(result, removal).items():
        if axis >= first and sizes[axis - first] != -1:
            yield f"{position}.{axis - first}", size


def _unflatten(node: Node, result: Any, removal: Removal) -> Iterator[Change]:
    axis, sizes = _axis(node, 1), _argument(node, 2)
    for changed_axis, size in new_sizes(result, removal).items():
        if axis <= changed_axis < axis + len(sizes) and sizes[changed_axis - axis] != -1:
            yield f"2.{changed_axis - axis}", size


def _split(node: Node, result: Any, removal: Removal) -> Iterator[Change]:
    """One size for all parts, or one for each."""
    sizes, axis = _argument(node, 1), _axis(node, 2)
    sizes_after = [new_sizes(part, removal).get(axis, part.shape[axis]) for part in result]
    if isinstance(sizes, int):
        yield "1", max(sizes_after)
    else:
        yield from ((f"1.{i}", size) for i, size in enumerate(sizes_after))


def _slice(node: Node, result: Any, removal: Removal) -> Iterator[Change]:
    """Where a slice begins and ends: behind as many as stay before."""
    stays = _staying(node, _axis(node, 1), removal)
    for position in (2, 3) if stays is not None and _argument(node, 4, 1) == 1 else ():
        yield from _place(position, _argument(node, position), stays)


def _narrow(node: Node, result: Any, removal: Removal) -> Iterator[Change]:
    if (stays := _staying(node, _axis(node, 1), removal)) is not None:
        start, length = _argument(node, 2), _argument(node, 3)
        yield from _place(2, start, stays)
        yield "3", int(stays[start:][:length].sum())


def _select(node: Node, result: Any, removal: Removal) -> Iterator[Change]:
    yield from _place(2, _argument(node, 2), _staying(node, _axis(node, 1), removal))


def _place(position: int, place: Any, stays: Tensor | None) -> Iterator[Change]:
    """A number of an element along an axis; negative ones count from its end, larger ones are none."""
    if stays is not None and isinstance(place, int) and abs(place) <= len(stays):
        yield str(position), int(stays[:place].sum()) if place >= 0 else -int(stays[place:].sum())


def _group_norm(node: Node, result: Any, removal: Removal) -> Iterator[Change]:
    stays = _along(result, 1, removal)
    if stays is not None:
        yield "1", int(stays.view(_argument(node, 1), -1).any(1).sum())


def _convolution_groups(node: Node, removal: Removal) -> Iterator[Change]:
    """Groups of which some rows of the weight stay."""
    groups, weight = _argument(node, 6), _value(node, 1, removal)
    if groups > 1 and (stays := _along(weight, 0, removal)) is not None:
        yield "6", int(stays.view(groups, -1).any(1).sum())


RULES: dict[str, Callable[[Node, Any, Removal], Iterable[Change]]] = {
    "unflatten": _unflatten, "split": _split, "split_with_sizes": _split, "slice": _slice, "narrow": _narrow,
    "select": _select, "group_norm": _group_norm,
}  # fmt: skip
"""Operations with numbers of other kinds."""


def _argument(node: Node, position: int, default: Any = None) -> Any:
    return node.args[position] if len(node.args) > position else default


def _value(node: Node, position: int, removal: Removal) -> Any:
    """What is known of one of an operation's arguments."""
    operand = node.args[position]
    return removal.labelled.values.get(operand.name) if isinstance(operand, Node) else None


def _axis(node: Node, position: int) -> int:
    """An axis among the arguments, counted from 0; 0 where none is given."""
    return int(_argument(node, position, 0)) % len(node.args[0].meta["val"].shape)  # type: ignore[union-attr]


def _staying(node: Node, axis: int, removal: Removal) -> Tensor | None:
    """What stays along an axis of an operation's first argument."""
    return _along(_value(node, 0, removal), axis, removal)


def _along(value: Any, axis: int, removal: Removal) -> Tensor | None:
    """What stays along an axis of a value, `[size]`, of bool; None where all does.

    Where other units stay in each row, it is that of one of the rows.
    """
    labels: Sequence[Tensor] = value.labels if isinstance(value, Value) else ()
    for label in labels:
        if axis in axes_of(label):
            rows = removal.stays(label).movedim(axis, 0).flatten(1) if label.ndim > 1 else removal.stays(label)[:, None]
            return None if bool(rows.all()) else rows[:, int(rows.sum(0).argmax())]
    return None
