"""Architecture sources: what stands before the colon of `--arch`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from paramtrans.api.options import BaseOptions, Configurable

if TYPE_CHECKING:
    from torch import nn


class ArchitectureSource(Configurable, ABC):
    """Networks by name, untrained: `torchvision` in `torchvision:resnet18?num_classes=10`.

    It takes no options. What it builds comes from what is installed: it runs no file that a name leads to, because
    names are also read from the records of translated networks.
    """

    form: ClassVar[str] = "NAME"
    """What stands behind its colon, for messages."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def build(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        """A fresh network.

        Args:
            name: What stands between the colon and `?`.
            arguments: What stands behind `?`, by name; each as JSON where it is some, else as text.

        Raises:
            ConfigError: there is no such network.
        """
