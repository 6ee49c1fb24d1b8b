"""A network that is made smaller keeps all that is no size: hooks, flags, kinds, counters, memory formats."""

from __future__ import annotations

from typing import Any

from trust.checks import Count, Setting


def layers_keep_what_is_no_size(setting: Setting, count: Count) -> None:
    """By blocks and by units alike; and a network that has its hidden features read elsewhere is left as it is."""
    import torch

    import paramtrans
    from paramtrans.errors import SpecMismatch

    images = 100 + 50 * torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for by in ("blocks", "units"):
        network = _network()
        small: Any = paramtrans.translate(network, ratio=0.5, calibrate=images, by=by)
        kept = {
            "a hook that prepares what enters": bool(small[0]._forward_pre_hooks),
            "requires_grad": not small[0].weight.requires_grad and small[3].weight.requires_grad,
            "momentum": small[1].momentum == 0.3,
            "num_batches_tracked": int(small[1].num_batches_tracked) == 7,
            "eval mode of one layer": small.training and not small[1].training,
            "channels_last": small[0].weight.is_contiguous(memory_format=torch.channels_last),
            "the classes of all layers": [type(layer) for layer in small] == [type(layer) for layer in network],
        }
        for what, stays in kept.items():
            smaller = small[0].weight.shape[0] == 4
            count.add(f"{what}, by {by}", [] if stays and smaller else ["is lost" if smaller else "nothing was done"])
    network = _network()
    network[2].register_forward_hook(lambda *_: None)
    try:
        paramtrans.translate(network, ratio=0.5, calibrate=images, by="blocks")
        count.add("hidden features that are read by a hook", ["were made fewer"])
    except SpecMismatch:
        count.add("hidden features that are read by a hook", [])


def _network() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=0.3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    network[0].register_forward_pre_hook(lambda _, given: ((given[0] - 100) / 50,))
    network[0].weight.requires_grad = False
    network[1].num_batches_tracked += 7
    network.to(memory_format=torch.channels_last).train()
    network[1].eval()
    return network


def unguarded() -> None:
    """Put fresh layers in the place of those that are there, and do not look at who else reads."""
    from paramtrans.networks.blocks import choosing, in_place

    in_place.same_kind = lambda before, fresh: False
    in_place.HOOKS = ()
    choosing.private = lambda network, looked, batch: looked
