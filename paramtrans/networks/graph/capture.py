"""A network as a graph of ATen operations, captured by `torch.export`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node

from paramtrans.errors import SpecMismatch
from paramtrans.networks.forward.attention import with_plain_attention
from paramtrans.networks.forward.following import follow
from paramtrans.networks.forward.outputs import NO_TENSORS, tensors_in
from paramtrans.networks.graph.summed import summed_axis

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""What a network is called with: by position, and by name."""


@dataclass(frozen=True)
class Program:
    """One pass of a network in eval mode, on example inputs."""

    exported: ExportedProgram
    arguments: Arguments
    names: Mapping[str, str]
    """Placeholders of parameters and buffers, each with its name in the network; one name for a shared tensor."""
    tensors: Mapping[str, Tensor]
    """Parameters and buffers by these names."""
    constants: Mapping[str, Any]
    """Placeholders of tensors that the network's code makes, with their values."""
    operations: Mapping[str, tuple[str, Node]] = field(default_factory=dict)
    """Nodes that run an operation of a captured program inside the network: the path of that, and its operation."""

    @property
    def nodes(self) -> list[Node]:
        """All operations in the order in which they run, placeholders and output included."""
        return list(self.exported.graph.nodes)

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Placeholders of the network's own inputs."""
        specs = self.exported.graph_signature.input_specs
        return frozenset(spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT)

    @cached_property
    def summed_axes(self) -> frozenset[tuple[str, int] | None]:
        """Axes of weights that are summed over, each with the weight's name."""
        return frozenset(summed_axis(node, self.names) for node in self.nodes)

    @property
    def outputs(self) -> tuple[Node, ...]:
        """What the network gives."""
        final = next(node for node in reversed(self.nodes) if node.op == "output")
        return tuple(leaf for leaf in torch.utils._pytree.tree_leaves(final.args) if isinstance(leaf, Node))


def capture(network: nn.Module, arguments: Arguments) -> Program:
    """The program of one pass of a network.

    Args:
        network: In eval mode.
        arguments: What it is called with; two examples are enough.

    Raises:
        SpecMismatch: `torch.export` cannot follow the network, where the message names the line of its code; or it
            gives no tensors.
    """
    with with_plain_attention(network):
        exported = follow(_Outputs(network).eval(), *arguments)
    canonical: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in [
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ]:
        canonical.setdefault(id(tensor), name)
        tensors[name] = tensor
    names, constants = dict[str, str](), dict[str, Any]()
    for spec in exported.graph_signature.input_specs:
        name_in_network = str(spec.target).removeprefix("network.")
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and name_in_network in tensors:
            names[spec.arg.name] = canonical[id(tensors[name_in_network])]
        elif spec.kind is InputKind.CONSTANT_TENSOR:
            constants[spec.arg.name] = exported.constants[spec.target]
    used_names = set(names.values())
    used_tensors = {name: tensor for name, tensor in tensors.items() if name in used_names}
    program = Program(exported, arguments, names, used_tensors, constants, _operations(network, exported))
    if not program.outputs:
        raise SpecMismatch(NO_TENSORS)
    return program


def _operations(network: nn.Module, exported: ExportedProgram) -> dict[str, tuple[str, Node]]:
    """Nodes that run an operation of a captured program: each of its operations is a statement of generated code."""
    programs: dict[str, tuple[str, dict[str, Node]]] = {}
    for path, module in network.named_modules():
        if isinstance(module, GraphModule):
            file = type(module).forward.__code__.co_filename
            programs[file] = (path, {node.name: node for node in module.graph.nodes})
    operations: dict[str, tuple[str, Node]] = {}
    for node in exported.graph.nodes if programs else ():
        file, _, code = _last_line(node) or ("", "", "")
        path, origins = programs.get(file, ("", {}))
        origin = origins.get(code.partition(" ")[0])
        if origin is not None and origin.target is node.target:
            operations[node.name] = (path, origin)
    return operations


class _Outputs(nn.Module):
    """A network that gives its tensors alone, as export takes no objects of other classes (such as caches)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        return tuple(tensors_in(self.network(*args, **kwargs)))


def module_paths(node: Node) -> frozenset[str]:
    """Paths of all modules whose code runs an operation, the network's own ("") among them."""
    stack = (node.meta.get("nn_module_stack") or {}).values()
    return frozenset(str(path).removeprefix("network").removeprefix(".") for path, _ in stack)


def read_by_hooks(network: nn.Module, program: Program) -> list[Node]:
    """Operations whose results a user's hooks are given.

    They leave modules with forward hooks, or enter modules with forward pre-hooks.

    Args:
        network: With its hooks.
        program: Of this network.
    """
    hooks_behind = {path for path, module in network.named_modules() if module._forward_hooks}
    hooks_before = {path for path, module in network.named_modules() if module._forward_pre_hooks}
    read: dict[Node, None] = {}
    for node in program.nodes if hooks_behind or hooks_before else ():
        modules = module_paths(node)
        for user in node.users if node.op == "call_function" else ():
            user_modules = module_paths(user)
            if (modules - user_modules) & hooks_behind or (user_modules - modules) & hooks_before:
                read[node] = None
    return list(read)


def used_tensors(program: Program, also: Iterable[Node] = ()) -> set[str]:
    """Names of the tensors that an output of a program depends on.

    Args:
        program: The program.
        also: Other nodes that count as outputs.
    """
    changing: dict[int | None, list[Node]] = {}  # by the tensor, whichever of its views they change
    for node in program.nodes:
        if changes(node):
            changing.setdefault(storage_of(node), []).append(node)
    open_nodes, seen = [*program.outputs, *also], set[Node]()
    while open_nodes:
        node = open_nodes.pop()
        if node not in seen:
            seen.add(node)
            open_nodes += [*node.all_input_nodes, *changing.get(storage_of(node), ())]
    return {program.names[node.name] for node in seen if node.name in program.names}


def changes(node: Node) -> bool:
    """Whether an operation changes its first tensor."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable or not node.args or not isinstance(node.args[0], Node):
        return False
    return str(schema.name).endswith("_")


def storage_of(node: Node) -> int | None:
    """A number that all views of one tensor have in common; None of what is no tensor, and of several tensors."""
    values = node.meta.get("val")
    values = values if isinstance(values, list | tuple) else [values]
    storages = {value.untyped_storage()._cdata if isinstance(value, Tensor) else None for value in values}
    return storages.pop() if len(storages) == 1 else None


def module_path(node: Node) -> str:
    """Path of the innermost module whose code runs an operation."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).removeprefix("network").removeprefix(".") if stack else ""


def code_line(node: Node) -> str:
    """The line of the network's code that an operation is from, as `file.py:12: code`; empty where it is not known."""
    if (line := _last_line(node)) is None:
        return ""
    file, number, code = line
    return f"{file.rsplit('/', 1)[-1]}:{number}{f': {code}' if code else ''}"


def _last_line(node: Node) -> tuple[str, str, str] | None:
    """File, number and code of the line that an operation is from."""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip()]
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].startswith("File "):
            quoted = lines[index].split('"')
            number = lines[index].partition("line ")[2].partition(",")[0]
            return quoted[1], number, lines[index + 1] if index + 1 < len(lines) else ""
    return None
