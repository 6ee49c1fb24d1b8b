"""Checks of tasks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paramtrans.api.modules import initial
from paramtrans.api.stacking import join
from paramtrans.api.task import Task
from paramtrans.builder import metric_of
from paramtrans.storage.cache import cache_dir
from paramtrans.testing.check import Subject, check, drawing, expect, named

SPLITS = ("train", "holdout", "test")
MODELS, BATCH = 2, 6
MEASURED = 64
"""Examples that hosts are measured on."""


def ready(subject: Subject) -> Task:
    """The task with its data ready; raises `DataError` where it cannot be."""

    def make() -> Task:
        task: Task = subject.create()
        task.prepare(cache_dir(None))
        return task

    return subject.once("task", make)


def _outputs(task: Task, count: int = BATCH) -> tuple[Tensor, Tensor]:
    """Outputs `[models, batch, …]` of new hosts without their blocks on training examples, and the labels.

    The slot is passed through; where other features have to leave it than enter, random ones do.
    """
    train = task.split("train")
    raw, labels = train.inputs[:count], train.labels[:count]
    outputs = []
    for seed in range(MODELS):
        with drawing(seed):
            former, latter = task.former().train(), task.latter().train()
            left = torch.randn(len(raw), *task.leaving().shape)
        entered = former(task.to_input(raw))
        outputs.append(latter(entered if task.leaving() == task.slot else left))
    return torch.stack(outputs), labels


@check("task")
def splits_are_whole(subject: Subject) -> None:
    """`train`, `holdout` and `test` have an input for every label, and inputs of one shape and type."""
    task = ready(subject)
    splits = {name: task.split(name) for name in SPLITS}
    for name, split in splits.items():
        expect(len(split.inputs) == len(split.labels) > 0, f"as many inputs as labels in {name}", len(split.inputs))
        finite = not split.labels.is_floating_point() or bool(split.labels.isfinite().all())
        expect(split.labels.ndim >= 1 and finite, "labels [n, …], finite where they are numbers", split.labels.dtype)
    kinds = {(split.inputs.shape[1:], split.inputs.dtype) for split in splits.values()}
    expect(len(kinds) == 1, "inputs of one shape and type in all splits", kinds)


@check("task")
def former_fits_the_slot(subject: Subject) -> None:
    """Raw inputs become finite floats, or whole numbers, which the former maps to features of the slot's shape."""
    task = ready(subject)
    inputs = task.to_input(task.split("train").inputs[:BATCH])
    fit = inputs.dtype in (torch.float32, torch.int64) and bool(inputs.isfinite().all())
    expect(fit, "finite inputs of float32, or int64 for what is embedded", inputs.dtype)
    features = task.former()(inputs)
    expect(tuple(features.shape) == (BATCH, *task.slot.shape), f"[{BATCH}, {task.slot}]", list(features.shape))


@check("task")
def losses_are_each_models_own(subject: Subject) -> None:
    """`loss` gives a finite number for each model, which depends on that model's outputs alone, differentiably."""
    task = ready(subject)
    outputs, labels = _outputs(task)
    leaf = outputs.detach().requires_grad_()
    losses = task.loss(leaf, labels.expand(MODELS, *labels.shape))
    expect(tuple(losses.shape) == (MODELS,), f"shape [{MODELS}]", list(losses.shape))
    expect(bool(losses.isfinite().all()), "finite losses", losses.tolist())
    [gradient] = torch.autograd.grad(losses[0], leaf)
    reached = [bool(part.any()) for part in gradient]
    expect(reached == [True] + [False] * (MODELS - 1), "a gradient in the first model's outputs alone", reached)


@check("task")
def hosts_are_measured(subject: Subject) -> None:
    """The metric that the task names, or its own `score`, gives each model a number inside the metric's bounds."""
    task = ready(subject)
    metric = metric_of(task, subject.registry)
    outputs, labels = _outputs(task, MEASURED)
    numbers = metric.measure(outputs.detach(), labels)
    shape = (MODELS, len(labels))
    expect(tuple(numbers.shape[:2]) == shape, f"something for each model and example: {list(shape)}", numbers.shape)
    values = metric.combine(numbers.double())
    expect(tuple(values.shape) == (MODELS,), f"a number for each model: [{MODELS}]", list(values.shape))
    low, high = metric.bounds or (-math.inf, math.inf)
    inside = bool((values.isfinite() & (values >= low) & (values <= high)).all())
    expect(inside, f"finite numbers from {low:g} to {high:g}", values.tolist())


@check("task")
def augmentation_draws_from_its_generator(subject: Subject) -> None:
    """`augment` keeps shape and type, leaves its input alone, and gives the same from the same generator."""
    task = ready(subject)
    raw = task.split("train").inputs[:BATCH]
    changed = []
    for draws in (1, 2):
        given = raw.clone()
        with drawing(draws):
            changed.append(task.augment(given, torch.Generator().manual_seed(3)))
        expect(torch.equal(given, raw), "its input untouched", "changed in place")
    expect(changed[0].shape == raw.shape and changed[0].dtype == raw.dtype, "the same shape and type", changed[0].shape)
    expect(torch.equal(*changed), "the same from the same generator", "another change")


@check("task")
def augmentation_can_be_drawn_ahead(subject: Subject) -> None:
    """`draws` for two batches at once gives what it gives one after the other; `augmented` takes hosts side by side."""
    task, count = ready(subject), BATCH // 2
    at_once, in_turn = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    whole = task.draws(BATCH, at_once)
    parts = torch.cat([task.draws(count, in_turn), task.draws(count, in_turn)])
    expect(len(whole) == BATCH, f"something for each of {BATCH} examples", len(whole))
    expect(torch.equal(whole, parts), "the same for two batches at once", "other numbers")
    raw = task.split("train").inputs[:BATCH]
    alone = task.augmented(raw, whole)
    beside = task.augmented(torch.stack([raw, raw]), torch.stack([whole, whole]))
    expect(torch.equal(beside, torch.stack([alone, alone])), "each host's examples changed as alone", "otherwise")


@check("task", when=lambda subject: bool(subject.create().stream()))
def stream_is_the_slots_channels(subject: Subject) -> None:
    """`stream` names tensors of former and latter, with axes as long as the slot has channels."""
    task: Task = subject.create()
    parts = {"former": initial(task.former, [0]), "latter": initial(task.latter, [0])}
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in join(parts).items()}
    channels = task.slot.channels
    wrong = [
        f"{name} axis {axis}"
        for name, axis in task.stream().items()
        if name not in shapes or not 0 <= axis < len(shapes[name]) or shapes[name][axis] != channels
    ]
    expect(not wrong, f"axes of {channels} channels", named(wrong))
