"""What a config holds: every table and key, with its type, default and meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from paramtrans.api.options import BaseOptions
from paramtrans.config.components import (
    MAX_PARTS,
    SINGLE as SINGLE,
    AugmenterConfig,
    ComponentConfig as ComponentConfig,
    MethodConfig as MethodConfig,
    ObjectiveConfig,
)

PathText = Annotated[str, Field(min_length=1, max_length=4000, pattern=r"^[^\x00]*$")]
"""A path: text without the zero that no system takes."""
ELSEWHERE = ("run", "executor")
"""Parts of a config that say where a run is made, not what; they may differ when it goes on."""


class RunConfig(BaseOptions):
    """Where and how a run is made."""

    dir: PathText | None = None
    """The run's folder; by default `runs/<name of the config file>` below the current folder."""
    cache: PathText | None = None
    """Where zoos and data are kept; by default the user's cache folder, or $PARAMTRANS_CACHE."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one."""


class HostTraining(BaseOptions):
    """How hosts are trained in step 1, and target blocks in step 2: SGD."""

    steps: PositiveInt | None = Field(None, le=10_000_000)
    """Length in optimiser steps; this or `epochs`, one of them."""
    epochs: PositiveInt | None = Field(None, le=100_000)
    """Length in passes of the training set; this or `steps`, one of them."""
    batch_size: PositiveInt = Field(128, le=1_000_000)
    """Examples in a step of a host."""
    lr: PositiveFloat = 0.01
    """Learning rate; the peak with `one_cycle`."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(0.0, ge=0)
    """Of SGD: share of each parameter that is added to its gradient."""
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    """How the learning rate changes from step to step."""

    @model_validator(mode="after")
    def _one_length(self) -> HostTraining:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self

    def length(self, examples: int) -> int:
        """Optimiser steps on a training set of that many examples; an epoch's last batch may be short.

        Args:
            examples: How many there are.

        Returns:
            The number of steps.
        """
        return self.steps or (self.epochs or 0) * -(-examples // self.batch_size)


class ZooConfig(BaseOptions):
    """How many hosts, and how they are made. The three sets never share a host."""

    train: NonNegativeInt = Field(0, le=10_000_000)
    """Hosts the translator learns from; none for one that does not learn."""
    select: NonNegativeInt = Field(0, le=1_000_000)
    """Hosts on which its best epoch is chosen, with examples held out of the training set."""
    report: int = Field(ge=2, le=1_000_000)
    """Hosts on which all methods are reported, with the test set."""
    report_from: PathText | None = None
    """A safetensors file of finished hosts to report on, instead of training some: `former.*`, `source.*`, `latter.*`,
    and `target.*` where they have one, first axis the host. Relative to the config file."""
    pairs: NonNegativeInt | None = Field(None, le=10_000_000)
    """How many of the training hosts also get a trained target (step 2); all of them by default."""
    snapshots: tuple[Annotated[float, Field(ge=0.001, lt=1)], ...] = Field((), max_length=MAX_PARTS)
    """Shares of step 1, such as `[0.5, 0.75]`, after which training hosts are kept as well. The translator learns from
    these as from further hosts. They take no more training, and have no trained target: for objectives without one."""
    seed: NonNegativeInt = 0
    """From which the seeds of all hosts, and the order of their examples, are drawn."""
    origin: str | None = Field(None, max_length=200)
    """Name of a zoo that was trained elsewhere and enters by `paramtrans zoo import`; none: hosts are trained here."""
    shard: PositiveInt = Field(16, le=4096)
    """Hosts trained at once, and kept in one file."""
    step1: HostTraining
    """Training of whole hosts with the source block."""
    step2: HostTraining
    """Training of the target block alone, between the frozen former and latter."""
    also: tuple[ComponentConfig, ...] = Field((), max_length=MAX_PARTS)
    """Further tasks, with the same slot: the translator also learns from as many hosts of each of them, and is selected
    on theirs too. For objectives that compare parameters alone."""

    @property
    def target_hosts(self) -> int:
        return self.train if self.pairs is None else min(self.pairs, self.train)


class ReportConfig(BaseOptions):
    """Report hosts that are made otherwise than those the translator learns from; what is not given stays as theirs."""

    begin: Literal["fresh", "around", "further"] = "fresh"
    """What step 1 begins with. `around`: the source blocks of the run's own report hosts, which stay frozen; former and
    latter are new. `further`: those hosts as a whole."""
    task: ComponentConfig | None = None
    """Their task, with the same slot."""
    step1: HostTraining | None = None
    """Their training with the source block."""
    step2: HostTraining | None = None
    """The training of their target blocks."""


class TrainingConfig(BaseOptions):
    """How the translator is trained: Adam."""

    epochs: PositiveInt = Field(le=1_000_000)
    """Passes of the training hosts."""
    batch_size: PositiveInt = 32
    """Hosts in a step."""
    lr: PositiveFloat = 1e-3
    """Learning rate of Adam; with a schedule, the largest."""
    weight_decay: float = Field(0.0, ge=0)
    """Of Adam: share of each weight that is added to its gradient."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """`cosine`: stepped once an epoch, down to 0 at the end."""
    warmup_epochs: NonNegativeInt = 0
    """Epochs over which the rate first rises linearly."""
    clip: PositiveFloat | None = None
    """Largest norm of the whole gradient; none by default."""
    precision: Literal["float32", "bf16"] = "float32"
    """What the translator computes in while it learns. `bf16`: products in bfloat16 (autocast); weights, the hosts that
    its blocks are tried in, and evaluation stay in float32."""
    compile: bool = False
    """Whether training goes through `torch.compile`, which needs a C++ compiler on the CPU; hosts are not compiled."""
    accumulate: PositiveInt = Field(1, le=1_000_000)
    """Slices that the hosts of a step go through one after the other, for less memory. The step is the same but for
    rounding, and for what the translator draws itself, as dropout does."""
    evaluate_every: PositiveInt = 25
    """Epochs between evaluations on the selection hosts; the last epoch is always evaluated."""
    checkpoint_every: PositiveInt = 5
    """Epochs between points from which an interrupted training goes on."""
    sizes: tuple[dict[str, Any], ...] = ()
    """Further sizes of the target block to train on, a step at a time and drawn at random, the target's own among them:
    options laid over its own, such as `[{hidden = 2}, {hidden = 4}]`. For translators that take blocks of any size."""
    targets: tuple[ComponentConfig, ...] = Field((), max_length=MAX_PARTS)
    """The same for target blocks of other families, each complete, such as
    `[{name = "mlp", channels = 6, hidden = 12}]`. For translators that write several families."""
    seed: NonNegativeInt = 0
    """From which the translator's first weights, and all that its training draws, are drawn."""


class EvaluationConfig(BaseOptions):
    """What the translated block is compared with."""

    rivals: tuple[ComponentConfig, ...] = tuple(
        ComponentConfig(name=name) for name in ("zero_block", "random_init", "random_replacement", "greedy_replacement")
    )
    """Ways to fill the slot that need no translator."""
    methods: tuple[MethodConfig, ...] = ()
    """Translators beside the run's own, each with probes of its own and others that go on from it."""
    metrics: tuple[ComponentConfig, ...] = Field((), max_length=MAX_PARTS)
    """Numbers to measure beside the task's own metric, for every method."""
    sections: tuple[ComponentConfig, ...] = Field((), max_length=MAX_PARTS)
    """Further sections of the run's page."""
    baseline: str | None = None
    """The method that all are compared with, host by host; by default the run's own translator."""
    holdout: bool = False
    """Whether hosts are measured on examples held out of training, not on the test set: for choosing among methods."""
    examples: PositiveInt | None = None
    """How many examples at most hosts are measured on, the first ones; all by default."""
    trained_target: bool = True
    """Whether step 2 is run on the report hosts, for the upper bound."""
    paper_way: bool = False
    """Whether each evaluation during training also looks at the report hosts and the test set. The best of them is
    what the paper prints; it is reported beside the honest figure, and never selects anything."""
    seed: NonNegativeInt = 0
    """From which all that rivals, probes and translators draw in the evaluation is drawn."""


class Config(BaseOptions):
    """One run, complete. `resolve` has replaced every component's options by its own, defaults included."""

    task: ComponentConfig
    """The hosts, the data they are trained on, and how they are scored."""
    source: ComponentConfig
    """The block in the slot of the trained hosts, which is to be translated."""
    target: ComponentConfig
    """The block that takes its place."""
    zoo: ZooConfig
    """How many hosts there are, and how they are trained."""
    report: ReportConfig | None = None
    """Where given, how the hosts are made that methods are reported on."""
    translator: ComponentConfig | None = None
    """The run's own translator, which may learn; without one, `evaluation.methods` are compared alone."""
    objectives: tuple[ObjectiveConfig, ...] = Field((), max_length=MAX_PARTS)
    """What it is trained on; needed where it learns, as `training`, `zoo.train` and `zoo.select` are."""
    augmenters: tuple[AugmenterConfig, ...] = Field((), max_length=MAX_PARTS)
    """Random changes of parameters while it is trained."""
    training: TrainingConfig | None = None
    """How the run's own translator is trained; needed where it learns."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What the translated block is compared with, and on what."""
    executor: ComponentConfig = ComponentConfig(name="local")
    """Where the shards of the zoo are trained."""
    run: RunConfig = RunConfig()
    """The run's folder, cache and device."""

    def identity(self) -> dict[str, Any]:
        """What is run, without where."""
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in ELSEWHERE}

    def reported(self) -> Config:
        """The config that makes the report hosts."""
        if self.report is None:
            return self
        steps = {key: getattr(self.report, key) or getattr(self.zoo, key) for key in ("step1", "step2")}
        zoo = self.zoo.model_copy(update={**steps, "also": ()})
        return self.model_copy(update={"task": self.report.task or self.task, "zoo": zoo, "report": None})

    def with_task(self, task: ComponentConfig) -> Config:
        """The same with hosts of another task alone.

        Args:
            task: The task, with its options.

        Returns:
            Another config.
        """
        return self.model_copy(update={"task": task, "zoo": self.zoo.model_copy(update={"also": ()}), "report": None})

    def components(self) -> Iterable[tuple[str, str, ComponentConfig]]:
        """Every component of the config: (dotted path, kind, its part)."""
        single = ((path, kind, getattr(self, path)) for path, kind in SINGLE.items())
        yield from (part for part in single if part[2] is not None)
        if self.report is not None and self.report.task is not None:
            yield "report.task", "task", self.report.task
        yield from ((f"zoo.also.{i}", "task", part) for i, part in enumerate(self.zoo.also))
        targets = self.training.targets if self.training else ()
        yield from ((f"training.targets.{i}", "block_adapter", part) for i, part in enumerate(targets))
        yield from ((f"objectives.{i}", "objective", part) for i, part in enumerate(self.objectives))
        yield from ((f"augmenters.{i}", "augmenter", part) for i, part in enumerate(self.augmenters))
        yield from ((f"evaluation.rivals.{i}", "rival", part) for i, part in enumerate(self.evaluation.rivals))
        yield from ((f"evaluation.metrics.{i}", "metric", part) for i, part in enumerate(self.evaluation.metrics))
        sections = enumerate(self.evaluation.sections)
        yield from ((f"evaluation.sections.{i}", "report_section", part) for i, part in sections)
        for i, method in enumerate(self.evaluation.methods):
            parts = [(f"then.{j}", "translator", part) for j, part in enumerate(method.then)]
            parts += [("translator", "translator", method.translator)] if method.translator else []
            parts += [("probes", "probe", method.probes)] if method.probes else []
            yield from ((f"evaluation.methods.{i}.{place}", kind, part) for place, kind, part in parts)
