"""What a plugin's components implement, apart from block adapters (`paramtrans.blocks`), with all shapes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PositiveInt

from paramtrans.blocks import BlockAdapter
from paramtrans.context import Context
from paramtrans.options import BaseOptions, Configurable
from paramtrans.specs import BlockSpec, FeatureSpec

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from paramtrans.hosts import Hosts, Params
    from paramtrans.stacked import HostRunner


@dataclass(frozen=True)
class Split:
    """Examples with their labels, as stored: raw inputs `[n, *shape]` (often uint8) and class numbers `[n]`."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Split:
        """The first `count` examples; all where it is None."""
        return Split(self.inputs[:count], self.labels[:count])


class Task(Configurable, ABC):
    """A host's former and latter blocks, the data it is trained on, and how its outputs are scored."""

    slot: FeatureSpec
    """Features where the source or target block stands."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    def prepare(self, cache: Path) -> None:
        """Make the data ready for `split`, keeping files below `cache`; raise `DataError` where it cannot be.

        Called once in each process before anything else that needs data.
        """

    @abstractmethod
    def former(self) -> nn.Module:
        """The blocks before the slot: `[batch, *input]` → `[batch, *slot]`."""

    @abstractmethod
    def latter(self) -> nn.Module:
        """The blocks after the slot: `[batch, *slot]` → `[batch, outputs]`."""

    def stream(self) -> dict[str, int]:
        """Tensors of `former.*` and `latter.*` with the axis that runs over the slot's channels; none unless declared.

        Translators that look at the surroundings of a block read these, channel by channel.
        """
        return {}

    @abstractmethod
    def split(self, name: str) -> Split:
        """`train`, `holdout` (kept out of training, for selection) or `test` (for reporting alone); disjoint."""

    def to_input(self, raw: Tensor) -> Tensor:
        """Raw inputs as the network takes them, in float; by default bytes become [0, 1]."""
        return raw.float() / 255

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """All that is drawn to augment `count` examples of one host, `[count, ...]`; nothing by default.

        Drawing for two batches at once must give what drawing for one and then the other does: an epoch's are drawn
        in one go.
        """
        import torch

        return torch.empty(count, 0)

    def augmented(self, raw: Tensor, drawn: Tensor) -> Tensor:
        """Training examples `[..., *shape]` changed by what was drawn for each, `[..., ...]`, on any device."""
        return raw

    def augment(self, raw: Tensor, generator: torch.Generator) -> Tensor:
        """Random changes of one host's training batch `[batch, *shape]`.

        A task may override this alone; it is then called for each host and batch, on the CPU, which is slower.
        """
        return self.augmented(raw, self.draws(len(raw), generator))

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean training loss of each model: outputs `[models, batch, ...]`, labels `[models, batch]` → `[models]`."""

    @abstractmethod
    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Percent for each example, higher is better: `[models, batch, ...]`, `[batch]` → `[models, batch]`."""


class Translator(Configurable, ABC):
    """Anything that maps source parameters to target parameters, for any pair of blocks it says it can.

    The constructor raises `SpecMismatch` for a pair it cannot translate.
    """

    learns: ClassVar[bool] = False
    """Whether it has to be trained on a zoo before it translates."""
    needs_probes: ClassVar[bool] = False
    """Whether it compares what blocks compute, and so needs a context with probes."""

    def __init__(self, options: BaseOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        self.options, self.source, self.target = options, source, target

    @property
    def target_bytes(self) -> int:
        """Bytes that one target block takes where it is kept: four a value, unless fewer hold what was written."""
        return 4 * self.target.spec.numel

    @abstractmethod
    def translate(self, source: Params, context: Context | None = None) -> Params:
        """Target blocks for source blocks: tensors of `source.spec` → tensors of `target.spec`, model by model.

        Raises `SpecMismatch` where the translator needs more of the `context` than it is given.
        """


class Augmenter(Configurable, ABC):
    """A random change of parameters during translator training; it never changes its input in place."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        """Stacked parameters → the same names and shapes. All randomness comes from `generator`."""

    def change(self, params: Params, spec: BlockSpec, generator: torch.Generator) -> Params:
        """What training calls: `self(params, generator)`, unless it matters what the values are: `params` are tensors
        of `spec`, that of the target block or of what is read of the source."""
        return self(params, generator)


@dataclass(frozen=True)
class Batch:
    """What an objective may look at in one training step, beside the prediction: hosts, and examples for each."""

    hosts: Hosts
    target: Params | None
    """The trained targets, augmented where the config says so; None where step 2 was not run."""
    inputs: Tensor | None
    """Network inputs `[models, batch, ...]`; None unless an objective asks by `examples`."""
    labels: Tensor | None


class Objective(Configurable, ABC):
    """What a translator is trained on."""

    needs_targets: ClassVar[bool] = False
    """Whether it compares with trained targets, and so needs step 2 on the training hosts."""

    def __init__(self, options: BaseOptions, runner: HostRunner) -> None:
        self.options, self.runner = options, runner

    @property
    def examples(self) -> int:
        """Examples it wants for each host in a step; 0 for none."""
        return 0

    @abstractmethod
    def __call__(self, predicted: Params, batch: Batch) -> Tensor:
        """The loss of the predicted target blocks (`[models, *shape]` each): a scalar to be minimised.

        It must be a mean over the models, so that a step may be computed in slices, and by several processes.
        """


@dataclass(frozen=True)
class RivalCase:
    """What a rival may use: the hosts whose slot it fills, the training pairs, both adapters, and its seed."""

    hosts: Hosts
    pairs: Hosts | None
    source: BlockAdapter
    target: BlockAdapter
    seed: int


class Rival(Configurable, ABC):
    """A way to fill the target block without the translator, reported beside it."""

    needs_pairs: ClassVar[bool] = False
    """Whether it draws on training hosts with trained targets."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def fill(self, case: RivalCase) -> Params:
        """Target blocks for `case.hosts`, in their order: tensors of `case.target.spec`, stacked."""


class ProbeOptions(BaseOptions):
    """What all probes share."""

    count: PositiveInt = 64
    """How many inputs."""


@dataclass(frozen=True)
class ProbeCase:
    """What probes may look at: the shape of one network input, the task, the hosts, and where all chance comes from."""

    shape: tuple[int, ...]
    generator: torch.Generator
    task: Task | None = None
    hosts: Hosts | None = None
    """The hosts whose blocks are compared."""
    source: BlockAdapter | None = None
    """The adapter of their source blocks."""
    network: nn.Module | None = None
    """Instead of hosts of a task: a copy of the network that inputs are wanted for, in eval mode."""


class Probes(Configurable, ABC):
    """Network inputs on which translators compare what blocks compute."""

    Options: ClassVar[type[BaseOptions]] = ProbeOptions
    own_inputs: ClassVar[bool] = False
    """Whether each host gets inputs of its own."""
    real: ClassVar[bool] = False
    """Whether they are examples of the task, which a user has to have."""

    def __init__(self, options: ProbeOptions) -> None:
        self.options = options

    @abstractmethod
    def draw(self, case: ProbeCase) -> Tensor:
        """Network inputs `[count, *shape]`; with `own_inputs` `[models, count, *shape]`. A seed gives the same again.

        Raises `SpecMismatch` where the case lacks what it needs, or the shape does not suit.
        """


class Executor(Configurable, ABC):
    """Where the shards of a zoo are trained. A job is a JSON document; doing one twice writes the same shard."""

    def __init__(self, options: BaseOptions) -> None:
        self.options = options

    @abstractmethod
    def run(self, jobs: Sequence[dict[str, Any]], progress: Callable[[int], None]) -> None:
        """Do all jobs through `paramtrans.zoo.do_job`; call `progress` in this process with numbers of steps done."""


@dataclass(frozen=True)
class RunInfo:
    """What lifecycle hooks are told about a run."""

    dir: Path
    config: dict[str, Any]
