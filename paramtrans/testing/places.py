"""A check of block adapters that take the places of parts of networks."""

from __future__ import annotations

import torch

from paramtrans.api.adapter import Part
from paramtrans.errors import SpecMismatch
from paramtrans.testing.blocks import SIZES
from paramtrans.testing.check import Subject, check, expect, named
from paramtrans.testing.samples import entering


@check("block_adapter")
def takes_its_own_place(subject: Subject) -> None:
    """For a part of a network that is such a block, `options_for` gives options that there are, or says why it cannot;
    what `warm_start` gives, if anything, are finite tensors of `spec`, `[1, ...]`."""
    adapter = subject.create()
    inputs, module = entering(adapter, SIZES[adapter.axes][-1])[0], adapter.module().eval()
    run = torch.no_grad()(module)
    part = Part("part", module, inputs, run(inputs), run)
    try:
        options = dict(type(adapter).options_for(part))
    except SpecMismatch:
        return
    fields = adapter.Options.model_fields
    expect(options.keys() <= fields.keys(), f"options among {named(fields)} of options_for", named(map(str, options)))
    start = adapter.warm_start(part) or {}
    shapes = {tensor.name: (1, *tensor.shape) for tensor in adapter.spec.tensors}
    for name, tensor in start.items():
        wanted = shapes.get(name)
        expect(tuple(tensor.shape) == wanted, f"{name} of {wanted} from warm_start", tuple(tensor.shape))
        expect(bool(tensor.isfinite().all()), f"finite values of {name} from warm_start", "infinite or undefined ones")
