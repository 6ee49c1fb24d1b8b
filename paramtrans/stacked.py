"""Running many models at once: the vmap reference, and hosts run through it part by part."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase

from paramtrans.blocks import tensor_specs
from paramtrans.hosts import split
from paramtrans.specs import TensorKind, TensorSpec

if TYPE_CHECKING:
    from paramtrans.blocks import BlockAdapter
    from paramtrans.hosts import Params
    from paramtrans.lanes import Lanes
    from paramtrans.protocols import Task
    from paramtrans.warps import Warps


class Stacked(Protocol):
    """Many models of one architecture, run as one."""

    def __call__(self, params: Params, inputs: Tensor, training: bool = False) -> Tensor:
        """Inputs `[models, batch, ...]` → outputs `[models, batch, ...]`, differentiable in both arguments.

        While `training`, normalisation uses each model's own batch and updates its running statistics in `params`
        in place, as the module itself would.
        """
        ...


class Vmap:
    """The plain way to run stacked models, against which every faster one is checked: `torch.func.vmap`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, params: Params, inputs: Tensor, training: bool | None = False) -> Tensor:
        """`training` None: each layer follows its own flag."""
        if training is not None:
            self.module.train(training)

        def one(params: Params, inputs: Tensor) -> Tensor:
            output: Tensor = functional_call(self.module, params, (inputs,))
            return output

        # Networks compute in their own precision, whatever a translator that runs them computes in.
        with torch.autocast(inputs.device.type, enabled=False):
            outputs: Tensor = vmap(one, randomness="different")(params, inputs)
        return outputs


class Fastest:
    """In float32, lanes on the CPU and warps on a GPU; vmap for all else."""

    def __init__(self, lanes: Lanes, reference: Vmap) -> None:
        self.lanes, self.reference = lanes, reference

    @cached_property
    def warps(self) -> Warps | None:
        """None where Triton, which compiles them, is not installed."""
        if find_spec("triton") is None:
            return None
        from paramtrans.warps import Warps

        return Warps(self.reference.module)

    def __call__(self, params: Params, inputs: Tensor, training: bool | None = False) -> Tensor:
        """`training` None: each layer follows its own flag."""
        run: Lanes | Warps | Vmap = self.reference
        if inputs.dtype == torch.float32 and inputs.device.type == "cpu":
            run = self.lanes
        elif inputs.dtype == torch.float32 and inputs.is_cuda and torch.version.hip is None:
            run = self.warps or self.reference
        return run(params, inputs, training)


class Chain:
    """Former, block and latter run one after the other, each in its own fastest layout."""

    def __init__(self, parts: dict[str, Stacked], frozen: frozenset[str] = frozenset()) -> None:
        self.parts, self.frozen = parts, frozen

    def __call__(self, params: Params, inputs: Tensor, training: bool = False) -> Tensor:
        """The `frozen` parts are never in training."""
        for name, part in self.parts.items():
            inputs = part(split(params, name), inputs, training and name not in self.frozen)
        return inputs


class OwnFlags:
    """A module in which each layer trains or not by its own flag, whatever `training` says."""

    def __init__(self, run: Fastest | Vmap) -> None:
        self.run = run

    def __call__(self, params: Params, inputs: Tensor, training: bool = False) -> Tensor:
        return self.run(params, inputs, None)


def network(task: Task, block: BlockAdapter) -> nn.Sequential:
    """A whole host with `block` in its slot: children `former`, `block`, `latter`."""
    return nn.Sequential(OrderedDict(former=task.former(), block=block.module(), latter=task.latter()))


def initial(build: Callable[[], nn.Module], seeds: Sequence[int], device: torch.device | str = "cpu") -> Params:
    """Fresh models, one built from each seed, as stacked parameters and statistics (without counters)."""
    states = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build()
            state = module.state_dict()
        states.append({spec.name: state[spec.name] for spec in tensor_specs(module)})
    return {name: torch.stack([state[name] for state in states]).to(device) for name in states[0]}


def trained_names(module: nn.Module) -> set[str]:
    """Names of the tensors that an optimiser moves."""
    return {name for name, _ in module.named_parameters()}


def network_specs(task: Task, block: BlockAdapter) -> tuple[TensorSpec, ...]:
    """The tensors of a whole host with `block` in its slot."""
    with torch.device("meta"):
        return tensor_specs(network(task, block))


class LearnedStatistics:
    """A stack whose running statistics may be predicted: outside training they get gradients too.

    Normalisation layers do not differentiate their running statistics, so these are moved into weight and bias.
    """

    def __init__(self, run: Stacked, module: nn.Module) -> None:
        self.run = run
        norms = {name: child for name, child in module.named_modules() if isinstance(child, _NormBase)}
        self.eps = {f"{name}.": norm.eps for name, norm in norms.items() if norm.affine and norm.track_running_stats}

    def __call__(self, params: Params, inputs: Tensor, training: bool = False) -> Tensor:
        predicted = any(params[f"{norm}running_var"].requires_grad for norm in self.eps)
        return self.run(self._moved(params) if predicted and not training else params, inputs, training)

    def _moved(self, params: Params) -> Params:
        moved = dict(params)
        for norm, eps in self.eps.items():
            mean, variance = params[f"{norm}running_mean"], params[f"{norm}running_var"]
            gain = params[f"{norm}weight"] * torch.rsqrt(variance + eps)
            moved[f"{norm}weight"] = gain * (1 + eps) ** 0.5
            moved[f"{norm}bias"] = params[f"{norm}bias"] - mean * gain
            moved[f"{norm}running_mean"] = torch.zeros_like(mean)
            moved[f"{norm}running_var"] = torch.ones_like(variance)
        return moved


class HostRunner:
    """Runs the hosts of one task part by part: `former`, `source` or `target` block, `latter`, each stacked."""

    def __init__(self, task: Task, source: BlockAdapter, target: BlockAdapter) -> None:
        self.task, self.target_spec = task, target.spec
        # Modules are built for their architecture alone; the numbers they are initialised with must not cost the
        # caller any of his.
        with torch.random.fork_rng(devices=[]):
            self.former: Stacked = stacked(task.former())
            self.source: Stacked = block_stacked(source)
            self.target: Stacked = block_stacked(target)
            self.latter: Stacked = stacked(task.latter())
            self._whole = [(self.source, network_stacked(task, source)), (self.target, network_stacked(task, target))]

    def in_one_piece(self, block: Stacked) -> Stacked | None:
        """Whole hosts with the source or target block, where one layout runs all of them: that saves the ways in and
        out between the parts. Parameters are joined as `former.*`, `block.*` and `latter.*`."""
        return next((whole for own, whole in self._whole if own is block and not isinstance(whole, Chain)), None)


def block_stacked(adapter: BlockAdapter) -> Stacked:
    """The adapter's own layout where it brings one, else the fastest that fits its module."""
    module = adapter.module()
    run = adapter.stacked() or stacked(module)
    has_statistics = any(tensor.kind is TensorKind.NORM_VARIANCE for tensor in adapter.spec.tensors)
    return LearnedStatistics(run, module) if has_statistics else run


def stacked(module: nn.Module) -> Fastest | Vmap:
    """The fastest layout that runs this module: lanes or warps where all its layers can, else vmap."""
    from paramtrans import lanes  # compiles kernels, so only when something is run

    return Fastest(lanes.Lanes(module), Vmap(module)) if lanes.supports(module) else Vmap(module)


def network_stacked(
    task: Task, block: BlockAdapter, frozen: frozenset[str] = frozenset(), entered: bool = False
) -> Stacked:
    """Whole hosts, in one piece where lanes run all of them; the `frozen` parts are never in training.

    `entered`: without former, so that inputs are the features that enter the slot.
    """
    module = network(task, block)
    module = module[1:] if entered else module
    whole = stacked(module)
    if block.stacked() or isinstance(whole, Vmap):
        parts = {"former": stacked(task.former()), "block": block_stacked(block), "latter": stacked(task.latter())}
        return Chain({name: part for name, part in parts.items() if name in dict(module.named_children())}, frozen)
    for name, part in module.named_children():
        part.train(name not in frozen)
    return OwnFlags(whole) if frozen else whole
