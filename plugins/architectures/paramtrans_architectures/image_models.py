"""Networks of timm by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from paramtrans.api.architecture import ArchitectureSource
from paramtrans.errors import ConfigError
from paramtrans.utils.near import did_you_mean


class Timm(ArchitectureSource):
    """`timm:resnet18?num_classes=10`: any network of `timm.list_models()`, untrained."""

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "num_classes": (0, 100_000),
        "in_chans": (1, 64),
        "img_size": (8, 2048),
        "drop_rate": (0, 1),
        "drop_path_rate": (0, 1),
    }

    def build(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        try:
            import timm
        except ImportError as error:
            raise ConfigError([f"architecture timm:{name}: timm is not installed; pip install timm"]) from error
        known = timm.list_models()
        if name.partition(".")[0] not in known:
            raise ConfigError([f"architecture: timm.list_models() has no {name!r}{did_you_mean(name, known)}"])
        network: nn.Module = timm.create_model(name, pretrained=False, **arguments)
        return network
