"""Networks of torchvision by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import save_file
from torch import Tensor, nn

from paramtrans.api.architecture import ArchitectureSource, ExampleKind, Origin
from paramtrans.errors import ConfigError
from paramtrans.utils.near import did_you_mean
from paramtrans_architectures import image_batches
from paramtrans_architectures.alike import Outputs
from paramtrans_architectures.class_arguments import arguments_of, find_changes
from paramtrans_architectures.loading_code import WEIGHTS, loading_code

LOADING = "load.py"
"""The file whose `load()` gives the network."""


class Torchvision(ArchitectureSource):
    """`torchvision:resnet18?num_classes=10`: any network of `torchvision.models.list_models()`, untrained."""

    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        "num_classes": (1, 100_000),
        "aux_logits": (0, 1),
        "transform_input": (0, 1),
        "init_weights": (0, 1),
        "dropout": (0, 1),
        "width_mult": (0.1, 10),
        "stochastic_depth_prob": (0, 1),
    }

    def build(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        from torchvision import models

        if name not in models.list_models():
            hint = did_you_mean(name, models.list_models())
            raise ConfigError([f"architecture: torchvision.models.list_models() has no {name!r}{hint}"])
        builder = models.get_model_builder(name)
        # Some builders fetch weights by default, where nobody asks for any.
        unasked = {"weights", "weights_backbone"} & {*inspect.signature(builder).parameters} - {*arguments}
        network: nn.Module = builder(**dict.fromkeys(unasked), **arguments)
        return network

    def origin(self, network: nn.Module, name: str) -> Origin:
        return Origin(
            name, "torchvision", loading="from load import load  # load.py of this folder\n\nnetwork = load()"
        )

    def save(self, network: nn.Module, name: str, arguments: Mapping[str, Any], folder: Path, outputs: Outputs) -> None:
        """Parameters, and a file with a function that builds the network and reads them, by torchvision alone."""
        before, given = arguments_of(lambda: self.build(name, arguments))
        kind = type(before)
        changes = find_changes(
            network, lambda: self.build(name, arguments), lambda changes: kind(**{**given, **changes}), outputs
        )
        (folder / LOADING).write_text(loading_code(kind, {**given, **changes}))
        save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, folder / WEIGHTS)

    def inputs(
        self,
        network: nn.Module,
        name: str,
        kind: ExampleKind,
        examples: Iterable[Any],
        count: int,
        length: int | None,
    ) -> Sequence[Tensor]:
        from torchvision import models

        image_batches.check(name, kind, length)
        weights = [*models.get_model_weights(name)]
        if not weights:
            raise ConfigError([f"torchvision:{name}: no weights of it say how images are prepared; make .npy of them"])
        # The first of its weights are those of the paper, the others later recipes: sizes of images are theirs.
        return image_batches.prepare_batches(weights[0].transforms(), examples, count)
