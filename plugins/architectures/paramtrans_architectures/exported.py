"""Networks that torch.export wrote, from their file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from paramtrans.api.architecture import ArchitectureSource, Origin
from paramtrans.errors import ConfigError
from paramtrans.networks.graph.exported_programs import read_program


class ExportedPrograms(ArchitectureSource):
    """`export:FILE.pt2`: the program of a file of `torch.export.save`, with its parameters. Nothing is unpickled."""

    form: ClassVar[str] = "FILE.pt2"

    def build(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        if arguments:
            raise ConfigError([f"architecture export:{name}: takes no options (?{next(iter(arguments))}=...)"])
        return read_program(Path(name))

    def check_recorded(self, name: str, arguments: Mapping[str, Any]) -> None:
        raise ConfigError(["a file on the machine where it was written, which no other file may name"])

    def origin(self, network: nn.Module, name: str) -> Origin:
        return Origin(Path(name).stem, "torch.export")
