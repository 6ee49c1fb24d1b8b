"""Networks for other programs, as ONNX and as torch.export writes them, which need neither paramtrans nor the network's
code. Each is run and compared before it is written."""

from __future__ import annotations

import inspect
import io
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from paramtrans.errors import ConfigError, SpecMismatch
from paramtrans.networks.forward.activations import Inputs, arguments, call, first_examples, length
from paramtrans.networks.forward.following import follow, free_axes, quiet
from paramtrans.networks.forward.outputs import named_outputs
from paramtrans.networks.forward.programs import fixed_size
from paramtrans.storage import files, outputs
from paramtrans.utils.boundary import reason
from paramtrans.utils.precision import HALF

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference of outputs, relative to the largest output."""
INPUT, OUTPUT = "input", "output"
"""Names of what a network takes or gives without a name of its own."""
LARGEST = 2**31 - 2**20
"""Bytes of an ONNX file, at most: protobuf counts them in 31 bits."""
INSIDE = "network."
"""What stands before the names of a network's tensors while it is followed."""
TRACED = 2
"""Examples that a network is followed with; a single one would be taken for a size that never changes."""

Outputs = dict[str, Tensor]


def save_onnx(network: nn.Module, path: Path | str, inputs: Inputs) -> None:
    """Write a network as ONNX, for onnxruntime and other programs.

    Args:
        network: In eval mode; it is not changed.
        path: The file; an older one is replaced.
        inputs: A batch that it takes, with two examples or more; the number of examples is free in the file, and so is
            that of tokens. Inputs and outputs have the names that the network gives them, else `input` and `output`.

    Raises:
        ConfigError: what ONNX takes is not installed (`pip install paramtrans[onnx]`).
        SpecMismatch: the network has no such form, or onnxruntime gives something else than the network, by more than
            1e-4 of its largest output; nothing is written then.
        StoreError: the file cannot be written.
    """
    outputs.check(Path(path))
    files.write_bytes(Path(path), onnx_bytes(network, inputs))


def save_exported(network: nn.Module, path: Path | str, inputs: Inputs) -> None:
    """Write a network as `torch.export` does (`.pt2`), for `torch.export.load` without the network's code.

    The program takes what the network takes and gives a dictionary of tensors.

    Args:
        network: In eval mode; it is not changed.
        path: The file; an older one is replaced.
        inputs: A batch that it takes, with two examples or more, as for `save_onnx`.

    Raises:
        SpecMismatch: the network has no such form, or the program gives something else; nothing is written then.
        StoreError: the file cannot be written.
    """
    outputs.check(Path(path))
    files.write_bytes(Path(path), exported_bytes(network, inputs))


def exported_bytes(network: nn.Module, inputs: Inputs) -> bytes:
    """The content of a `.pt2`; arguments and errors are those of `save_exported`."""
    program = _program(network, inputs)
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer)
        buffer.seek(0)
        loaded = torch.export.load(buffer).module()

    def run(batch: Inputs) -> Outputs:
        positional, named = arguments(batch)
        return loaded(*positional, **named)  # type: ignore[no-any-return]

    _check(network, inputs, run, "torch.export")
    return buffer.getvalue()


def onnx_bytes(network: nn.Module, inputs: Inputs) -> bytes:
    """The content of an ONNX file; arguments and errors are those of `save_onnx`."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401 - what torch.onnx writes with
    except ImportError as error:
        raise ConfigError([f"ONNX: {error.name} is not installed; pip install paramtrans[onnx]"]) from error
    try:
        return _onnx_bytes(network, inputs)
    except SpecMismatch as error:
        precision = next((t.dtype for t in network.state_dict().values() if t.dtype in HALF), None)
        if precision is None:
            raise
        raise SpecMismatch(
            f"{error}\nthe network is in {str(precision).removeprefix('torch.')}; ONNX takes it in float32: give a "
            "file of parameters in float32 ({name: tensor.float()}), or, in Python, "
            "save_onnx(network.float(), path, inputs)"
        ) from error


def _onnx_bytes(network: nn.Module, inputs: Inputs) -> bytes:
    """As `onnx_bytes`, in whatever precision the network is."""
    import onnxruntime

    try:
        content = _translated(network, inputs, free_tokens=True)
    except SpecMismatch:
        if not any(len(free_axes(value, True) or ()) > 1 for value in _named(inputs).values()):
            raise
        content = _translated(network, inputs, free_tokens=False)
        log.warning("ONNX has no form of this network for any number of tokens: it takes as many as it was given here")
    if len(content) > LARGEST:
        raise SpecMismatch(f"ONNX: one file has no room for {len(content):,} bytes; write --export FILE.pt2 instead")
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise SpecMismatch(f"ONNX: onnxruntime does not take this network: {_cause(error)}") from error
    names = [value.name for value in session.get_outputs()]
    input_names = {value.name for value in session.get_inputs()}  # an input that nothing depends on is left out

    def run(batch: Inputs) -> Outputs:
        feed = {name: tensor.cpu().numpy() for name, tensor in _named(batch).items() if name in input_names}
        return dict(zip(names, map(torch.from_numpy, session.run(None, feed)), strict=True))

    _check(network, inputs, run, "onnxruntime")
    return content


def _translated(network: nn.Module, inputs: Inputs, free_tokens: bool) -> bytes:
    """The content of an ONNX file, not compared with anything yet."""
    program, input_names = _program(network, inputs, free_tokens), [*_named(inputs)]
    with quiet(), tempfile.TemporaryDirectory(prefix="paramtrans-") as folder:
        file = Path(folder) / "network.onnx"
        try:
            onnx_program = torch.onnx.export(
                program,
                (),
                dynamo=True,
                input_names=input_names,
                output_names=_output_names(network, inputs),
                verbose=False,
            )
            assert onnx_program is not None
            onnx_program.save(file, external_data=False)
            return file.read_bytes()
        except Exception as error:  # as many kinds as there are operators
            raise SpecMismatch(f"ONNX: this network has no such form: {_cause(error)}") from error


class _Outputs(nn.Module):
    """A network that gives its tensors by name alone, as export takes no objects of other classes (such as caches).

    It has the named parameters that it is called with: programs of torch.export do not check `**kwargs`.
    """

    def __init__(self, network: nn.Module, names: Iterable[str], unnamed: bool) -> None:
        super().__init__()
        self.network = network

        def forward(*args: Any, **kwargs: Any) -> Outputs:
            named_tensors = named_outputs(network(*args, *kwargs.values()) if unnamed else network(**kwargs))
            return {name or OUTPUT: tensor for name, tensor in named_tensors.items()}

        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward


def _program(network: nn.Module, inputs: Inputs, free_tokens: bool = True) -> ExportedProgram:
    """The network followed on a few examples, with a free number of them, and of tokens."""
    if network.training:
        raise SpecMismatch("a network is exported in eval mode; call its eval() first")
    fixed = fixed_size(network) == length(inputs)  # a captured program that takes no other number
    positional, named = arguments(inputs if fixed else first_examples(inputs, TRACED))
    if length(inputs) < TRACED and not fixed:
        raise SpecMismatch(f"a network is followed with {TRACED} examples or more; give a larger batch")
    by_name = {INPUT: positional[0]} if positional else named
    axes = None if fixed else {name: free_axes(value, free_tokens) for name, value in by_name.items()}
    followed = _Outputs(network, by_name, bool(positional)).eval()
    program = follow(followed, positional, named, axes)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # holds paths of this machine
    _rename(program)
    return program


def _rename(program: ExportedProgram) -> None:
    """Give tensors the names that they have in the network, instead of those in the module around it."""
    for spec in program.graph_signature.input_specs:
        if spec.target is not None:
            spec.target = spec.target.removeprefix(INSIDE)
    for tensors in (program.state_dict, program.constants):
        renamed = {name.removeprefix(INSIDE): tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed)


@torch.no_grad()
def _check(network: nn.Module, inputs: Inputs, run: Callable[[Inputs], Outputs], program: str) -> None:
    """Raise `SpecMismatch` where a network that was exported gives something else, for two examples and for three; say
    so where it does not take a single one."""
    if fixed_size(network) == length(inputs):
        _compare(network, inputs, run, program)
        return
    for count in dict.fromkeys((TRACED, min(length(inputs), TRACED + 1))):
        batch = first_examples(inputs, count)
        _compare(network, batch, run, program)
    try:
        _compare(network, first_examples(inputs, 1), run, program)
    except SpecMismatch as error:
        log.warning("%s takes batches of %d examples and more alone: %s", program, TRACED, error)


def _compare(network: nn.Module, batch: Inputs, run: Callable[[Inputs], Outputs], program: str) -> None:
    expected = {name or OUTPUT: tensor for name, tensor in named_outputs(call(network, batch)).items()}
    try:
        found_outputs = run(batch)
    except Exception as error:
        raise SpecMismatch(f"{program} does not run this network: {_cause(error)}") from error
    for name, tensor in expected.items():
        same_shape = name in found_outputs and found_outputs[name].shape == tensor.shape
        if not same_shape or not _alike(found_outputs[name].float(), tensor.float().cpu()):
            raise SpecMismatch(f"{program} gives something else than the network in {name!r}; nothing is written")


def _alike(output: Tensor, expected: Tensor) -> bool:
    if not expected.numel():
        return True
    return bool((output - expected).abs().max() <= TOLERANCE * max(1e-6, float(expected.abs().max())))


def _named(batch: Inputs) -> Mapping[str, Tensor]:
    """The tensors that a network is given, by name."""
    positional, named = arguments(batch)
    unnamed = {INPUT: positional[0]} if positional else {}
    return unnamed | {name: value for name, value in named.items() if isinstance(value, Tensor)}


@torch.no_grad()
def _output_names(network: nn.Module, inputs: Inputs) -> list[str]:
    return [name or OUTPUT for name in named_outputs(call(network, first_examples(inputs, TRACED)))]


def _cause(error: BaseException) -> str:
    """The first line of what was raised first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {reason(error)}"
