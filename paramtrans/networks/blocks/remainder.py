"""What stays of a network beside its blocks, and which layer kept the nearest candidates from being any."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence

from torch import nn

from paramtrans.evaluation.costs import parameters
from paramtrans.networks.blocks.finding import NetworkBlock, find_blocks
from paramtrans.plugins.registry import Registry
from paramtrans.utils.counts import counted

LAYERS = 8
"""Layers with weights of a candidate, at most; with more of them it is looked at part by part."""
TOLD = 3
"""Causes that are told, those of most parameters first."""
BY_UNITS = 'by="units" (--by units) may make more of the network smaller'
"""What else there is."""
MUCH = 0.5
"""Share of the parameters from which it is warned of that they stay."""


def share(network: nn.Module, blocks: Sequence[NetworkBlock]) -> float:
    """The share of a network's parameters that stand in none of these blocks."""
    inside = {id(p): p.numel() for b in blocks for path in b.layers.values() for p in _parameters(network, path)}
    whole = parameters(network)
    return 1 - sum(inside.values()) / whole if whole else 1.0


def warning(network: nn.Module, blocks: Sequence[NetworkBlock], registry: Registry) -> str:
    """How much stays as it is, and why."""
    count = counted(len(blocks), "block")
    why = causes(network, blocks, registry) or _in_no_block(network, blocks)
    return f"{count}; {share(network, blocks):.0%} of the parameters stay{f': {why}' if why else ''}; {BY_UNITS}"


def _in_no_block(network: nn.Module, blocks: Sequence[NetworkBlock]) -> str:
    """Layers that no block is made of, where no part is near to one: those of most parameters first."""
    inside = {id(parameter) for b in blocks for path in b.layers.values() for parameter in _parameters(network, path)}
    counts, sizes = Counter[str](), Counter[str]()
    for layer in network.modules():
        if _has_weights(layer) and not inside & {id(parameter) for parameter in layer.parameters(recurse=False)}:
            counts[type(layer).__name__] += 1
            sizes[type(layer).__name__] += parameters(layer)
    layers = ", ".join(f"{name} ×{counts[name]}" for name, _ in sizes.most_common(TOLD))
    return f"{layers}, in no block" if layers else ""


def causes(network: nn.Module, blocks: Sequence[NetworkBlock], registry: Registry) -> str:
    """What kept other parts from being blocks: each layer, and how often; empty where no part is near to one."""
    taken = {path for block in blocks for path in block.layers.values()}
    counts, sizes = Counter[str](), Counter[str]()
    for candidate, cause in _candidates(network, "", taken, registry, {}):
        counts[cause] += 1
        sizes[cause] += parameters(candidate)
    told_causes = [f"{cause} ×{counts[cause]}" for cause, _ in sizes.most_common()]
    return ", ".join(told_causes[:TOLD]) + (
        f" and {counted(len(told_causes) - TOLD, 'other kind')}" if len(told_causes) > TOLD else ""
    )


def _parameters(network: nn.Module, path: str) -> Iterator[nn.Parameter]:
    return network.get_submodule(path).parameters()


def _candidates(
    module: nn.Module, path: str, taken: set[str], registry: Registry, known: dict[str, str | None]
) -> Iterator[tuple[nn.Module, str]]:
    """The outermost modules of two layers or more, and not too many, of which none is in a block and of which it is
    known what stopped them; `known` has that of modules like them."""
    layers = sum(1 for layer in module.modules() if _has_weights(layer))
    apart = not any(layer == path or layer.startswith(f"{path}.".lstrip(".")) for layer in taken)
    near = apart and (2 <= layers <= LAYERS or (_has_weights(module) and not isinstance(module, PLAIN)))
    if near:
        key = f"{type(module).__qualname__} {module}"
        if key not in known:
            known[key] = _stopped_by(module, registry)
        if (cause := known[key]) is not None:
            yield module, cause
            return
    inside = False
    for name, child in module.named_children():
        for candidate in _candidates(child, f"{path}.{name}".lstrip("."), taken, registry, known):
            inside = True
            yield candidate
    if near and not inside and (_has_weights(module) or not type(module).__module__.startswith("torch.nn.")):
        yield module, f"code of {type(module).__name__}"


def _has_weights(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))


def _stopped_by(module: nn.Module, registry: Registry) -> str | None:
    """The one layer without which, or with a plain one in the place of which, adapters know most of what is here."""
    best, cause = 0, None
    for path, layer in module.named_modules():
        for trial in (_without(module, path, layer), _with_plain(module, path, layer)):
            known = sum(len(block.layers) for block in find_blocks(trial, registry)) if trial is not None else 0
            if known > best:
                best, cause = known, _described(layer)
    return cause


PLAIN = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)
"""Layers that blocks are made of, or that stand alone."""


def _without(module: nn.Module, path: str, layer: nn.Module) -> nn.Module | None:
    """The module without one of its layers, where these stand in an `nn.Sequential`."""
    above, _, name = path.rpartition(".")
    if not path or isinstance(layer, PLAIN) or not isinstance(module.get_submodule(above), nn.Sequential):
        return None
    trial = _copied(module)
    del trial.get_submodule(above)._modules[name]
    return trial


def _with_plain(module: nn.Module, path: str, layer: nn.Module) -> nn.Module | None:
    """The module with a plain convolution, BatchNorm or ReLU in the place of another one."""
    if isinstance(layer, nn.Conv2d) and _settings(layer):
        plain: nn.Module = nn.Conv2d(layer.in_channels, layer.out_channels, 3, layer.stride[0], 1, device="meta")
    elif isinstance(layer, nn.GroupNorm | nn.InstanceNorm2d):
        channels = layer.num_channels if isinstance(layer, nn.GroupNorm) else layer.num_features
        plain = nn.BatchNorm2d(channels, device="meta")
    elif path and not any(True for _ in layer.children()) and not any(True for _ in layer.parameters()):
        plain = nn.ReLU()
    else:
        return None
    trial = _copied(module)
    if not path:
        return None
    trial.set_submodule(path, plain.train(layer.training))
    return trial


def _copied(module: nn.Module) -> nn.Module:
    """A copy whose tensors are the module's own."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


def _settings(layer: nn.Conv2d) -> list[str]:
    """What is unusual of a convolution."""
    unusual = [f"groups={layer.groups}"] if 1 < layer.groups < layer.in_channels else []
    unusual += [f"kernel {layer.kernel_size}"] if len({*layer.kernel_size}) > 1 else []
    unusual += [f"{layer.padding_mode} padding"] if layer.padding_mode != "zeros" else []
    return unusual


def _described(layer: nn.Module) -> str:
    more = _settings(layer) if isinstance(layer, nn.Conv2d) else []
    return type(layer).__name__ + (f" ({', '.join(more)})" if more else "")
