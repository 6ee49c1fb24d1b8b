"""Hosts of a task as ordinary networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from paramtrans.api.architecture import ArchitectureSource
from paramtrans.api.options import BaseOptions
from paramtrans.errors import ConfigError
from paramtrans.networks.loading.host_network import host_network
from paramtrans.plugins.registry import Registry


class TaskHosts(ArchitectureSource):
    """`task:mnist:conv?channels=8&block.hidden=3`: former and latter of a task, with a block between them."""

    form: ClassVar[str] = "TASK:BLOCK"
    needs_registry: ClassVar[bool] = True

    def __init__(self, options: BaseOptions, *, registry: Registry) -> None:
        super().__init__(options)
        self.registry = registry

    def check_recorded(self, name: str, arguments: Mapping[str, Any]) -> None:
        """All options are those of a task and of a block, which hold them to bounds of their own."""

    def build(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        task, colon, block = name.partition(":")
        if not colon:
            blocks = ", ".join(entry.name for entry in self.registry.of_kind("block_adapter"))
            architecture = f"task:{task}"
            raise ConfigError(
                [f"architecture {architecture!r}: add the block in its slot, as in {architecture}:BLOCK ({blocks})"]
            )
        return host_network(task, block, arguments, self.registry)
