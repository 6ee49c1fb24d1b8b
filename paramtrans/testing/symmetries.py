"""Checks of what block adapters declare as data: symmetries, and the axes of the block's own channels."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans.api.specs import BlockSpec, SymmetryGroup, SymmetryMember
from paramtrans.api.stacking import Params, models
from paramtrans.ops.symmetry import flip, permute, random_rotations, rescale, rotate, scales
from paramtrans.testing.blocks import close
from paramtrans.testing.check import Subject, check, copied, differing, expect, named
from paramtrans.testing.samples import MODELS, entering, evaluate, randomised


def cycles(group: SymmetryGroup, count: int, seed: int) -> Tensor:
    """For each model a random cycle through all units, `[models, size]`, so that none stays where it is."""
    generator = torch.Generator().manual_seed(seed)
    orders = []
    for _ in range(count):
        cycle = torch.randperm(group.size, generator=generator)
        orders.append(torch.empty_like(cycle).scatter_(0, cycle, cycle.roll(1)))
    return torch.stack(orders)


def permuted(params: Params, group: SymmetryGroup, seed: int = 0) -> Params:
    """The group's units in another order."""
    return permute(params, group, cycles(group, models(params), seed))


def rescaled(params: Params, group: SymmetryGroup, seed: int = 0) -> Params:
    """The group's units scaled by factors around one."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(models(params), group.size, generator=generator, dtype=torch.float64)
    return rescale(params, group, torch.exp(factors))


def _misplaced(spec: BlockSpec, members: tuple[SymmetryMember, ...], size: int) -> list[str]:
    """Members whose axis is not there, or of another size."""
    shapes = {tensor.name: tensor.shape for tensor in spec.tensors}
    return [
        f"{m.tensor} axis {m.axis}"
        for m in members
        if m.tensor not in shapes or not 0 <= m.axis < len(shapes[m.tensor]) or shapes[m.tensor][m.axis] != size
    ]


def _in_place(spec: BlockSpec) -> bool:
    return not any(_misplaced(spec, group.members, group.values) for group in spec.symmetries)


@check("block_adapter", when=lambda subject: bool(subject.create().spec.symmetries))
def symmetries_leave_the_function(subject: Subject) -> None:
    """Permuting, rescaling and flipping units of each declared group changes parameters, but not the function."""
    adapter = subject.create()
    inputs = entering(adapter)
    params = {name: tensor.double() for name, tensor in randomised(adapter).items()}
    before = evaluate(adapter, params, inputs)
    for seed, group in enumerate(adapter.spec.symmetries):
        wrong = _misplaced(adapter.spec, group.members, group.values)
        expect(not wrong, f'axes of size {group.values} in group "{group.name}"', named(wrong))
        moved = permuted(copied(params), group, seed)
        changed = group.size == 1 or bool(differing(moved, params))
        expect(changed, f'other parameters by permuting "{group.name}"', "the same")
        close(evaluate(adapter, moved, inputs), before, f'the output after permuting "{group.name}"')
        for scaled in scales(group) if group.rescale else ():
            wrong = _misplaced(adapter.spec, scaled.members, group.values)
            expect(not wrong, f'axes of size {group.values} in each scale of "{group.name}"', named(wrong))
            moved = rescaled(copied(params), scaled, seed)
            expect(bool(differing(moved, params)), f'other parameters by rescaling "{group.name}"', "the same")
            close(evaluate(adapter, moved, inputs), before, f'the output after rescaling "{group.name}"')
        if group.signs:
            moved = flip(copied(params), group, -torch.ones(models(params), group.size))
            expect(bool(differing(moved, params)), f'other parameters by signs of "{group.name}"', "the same")
            close(evaluate(adapter, moved, inputs), before, f'the output with the signs of "{group.name}" changed')


@check("block_adapter", when=lambda subject: bool(subject.create().spec.rotations))
def rotations_leave_the_function(subject: Subject) -> None:
    """Rotating the values of each declared group changes parameters, but not the function."""
    adapter = subject.create()
    inputs, generator = entering(adapter), torch.Generator().manual_seed(0)
    params = {name: tensor.double() for name, tensor in randomised(adapter).items()}
    before = evaluate(adapter, params, inputs)
    for group in adapter.spec.rotations:
        wrong = _misplaced(adapter.spec, group.members, group.values)
        expect(not wrong, f'axes of size {group.values} in rotations "{group.name}"', named(wrong))
        moved = rotate(copied(params), group, random_rotations(group, models(params), generator))
        expect(bool(differing(moved, params)), f'other parameters by rotating "{group.name}"', "the same")
        close(evaluate(adapter, moved, inputs), before, f'the output after rotating "{group.name}"')


@check("block_adapter", when=lambda subject: bool(subject.create().reading.symmetries))
def reading_keeps_the_symmetries(subject: Subject) -> None:
    """Permuting a block, then reading it, is reading it, then permuting by the groups that the reading announces."""
    adapter = subject.create()
    params = randomised(adapter)
    groups, read = ({g.name: g for g in spec.symmetries} for spec in (adapter.spec, adapter.reading))
    expect(list(groups) == list(read), f"groups {named(groups)} in the reading", named(read))
    expect(_in_place(adapter.reading), "axes of the groups' sizes in the reading", "others")
    if not _in_place(adapter.spec):
        return  # told by `symmetries_leave_the_function`
    for name, group in groups.items():
        first = adapter.read(permuted(copied(params), group, seed=1))
        then = permuted(adapter.read(copied(params)), read[name], seed=1)
        wrong = differing(first, then)
        expect(not wrong, f'"{name}" permuted alike before and after reading', f"{named(wrong)} differ")


@check("block_adapter", when=lambda subject: bool(subject.create().spec.stream))
def stream_is_the_blocks_channels(subject: Subject) -> None:
    """Permuting the channels of input and output, and the declared `stream` axes with them, changes nothing else."""
    adapter = subject.create()
    channels = adapter.options.channels
    stream = SymmetryGroup("stream", channels, adapter.spec.stream)
    wrong = _misplaced(adapter.spec, stream.members, channels)
    expect(not wrong, f"axes of {channels} channels in `stream`", named(wrong))
    params, inputs = randomised(adapter), entering(adapter)
    axis = -1 if adapter.channels_last else 1
    orders = cycles(stream, MODELS, seed=2)
    moved, wanted = (
        torch.stack([x.index_select(axis, order) for x, order in zip(features, orders, strict=True)])
        for features in (inputs, evaluate(adapter, params, inputs))
    )
    outputs = evaluate(adapter, permute(copied(params), stream, orders), moved)
    close(outputs, wanted, "the output with channels permuted")
