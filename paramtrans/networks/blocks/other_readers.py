"""What reads hidden features of a block beside its own layers: it would meet others, or fewer, behind a translation."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from paramtrans.api.stacking import Params
from paramtrans.errors import DataError, SpecMismatch
from paramtrans.networks.blocks.finding import NetworkBlock, Survey, alike
from paramtrans.networks.blocks.in_place import hooks
from paramtrans.networks.forward.activations import Inputs, call, every_layer, first_examples
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.ops.symmetry import values_of

TRIED = 8
"""Examples of the first batch that a network is tried with; of one or two, hidden units may all be silent."""


def private(network: nn.Module, surveyed: Survey, batch: Inputs) -> Survey:
    """A survey without the blocks whose hidden features something else reads.

    Half of each group of hidden units are silenced in one copy of the network, and left out in another: where nothing
    but the block reads them, both compute the same.
    """
    refused = _hooked(network, surveyed.blocks, batch)
    left = [block for block in surveyed.blocks if block.path not in refused]
    if not _reads_elsewhere(network, left, batch):
        return Survey(tuple(left), {**surveyed.refused, **refused})
    for block in left:
        if _reads_elsewhere(network, [block], batch):
            refused[block.path] = "its hidden features are read elsewhere too, and would not be what they were"
    return Survey(tuple(b for b in left if b.path not in refused), {**surveyed.refused, **refused})


@torch.no_grad()
def _hooked(network: nn.Module, blocks: Sequence[NetworkBlock], batch: Inputs) -> dict[str, str]:
    """Blocks with hooks that are given hidden features, each with the reason to leave it."""
    with_hooks = {path for path, module in network.named_modules() if path and hooks(module)}
    if not with_hooks or not blocks:
        return {}
    events: list[tuple[str, bool]] = []

    def note(path: str, after: bool) -> object:
        return lambda *_: events.append((path, after))

    ends = {block.entrance for block in blocks} | {block.exit or block.entrance for block in blocks}
    handles = []
    for path in sorted(with_hooks | ends):
        module = network.get_submodule(path)
        handles.append(module.register_forward_pre_hook(note(path, False)))  # type: ignore[arg-type]
        handles.append(module.register_forward_hook(note(path, True)))  # type: ignore[arg-type]
    with every_layer(handles):
        call(network, first_examples(batch, 2))
    refused = {}
    for block in blocks:
        begin, end = (block.entrance, False), (block.exit or block.entrance, True)
        inside = events[events.index(begin) + 1 : events.index(end)]
        # What is called before the first layer, or behind the last, is given what enters or leaves the block.
        seen = [path for path, after in inside if path in with_hooks and _called(network, path, after)]
        if seen:
            refused[block.path] = f"a hook of {seen[0]} is given its hidden features"
    return refused


def _called(network: nn.Module, path: str, after: bool) -> bool:
    module = network.get_submodule(path)
    return bool(module._forward_hooks if after else module._forward_pre_hooks)


@torch.no_grad()
def _reads_elsewhere(network: nn.Module, blocks: Sequence[NetworkBlock], batch: Inputs) -> bool:
    """Whether something beside these blocks reads half of their hidden units; no where the code has no room for less,
    which is told elsewhere."""
    silent, small = copy.deepcopy(network), copy.deepcopy(network)
    changed = False
    for block in blocks:
        sizes = {name: (size + 1) // 2 for name, size in block.sizes.items()}
        try:
            target = block.adapter.with_sizes(sizes)
            params = block.params(network)
            fewer = {name: tensor for name, tensor in _fewer(block, params, sizes).items() if name in target.spec.names}
            block.replace(small, target, fewer)
        except (SpecMismatch, RuntimeError):
            continue
        block.replace(silent, block.adapter, _silenced(block, params, sizes))
        changed = changed or sizes != block.sizes
    if not changed:
        return False
    examples = first_examples(batch, TRIED)
    try:
        outputs = [tensors_in(call(changed_network, examples)) for changed_network in (silent, small)]
    except DataError:
        return len(blocks) > 1  # some of them may have room
    return len(outputs[0]) != len(outputs[1]) or not all(map(alike, *outputs))


def _fewer(block: NetworkBlock, params: Params, sizes: Mapping[str, int]) -> Params:
    """A block's tensors with some of the units of each group alone."""
    for group in block.adapter.spec.symmetries:
        retained = values_of(torch.tensor(_kept(block.sizes[group.name], sizes[group.name]))[None], group.width)[0]
        for member in group.members:
            tensor = params[member.tensor]
            params = {**params, member.tensor: tensor.index_select(member.axis + 1, retained.to(tensor.device))}
    return params


def _silenced(block: NetworkBlock, params: Params, sizes: Mapping[str, int]) -> Params:
    """A block's tensors whose readers take no notice of any but some of the units of each group."""
    changed = dict(params)
    for group in block.adapter.spec.symmetries:
        kept = values_of(torch.tensor(_kept(block.sizes[group.name], sizes[group.name]))[None], group.width)[0]
        for member in group.members:
            if member.axis == 1:
                changed[member.tensor] = _zero_beside(changed[member.tensor], kept)
    return changed


def _kept(whole: int, size: int) -> list[int]:
    """Which units stay: not the first one, so that each has another number then, from the front and from the end."""
    first = 1 if size < whole else 0
    return list(range(first, first + size))


def _zero_beside(tensor: Tensor, kept: Tensor) -> Tensor:
    """`[1, out, units, ...]` with zeros for all units but those that are kept."""
    zeroed = torch.zeros_like(tensor)
    zeroed[:, :, kept] = tensor[:, :, kept]
    return zeroed
