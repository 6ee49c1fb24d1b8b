"""Networks from files of `torch.export.save`: the operations that the file lists, as an ordinary `torch.fx` program.

`torch.export.load` runs text of the file as Python, for sizes, checks and names. Here an operation is one of those that
a file may name (`known_operators`), free sizes are computed by such operations, sizes of inputs are
checked as far as they are numbers and ranges, and nothing else is taken over.
"""

from __future__ import annotations

import json
import keyword
import operator
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from paramtrans.errors import StoreError
from paramtrans.networks.forward.programs import ENDLESS, limit
from paramtrans.networks.graph.known_operators import known, only_checks
from paramtrans.storage import exported_archive
from paramtrans.storage.exported_archive import DTYPES, MALFORMED, ExportedArchive

Json = Mapping[str, Any]

PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", re.ASCII)
MEMORY_FORMATS = {
    1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format,
}  # fmt: skip
SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)\Z", re.ASCII)
"""How a free size is written that is not computed from others."""
STRIDED = 7
PLAIN = ("as_int", "as_bool", "as_string", "as_ints", "as_bools", "as_strings")
"""Kinds of arguments that are as JSON has them."""


def read_program(path: Path) -> GraphModule:
    """The network of a file of `torch.export.save`, with its parameters, on the CPU and in eval mode.

    Args:
        path: The file.

    Raises:
        StoreError: it is damaged, of an older format, or holds what is not taken over: the message says what.
    """
    archive = exported_archive.read(path)
    try:
        return _built(archive)
    except _NotTaken as error:
        raise StoreError(f"{path}: {error}") from error
    except (*MALFORMED, RecursionError) as error:
        message = f"{type(error).__name__}: {str(error)[:200]}"
        raise StoreError(f"{path}: its graph is not as torch.export.save writes it ({message})") from error


class _NotTaken(Exception):
    """A part of a file that is not taken over."""


def _built(archive: ExportedArchive) -> GraphModule:
    document = archive.graph_module
    program = GraphModule(nn.Module(), Graph())
    call = document["module_call_graph"][0]["signature"]
    for spec in document["signature"]["output_specs"]:
        if "user_output" not in spec:
            raise _NotTaken(f"writes its own buffers or inputs ({next(iter(spec))}); export it in eval mode")
    nodes = _placeholders(program, archive, call)
    for description in document["graph"]["nodes"]:
        if not only_checks(description["target"]):
            _add_operation(program.graph, description, nodes)
    leaves = [_argument(argument, nodes) for argument in document["graph"]["outputs"]]
    program.graph.output(_structured(json.loads(call["out_spec"])[1], iter(leaves)))
    program.graph.lint()
    _check_in_use(program.graph)
    program.recompile()
    return program.eval()


def _check_in_use(graph: Graph) -> None:
    """Raise `_NotTaken` for an operation that is told to be in training, but for norms without other statistics."""
    for node in graph.nodes:
        arguments = node.target._schema.arguments if isinstance(node.target, torch._ops.OpOverload) else ()
        given = {argument.name: value for argument, value in zip(arguments, node.args, strict=False)} | node.kwargs
        alone = "running_mean" in given and given["running_mean"] is None
        if not alone and (given.get("training") is True or given.get("train") is True):
            name = node.target._schema.name.partition("::")[2]
            raise _NotTaken(f"was exported in training mode ({name}); export network.eval()")


def _placeholders(program: GraphModule, archive: ExportedArchive, call: Json) -> dict[str, Node]:
    """Nodes of inputs, parameters and buffers, by the names that the file has for them."""
    specs = archive.graph_module["signature"]["input_specs"]
    names = iter(_input_names(call, specs))
    tensors = archive.graph_module["graph"]["tensor_values"]
    nodes: dict[str, Node] = {}
    for kind, spec in (next(iter(spec.items())) for spec in specs):
        if kind in ("user_input", "constant_input"):
            name = next(names)
        if kind == "user_input" and "as_tensor" in spec["arg"]:
            origin = spec["arg"]["as_tensor"]["name"]
            nodes[origin] = program.graph.placeholder(name)
            sizes = [size.get("as_int") for size in tensors[origin]["sizes"]]
            if None not in sizes:  # as torch's own programs say it
                nodes[origin].meta["val"] = torch.empty(sizes, device="meta")
    for origin, node in nodes.items():
        limit(
            node, [_bounds(size, archive) for size in archive.graph_module["graph"]["tensor_values"][origin]["sizes"]]
        )
    for kind, spec in (next(iter(spec.items())) for spec in specs):
        if kind in ("parameter", "buffer", "tensor_constant"):
            path = spec[f"{kind}_name" if kind != "tensor_constant" else "tensor_constant_name"]
            _register(program, path, archive, kind == "parameter", bool(spec.get("persistent")))
            nodes[spec["arg"]["name"]] = program.graph.get_attr(path)
        elif kind not in ("user_input", "constant_input"):
            raise _NotTaken(f"has inputs of a kind that is not taken ({kind[:40]})")
    return nodes


def _bounds(size: Json, archive: ExportedArchive) -> tuple[int, int]:
    """The least and the largest length of an axis; one that is computed from others has none."""
    if "as_int" in size:
        return size["as_int"], size["as_int"]
    symbol = SYMBOL.match(size["as_expr"]["expr_str"])
    bounds = archive.ranges.get(symbol[1], {}) if symbol else {}
    least, most = bounds.get("min_val"), bounds.get("max_val")
    return int(least or 0), int(ENDLESS if most is None else most)


def _input_names(call: Json, specs: Sequence[Json]) -> list[str]:
    """What the program's own arguments are called, those given by position first."""
    positional, named = json.loads(call["in_spec"])[1]["children_spec"]
    inputs = [*positional["children_spec"], *named["children_spec"]]
    count = sum("user_input" in spec or "constant_input" in spec for spec in specs)
    if any(leaf["type"] is not None for leaf in inputs) or len(inputs) != count:
        raise _NotTaken("takes tensors in lists or dictionaries; export it with an argument for each tensor")
    names = call.get("forward_arg_names") or [f"input_{number}" for number in range(count)]
    names = [*names[: len(positional["children_spec"])], *_dictionary_names(named)]
    if len({*names}) != count or not all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
        raise _NotTaken("its arguments have no names; export it with an argument for each tensor")
    return names


def _dictionary_names(tree: Json) -> list[str]:
    names = json.loads(tree["context"]) if tree["children_spec"] else []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("names are text")
    return names


def _register(program: GraphModule, path: str, archive: ExportedArchive, trained: bool, persistent: bool) -> None:
    """Put a tensor of the file where the network had it."""
    if PATH.fullmatch(path) is None:
        raise _NotTaken(f"has a tensor called {path[:80]!r}")
    module: nn.Module = program
    *folders, name = path.split(".")
    for folder in folders:
        if folder not in module._modules:
            module.register_module(folder, nn.Module())  # raises where the name is taken
        module = module.get_submodule(folder)
    if trained:
        tensor = archive.weights[path]
        module.register_parameter(name, nn.Parameter(tensor, path in archive.trained))
    else:
        tensor = archive.weights[path] if persistent else archive.constants[path]
        module.register_buffer(name, tensor, persistent)


def _add_operation(graph: Graph, description: Json, nodes: dict[str, Node]) -> None:
    """One operation of the file, and a node for each of its results."""
    if (function := known(description["target"])) is None:
        name = description["target"][:80]
        raise _NotTaken(f"runs {name!r}, which is none of the operators that a file may name; nothing is run")
    args, kwargs = [], {}
    for entry in description["inputs"]:
        value = _argument(entry["arg"], nodes)
        if entry["name"] and entry.get("kind") == 2:
            kwargs[entry["name"]] = value
        else:
            args.append(value)
    if any(PATH.fullmatch(name) is None for name in kwargs):
        raise ValueError("an argument has no name")
    results = [result for output in description["outputs"] for result in _results(output)]
    single = len(description["outputs"]) == 1 and "as_tensors" not in description["outputs"][0]
    name = results[0] if single and results else description.get("name")
    node = graph.create_node("call_function", function, tuple(args), kwargs, name)
    for number, result in enumerate(results):
        if result is not None:
            nodes[result] = node if single else graph.call_function(operator.getitem, (node, number))


def _results(output: Json) -> list[str | None]:
    """The names of what an operation gives; None where it gives none there."""
    kind, value = next(iter(output.items()))
    if kind == "as_tensors":
        return [tensor["name"] for tensor in value]
    if kind == "as_none":
        return [None]
    return [value["name"] if kind == "as_tensor" else value["as_name"]]


def _argument(argument: Json, nodes: Mapping[str, Node]) -> Any:
    """One argument of an operation, as Python has it."""
    kind, value = next(iter(argument.items()))
    if kind in PLAIN:
        return value
    if kind in ("as_float", "as_floats"):
        return float(value) if kind == "as_float" else [float(item) for item in value]  # text where not finite
    if kind in ("as_tensor", "as_optional_tensor"):
        return nodes[value["name"]] if "name" in value else _argument(value, nodes)
    if kind in ("as_tensors", "as_optional_tensors"):
        return [_argument(item if "name" not in item else {"as_tensor": item}, nodes) for item in value]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return nodes[value["as_name"]] if "as_name" in value else _argument(value, nodes)
    if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [_argument({"as_sym_int": item}, nodes) for item in value]
    if kind == "as_complex":
        return complex(value["real"], value["imag"])
    return _setting(kind, value)


def _setting(kind: str, value: Any) -> Any:
    """Kinds of tensors. What was exported on a GPU computes on the CPU here."""
    if kind == "as_none":
        return None
    if kind == "as_scalar_type":
        return DTYPES[value]
    if kind == "as_memory_format":
        return MEMORY_FORMATS[value]
    if kind == "as_device":
        return torch.device("cpu")
    if kind == "as_layout" and value == STRIDED:
        return torch.strided
    raise _NotTaken(f"has an argument of a kind that is not taken ({kind[:40]})")


def _structured(tree: Json, leaves: Any) -> Any:
    """What the program gives: tensors in tuples, lists, dictionaries; other classes with names are dictionaries."""
    if tree["type"] is None:
        return next(leaves)
    items = [_structured(child, leaves) for child in tree["children_spec"]]
    if tree["type"] in ("builtins.tuple", "builtins.list"):
        return tuple(items) if tree["type"] == "builtins.tuple" else items
    names = json.loads(tree["context"])
    if isinstance(names, list) and len(names) == len(items) and all(isinstance(name, str) for name in names):
        return dict(zip(names, items, strict=True))
    return tuple(items)
