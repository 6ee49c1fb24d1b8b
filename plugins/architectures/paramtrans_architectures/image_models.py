"""Networks of timm by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from paramtrans.api.architecture import ArchitectureSource, ExampleKind, Origin
from paramtrans.errors import ConfigError
from paramtrans.utils.near import did_you_mean
from paramtrans_architectures import image_batches
from paramtrans_architectures.alike import Outputs
from paramtrans_architectures.class_arguments import find_changes


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
        names = timm.list_models()
        if name.partition(".")[0] not in names:
            raise ConfigError([f"architecture: timm.list_models() has no {name!r}{did_you_mean(name, names)}"])
        network: nn.Module = timm.create_model(name, pretrained=False, **arguments)
        return network

    def origin(self, network: nn.Module, name: str) -> Origin:
        loading = 'import timm\n\nnetwork = timm.create_model("local-dir:FOLDER", pretrained=True)'
        return Origin(name, "timm", loading=loading)

    def save(self, network: nn.Module, name: str, arguments: Mapping[str, Any], folder: Path, outputs: Outputs) -> None:
        """A folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` loads."""
        from timm.models import save_for_hf

        def build(changes: Mapping[str, Any]) -> nn.Module:
            return self.build(name, {**arguments, **changes})

        changes = find_changes(network, lambda: build({}), build, outputs)
        save_for_hf(network, str(folder), model_args={**arguments, **changes}, safe_serialization=True)

    def inputs(
        self,
        network: nn.Module,
        name: str,
        kind: ExampleKind,
        examples: Iterable[Any],
        count: int,
        length: int | None,
    ) -> Sequence[Tensor]:
        from timm.data.config import resolve_model_data_config
        from timm.data.transforms_factory import create_transform

        image_batches.check(name, kind, length)
        channels = next((len(weight[0]) for weight in network.parameters() if weight.ndim == 4), 3)
        if channels != 3:
            raise ConfigError([f"timm:{name}: takes {channels} channels, and images have 3; make .npy of them"])
        prepare = create_transform(**resolve_model_data_config(network), is_training=False)
        return image_batches.prepare_batches(prepare, examples, count)
