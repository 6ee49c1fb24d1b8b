"""A network that is made smaller keeps all that is no size: hooks, flags, kinds, counters, memory formats."""

from __future__ import annotations

from typing import Any

from trust.checks import Count, Setting


def layers_keep_what_is_no_size(setting: Setting, count: Count) -> None:
    """By blocks and by units alike; and a network that has its hidden features read elsewhere is left as it is."""
    import torch

    import paramtrans
    from paramtrans.errors import SpecMismatch

    images = torch.randn(32, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for by in ("blocks", "units"):
        network = _network()
        small: Any = paramtrans.translate(network, ratio=0.5, calibrate=images, by=by)
        first, norm, last = small[0].conv1, small[0].bn1, small[0].conv2
        kept = {
            "a hook that prepares what enters": bool(first._forward_pre_hooks),
            "requires_grad": not first.weight.requires_grad and last.weight.requires_grad,
            "momentum": norm.momentum == 0.3,
            "num_batches_tracked": int(norm.num_batches_tracked) == 7,
            "eval mode of one layer": small.training and not norm.training,
            "channels_last": first.weight.is_contiguous(memory_format=torch.channels_last),
            "the classes of all layers": [*map(type, small.modules())] == [*map(type, network.modules())],
        }
        for what, stays in kept.items():
            smaller = first.weight.shape[0] == 4
            count.add(f"{what}, by {by}", [] if stays and smaller else ["is lost" if smaller else "nothing was done"])
    network = _network()
    network[0].bn1.register_forward_hook(lambda *_: None)
    try:
        paramtrans.translate(network, ratio=0.5, calibrate=images, by="blocks")
        count.add("hidden features that are read by a hook", ["were made fewer"])
    except SpecMismatch:
        count.add("hidden features that are read by a hook", [])


def _network() -> Any:
    import torch
    from torch import nn

    from paramtrans import components

    torch.manual_seed(0)
    block: Any = components().create("block_adapter", "basic_block", channels=4, hidden=8).module()
    block.conv1.register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
    block.conv1.weight.requires_grad = False
    block.bn1.momentum = 0.3
    block.bn1.num_batches_tracked += 7
    network = nn.Sequential(block).to(memory_format=torch.channels_last).train()
    block.bn1.eval()
    return network


def unguarded() -> None:
    """Put fresh layers in the place of those that are there, and do not look at who else reads."""
    from paramtrans.networks.blocks import choosing, in_place

    in_place.same_kind = lambda before, fresh: False
    in_place.HOOKS = ()
    choosing.private = lambda network, looked, batch: looked
