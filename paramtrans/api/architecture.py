"""Architecture sources: what stands before the colon of `--arch`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from paramtrans.api.options import BaseOptions, Configurable
from paramtrans.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


ExampleKind: TypeAlias = Literal["texts", "images", "audio"]
"""What calibration inputs are made of, where they are no arrays."""


@dataclass(frozen=True)
class Recording:
    """Sound, in one channel."""

    samples: Tensor
    """`[samples]`, between -1 and 1."""
    rate: int
    """Samples a second."""


@dataclass(frozen=True)
class Origin:
    """What a network was before it was translated, for its card."""

    model: str
    """Its name, without where it lies."""
    library: str
    """What loads it."""
    hub: str | None = None
    """Its name on a hub, if that is known."""
    licence: str | None = None
    """As its own card states it."""
    loading: str = ""
    """Python that loads the folder that `save` writes, called FOLDER."""


class ArchitectureSource(Configurable, ABC):
    """Networks by name, untrained: `torchvision` in `torchvision:resnet18?num_classes=10`.

    It takes no options. What it builds comes from what is installed: it runs no file that a name leads to, because
    names are also read from the records of translated networks.
    """

    form: ClassVar[str] = "NAME"
    """What stands behind its colon, for messages."""
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Arguments that the record of a translated network may set, each with its least and its largest value."""

    has_gguf: ClassVar[bool] = False
    """Whether llama.cpp's converter reads the folders that `save` writes."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def build(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        """A fresh network.

        Args:
            name: What stands between the colon and `?`.
            arguments: What stands behind `?`, by name; each as JSON where it is some, else as text.

        Returns:
            The network.

        Raises:
            ConfigError: there is no such network.
        """

    def own_names(self, network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Parameters of a file by the network's own names, where the library's files have others than its models.

        Args:
            network: One that `build` made; it is not changed.
            state: Parameters by the names of the file.

        Returns:
            The same by other names, joined or split as the library does it; `state` itself where nothing is to be done.
        """
        return state

    def check_recorded(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Whether a record, which anybody may have written, may name this network; `build` is called only then.

        Args:
            name: As for `build`.
            arguments: As for `build`.

        Raises:
            ConfigError: it may not.
        """
        for argument, value in arguments.items():
            low, high = self.bounds.get(argument, (1, 0))
            if not (isinstance(value, int | float) and low <= value <= high):
                raise ConfigError([f"an option ({argument[:40]} = {str(value)[:40]}) that no file may set"])

    def origin(self, network: nn.Module, name: str) -> Origin:
        """What a network was before, for the card of a smaller one.

        Args:
            network: The network before.
            name: As for `build`.

        Returns:
            Its name, library and licence, as far as they are known.
        """
        return Origin(name, type(self).__name__)

    def text(self, name: str, tokens: Sequence[int]) -> str | None:
        """Words for numbers of tokens, by the model's own tokenizer; None where it has none.

        Args:
            name: As for `build`.
            tokens: Numbers of tokens.

        Returns:
            The words.
        """
        return None

    def inputs(
        self,
        network: nn.Module,
        name: str,
        kind: ExampleKind,
        examples: Iterable[Any],
        count: int,
        length: int | None,
    ) -> Sequence[Tensor | Mapping[str, Tensor]]:
        """Texts, images or recordings as inputs of a network, with its own tokenizer or its own preprocessing.

        Args:
            network: One that `build` made.
            name: What it was built by.
            kind: What the examples are.
            examples: Text, images of Pillow's in RGB, or `Recording`s, in the order in which they are to be taken.
            count: How many inputs there are to be, at most.
            length: Tokens of a text, or seconds of a recording, at most; None where nobody says so.

        Returns:
            Batches of what the network is called with, at least two examples in the first; none where there is too
            little for that.

        Raises:
            ConfigError: such examples are nothing for this network.
        """
        raise ConfigError(
            [f"{type(self).__name__} does not say how {kind} become inputs; make .npy or .safetensors of them"]
        )

    def shortened(self, network: nn.Module, path: str, gone: int) -> None:
        """Let what the library keeps beside the modules follow where a block was taken out of a list, such as the
        number of layers in a config. Networks of other libraries stay as they are.

        Args:
            network: A network without the block, of any library; it may be changed.
            path: Of the list.
            gone: Which of the list's blocks went, counted from 0.
        """
        return

    def lean(self, network: nn.Module, like: nn.Module | None = None) -> None:
        """Let a network keep nothing for later calls, such as keys and values of tokens: in passes that wait for each
        other that is much to hold. Networks of other libraries stay as they are.

        Args:
            network: A copy, of any library; it may be changed.
            like: A network whose ways it takes again.
        """
        return

    def untied(self, network: nn.Module, path: str) -> None:
        """Let what the library keeps beside the modules follow where a layer no longer shares its weight with another,
        such as a config that ties embeddings. Networks of other libraries stay as they are.

        Args:
            network: A network whose layer has a weight of its own, of any library; it may be changed.
            path: Of the layer.
        """
        return

    def save(
        self,
        network: nn.Module,
        name: str,
        arguments: Mapping[str, Any],
        folder: Path,
        outputs: Callable[[nn.Module], list[Tensor]],
    ) -> None:
        """Write a network that was made smaller as its library does, so that it is loaded without paramtrans.

        Args:
            network: One that `build` made, translated; it is not changed.
            name: What it was built by.
            arguments: What stood behind the name, as for `build`.
            folder: Where its files go; it exists, and is empty.
            outputs: What such a network gives for a few inputs: that of the library has to give the same.

        Raises:
            ConfigError: the library has no such form, or none for these sizes.
        """
        raise ConfigError([f"{type(self).__name__} has no form of its own for smaller networks"])

    def read_gguf(self, network: nn.Module, file: Path) -> nn.Module | None:
        """The library's own network of a GGUF file.

        Args:
            network: One of the same class and precision; it is not changed.
            file: What llama.cpp's converter wrote.

        Returns:
            The network, in eval mode; None where the library cannot read it.
        """
        return None
