"""Lowers a module: a graph of its layers becomes a list of operations that run many of it in a fast layout."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.utils import _pair

from paramtrans.backends.layers import SpatialAttention
from paramtrans.backends.layout import ConvSpec, Layout

_RELU = (torch.relu, torch.relu_, functional.relu, "relu", "relu_")
_ADD = (operator.add, operator.iadd, torch.add, "add", "add_")
_FLATTEN = (torch.flatten, "flatten")
_POOLS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.MaxPool2d)


@dataclass
class Operation:
    """`run(params, training, memory, *values of sources)` gives the value called `name`.

    `spent` names the values that no later operation needs.
    """

    name: str
    sources: list[str]
    run: Callable[..., Tensor]
    spent: list[str] = field(default_factory=list)


def lower(module: nn.Module, layout: Layout) -> tuple[list[Operation], str]:
    """The operations and the name of the result; the value called "" is the input.

    Args:
        module: The architecture; its own parameters are not used.
        layout: How each kind of layer runs.

    Raises:
        NotImplementedError: some layer cannot run so.
    """
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    if len(names) != len(list(module.parameters())):
        raise NotImplementedError("shared parameters")
    # Within a Sequential a bare layer is traced like any other.
    root = nn.Sequential(module)
    try:
        graph = _Tracer().trace(root)
    except Exception as error:  # the module's own code may fail in any way on a tracer
        raise NotImplementedError(f"cannot trace: {error}") from error
    return _Lowering(root, graph, layout).result()


def can_lower(module: nn.Module, layout: Layout) -> bool:
    """Whether every layer of the module can run in this layout."""
    try:
        lower(module, layout)
    except NotImplementedError:
        return False
    return True


def execute(
    lowered: tuple[list[Operation], str], params: dict[str, Tensor], training: bool | None, memory: Any, inputs: Tensor
) -> Tensor:
    """The result of a lowered module's operations, done one after the other.

    Args:
        lowered: What `lower` gave.
        params: Stacked parameters and buffers, each `[models, *shape]`.
        training: Whether normalisation uses batch statistics; None follows each layer's own flag.
        memory: Whatever the layout keeps between calls.
        inputs: Values of all models, in the layout's order of axes.
    """
    operations, result = lowered
    values = {"": inputs}
    for operation in operations:
        given = [values[name] for name in operation.sources]
        values[operation.name] = operation.run(params, training, memory, *given)
        for name in operation.spent:
            del values[name]
    return values[result]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return type(module) is SpatialAttention or super().is_leaf_module(module, name)


class _Lowering:
    def __init__(self, root: nn.Module, graph: fx.Graph, layout: Layout):
        self.layout = layout
        self.nodes = list(graph.nodes)
        self.modules = dict(root.named_modules())
        self.taken: set[fx.Node] = set()  # nodes done by an earlier node's operation
        self.operations: dict[fx.Node, Operation] = {}

    def result(self) -> tuple[list[Operation], str]:
        names: dict[fx.Node, str] = {}
        for node in self.nodes:
            if node.op == "placeholder":
                if names:
                    raise NotImplementedError("more than one input")
                names[node] = ""
            elif node.op != "output" and node not in self.taken:
                self._add(node)
        operations = [self.operations[node] for node in self.nodes if node in self.operations]
        result = self.nodes[-1].args[0]
        if not isinstance(result, fx.Node):
            raise NotImplementedError("more than one output")
        inputs = {node.name: "" for node in names}
        for operation in operations:
            operation.sources = [inputs.get(name, name) for name in operation.sources]
        result = inputs.get(result.name, result.name)
        _free_early(operations, result)
        return operations, result

    def _add(self, node: fx.Node) -> None:
        layer = self._layer(node)
        if type(layer) is nn.Conv2d:
            self._add_conv(node, layer)
            return
        sources = _nodes(node.args)
        run = self._layer_function(node, layer)
        self.operations[node] = Operation(node.name, [s.name for s in sources], run)

    def _layer(self, node: fx.Node) -> Any:  # torch takes every attribute of a module for a tensor or module
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def _layer_function(self, node: fx.Node, layer: Any) -> Callable[..., Tensor]:
        kind, prefix = type(layer), _prefix(node)
        if self._is_relu(node):
            return lambda params, training, memory, x: torch.relu(x)
        if self._is_add(node):
            return lambda params, training, memory, a, b: a + b
        if kind is nn.Identity:
            return lambda params, training, memory, x: x
        if kind is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
            return lambda params, training, memory, x: self.layout.flatten(x)
        axes = (*node.args[1:], *node.kwargs.values())
        if node.op != "call_module" and node.target in _FLATTEN and axes in ((1,), (1, -1)):
            return lambda params, training, memory, x: self.layout.flatten(x)
        if kind is nn.Linear:
            return lambda params, training, memory, x: self.layout.linear(
                x, params[prefix + "weight"], params.get(prefix + "bias"), memory
            )
        if kind is SpatialAttention:
            if len(node.args) != 3:
                raise NotImplementedError("attention with named arguments")
            return lambda params, training, memory, q, k, v: self.layout.attend(q, k, v, memory)
        if kind in (nn.BatchNorm1d, nn.BatchNorm2d) and _fits_norm(layer):
            return lambda params, training, memory, x: self.layout.normalise(layer, prefix, params, training, x)
        if kind in _POOLS and not getattr(layer, "return_indices", False):
            return lambda params, training, memory, x: self.layout.to_images(layer, x)
        raise NotImplementedError(f"{node.op} {node.target} {kind.__name__}")

    def _is_relu(self, node: fx.Node) -> bool:
        self._check_overwritten(node)
        return type(self._layer(node)) is nn.ReLU or (
            node.op != "call_module" and node.target in _RELU and len(node.args) == 1
        )

    def _is_add(self, node: fx.Node) -> bool:
        return (
            node.op != "call_module"
            and node.target in _ADD
            and not node.kwargs
            and len(node.args) == 2
            and all(isinstance(arg, fx.Node) for arg in node.args)
        )

    def _check_overwritten(self, node: fx.Node) -> None:
        in_place = (
            getattr(self._layer(node), "inplace", False)
            or node.kwargs.get("inplace")
            or node.target in (operator.iadd, torch.relu_, "relu_", "add_")
        )
        if in_place and len(_nodes(node.args)[0].users) > 1:
            raise NotImplementedError("a value used after being overwritten")

    def _next(self, node: fx.Node) -> fx.Node | None:
        """The only node that uses this one, if free."""
        users = list(node.users)
        return users[0] if len(users) == 1 and users[0] not in self.taken else None

    def _add_conv(self, node: fx.Node, conv: nn.Conv2d) -> None:
        """One operation for a convolution and as many of its followers as ConvUnit takes."""
        spec, sources, norm, last = _conv_spec(conv), _nodes(node.args), None, node
        follower = self._next(last)
        if follower and type(self._layer(follower)) is nn.BatchNorm2d:
            norm, norm_prefix = self._layer(follower), _prefix(follower)
            if not _fits_norm(norm):
                raise NotImplementedError("batch norm without a fixed momentum")
            spec = replace(spec, epsilon=norm.eps, momentum=norm.momentum)
            last, follower = follower, self._next(follower)
        if follower and self._is_add(follower):
            others = [arg for arg in _nodes(follower.args) if arg is not last]
            if len(others) == 1:
                sources += others
                last, follower = follower, self._next(follower)
                self.taken.add(last)
        if follower and self._is_relu(follower):
            spec = replace(spec, relu=True)
            last, follower = follower, self._next(follower)
        if follower and len(sources) == 1 and _fits_pool(self._layer(follower)):
            pool = self._layer(follower)
            pairs = (pool.kernel_size, pool.stride, pool.padding)
            spec = replace(spec, pool=tuple(n for pair in pairs for n in _pair(pair)))
            last = follower
        self._take(node, last)
        prefixes = _prefix(node), norm_prefix if norm else ""
        run = partial(_conv_unit, self.layout.conv, spec, norm, prefixes)
        self.operations[last] = Operation(last.name, [s.name for s in sources], run)

    def _take(self, node: fx.Node, last: fx.Node) -> None:
        while node is not last:
            node = next(iter(node.users))
            self.taken.add(node)


def _nodes(arguments: tuple[Any, ...]) -> list[fx.Node]:
    return [arg for arg in arguments if isinstance(arg, fx.Node)]


def _prefix(node: fx.Node) -> str:
    """What the names of a layer's parameters start with in the user's module."""
    name = str(node.target).partition(".")[2]
    return f"{name}." if name else ""


def _free_early(operations: list[Operation], result: str) -> None:
    seen = {result}
    for operation in reversed(operations):
        operation.spent = [name for name in dict.fromkeys(operation.sources) if name not in seen]
        seen.update(operation.spent)


def _fits_norm(norm: Any) -> bool:
    return norm.momentum is not None


def _fits_pool(pool: Any) -> bool:
    return (
        type(pool) is nn.MaxPool2d
        and _pair(pool.dilation) == (1, 1)
        and not pool.ceil_mode
        and not pool.return_indices
        and _pair(pool.kernel_size)[0] * _pair(pool.kernel_size)[1] <= 256
    )


def _conv_spec(conv: Any) -> ConvSpec:
    if conv.groups != 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros":
        raise NotImplementedError("grouped, dilated or not zero-padded convolution")
    padding = {"valid": (0, 0), "same": tuple(size // 2 for size in conv.kernel_size)}.get(
        str(conv.padding), conv.padding
    )
    if conv.padding == "same" and any(size % 2 == 0 for size in conv.kernel_size):
        raise NotImplementedError("'same' padding of an even kernel")
    return ConvSpec(stride=conv.stride, padding=padding)


def uses_batch(norm: Any, training: bool | None) -> bool:
    """Whether a normalisation takes its statistics from the batch."""
    return (norm.training if training is None else training) or not norm.track_running_stats


def _conv_unit(
    unit: Callable[..., Tensor],
    spec: ConvSpec,
    norm: Any,
    prefixes: tuple[str, str],
    params: dict[str, Tensor],
    training: bool | None,
    memory: Any,
    x: Tensor,
    other: Tensor | None = None,
) -> Tensor:
    """Run one ConvUnit; `prefixes` are those of the convolution and the norm."""
    conv, bn = prefixes
    by_batch = norm is not None and uses_batch(norm, training)
    spec = replace(spec, normed=norm is not None, batch_statistics=by_batch, record=torch.is_grad_enabled())
    names = ("weight", "bias", "running_mean", "running_var")
    extra = [params.get(bn + name) if norm is not None else None for name in names]
    weight, bias = params[conv + "weight"], params.get(conv + "bias")
    return unit(x, other, weight, bias, *extra, spec, memory)
