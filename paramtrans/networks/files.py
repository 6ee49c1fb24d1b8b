"""Translated networks on disk: parameters in safetensors, and a JSON record that says how to rebuild the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from torch import nn

from paramtrans._version import __version__
from paramtrans.api.options import BaseOptions
from paramtrans.errors import ConfigError, DataError, StoreError
from paramtrans.networks.blocks.finding import put
from paramtrans.networks.depth.left_out import LeftOut, repeat
from paramtrans.networks.forward.modes import to_eval
from paramtrans.networks.graph.narrow import Setting
from paramtrans.networks.loading import architectures, parameter_files
from paramtrans.networks.loading.wrappers import unwrapped
from paramtrans.networks.losses import Losses
from paramtrans.networks.parts.placed import put_part
from paramtrans.networks.parts.replacing import ReplacedPart
from paramtrans.networks.rebuilding import check_untranslated, load_tensors, rebuild, tensors_of
from paramtrans.networks.stream import modules
from paramtrans.networks.stream.modules import ModuleChange
from paramtrans.networks.units.narrowed import NarrowedGroup
from paramtrans.plugins.manager import components
from paramtrans.plugins.registry import Registry
from paramtrans.storage import json_files, sealed_params
from paramtrans.utils import boundary, documents
from paramtrans.utils.surroundings import pinned

FORMAT = 7
"""Version of a translated network on disk. In 1, a target block was always of the kind of its source block; up to 2,
whole blocks of adapters were replaced; up to 3, no parts that only the network's paths name; up to 4, none left out; up
to 5, no residual stream was narrower or rotated; up to 6, no shapes of the untranslated network were known, no group
was called anything but its path, and no part had a cache."""
ATTRIBUTE = "paramtrans_blocks"
"""The attribute in which a translated network keeps what was replaced or made smaller in it."""
SIZES = "paramtrans_sizes"
"""The attribute in which it keeps the numbers of its layers and modules that changed."""
MODULES = "paramtrans_modules"
"""The attribute in which it keeps the modules that became others as a stream was rotated."""
REFUSED = "paramtrans_refused"
"""The attribute in which a network keeps, as long as it is not written, which groups stayed as they were, and why."""
SHAPES = "paramtrans_shapes"
"""The attribute in which it keeps the shapes of the untranslated network; None where they are not known."""


@dataclass(frozen=True)
class Replaced:
    """One block of a translated network: its path, its source block and its target block."""

    path: str
    kind: str
    """Name of the source block's adapter."""
    layers: Mapping[str, str]
    """Layers of the target block, each with its path; "" is the whole module."""
    source: Mapping[str, Any]
    """Options of the source block's adapter."""
    target: Mapping[str, Any]
    """Options of the target block's adapter."""
    target_kind: str
    """Name of the target block's adapter."""
    feature_error: float | None = None
    """Mean squared change of what leaves the block, over the variance of what left it, on calibration inputs kept aside
    and behind the blocks translated before it; 1 is as bad as a constant. None: translated without inputs."""
    held_out: bool | None = None
    """Whether that is of inputs that nothing was fitted to. None: without inputs, or not known."""


class _Block(BaseOptions):
    """`Replaced`, as it is read from a file."""

    path: str
    kind: str
    layers: dict[str, str]
    source: dict[str, Any]
    target: dict[str, Any]
    target_kind: str | None = None
    feature_error: float | None = None
    held_out: bool | None = None

    def replaced(self) -> Replaced:
        return Replaced(**{**self.model_dump(), "target_kind": self.target_kind or self.kind})


class _Group(BaseOptions):
    """`NarrowedGroup`, as it is read from a file."""

    path: str
    kind: Literal["units", "groups", "stream", "query_key"]
    units: tuple[int, int]
    parameters: tuple[int, int]
    feature_error: float | None = None
    held_out: bool | None = None
    title: str = ""

    def replaced(self) -> NarrowedGroup:
        return NarrowedGroup(**self.model_dump())


class _Part(BaseOptions):
    """`ReplacedPart`, as it is read from a file."""

    path: str
    kind: str
    target_kind: str
    target: dict[str, Any]
    parameters: tuple[int, int]
    alone: bool
    beside: int | None = Field(ge=0, le=16)
    started: Literal["closed form", "random"]
    start_error: float | None = None
    feature_error: float | None = None
    held_out: bool | None = None
    cache: int | None = Field(default=None, ge=0)
    tensors: tuple[str, ...] | None = None

    def replaced(self) -> ReplacedPart:
        return ReplacedPart(**self.model_dump())


class _Gone(BaseOptions):
    """`LeftOut`, as it is read from a file."""

    path: str
    kind: str
    parameters: tuple[int, int]
    beside: int | None = Field(ge=0, le=16)
    taken_out: bool
    feature_error: float | None = None
    held_out: bool | None = None

    def replaced(self) -> LeftOut:
        return LeftOut(**self.model_dump())


class _Size(BaseOptions):
    """`Setting`, as it is read from a file."""

    module: str
    attribute: str
    before: int | tuple[int, ...]
    after: int | tuple[int, ...]

    def setting(self) -> Setting:
        return Setting(**self.model_dump())


class _Change(BaseOptions):
    """`ModuleChange`, as it is read from a file."""

    module: str
    kind: Literal["rms_norm", "bias", "untied"]

    def change(self) -> ModuleChange:
        return ModuleChange(**self.model_dump())


class _Record(BaseOptions):
    """The record beside the parameters."""

    format: int
    paramtrans: str
    architecture: str | None
    blocks: tuple[_Group | _Part | _Gone | _Block, ...]
    sizes: tuple[_Size, ...] = ()
    modules: tuple[_Change, ...] = ()
    untranslated: dict[str, tuple[int, ...]] | None = None
    losses: Losses | None = None
    bytes: int
    sha256: str


def save_translated(
    network: nn.Module, path: Path | str, architecture: str | None = None, losses: Losses | None = None
) -> None:
    """Write what `translate` returned, for `load_translated`.

    Args:
        network: The translated network.
        path: Of the safetensors file; the record is written to `path` + `.json`.
        architecture: What makes the untranslated network, as `paramtrans.networks.build` takes it.
        losses: What the translation lost, as `measure_losses` gives it; written beside.

    Raises:
        StoreError: the network was not made by `translate`, or its record could not be read again.
    """
    network = unwrapped(network)
    if Path(path).suffix != ".safetensors":
        raise StoreError(f"{path}: a translated network is written as safetensors; let its name end in .safetensors")
    replaced = getattr(network, ATTRIBUTE, None)
    if replaced is None:
        raise StoreError("this network was not made by paramtrans.translate, so there is nothing to rebuild it from")
    record = {
        "format": FORMAT,
        "paramtrans": __version__,
        "architecture": architecture,
        "blocks": [asdict(block) for block in replaced],
        "sizes": [asdict(size) for size in getattr(network, SIZES, ())],
        "modules": [asdict(change) for change in getattr(network, MODULES, ())],
        "untranslated": getattr(network, SHAPES, None),
    }
    if losses is not None:
        record["losses"] = losses.model_dump(mode="json", exclude={"blocks"})
    _check_written(Path(path), record)
    sealed_params.save_params(Path(path), tensors_of(network), record)


def _check_written(path: Path, record: dict[str, Any]) -> None:
    """Raise `StoreError` for a record that `load_translated` would refuse: no writer is laxer than its reader."""
    with boundary.in_words(f"{path}: is not written, as its record could not be read again", "look at the inputs"):
        content = documents.content({**record, "bytes": 0, "sha256": ""})
        _Record.model_validate_json(content)


@pinned()
def load_translated(
    path: Path | str, network: nn.Module | str | None = None, registry: Registry | None = None
) -> nn.Module:
    """A translated network from its file, in eval mode.

    Args:
        path: Of the safetensors file.
        network: A fresh untranslated network, or what makes it. It may be left out for architectures of installed
            sources and for hosts of a task; a Python file is run only where the caller names it.
        registry: The plugins; by default those that are installed.

    Returns:
        The network, in eval mode, with `paramtrans_blocks` as `translate` left it.

    Raises:
        StoreError: the file is damaged, or was not made of the network.

    >>> small = load_translated("small.safetensors")  # doctest: +SKIP
    """
    path, registry = Path(path), registry or components()
    params, raw = sealed_params.load_params(path)
    record_path = sealed_params.record_path(path)
    try:
        record = _Record.model_validate(raw)
    except ValidationError as error:
        raise StoreError(f"{record_path}: is no record of a translated network: {error.errors()[0]['msg']}") from error
    json_files.check_format(record_path, record.format, range(1, FORMAT + 1))
    replaced = tuple(block.replaced() for block in record.blocks)
    sizes = tuple(size.setting() for size in record.sizes)
    changes = tuple(change.change() for change in record.modules)
    rebuilt = _untranslated(record, network, record_path, registry)
    try:
        if record.untranslated is not None:
            check_untranslated(rebuilt, record.untranslated)
        modules.repeat(rebuilt, changes, registry)
        for block in replaced:
            if isinstance(block, LeftOut):
                repeat(rebuilt, [block], registry)
            elif not isinstance(block, NarrowedGroup):
                _put_target(rebuilt, block, record.bytes, registry)
        if any(isinstance(block, NarrowedGroup) for block in replaced):
            rebuild(rebuilt, sizes, params)
        load_tensors(rebuilt, params)
    except (ConfigError, DataError, AttributeError, RuntimeError) as error:
        raise StoreError(
            f"{path}: does not fit the network it is to be put into: {parameter_files.reason(error)}"
        ) from error
    setattr(rebuilt, ATTRIBUTE, replaced)
    setattr(rebuilt, SIZES, sizes)
    setattr(rebuilt, MODULES, changes)
    setattr(rebuilt, SHAPES, record.untranslated)
    return to_eval(rebuilt)


def _put_target(network: nn.Module, block: Replaced | ReplacedPart, size: int, registry: Registry) -> None:
    """Put the target block that a record names into a network; raises `DataError` where it is in no file of `size`
    bytes."""
    target = registry.create("block_adapter", block.target_kind, **block.target)
    if target.spec.numel > size:  # a tensor takes a byte a value or more
        raise DataError(f"{block.path}: a block of {target.spec.numel:,} values is in no file of this size")
    if isinstance(block, ReplacedPart):
        put_part(network, block.path, target.module(), block.calling)
    else:
        put(network, block.layers, target, None)


def _untranslated(record: _Record, network: nn.Module | str | None, record_path: Path, registry: Registry) -> nn.Module:
    if isinstance(network, nn.Module):
        # What was written while it was inside nn.DataParallel goes into one.
        inside = {block.path.partition(".")[0] for block in record.blocks}
        return network if inside == {"module"} else unwrapped(network)
    if network is not None:
        return architectures.build(network, registry=registry)
    if record.architecture is None or not architectures.is_installed(record.architecture, registry):
        made_by = f" (it was {record.architecture})" if record.architecture else ""
        raise StoreError(
            f"{record_path}: say what makes the untranslated network{made_by}, "
            "as in load_translated(path, network); no file named here is ever run"
        )
    return architectures.build_from_file(record.architecture, record.bytes, str(record_path), registry)
