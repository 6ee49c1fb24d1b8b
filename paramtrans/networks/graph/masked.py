"""A captured program run without some units: at zero wherever they are summed over, and out of all means and norms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_flatten, tree_map

from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.graph.capture import Program
from paramtrans.networks.graph.narrow import Removal
from paramtrans.networks.graph.operators import Contraction, name_of

NORMS = ("layer_norm", "rms_norm")
"""Normalisations, whose results have the axes that they are computed over."""


class Masked(Interpreter):
    """A captured program, run with units at zero wherever they are summed over, and out of all means and norms.

    It is run in `precision`, or in that of its tensors, whatever it was captured in; half precision stays as it is.
    """

    def __init__(
        self,
        program: Program,
        tensors: dict[str, Tensor],
        removal: Removal | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        super().__init__(program.exported.graph_module)
        self.program, self.tensors, self.removal = program, tensors, removal
        self.precision = precision or precision_of(tensors)
        self.at: dict[str, list[Contraction]] = defaultdict(list)
        for contraction in removal.labelled.contractions if removal else ():
            if contraction.operand >= 0 and not bool(removal.stays(contraction.label).all()):  # type: ignore[union-attr]
                self.at[contraction.node.name].append(contraction)
        self.staying: dict[str, dict[int, Tensor]] = defaultdict(dict)
        for reduction in removal.labelled.reductions if removal else ():
            stays = removal.stays(reduction.label).flatten()  # type: ignore[union-attr]
            if not bool(stays.all()):
                self.staying[reduction.node.name][reduction.axis] = stays.nonzero()[:, 0]

    @torch.no_grad()
    def outputs(self) -> list[Tensor]:
        """What the program gives for its example inputs."""
        leaves = iter(tree_flatten(self.program.arguments)[0])
        values: list[Any] = []
        for spec in self.program.exported.graph_signature.input_specs:
            name = spec.arg.name
            if name in self.program.names:
                values.append(self.tensors[self.program.names[name]])
            elif spec.kind is InputKind.USER_INPUT:
                leaf = next(leaves)
                values.append(leaf.clone() if isinstance(leaf, Tensor) else leaf)
            else:
                values.append(self.program.constants.get(name))
        return tensors_in(list(self.run(*values)))

    def fetch_args_kwargs_from_env(self, n: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of one operation, without casts to a lower precision than it is run in."""
        fetched: tuple[tuple[Any, ...], dict[str, Any]] = in_precision(
            super().fetch_args_kwargs_from_env(n), self.precision
        )
        return fetched

    def run_node(self, n: Node) -> Any:
        """One operation, with what it sums over masked."""
        if n.name in self.staying:
            return over_staying(n, *self.fetch_args_kwargs_from_env(n), self.staying[n.name])
        if n.name not in self.at:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        flat = list(args)
        for contraction in self.at[n.name]:
            if name_of(n) == "einsum":
                values = list(flat[1])
                values[contraction.operand] = self._masked(values[contraction.operand], contraction)
                flat[1] = values
            else:
                flat[contraction.operand] = self._masked(flat[contraction.operand], contraction)
        return getattr(self, n.op)(n.target, tuple(flat), kwargs)

    def _masked(self, value: Tensor, contraction: Contraction) -> Tensor:
        assert self.removal is not None
        label = contraction.label
        if (
            name_of(contraction.node) == "scaled_dot_product_attention"
            and label.shape[-3:-2] != value.shape[-3:-2]
            and label.shape[-3] > 1
        ):
            label = label[..., :: label.shape[-3] // value.shape[-3], :, :]
        stays = self.removal.stays(label)
        return value * stays.to(value)


def over_staying(node: Node, args: Any, kwargs: Any, staying: Mapping[int, Tensor]) -> Any:
    """A mean or a normalisation over the units that stay; of a normalisation, units that go come out as zeros.

    Args:
        node: The operation.
        args: Its arguments, by position.
        kwargs: Its arguments by name.
        staying: For axes of the first argument the indices that stay.
    """
    value, *others = args
    for axis, indices in staying.items():
        value = value.index_select(axis, indices)
    if name_of(node) not in NORMS:
        return node.target(value, *others, **kwargs)  # type: ignore[operator]
    first = value.ndim - len(others[0])

    def smaller(vector: Any) -> Any:
        for axis, indices in staying.items():
            vector = vector.index_select(axis - first, indices) if isinstance(vector, Tensor) else vector
        return vector

    others[1:], kwargs = tree_map(smaller, (others[1:], kwargs))
    result = node.target(value, [*value.shape[first:]], *others[1:], **kwargs)  # type: ignore[operator]
    for axis, indices in staying.items():
        shape = [*result.shape[:axis], args[0].shape[axis], *result.shape[axis + 1 :]]
        result = result.new_zeros(shape).index_copy(axis, indices, result)
    return result


def precision_of(tensors: Mapping[str, Tensor]) -> torch.dtype | None:
    """The lowest precision among the tensors of a network; None where that is half precision, or nothing has any."""
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    lowest = min(dtypes, key=lambda dtype: dtype.itemsize, default=None)
    return None if lowest is None or lowest.itemsize < torch.float32.itemsize else lowest


def in_precision(values: Any, precision: torch.dtype | None) -> Any:
    """Tensors of a lower precision, and names of such, in a higher one.

    Args:
        values: Tensors, data types and others, in lists and dictionaries.
        precision: The higher one; None leaves all as it is.
    """

    def higher(leaf: Any) -> Any:
        assert precision is not None
        if isinstance(leaf, Tensor) and is_lower(leaf.dtype, precision):
            return leaf.to(precision)
        return precision if isinstance(leaf, torch.dtype) and is_lower(leaf, precision) else leaf

    return values if precision is None else tree_map(higher, values)


def is_lower(dtype: torch.dtype, precision: torch.dtype) -> bool:
    """Whether one precision is lower than another."""
    return dtype.is_floating_point and dtype.itemsize < precision.itemsize
