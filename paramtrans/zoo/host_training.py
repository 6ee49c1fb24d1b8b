"""Step 1 (whole hosts) and step 2 (the target block alone) for a stack of hosts at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from paramtrans.api import modules, stacking as params_
from paramtrans.api.hosts import in_hosts, in_network
from paramtrans.api.stacking import Params
from paramtrans.api.task import Split, Task
from paramtrans.backends import host_runner
from paramtrans.errors import TrainingError
from paramtrans.utils import seeds
from paramtrans.zoo import feature_cache

if TYPE_CHECKING:
    from paramtrans.api.adapter import BlockAdapter
    from paramtrans.config.schema import HostTraining
    from paramtrans.zoo.feature_cache import Features

T = TypeVar("T")

FROZEN = frozenset({"former", "latter"})
"""What step 2 leaves alone."""


def train_hosts(
    task: Task,
    source: BlockAdapter,
    options: HostTraining,
    host_seeds: list[int],
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda steps: None,
    begin: Params | None = None,
    frozen: frozenset[str] = frozenset(),
    at: Collection[int] = (),
    keep: Callable[[int, Params], None] = lambda step, hosts: None,
) -> Params:
    """Step 1 (KT, section 3): one whole host from each seed.

    Args:
        task: Former, latter and the data.
        source: The block in the slot.
        options: Length, batches and optimiser.
        host_seeds: One for each host: its initial parameters, the order of its images, and their augmentation.
        device: Where it is computed.
        progress: Called with numbers of steps done since its last call.
        begin: Some or all tensors to begin with instead of fresh ones, each `[hosts, *shape]`.
        frozen: Parts (`former`, `source`, `latter`) that stay as they are, in eval mode.
        at: Numbers of steps after which `keep` is called.
        keep: Gets the number of steps, and a copy of the hosts as they are then.

    Returns:
        `former.*`, `source.*` and `latter.*`, each `[hosts, *shape]`.

    Raises:
        TrainingError: a frozen part is not what it was, bit for bit.
    """
    params = modules.initial(lambda: host_runner.network(task, source), host_seeds, device)
    params |= {in_network(name): tensor.to(device, copy=True) for name, tensor in (begin or {}).items()}
    still = frozenset(map(in_network, frozen))
    before = {name: tensor.clone() for name, tensor in params.items() if name.partition(".")[0] in still}
    network = host_runner.network_stacked(task, source, still)
    trained = modules.trained_names(host_runner.network(task, source)) - before.keys()

    def passed(step: int) -> None:
        if step in at:
            keep(step, {name: tensor.clone() for name, tensor in _as_hosts(params).items()})

    run = partial(network, params, training=True)
    _train(task, run, params, trained, options, host_seeds, progress, passed=passed)
    _check_frozen(before, params, "step 1")
    return _as_hosts(params)


def train_targets(
    task: Task,
    target: BlockAdapter,
    hosts: Params,
    options: HostTraining,
    host_seeds: list[int],
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda steps: None,
) -> Params:
    """Step 2 (KT, section 3): a target block in each host, between its former and latter, which stay as they are.

    Args:
        task: Former, latter and the data.
        target: The block in the slot.
        hosts: What `train_hosts` returned for the same seeds.
        options: Length, batches and optimiser.
        host_seeds: One for each host.
        device: Where it is computed.
        progress: Called with numbers of steps done since its last call.

    Returns:
        `target.*`, each `[hosts, *shape]`.

    Raises:
        TrainingError: a frozen tensor is not what it was, bit for bit.
    """
    step2_seeds = [seeds.derive(seed, "step2") for seed in host_seeds]
    frozen = {name: tensor.to(device) for name, tensor in hosts.items() if name.partition(".")[0] in FROZEN}
    before = {name: tensor.clone() for name, tensor in frozen.items()}
    params = params_.join({"block": modules.initial(target.module, step2_seeds, device)})
    split = task.split("train")
    uses = options.length(len(split)) * options.batch_size
    kept = feature_cache.keep(task, split, params_.split(frozen, "former"), uses)
    network = host_runner.network_stacked(task, target, FROZEN, kept is not None)
    given = params | (params_.join({"latter": params_.split(frozen, "latter")}) if kept else frozen)
    trained = {f"block.{name}" for name in modules.trained_names(target.module())}
    _train(
        task,
        lambda inputs: network(given, inputs, training=True),
        params,
        trained,
        options,
        step2_seeds,
        progress,
        kept,
    )
    _check_frozen(before, frozen, "step 2")
    return params_.join({"target": params_.detach(params_.split(params, "block"))})


def _train(
    task: Task,
    run: Callable[[Tensor], Tensor],
    params: Params,
    trained: set[str],
    options: HostTraining,
    host_seeds: list[int],
    progress: Callable[[int], None],
    kept: Features | None = None,
    passed: Callable[[int], None] = lambda step: None,
) -> None:
    """SGD on the trained tensors of `params`, in place. The sum of losses keeps the hosts independent.

    `run` takes network inputs, or features where they are `kept`. `passed` is told of each step that is done.
    """
    leaves = [params[name].requires_grad_() for name in params if name in trained]
    split = task.split("train")
    steps = options.length(len(split))
    optimizer = torch.optim.SGD(leaves, options.lr, options.momentum, weight_decay=options.weight_decay)
    scheduler = _scheduler(optimizer, options, steps)
    batches = batches_of(task, split, host_seeds, options.batch_size, leaves[0].device, kept)
    unreported = 0
    for step in range(1, steps + 1):
        inputs, labels = next(batches)
        optimizer.zero_grad()
        task.loss(run(inputs), labels).sum().backward()
        optimizer.step()
        scheduler.step()
        passed(step)
        unreported += 1
        if unreported == 10 or step == steps:
            progress(unreported)
            unreported = 0


def batches_of(
    task: Task,
    split: Split,
    host_seeds: list[int],
    size: int,
    device: torch.device | str = "cpu",
    kept: Features | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless training batches.

    Each host sees every image once an epoch, in an order and with augmentations of its own seed, whatever other
    hosts stand beside it. The last batch of an epoch may be shorter. Images stay on `device` as they are stored.

    Args:
        task: It says how images are augmented and made inputs of.
        split: The images.
        host_seeds: One for each host.
        size: Images in a batch.
        device: Where batches are made.
        kept: Features to take in place of inputs, where they are kept.

    Yields:
        Inputs `[hosts, size, ...]` as the network takes them, and labels `[hosts, size]`.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in host_seeds]
    images, labels = split.inputs.to(device), split.labels.to(device)
    draws_itself = type(task).augment is not Task.augment

    def epoch() -> tuple[Tensor, Tensor]:
        """Each host's order of the images, `[hosts, images]`, and what it draws to change them."""
        order_and_draws = []
        for generator in generators:
            order = torch.randperm(len(split), generator=generator)
            order_and_draws.append((order, order[:, None] if draws_itself else task.draws(len(split), generator)))
        orders, drawn = zip(*order_and_draws, strict=True)
        return torch.stack(orders), torch.stack(drawn)

    for orders, drawn in _ahead(epoch) if images.is_cuda and not draws_itself else iter(epoch, ()):
        parts = (whole.to(device).split(size, dim=1) for whole in (orders, drawn))
        for chosen, chance in zip(*parts, strict=True):
            if kept is not None:
                yield kept.take(chosen, chance), _at(labels, chosen)
                continue
            raw = _at(images, chosen)
            if draws_itself:
                pairs = zip(raw.cpu(), generators, strict=True)
                raw = torch.stack([task.augment(batch, generator) for batch, generator in pairs]).to(device)
            else:
                raw = task.augmented(raw, chance)
            yield task.to_input(raw), _at(labels, chosen)


def _ahead(make: Callable[[], T]) -> Iterator[T]:
    """One after the other, each made by another thread while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(make)
        while True:
            current, coming = coming.result(), thread.submit(make)
            yield current


def _at(rows: Tensor, index: Tensor) -> Tensor:
    """`rows[index]`, but several times faster on a CPU."""
    return rows.index_select(0, index.flatten()).view(*index.shape, *rows.shape[1:])


def _check_frozen(before: Params, after: Params, step: str) -> None:
    if changed := [name for name, tensor in before.items() if not _same_bits(after[name], tensor)]:
        raise TrainingError(f"{step} changed {', '.join(changed)}, which must stay frozen")


def _as_hosts(params: Params) -> Params:
    """A network's tensors under the names they have in hosts, sharing memory."""
    return {in_hosts(name): tensor for name, tensor in params_.detach(params).items()}


def _same_bits(first: Tensor, second: Tensor) -> bool:
    """Bit for bit, so that a diverged host's NaN equals itself."""
    return torch.equal(first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8))


def _scheduler(
    optimizer: torch.optim.Optimizer, options: HostTraining, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    match options.schedule:
        case "one_cycle":
            return torch.optim.lr_scheduler.OneCycleLR(
                optimizer, options.lr, total_steps=steps + 1, cycle_momentum=False
            )
        case "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        case _:
            return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
