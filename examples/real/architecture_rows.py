"""Rows of `docs/results/architectures.json`: what networks come to whose blocks become others, and what that takes."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
from measure import interval, milliseconds
from torch import Tensor, nn

import paramtrans
from paramtrans.networks.blocks.finding import costs
from paramtrans.networks.parts.placed import put_part

STAGES: dict[str, Mapping[str, Any]] = {
    "start": {"steps": 0},
    "feature matching, 150 steps": {"steps": 150},
    "feature matching": {},
    "feature matching, then outputs": {"finish": 600},
    "feature matching, then outputs for longer": {"finish": 2400},
    "feature matching, then outputs for longest, moved images": {"finish": 4800, "moved": 7},
}
"""How far the new blocks are fitted; `moved`: copies of the inputs, each moved a little, that are further inputs."""


@dataclass(frozen=True)
class Row:
    """One number of the table, and what it is of."""

    model: str
    source: str
    target: str
    blocks: int
    inputs: int
    stage: str
    error: float | None
    """Mean relative reconstruction error of the blocks, on inputs kept aside."""
    errors: list[float]
    """The same of each block."""
    metric: str
    value: float
    ci95: tuple[float, float] | None
    original: float
    random: float
    """The same metric with the new blocks as PyTorch initialises them."""
    trained: float | None
    """With the whole network of the target's architecture trained on all labels, as the original was."""
    parameters: tuple[int, int]
    """Of the blocks, before and after."""
    flops: float
    """Of the network, as a share of before."""
    latency_ratio: float
    """Of one run of the network on one thread, over that of before."""
    seconds: float
    """For translating one network."""
    models: int

    def as_dict(self) -> dict[str, Any]:
        row = asdict(self)
        return {{"source": "from", "target": "to"}.get(name, name): value for name, value in row.items()}


@dataclass(frozen=True)
class Subject:
    """What is translated, from what, and how it is judged."""

    model: str
    source: str
    metric: str
    networks: Sequence[nn.Module]
    targets: Mapping[str, Mapping[str, str]]
    """By the name that the table has: `to` of `translate`."""
    counts: Sequence[int]
    """Numbers of inputs."""
    inputs: Callable[[int, int], Any]
    """From a number of inputs and the number of a network to its calibration batches."""
    score: Callable[[nn.Module], list[float]]
    """From a network to numbers whose mean counts, of as many examples as it likes."""
    timed: Any
    """Inputs of one run."""
    options: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[str] = tuple(STAGES)
    final: Callable[[float], float] = float
    """From the mean to the metric."""
    trained: Callable[[nn.Module], float | None] = lambda network: None
    moved: Callable[[Any, int], Any] = lambda inputs, copies: inputs
    """From calibration batches to these and a number of moved copies."""


@dataclass(frozen=True)
class Translated:
    """A network with other blocks, and what it took."""

    network: nn.Module
    seconds: float

    @property
    def errors(self) -> list[float]:
        return [block.feature_error for block in self.network.paramtrans_blocks]

    @property
    def parameters(self) -> tuple[int, int]:
        before, after = zip(*(block.parameters for block in self.network.paramtrans_blocks), strict=True)
        return sum(before), sum(after)


@dataclass(frozen=True)
class Wanted:
    """Which rows; None for all."""

    targets: Sequence[str] | None = None
    stages: Sequence[str] | None = None


def translated(network: nn.Module, to: Mapping[str, str], inputs: Any, options: Mapping[str, Any]) -> Translated:
    started = time.process_time()
    fitting = {name: value for name, value in options.items() if name not in ("finish", "moved")}
    finish = {"steps": options["finish"], "batch": options.get("batch", 64)} if "finish" in options else None
    small = paramtrans.translate(network, to=to, options=fitting, finish=finish, calibrate=inputs)
    return Translated(small, time.process_time() - started)


def at_random(small: nn.Module) -> nn.Module:
    """The same network with the new blocks as PyTorch initialises them."""
    fresh, registry = copy.deepcopy(small), paramtrans.components()
    torch.manual_seed(0)
    for block in small.paramtrans_blocks:
        target = registry.create("block_adapter", block.target_kind, **block.target)
        put_part(fresh, block.path, target.module(), block.calling)
    return fresh.eval()


def rows(subject: Subject, wanted: Wanted, output: Path | None) -> Iterator[Row]:
    """The rows that do not stand in the output yet, one after the other; each is put there."""
    originals = [subject.score(network) for network in subject.networks]
    cases = product(wanted.targets or subject.targets, subject.counts, wanted.stages or subject.stages)
    for name, count, stage in cases:
        if _stands(subject, name, count, stage, output):
            continue
        made = [
            translated(
                network,
                subject.targets[name],
                subject.moved(subject.inputs(count, number), STAGES[stage].get("moved", 0)),
                {**subject.options, **STAGES[stage]},
            )
            for number, network in enumerate(subject.networks)
        ]
        row = _row(subject, (name, count, stage), made, originals)
        if output is not None:
            output.write_text(json.dumps([*_kept(output), row.as_dict()], indent=1) + "\n")
        yield row


def _row(
    subject: Subject, case: tuple[str, int, str], made: Sequence[Translated], originals: Sequence[list[float]]
) -> Row:
    def of_all(scores: Sequence[list[float]]) -> list[float]:
        """Of several networks the mean of each, of one its own numbers."""
        return scores[0] if len(scores) == 1 else [sum(score) / len(score) for score in scores]

    def mean(scores: Sequence[list[float]]) -> float:
        values = of_all(scores)
        return subject.final(sum(values) / len(values))

    name, count, stage = case
    scores = [subject.score(smaller.network) for smaller in made]
    ends = interval(of_all(scores))[1] if len(of_all(scores)) > 1 else None
    small, run = made[0].network, _as_called(subject.timed)
    before, after = milliseconds([_Run(subject.networks[0], run), _Run(small, run)], torch.empty(0), 10)
    flops = [costs(network, subject.timed)["flops"] for network in (subject.networks[0], small)]
    errors = [sum(of_block) / len(made) for of_block in zip(*(smaller.errors for smaller in made), strict=True)]
    return Row(
        subject.model,
        subject.source,
        name,
        len(errors),
        count,
        stage,
        sum(errors) / len(errors),
        errors,
        subject.metric,
        mean(scores),
        None if ends is None else (subject.final(ends[0]), subject.final(ends[1])),
        mean(originals),
        mean([subject.score(at_random(smaller.network)) for smaller in made]),
        subject.trained(small),
        made[0].parameters,
        flops[1] / flops[0],
        after / before,
        sum(smaller.seconds for smaller in made) / len(made),
        len(made),
    )


def _as_called(batch: Any) -> Callable[[nn.Module], Any]:
    return lambda network: network(**batch) if isinstance(batch, Mapping) else network(batch)


class _Run(nn.Module):
    """A network with its own batch, to be timed."""

    def __init__(self, network: nn.Module, run: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        self.network, self.run = network, run

    @torch.no_grad()
    def forward(self, _: Tensor) -> Any:
        return self.run(self.network)


KEY = ("model", "from", "to", "inputs", "stage", "metric")
"""What a row is of."""


def _stands(subject: Subject, name: str, count: int, stage: str, output: Path | None) -> bool:
    key = (subject.model, subject.source, name, count, stage, subject.metric)
    return any(tuple(row[part] for part in KEY) == key for row in _kept(output))


def _kept(output: Path | None) -> list[dict[str, Any]]:
    return json.loads(output.read_text()) if output is not None and output.exists() else []
