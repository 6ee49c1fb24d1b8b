"""Exported programs (`.pt2`) made to harm: `torch.export.load` would unpickle them, and run text of them as Python."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from trust.checks import Count, Setting
from trust.hostile import Case, attempt
from trust.hostilefiles import Canary
from trust.hostileimports import bad_files
from trust.runs import undisturbed

MODEL, WEIGHTS, CONSTANTS = (
    "models/model.json", "data/weights/model_weights_config.json", "data/constants/model_constants_config.json",
)  # fmt: skip
TRUE = "__import__('os').mkdir('outside/owned')"
"""Python that would make a folder, from where a command is run."""


def hostile_programs(setting: Setting, count: Count) -> None:
    """Every part of an exported program that torch would unpickle, evaluate, load or trust."""
    undisturbed(setting.folder.parent / "undisturbed")  # so that forks need not import
    attempt(setting, count, [*_files(), *_operators(), *_names(), *_tensors(), *_archives()])


def _files() -> Iterator[Case]:
    for name, make in bad_files().items():
        yield f"model.pt2: {name}", lambda folder, m=make: _inspected(folder, m)


def _operators() -> Iterator[Case]:
    names = (
        "torch.os.system", "torch.hub.load", "torch.load", "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default", "torch.ops.aten.set_.source_Tensor", "torch.ops.aten.manual_seed.default",
        "torch.ops.higher_order.cond", "torch.ops.load_library", "_operator.attrgetter", "_operator.methodcaller",
        "math.factorial", "#extension:op", "builtins.eval", "torch.ops.aten.linear.__init__", TRUE,
    )  # fmt: skip
    for name in names:
        yield f"an operator: {name}"[:60], _edited(MODEL, "graph_module.graph.nodes.0.target", name)
    graph, custom = {"as_graph": {"name": "inner", "graph": {}}}, {"as_custom_obj": {"name": "x", "class_fqn": "x"}}
    for value in (graph, custom, {"as_operator": "torch.os.system"}):
        yield f"an argument: {value}"[:60], _edited(MODEL, "graph_module.graph.nodes.0.inputs.0.arg", value)
    deep: Any = {"as_int": 1}
    for _ in range(50_000):
        deep = [deep]
    yield "a deep argument", _edited(MODEL, "graph_module.graph.nodes.0.inputs.0.arg", {"as_ints": deep})


def _names() -> Iterator[Case]:
    spec = "graph_module.signature.input_specs.0.parameter.parameter_name"
    for name in ('weight"]); x = ("', f"a.{TRUE}", "forward", "__class__", "_modules.x", "a..b", ""):
        yield f"a parameter called {name}"[:60], _edited(MODEL, spec, name)
    names = "graph_module.module_call_graph.0.signature.forward_arg_names"
    for name in (f"x={TRUE}", "lambda", "x):\n    pass\n#", ""):
        yield f"an argument called {name}"[:60], _edited(MODEL, names, [name])
    spec = "graph_module.module_call_graph.0.signature.in_spec"
    yield (
        "arguments of a class",
        _edited(MODEL, spec, '[1, {"type": "os.system", "context": "x", "children_spec": []}]'),
    )


def _tensors() -> Iterator[Case]:
    meta = "config.weight.tensor_meta"
    for name, changes in {
        "a terabyte": {f"{meta}.sizes": _ints(10**6, 10**6), f"{meta}.strides": _ints(0, 0)},
        "beyond its bytes": {f"{meta}.storage_offset": {"as_int": 8}},
        "before its bytes": {f"{meta}.storage_offset": {"as_int": -8}},
        "of negative strides": {f"{meta}.strides": _ints(-4, 1)},
        "of numbers beyond all": {f"{meta}.sizes": _ints(10**400, 1)},
        "of an unknown kind": {f"{meta}.dtype": 99},
        "of sizes that are text": {f"{meta}.sizes": [{"as_expr": {"expr_str": TRUE}}] * 2},
        "in a file that climbs": {"config.weight.path_name": "../../outside/mine.txt"},
        "that is pickled": {"config.weight.use_pickle": True, "config.weight.path_name": "canary"},
        "without a kind": {meta: None},
    }.items():
        yield f"a tensor {name}", lambda folder, c=changes: _inspected(folder, lambda p: _changed(p, {WEIGHTS: c}))
    entry = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    for file in ("custom_obj_0", "opaque_obj_0", "tensor_0"):
        yield f"a constant in {file}", _edited(CONSTANTS, "config.x", {**entry, "path_name": file})


def _archives() -> Iterator[Case]:
    for member in (MODEL, WEIGHTS, CONSTANTS):
        yield f"no {member}", lambda folder, m=member: _inspected(folder, lambda p: _written(p, {m: None}))
        for content in (b"[" * 2_000_000, b"9" * 2_000_000, b"null", b'{"config": 3}', b"\xff"):
            yield (
                f"{member} is {content[:8]!r}",
                lambda folder, m=member, c=content: _inspected(folder, lambda p: _written(p, {m: c})),
            )
    yield "packed members", lambda folder: _inspected(folder, lambda p: _written(p, {}, zipfile.ZIP_DEFLATED))
    yield "an older format", lambda folder: _inspected(folder, _old)


# How the files are made


def _inspected(folder: Path, make: Callable[[Path], object]) -> list[str]:
    make(folder / "model.pt2")
    return ["inspect", str(folder / "model.pt2")]


def _edited(member: str, place: str, value: Any) -> Callable[[Path], list[str]]:
    return lambda folder: _inspected(folder, lambda path: _changed(path, {member: {place: value}}))


def _changed(path: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """The small program with other values in some of its documents, and pickles wherever torch looks for them."""
    canary = pickle.dumps(Canary(path.parent / "outside" / "owned"))
    members: dict[str, bytes | None] = {
        "data/sample_inputs/model.pt": canary, "data/weights/canary": canary, "data/constants/custom_obj_0": canary,
        "data/constants/opaque_obj_0": canary, "data/constants/tensor_0": canary,
    }  # fmt: skip
    for member, edits in changes.items():
        document = json.loads(_members()[member])
        for place, value in edits.items():
            *before, last = [int(key) if key.isdigit() else key for key in place.split(".")]
            below = document
            for key in before:
                below = below[key]
            below[last] = value
        members[member] = _text(document).encode()
    _written(path, members)


def _text(document: Any) -> str:
    """JSON of any depth, which `json` itself does not write."""
    if isinstance(document, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_text(value)}" for key, value in document.items()) + "}"
    if isinstance(document, list):
        depth = 0
        while isinstance(document, list) and len(document) == 1:
            document, depth = document[0], depth + 1
        inside = ", ".join(map(_text, document)) if isinstance(document, list) else _text(document)
        return "[" * depth + (f"[{inside}]" if isinstance(document, list) else inside) + "]" * depth
    return json.dumps(document)


def _written(path: Path, changes: Mapping[str, bytes | None], packing: int = zipfile.ZIP_STORED) -> None:
    """The small program with some members others, or left out."""
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in {**_members(), **changes}.items():
            if content is not None:
                archive.writestr(f"model/{name}", content)


def _old(path: Path) -> None:
    """As torch 2.7 wrote it: all in pickles."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_exported_program.json", _members()[MODEL])
        for name in ("serialized_state_dict.pt", "serialized_constants.pt", "serialized_example_inputs.pt"):
            archive.writestr(name, pickle.dumps(Canary(path.parent / "outside" / "owned")))


def _ints(*numbers: int) -> list[dict[str, int]]:
    return [{"as_int": number} for number in numbers]


@cache
def _members() -> dict[str, bytes]:
    """The parts of a small exported program, by name."""
    import torch

    buffer = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(4, 4).eval(), (torch.ones(2, 4),), strict=False), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
