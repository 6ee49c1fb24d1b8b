"""Blocks inside an existing network: found by the adapters that know them, held to what they compute, replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.block_module import has_branch
from paramtrans.api.stacking import Params
from paramtrans.errors import SpecMismatch
from paramtrans.evaluation.costs import count, parameters
from paramtrans.networks.blocks.in_place import put_layer, unlike
from paramtrans.networks.forward.activations import Inputs, call, every_layer, first_examples
from paramtrans.plugins.registry import Registry

TOLERANCE = 1e-3
"""Largest difference, relative to the largest value, between what a block gives and what its adapter says."""


@dataclass(frozen=True)
class NetworkBlock:
    """A block of a network: where it is, and which adapter knows it."""

    path: str
    """Dotted path of the module that holds it; empty for the network itself."""
    kind: str
    """The adapter's name."""
    adapter: BlockAdapter
    layers: Mapping[str, str]
    """Layers of the adapter's module, each with its path from the network."""
    whole: bool
    """Whether the module at `path` gives just what the adapter's module does."""

    @property
    def entrance(self) -> str:
        """Path of the layer that features enter the block through."""
        return next(iter(self.layers.values()))

    @property
    def exit(self) -> str | None:
        """Path of the layer that the branch leaves through, where the adapter names the block's readers."""
        readers = self.adapter.readers()
        return self.layers[readers[-1].norm or readers[-1].layer] if readers else None

    @property
    def closing(self) -> str | None:
        """Path of the normalisation that the sum passes in the end, where the block has one."""
        return None if self.adapter.closing is None else self.layers[self.adapter.closing]

    @property
    def sizes(self) -> dict[str, int]:
        """Hidden units of each group."""
        return {group.name: group.size for group in self.adapter.spec.symmetries}

    def params(self, network: nn.Module) -> Params:
        """The block's tensors in a network.

        Args:
            network: One that has the block.

        Returns:
            A stack of one model, as in the adapter's `state_dict`: `[1, ...]` each.
        """
        state: dict[str, Tensor] = {}
        for layer, path in self.layers.items():
            tensors = network.get_submodule(path).state_dict()
            state |= {f"{layer}.{name}".lstrip("."): tensor.detach()[None] for name, tensor in tensors.items()}
        return {name: state[name] for name in self.adapter.spec.names}

    def places(self, target: BlockAdapter) -> dict[str, str]:
        """Layers of the target's module, each with the path it gets.

        Where the target differs in numbers of hidden units alone, paths are those of this block's layers. Else the
        whole module (as layer "") gets the block's own path.

        Args:
            target: The adapter of the block that takes this one's place.

        Returns:
            Paths by name of the layer.

        Raises:
            SpecMismatch: there is no module of which the block is all.
        """
        if self._has_other_sizes_alone(target):
            return dict(self.layers)
        if not self.whole or not self.path:
            why_not = (
                "is only some layers of one" if self.path else "is the whole network; put it into an nn.Sequential"
            )
            raise SpecMismatch(
                f"{self.path or 'the network'}: a {type(target).__name__} takes the place of a whole module inside a "
                f"network, and this block {why_not}"
            )
        return {"": self.path}

    def replace(self, network: nn.Module, target: BlockAdapter, params: Params | None) -> None:
        """Put another adapter's block in this one's place.

        Args:
            network: Is changed.
            target: The adapter of the block that takes this one's place.
            params: Its tensors, `[1, ...]` each; None leaves it as it is initialised.
        """
        put(network, self.places(target), target, params)

    def _has_other_sizes_alone(self, target: BlockAdapter) -> bool:
        if target is self.adapter:
            return True
        if type(target) is not type(self.adapter):
            return False
        try:
            resized = self.adapter.with_sizes({group.name: group.size for group in target.spec.symmetries})
        except SpecMismatch:
            return False
        return resized.options == target.options


def put(network: nn.Module, places: Mapping[str, str], adapter: BlockAdapter, params: Params | None) -> None:
    """Put layers of an adapter's module into a network.

    Args:
        network: Is changed.
        places: Layers of the module, each with its path in the network; "" is the whole module.
        adapter: Makes the module.
        params: Tensors of the module, `[1, ...]` each; None leaves it as it is initialised.
    """
    fresh = adapter.module().train(network.training)
    if params is not None:
        fresh.load_state_dict({name: tensor[0] for name, tensor in params.items()}, strict=False)
    for layer, path in places.items():
        put_layer(network, path, fresh.get_submodule(layer))


def find_blocks(
    network: nn.Module,
    registry: Registry,
    pattern: str = "*",
    source: BlockAdapter | None = None,
    unlike_paths: dict[str, str] | None = None,
) -> list[NetworkBlock]:
    """Blocks that an adapter recognises and whose path matches; of blocks inside each other, the outermost.

    Args:
        network: The network.
        registry: The plugins that adapters come from.
        pattern: Patterns of paths, between commas; `*` stands for anything.
        source: The source block of a trained translator. With it, only blocks of its kind are looked for, and those
            that it fits have it as their adapter.
        unlike_paths: Is filled with modules whose layers have other tensors than the adapter's, each with the reason.
    """
    unlike_paths = {} if unlike_paths is None else unlike_paths
    blocks: list[NetworkBlock] = []
    claimed: set[str] = set()
    adapters = registry.usable("block_adapter")
    if source is not None:
        adapters = [(name, adapter) for name, adapter in adapters if adapter is type(source)]
    for path, module in network.named_modules():
        for name, adapter in adapters:
            for recognised in adapter.recognise(module):
                layers = {layer: f"{path}.{inner}".strip(".") for layer, inner in recognised.layers.items()}
                if claimed.isdisjoint(layers.values()):
                    adapter_of = registry.create("block_adapter", name, **recognised.options)
                    with torch.device("meta"):
                        reason = unlike(network, layers, adapter_of.module())
                    if reason is not None:
                        unlike_paths[path] = reason
                        continue
                    claimed.update(layers.values())
                    adapter_of = source if source is not None and source.spec == adapter_of.spec else adapter_of
                    blocks.append(NetworkBlock(path, name, adapter_of, layers, recognised.whole))
    return [block for block in blocks if matches(block.path, pattern)]


def some_paths(blocks: Sequence[NetworkBlock], limit: int = 8) -> str:
    """The paths of some blocks, for messages."""
    return some_of([block.path for block in blocks], limit)


def some_of(paths: Sequence[str], limit: int = 8) -> str:
    """Some of several paths, for messages."""
    return ", ".join(f'"{path}"' for path in paths[:limit]) + (
        f" and {len(paths) - limit} more" if len(paths) > limit else ""
    )


def matches(path: str, pattern: str) -> bool:
    """Whether one of the patterns, between commas, is for this path; `*` stands for anything."""
    return any(fnmatchcase(path, single.strip()) for single in pattern.split(","))


@dataclass(frozen=True)
class Survey:
    """What a look at a running network says of its blocks."""

    blocks: tuple[NetworkBlock, ...]
    """In the order in which features reach them."""
    refused: Mapping[str, str]
    """Paths of those that cannot be translated, each with the reason."""


@torch.no_grad()
def survey(network: nn.Module, blocks: list[NetworkBlock], batch: Inputs) -> Survey:
    """Run the network on a few examples and compare every block with what its adapter computes.

    Args:
        network: In eval mode.
        blocks: Blocks of it.
        batch: Calibration inputs, of which two are used.
    """
    passed: dict[str, list[tuple[Any, Any]]] = {}
    order: list[str] = []

    def look_at(path: str) -> Any:
        def look(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            order.append(path)
            # Copies, because what follows may work in place.
            copies = [t.clone() if isinstance(t, Tensor) else None for t in (args[0] if args else None, output)]
            passed.setdefault(path, []).append((copies[0], copies[1]))

        return look

    layer_paths = [path for b in blocks for path in (b.entrance, b.exit, b.closing, b.path if b.whole else None)]
    watched = {path for path in layer_paths if path is not None}
    handles = [network.get_submodule(path).register_forward_hook(look_at(path)) for path in sorted(watched)]
    with every_layer(handles):
        call(network, first_examples(batch, 2))
    shared = _shared(network)
    reasons = [(block, _reason(block, network, passed, shared)) for block in blocks]
    fitting = sorted((b for b, reason in reasons if reason is None), key=lambda block: order.index(block.entrance))
    return Survey(tuple(fitting), {block.path: reason for block, reason in reasons if reason is not None})


def _reason(
    block: NetworkBlock, network: nn.Module, passed: Mapping[str, list[tuple[Any, Any]]], shared: set[int]
) -> str | None:
    """Why a block cannot be translated, or None."""
    times = len(passed.get(block.entrance, ()))
    if times != 1:
        return f"it is passed {times} times in a run of the network, not once"
    if any(id(p) in shared for path in block.layers.values() for p in network.get_submodule(path).parameters()):
        return "it shares parameters with another part of the network"
    entered = passed[block.entrance][0][0]
    if not isinstance(entered, Tensor):
        return "what enters it is no tensor"
    module = block.adapter.module().eval().to(entered)
    module.load_state_dict({name: tensor[0] for name, tensor in block.params(network).items()}, strict=False)
    if block.exit is not None:
        branch_output = module.branch(entered) if has_branch(module) else module(entered)
        if len(passed.get(block.exit, ())) != 1 or not alike(branch_output, passed[block.exit][0][1]):
            return f"between its layers it computes something else than {block.kind} does"
    ends = [path for path in (block.closing, block.path if block.whole else None) if path is not None]
    if any(len(passed.get(path, ())) != 1 or not alike(module(entered), passed[path][0][1]) for path in ends):
        return f"it computes something else than {block.kind} does"
    return None


def alike(output: Tensor, expected: Any) -> bool:
    """Whether the output of a block is the expected one, up to rounding (`TOLERANCE`)."""
    if not isinstance(expected, Tensor) or output.shape != expected.shape:
        return False
    # Half-precision numbers carry three digits, and a block adds many of them.
    slack = 1.0 if expected.dtype in (torch.float32, torch.float64) else 30.0
    error = (output.float() - expected.float()).abs().max()
    return bool(error <= slack * TOLERANCE * expected.float().abs().max().clamp_min(1e-6))


def _shared(network: nn.Module) -> set[int]:
    """Parameters that stand in more than one place."""
    once: set[int] = set()
    twice: set[int] = set()
    for _, parameter in network.named_parameters(remove_duplicate=False):
        (twice if id(parameter) in once else once).add(id(parameter))
    return twice


@torch.no_grad()
def costs(network: nn.Module, batch: Inputs | None) -> dict[str, int]:
    """Parameters, bytes of all tensors and, for one example of a batch, floating-point operations.

    Args:
        network: The network.
        batch: Inputs, of which one is used; None leaves the operations out.

    Returns:
        Under `parameters`, `bytes` and `flops`.
    """
    numbers = {
        "parameters": parameters(network),
        "bytes": sum(tensor.nbytes for tensor in network.state_dict().values()),
    }
    if batch is not None:
        numbers["flops"] = count(lambda: call(network, first_examples(batch, 1)))
    return numbers
