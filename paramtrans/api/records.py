"""Documents that a run leaves, as records: what its `run.json` and its `evaluation.json` say, and how training went.

Read, they are held to these types, and keys that are not known here are kept. Written, they have the keys that were
given, in this order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, TypeAdapter

from paramtrans.utils import documents
from paramtrans.utils.counts import counted

RUN_FORMAT = 2
"""Version of `run.json`. 1 was the same without checksums of itself and of the results."""
EVALUATION_FORMAT = 2
"""Version of `evaluation.json`. 1 did not name the metric, which was accuracy in percent."""

Number: TypeAlias = "float | None"
"""A measured number; None, which is null in JSON, where it was not finite."""


class Document(BaseModel):
    """A part of a JSON document; `part["key"]` is `part.key`, for those who know the file."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    def __getitem__(self, key: str) -> Any:
        if key not in type(self).model_fields and key not in (self.model_extra or {}):
            raise KeyError(key)
        return getattr(self, key)

    def document(self) -> dict[str, Any]:
        """As in the file."""
        return self.model_dump(exclude_unset=True)


class Machine(Document):
    """What a run was computed on."""

    device: str = ""
    """`cpu`, or a GPU's name."""
    processor: str = ""
    cores: int = 0
    """How many the process might use."""


class MadeOf(Document):
    """What the code computes that made something, as `zoo.fingerprint` has it."""

    providers: dict[str, str] = {}
    """By part, who provides it, in which version."""
    computes: dict[str, list[float]] = {}
    """By part, numbers of what it computes."""


class RunRecord(Document):
    """What `run.json` says: all that is needed to take up a run, or to make it again."""

    model_config = ConfigDict(extra="ignore")

    format: int
    name: str = "run"
    status: Literal["running", "finished"]
    started: str
    config: dict[str, Any]
    """The resolved config, as JSON."""
    seconds: dict[str, float]
    """Of each stage, over all interruptions."""
    outdated: int = 0
    """Shards of the zoo that are no newer are trained again (`--fresh`); 0: none."""
    versions: dict[str, str] = {}
    machine: Machine = Machine()
    plugins: list[str] = []
    made_of: MadeOf = MadeOf()
    """Of task and blocks."""
    files: dict[str, str] = {}
    """Once finished: the checksum of each file of the results."""


class MeasuredBy(Document):
    """The metric that results are told in, as the task declares it."""

    name: str = "accuracy"
    unit: str = "%"
    higher_is_better: bool = True
    bounds: list[float] | None = [0.0, 100.0]
    """The lowest and the highest value there can be; None without both."""
    digits: int = 1
    """Decimals that are shown."""

    @property
    def heading(self) -> str:
        """The name with its unit, as on an axis."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def better(self, value: float, than: float) -> bool:
        """Whether one value is better than another; nothing is better than what is no number, nor the other way."""
        return value > than if self.higher_is_better else value < than

    def gain(self, value: Any, over: Any) -> Any:
        """By how much one value, or tensor of values, is better than another."""
        return value - over if self.higher_is_better else over - value

    def shown(self, value: Number) -> str:
        """A value with its unit, for people."""
        if value is None or not math.isfinite(value):
            return "–"
        unit = self.unit if self.unit in ("", "%") else f" {self.unit}"
        return f"{value:,.{self.digits}f}{unit}"


class Difference(Document):
    """To the baseline, host by host, in the metric's unit."""

    mean: Number
    ci95: list[Number]


class Measured(Document):
    """Values of several hosts, in the metric's unit."""

    mean: Number
    ci95: list[Number]
    """The 95% t-interval of the mean over hosts."""
    min: Number
    max: Number
    n: int


class MethodResult(Measured):
    """What one method reaches on the report hosts."""

    gap_closed: Number = None
    """Where it stands between random initialisation (0) and the trained target (1)."""
    difference: Difference | None = None
    images: int | None = None
    """How many it looked at."""
    metrics: dict[str, Measured] = {}


class ReportHosts(Document):
    """The hosts that all methods were measured on, one by one."""

    seeds: list[int] = []
    accuracies: dict[str, list[Number]] = {}
    """By method, in whatever the run is measured by; the key is as old as format 1."""


class OwnTranslator(Document):
    """The run's own translator."""

    name: str
    parameters: int
    flops: int | None = None
    """Of translating one block; None where PyTorch cannot count them."""
    target_bytes: int | None = None


class MethodDiagnosis(Document):
    """Why a method's blocks are as good as they are: means over hosts."""

    unit_cosine: Number
    silent_units: Number
    feature_error: Number
    output_divergence: Number
    """Where outputs are scores of classes: that of their probabilities."""
    output_error: Number = None
    """Where outputs are values: their squared error, relative to their variance."""
    nearest_pair: Number
    spearman: Number
    confidence: list[Number]
    """In each host's block."""


class Diagnosed(Document):
    """What can be said of blocks on images without their labels."""

    images: int
    methods: dict[str, MethodDiagnosis]


class BlockCost(Document):
    """What one block costs to keep and to run."""

    parameters: int
    """Trained values; running statistics are not counted."""
    flops: int | None
    """Floating-point operations for one example; a multiply-add is two. None where PyTorch cannot count them."""
    latency_ms: Number
    """Median milliseconds for a batch of 100 examples, one model, on the machine of the run, in plain PyTorch."""


class BlockCosts(Document):
    """Of the two kinds of block."""

    source: BlockCost
    target: BlockCost


class BreakEven(Document):
    """What the run's own translator cost in seconds, and after how many models it has paid."""

    models: int | None
    zoo_seconds: float
    training_seconds: float
    translation_seconds: float
    step2_seconds: float | None


@dataclass
class History:
    """What training has gone through so far; kept in checkpoints."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    """For each finished epoch: `loss`, `lr`, and where it was evaluated `select`, the metric on selection hosts."""
    best_epoch: int = 0
    best_accuracy: float | None = None
    """The best `select`; the key is as old as the first checkpoints."""
    seconds: float = 0.0
    """Wall-clock time of training, over all interruptions."""

    @classmethod
    def read(cls, document: Any, most: int) -> History:
        """The history that a checkpoint holds.

        Args:
            document: What it says.
            most: How many epochs there can be.

        Raises:
            ValueError: it is not what was written.
        """
        history: History = TypeAdapter(cls).validate_json(documents.content(document), strict=True)
        if not (history.best_epoch in range(len(history.epochs) + 1) and 0 < len(history.epochs) <= most):
            reason = f"{counted(len(history.epochs), 'epoch')}, the best of which is number {history.best_epoch}"
            raise ValueError(reason)
        if not all({"loss", "lr"} <= epoch.keys() for epoch in history.epochs):
            raise ValueError("an epoch without loss or learning rate")
        return history


class Trained(Document):
    """How the run's own translator was trained."""

    epochs: int
    best_epoch: int
    best_select: Number
    loss: Number = None


class BestOfAll(Document):
    """What the paper would print: the best of all evaluations on the report hosts themselves."""

    best: Number
    epoch: int
    evaluations: int


class Evaluation(Document):
    """What `evaluation.json` says."""

    format: int
    metric: MeasuredBy = MeasuredBy()
    methods: dict[str, MethodResult]
    seconds_per_host: dict[str, float | None] = {}
    """By method; None where it was not timed."""
    baseline: str | None = None
    hosts: ReportHosts
    examples: int | None = None
    """On how many examples hosts were measured."""
    translator: OwnTranslator | None
    diagnosis: Diagnosed | None = None
    blocks: BlockCosts
    break_even: BreakEven | None
    training: Trained | None
    zoo: dict[str, int]
    """How many hosts there were for what."""
    diverged: dict[str, list[int]] = {}
    """Seeds of those that were left out, by role."""
    paper_way: BestOfAll | None = None
