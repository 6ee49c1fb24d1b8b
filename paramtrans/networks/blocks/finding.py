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
        """The block's tensors in a network, stacked as one model."""
        state: dict[str, Tensor] = {}
        for layer, path in self.layers.items():
            own = network.get_submodule(path).state_dict()
            state |= {f"{layer}.{name}": tensor.detach()[None] for name, tensor in own.items()}
        return {name: state[name] for name in self.adapter.spec.names}

    def places(self, target: BlockAdapter) -> dict[str, str]:
        """Layers of the target's module, each with the path it gets: those of this block where the target is the same
        with other numbers of hidden units, else the whole module (as layer "") at the block's own path.

        Raises `SpecMismatch` where there is no such module.
        """
        if self._has_other_sizes_alone(target):
            return dict(self.layers)
        if not self.whole or not self.path:
            place = "is only some layers of one" if self.path else "is the whole network; put it into an nn.Sequential"
            raise SpecMismatch(
                f"{self.path or 'the network'}: a {type(target).__name__} takes the place of a whole module inside a "
                f"network, and this block {place}"
            )
        return {"": self.path}

    def replace(self, network: nn.Module, target: BlockAdapter, params: Params | None) -> None:
        """Put another adapter's block in this one's place, with its tensors `params` if given."""
        put(network, self.places(target), target, params)

    def _has_other_sizes_alone(self, target: BlockAdapter) -> bool:
        if type(target) is not type(self.adapter):
            return False
        try:
            resized = self.adapter.with_sizes({group.name: group.size for group in target.spec.symmetries})
        except SpecMismatch:
            return False
        return resized.options == target.options


def put(network: nn.Module, places: Mapping[str, str], adapter: BlockAdapter, params: Params | None) -> None:
    """Put layers of an adapter's module into a network, each at its path, with the tensors `params` if given."""
    fresh = adapter.module().train(network.training)
    if params is not None:
        fresh.load_state_dict({name: tensor[0] for name, tensor in params.items()}, strict=False)
    for layer, path in places.items():
        put_layer(network, path, fresh.get_submodule(layer))


def find_blocks(
    network: nn.Module,
    registry: Registry,
    pattern: str = "*",
    own: BlockAdapter | None = None,
    unlike_paths: dict[str, str] | None = None,
) -> list[NetworkBlock]:
    """Blocks that an adapter recognises and whose path matches; of blocks inside each other, the outermost.

    With `own`, blocks of its kind alone; those that it fits have it as their adapter. `unlike_paths` is filled with
    modules whose layers have other tensors than the adapter's, each with the reason.
    """
    unlike_paths = {} if unlike_paths is None else unlike_paths
    found: list[NetworkBlock] = []
    taken: set[str] = set()
    adapters = [(entry.name, entry.resolve()) for entry in registry.of_kind("block_adapter")]
    if own is not None:
        adapters = [(name, adapter) for name, adapter in adapters if adapter is type(own)]
    for path, module in network.named_modules():
        for name, adapter in adapters:
            for known in adapter.recognise(module):
                layers = {layer: f"{path}.{place}".strip(".") for layer, place in known.layers.items()}
                if taken.isdisjoint(layers.values()):
                    made = registry.create("block_adapter", name, **known.options)
                    with torch.device("meta"):
                        reason = unlike(network, layers, made.module())
                    if reason is not None:
                        unlike_paths[path] = reason
                        continue
                    taken.update(layers.values())
                    made = own if own is not None and own.spec == made.spec else made
                    found.append(NetworkBlock(path, name, made, layers, known.whole))
    return [block for block in found if matches(block.path, pattern)]


def some_paths(blocks: Sequence[NetworkBlock], most: int = 8) -> str:
    """The paths of some blocks, for messages."""
    return some_of([block.path for block in blocks], most)


def some_of(paths: Sequence[str], most: int = 8) -> str:
    """Some of several paths, for messages."""
    return ", ".join(f'"{path}"' for path in paths[:most]) + (
        f" and {len(paths) - most} more" if len(paths) > most else ""
    )


def matches(path: str, pattern: str) -> bool:
    """Whether one of the patterns, between commas, is for this path; `*` stands for anything."""
    return any(fnmatchcase(path, one.strip()) for one in pattern.split(","))


@dataclass(frozen=True)
class Survey:
    """What a look at a running network says of its blocks."""

    blocks: tuple[NetworkBlock, ...]
    """In the order in which features reach them."""
    refused: Mapping[str, str]
    """Paths of those that cannot be translated, each with the reason."""


@torch.no_grad()
def survey(network: nn.Module, blocks: list[NetworkBlock], batch: Inputs) -> Survey:
    """Run the network on a few examples and hold every block to what its adapter computes.

    The network should be in eval mode.
    """
    seen: dict[str, list[tuple[Any, Any]]] = {}
    order: list[str] = []

    def look_at(path: str) -> Any:
        def look(_: nn.Module, given: tuple[Any, ...], left: Any) -> None:
            order.append(path)
            # Copies, because what follows may work in place.
            both = [t.clone() if isinstance(t, Tensor) else None for t in (given[0] if given else None, left)]
            seen.setdefault(path, []).append((both[0], both[1]))

        return look

    looked_at = [path for b in blocks for path in (b.entrance, b.exit, b.closing, b.path if b.whole else None)]
    wanted = {path for path in looked_at if path is not None}
    handles = [network.get_submodule(path).register_forward_hook(look_at(path)) for path in sorted(wanted)]
    with every_layer(handles):
        call(network, first_examples(batch, 2))
    shared = _shared(network)
    reasons = [(block, _reason(block, network, seen, shared)) for block in blocks]
    fit = [block for block, reason in reasons if reason is None]
    fit.sort(key=lambda block: order.index(block.entrance))
    return Survey(tuple(fit), {block.path: reason for block, reason in reasons if reason is not None})


def _reason(
    block: NetworkBlock, network: nn.Module, seen: Mapping[str, list[tuple[Any, Any]]], shared: set[int]
) -> str | None:
    """Why a block cannot be translated, or None."""
    times = len(seen.get(block.entrance, ()))
    if times != 1:
        return f"it is passed {times} times in a run of the network, not once"
    if any(id(p) in shared for path in block.layers.values() for p in network.get_submodule(path).parameters()):
        return "it shares parameters with another part of the network"
    entered = seen[block.entrance][0][0]
    if not isinstance(entered, Tensor):
        return "what enters it is no tensor"
    module = block.adapter.module().eval().to(entered)
    module.load_state_dict({name: tensor[0] for name, tensor in block.params(network).items()}, strict=False)
    if block.exit is not None:
        found = module.branch(entered) if has_branch(module) else module(entered)
        if len(seen.get(block.exit, ())) != 1 or not alike(found, seen[block.exit][0][1]):
            return f"between its layers it computes something else than {block.kind} does"
    ends = [path for path in (block.closing, block.path if block.whole else None) if path is not None]
    if any(len(seen.get(path, ())) != 1 or not alike(module(entered), seen[path][0][1]) for path in ends):
        return f"it computes something else than {block.kind} does"
    return None


def alike(found: Tensor, wanted: Any) -> bool:
    """Whether a block gives what is wanted, up to rounding."""
    if not isinstance(wanted, Tensor) or found.shape != wanted.shape:
        return False
    # Half-precision numbers carry three digits, and a block adds many of them.
    rough = 1.0 if wanted.dtype in (torch.float32, torch.float64) else 30.0
    error = (found.float() - wanted.float()).abs().max()
    return bool(error <= rough * TOLERANCE * wanted.float().abs().max().clamp_min(1e-6))


def _shared(network: nn.Module) -> set[int]:
    """Parameters that stand in more than one place."""
    once: set[int] = set()
    twice: set[int] = set()
    for _, parameter in network.named_parameters(remove_duplicate=False):
        (twice if id(parameter) in once else once).add(id(parameter))
    return twice


@torch.no_grad()
def costs(network: nn.Module, batch: Inputs | None) -> dict[str, int]:
    """Parameters, bytes of all tensors and, for one example of a batch, floating-point operations."""
    found = {
        "parameters": parameters(network),
        "bytes": sum(tensor.nbytes for tensor in network.state_dict().values()),
    }
    if batch is not None:
        found["flops"] = count(lambda: call(network, first_examples(batch, 1)))
    return found
