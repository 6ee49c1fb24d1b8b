"""A network with units left out: its own code, layers, hooks and flags, with smaller tensors and the sizes to match."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils._pytree import tree_flatten

from paramtrans.networks.forward.attention import keep_plain_attention
from paramtrans.networks.graph.capture import module_path
from paramtrans.networks.graph.labels import axes_of
from paramtrans.networks.graph.numbers import Number, has_tensors, numbers_of, recompile, set_number
from paramtrans.networks.graph.operators import Value, name_of
from paramtrans.networks.graph.propagate import Labelled
from paramtrans.networks.graph.rules.movement import SPLITTING
from paramtrans.networks.graph.units import Classes, UnitGroup

Retained = dict[str, list[Tensor]]
"""For tensors with indices that go, those that stay, axis by axis."""


@dataclass(frozen=True)
class Removal:
    """Units to be left out of a network."""

    labelled: Labelled
    classes: Classes
    gone: np.ndarray
    """`[classes]`: whether each goes."""

    @classmethod
    def of(cls, labelled: Labelled, classes: Classes, choices: Mapping[UnitGroup, Tensor]) -> Removal:
        """All units of some groups but those that stay.

        Args:
            labelled: Of the network.
            classes: Of its atoms.
            choices: For each group the numbers of the units that stay, `[count]`.
        """
        gone = np.zeros(classes.of.max() + 1, bool)
        for group, retained in choices.items():
            staying = {*retained.tolist()}
            for number, unit in enumerate(group.classes):
                if number not in staying:
                    gone[list(unit)] = True
        return cls(labelled, classes, gone)

    def stays(self, label: Tensor) -> Tensor:
        """Which elements of a label stay: of its shape, of bool."""
        return torch.from_numpy(~self.gone[self.classes.of[label.numpy()]])

    def retained(self) -> Retained:
        """The indices that stay of each tensor that becomes smaller."""
        staying: Retained = {}
        for name, axes in self.labelled.axes.items():
            indices = [self.stays(atoms).nonzero()[:, 0] for atoms in axes]
            if any(len(index) < len(atoms) for index, atoms in zip(indices, axes, strict=True)):
                staying[name] = indices
        return staying


@dataclass(frozen=True)
class Setting:
    """A number that the network's code reads, and what it becomes."""

    module: str
    attribute: str
    """Its name, as `numbers` has it."""
    before: Number
    after: Number


def narrow(network: nn.Module, removal: Removal, settings: list[Setting], share: bool = False) -> nn.Module:
    """A copy of a network without some units.

    Args:
        network: The network.
        removal: The units that are left out.
        settings: Numbers in modules of the copy that are set.
        share: Parameters that stay as they are are shared with the network, not copied.
    """
    retained = removal.retained()
    # What becomes smaller is replaced, so that it need not be copied first.
    shared = (p for name, p in network.named_parameters(remove_duplicate=False) if share or name in retained)
    narrowed = copy.deepcopy(network, {id(parameter): parameter for parameter in shared})
    shrink(narrowed, retained)
    apply(narrowed, settings)
    return narrowed


def shrink(network: nn.Module, retained: Retained) -> None:
    """Make a network's tensors smaller, and the sizes that PyTorch's own layers remember.

    Args:
        network: Is changed.
        retained: The indices that stay, axis by axis.
    """
    narrowed_tensors: dict[int, Tensor] = {}
    # Held until the end: a tensor that was let go could give its `id` to a new one.
    tensors = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    by_tensor = {id(tensor): retained[name] for name, tensor in tensors if name in retained}
    for module in network.modules():
        slots: list[tuple[str, Tensor | None]] = [*module._parameters.items(), *module._buffers.items()]
        tensors_by_name = {name: tensor for name, tensor in slots if tensor is not None}
        indices = {name: by_tensor[id(tensor)] for name, tensor in tensors_by_name.items() if id(tensor) in by_tensor}
        for name, tensor in tensors_by_name.items():
            if id(tensor) in by_tensor:
                if id(tensor) not in narrowed_tensors:
                    narrowed_tensors[id(tensor)] = smaller(tensor, by_tensor[id(tensor)])
                narrowed = narrowed_tensors[id(tensor)]
                by_tensor[id(narrowed)] = []  # a shared tensor that was seen from another owner
                slot: dict[str, Any] = module._parameters if name in module._parameters else module._buffers
                slot[name] = narrowed
                # What no file keeps, the network's code would make whole again.
                module._non_persistent_buffers_set.discard(name)
        if any(indices.values()):
            set_sizes(module, tensors_by_name, {name: index for name, index in indices.items() if index})
    keep_plain_attention(network)


def smaller(tensor: Tensor, indices: list[Tensor]) -> Tensor:
    """A tensor with some indices of each axis; its kind, flags and memory format stay.

    Args:
        tensor: A parameter or a buffer, or what stands for one.
        indices: Of each axis.
    """
    if not indices:
        return tensor
    values = tensor.detach()
    for axis, index in enumerate(indices):
        if len(index) < values.shape[axis]:
            values = values.index_select(axis, index.to(values.device))
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous():
        values = values.contiguous(memory_format=torch.channels_last)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(values, requires_grad=tensor.requires_grad)
    return values


def set_sizes(module: nn.Module, tensors_before: Mapping[str, Tensor], retained: Mapping[str, list[Tensor]]) -> None:
    """Set the sizes that a layer of PyTorch remembers, after its tensors became smaller.

    Args:
        module: The layer.
        tensors_before: Its tensors as they were.
        retained: The indices that stayed of each, axis by axis.
    """
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd) and "weight" in retained:
        rows, columns = retained["weight"][:2]
        if module.transposed:
            groups = _alive(rows, tensors_before["weight"].shape[0] // module.groups)
            module.in_channels, module.out_channels = len(rows), len(columns) * groups
        else:
            groups = _alive(rows, tensors_before["weight"].shape[0] // module.groups)
            module.out_channels, module.in_channels = len(rows), len(columns) * groups
        module.groups = groups
    elif isinstance(module, nn.Linear) and isinstance(weight, Tensor):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = next(len(indices[0]) for indices in retained.values())
    elif isinstance(module, nn.Embedding) and isinstance(weight, Tensor):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.GroupNorm) and isinstance(weight, Tensor):
        module.num_groups = _alive(retained["weight"][0], module.num_channels // module.num_groups)
        module.num_channels = len(weight)
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm) and isinstance(weight, Tensor):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.PReLU) and isinstance(weight, Tensor):
        module.num_parameters = len(weight)


def _alive(retained: Tensor, size: int) -> int:
    """Groups of `size` indices of which some stay."""
    return len((retained // size).unique())


# Numbers in the network's own code ----------------------------------------------------------------------------------


def candidates(network: nn.Module, removal: Removal) -> list[Setting]:
    """Attributes of modules that hold a number which a shape in their code has, and which becomes smaller.

    Args:
        network: The network.
        removal: The units that are left out.
    """
    modules = dict(network.named_modules())
    settings: dict[Setting, None] = {}
    for node in removal.labelled.program.nodes:
        if node.op != "call_function":
            continue
        for size_before, size_after in _changed_numbers(node, removal):
            path: str | None = module_path(node)
            while path is not None:
                matching = [
                    Setting(path, name, *sizes)
                    for sizes in ((size_before, size_after), ((size_before,), (size_after,)))
                    for name in _attributes(modules.get(path), sizes[0])
                ]
                settings.update(dict.fromkeys(matching))
                path = None if matching or not path else path.rpartition(".")[0]
    return list(settings)


def _attributes(module: nn.Module | None, value: int | tuple[int, ...]) -> list[str]:
    """Attributes of a module of the network's own that hold this number or shape, or of a layer of PyTorch without
    tensors, as these would say its sizes."""
    if module is None or (type(module).__module__.startswith("torch.nn.") and (has_tensors(module) or module._modules)):
        return []
    return [
        name
        for name, held in vars(module).items()
        if type(held) is type(value) and held == value and not name.startswith("_")
    ]


def _changed_numbers(node: Node, removal: Removal) -> Iterator[tuple[int, int]]:
    """Numbers among an operation's arguments that change, with what they become."""
    result = removal.labelled.values.get(node.name)
    numbers = {argument for argument in tree_flatten((node.args, node.kwargs))[0] if type(argument) is int}
    name = name_of(node)
    for value in result if isinstance(result, list) else [result]:
        if not isinstance(value, Value):
            continue
        for axis, size_after in new_sizes(value, removal).items():
            size_before = value.shape[axis]
            if size_before in numbers or name in SPLITTING:
                yield size_before, size_after
    if name == "group_norm" and isinstance(result, Value):
        for label in result.labels:
            if axes_of(label) == (1,):
                stays = removal.stays(label.flatten()).view(int(node.args[1]), -1).any(1)  # type: ignore[arg-type]
                if not stays.all():
                    yield int(node.args[1]), int(stays.sum())  # type: ignore[arg-type]


def new_sizes(value: Value, removal: Removal) -> dict[int, int]:
    """Axes of a value that become smaller, each with its new size.

    Args:
        value: The value.
        removal: The units that are left out.
    """
    sizes: dict[int, int] = {}
    for label in value.labels:
        stays = removal.stays(label)
        if bool(stays.all()):
            continue
        for axis in axes_of(label):
            other_axes = [other_axis for other_axis in range(label.ndim) if other_axis != axis]
            rows = stays.any(dim=other_axes) if other_axes else stays
            # Where each row keeps some of its own, the axis has as many as one row keeps.
            counts = stays.sum(axis)
            most_in_row = int(counts.max())
            size = min(int(rows.sum()), most_in_row) if len(axes_of(label)) > 1 else int(rows.sum())
            if size < label.shape[axis]:
                sizes[axis] = size
    return sizes


def apply(network: nn.Module, settings: Iterable[Setting]) -> None:
    """Set numbers in modules of a network."""
    for setting in settings:
        set_number(network.get_submodule(setting.module), setting.attribute, setting.after)
    recompile(network)


def changed_numbers(before: nn.Module, after: nn.Module) -> Iterator[Setting]:
    """Numbers, and tuples of numbers, that modules hold in both networks and that differ."""
    modules_after = dict(after.named_modules())
    for path, module in before.named_modules():
        numbers_after = numbers_of(modules_after[path])
        for name, value in numbers_of(module).items():
            value_after = numbers_after.get(name)
            if type(value_after) is type(value) and value_after is not None and value_after != value:
                yield Setting(path, name, value, value_after)
