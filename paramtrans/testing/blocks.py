"""Checks of block adapters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from paramtrans.api import stacking as stacks
from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.block_module import has_branch, has_features, passed_on, read_out, summed
from paramtrans.api.modules import initial, trained_names
from paramtrans.api.stacking import Params
from paramtrans.backends.vmap import Vmap, block_stacked
from paramtrans.ops.tokens import TokenLayout
from paramtrans.testing.check import CheckFailed, Subject, check, copied, differing, expect, named
from paramtrans.testing.samples import MODELS, entering, evaluate, randomised

SIZES: dict[int, tuple[tuple[int, ...], ...]] = {0: ((),), 1: ((1,), (7,), (16,)), 2: ((1, 1), (7, 5), (14, 14))}
"""By their number, sizes of the axes of positions that a block is tried on."""
READERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
COUNTER = "num_batches_tracked"
TOLERANCE = 1e-5
"""Of the largest value: what float32 may differ from a computation in double precision."""


@check("block_adapter")
def declared_tensors(subject: Subject) -> None:
    """The specification is the module's state: names, order, shapes, kinds, floating point."""
    adapter = subject.create()
    module = adapter.module()
    state = {name: t for name, t in module.state_dict().items() if not name.endswith(COUNTER)}
    shapes = {name: tuple(t.shape) for name, t in state.items()}
    declared = {t.name: t.shape for t in adapter.spec.tensors}
    expect(list(declared.items()) == list(shapes.items()), f"tensors {shapes}", declared)
    trained = {name for name, _ in module.named_parameters()}
    marked = {t.name for t in adapter.spec.tensors if t.trained}
    expect(marked == trained, f"the kind of a trained tensor for {named(sorted(trained))}", named(sorted(marked)))
    variances = {name for name in state if name.endswith("running_var")}
    positive = {t.name for t in adapter.spec.tensors if t.positive}
    expect(positive == variances, f"kind NORM_VARIANCE for {named(sorted(variances))}", named(sorted(positive)))
    whole = [name for name, t in state.items() if not t.is_floating_point()]
    expect(not whole, "floating-point tensors alone", named(f"{name} of {state[name].dtype}" for name in whole))


@check("block_adapter")
def keeps_the_shape(subject: Subject) -> None:
    """A new block maps features of any size to finite features, of the same shape unless `keeps_shape` is false."""
    adapter = subject.create()
    expect(adapter.axes in SIZES, f"`axes` among {named(map(str, SIZES))}", adapter.axes)
    for size in SIZES[adapter.axes]:
        inputs = entering(adapter, size)[0]
        outputs = adapter.module()(inputs)
        wanted = inputs.shape if adapter.keeps_shape else (len(inputs), *outputs.shape[1:])
        expect(outputs.shape == wanted, f"features of {list(wanted)}", list(outputs.shape))
        expect(bool(outputs.isfinite().all()), "finite features", "infinite or undefined ones")


@check("block_adapter")
def seeds_decide_the_block(subject: Subject) -> None:
    """`module` draws a new block from torch's random numbers alone: same seed same block, another seed another."""
    adapter = subject.create()
    first, again, other = (initial(adapter.module, [seed]) for seed in (1, 1, 2))
    expect(not differing(first, again), "the same block from the same seed", f"{named(differing(first, again))} differ")
    expect(bool(differing(first, other)), "another block from another seed", "the same one")


@check("block_adapter")
def loads_strictly(subject: Subject) -> None:
    """A module takes exactly its own tensors, and keeps what it is given."""
    adapter = subject.create()
    given = {name: tensor[0] for name, tensor in randomised(adapter, 1).items()}
    module = adapter.module()
    counters = {name: t for name, t in module.state_dict().items() if name.endswith(COUNTER)}
    module.load_state_dict(given | counters)
    kept = module.state_dict()
    changed = [name for name in given if name not in kept or not torch.equal(kept[name], given[name])]
    expect(not changed, "the tensors that were loaded", f"{named(changed)} changed")
    first = next(iter(given))
    wrong = {
        f"{first} missing": {name: t for name, t in given.items() if name != first} | counters,
        "a tensor too many": given | counters | {"no_such_tensor": torch.zeros(1)},
    }
    for what, state in wrong.items():
        try:
            adapter.module().load_state_dict(state)
        except RuntimeError:
            continue
        raise CheckFailed(f"expected a state with {what} refused; found it accepted")


@check("block_adapter")
def gradients_reach_every_tensor(subject: Subject) -> None:
    """The output has a finite gradient, not zero, in the input and in every trained tensor."""
    adapter = subject.create()
    module = _loaded(adapter, randomised(adapter), 0)
    inputs = entering(adapter)[0].requires_grad_()
    module(inputs).square().sum().backward()
    reached = {"the input": inputs, **dict(module.named_parameters())}
    for name, tensor in reached.items():
        gradient = _gradient(tensor)
        expect(bool(gradient.any()), f"a gradient in {name}", "none")
        expect(bool(gradient.isfinite().all()), f"a finite gradient in {name}", "one that is not")


@check("block_adapter")
def examples_are_independent(subject: Subject) -> None:
    """Outside training, the output of an example does not depend on the others in its batch."""
    adapter = subject.create()
    params, inputs = randomised(adapter), entering(adapter)
    whole, part = evaluate(adapter, params, inputs), evaluate(adapter, params, inputs[:, :1])
    close(part, whole[:, :1], "the output of one example alone")


@check("block_adapter")
def reads_what_it_announces(subject: Subject) -> None:
    """`read` returns the tensors of `reading`, model by model, and leaves the block as it was."""
    adapter = subject.create()
    params = randomised(adapter)
    given = copied(params)
    read = adapter.read(given)
    expect(not differing(given, params), "the block untouched", f"{named(differing(given, params))} changed")
    stacks.check(read, adapter.reading, "reading")
    expect(list(read) == list(adapter.reading.names), f"tensors in the order {adapter.reading.names}", list(read))
    alone = stacks.concatenate([adapter.read(copied(stacks.take(params, [i]))) for i in range(MODELS)])
    expect(not differing(alone, read), "the same of a model alone", f"{named(differing(alone, read))} differ")


@check("block_adapter")
def tokens_there_and_back(subject: Subject) -> None:
    """Cut into tokens and put together again, what is read and what is written is the same, bit for bit."""
    adapter = subject.create()
    params = randomised(adapter)
    expect(adapter.token_width >= 0, "a token width of 0 or more", adapter.token_width)
    for spec, stack in ((adapter.spec, params), (adapter.reading, adapter.read(copied(params)))):
        if set(stack) != set(spec.names):
            continue  # told by `declared_tensors` or `reads_what_it_announces`
        layout = TokenLayout(spec.tensors, adapter.token_width or 1)
        again = layout.unpack(layout.pack(stack))
        lost = [name for name in stack if name not in again or not torch.equal(again[name], stack[name])]
        expect(not lost, "every value again", f"{named(lost)} changed")


@check("block_adapter")
def stacked_equals_plain(subject: Subject) -> None:
    """Many blocks at once compute what each does alone: outputs, gradients, running statistics; in training too."""
    adapter = subject.create()
    params, inputs = randomised(adapter), entering(adapter)
    for training in (False, True):
        _stacked_equals_plain(adapter, params, inputs, training)
    outputs, reference = block_stacked(adapter)(copied(params), inputs), Vmap(adapter.module())(copied(params), inputs)
    close(outputs, reference.double(), "the stacked output")


def _stacked_equals_plain(adapter: BlockAdapter, params: Params, inputs: Tensor, training: bool) -> None:
    when = "in training" if training else "outside training"
    trained = trained_names(adapter.module())
    stack = {name: tensor.clone().requires_grad_(name in trained) for name, tensor in params.items()}
    given = inputs.clone().requires_grad_()
    outputs = block_stacked(adapter)(stack, given, training)
    weight = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(4))
    (outputs * weight).sum().backward()
    for i in range(len(inputs)):
        output, gradients, state = _alone(adapter, params, i, inputs[i], weight[i], training)
        # A bias in front of a BatchNorm has no gradient but rounding; what counts is how large the others are.
        largest = max(float(gradient.abs().max()) for gradient in gradients.values())
        close(outputs[i], output, f"the output {when} of model {i}")
        close(_gradient(given)[i], gradients["input"], f"the gradient of the input {when}", largest)
        for name, tensor in stack.items():
            close(tensor[i], state[name], f"{name} after a batch {when}")
            if name in trained:
                close(_gradient(tensor)[i], gradients[name], f"the gradient of {name} {when}", largest)


def _alone(
    adapter: BlockAdapter, params: Params, number: int, inputs: Tensor, weight: Tensor, training: bool
) -> tuple[Tensor, Params, Params]:
    """Output, gradients and state afterwards of one plain module in double precision."""
    module = _loaded(adapter, params, number).double().train(training)
    given = inputs.double().requires_grad_()
    output = module(given)
    (output * weight).sum().backward()
    gradients = {"input": _gradient(given), **{name: _gradient(p) for name, p in module.named_parameters()}}
    return output.detach(), gradients, module.state_dict()


def _loaded(adapter: BlockAdapter, params: Params, number: int) -> torch.nn.Module:
    module = adapter.module()
    module.load_state_dict({name: tensor[number] for name, tensor in params.items()}, strict=False)
    return module


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def close(values: Tensor, wanted: Tensor, what: str, among: float = 1e-3) -> None:
    """Raise `CheckFailed` where values differ by more than a part in 100,000 of the largest, or of `among`."""
    expect(values.shape == wanted.shape, f"{what} of shape {list(wanted.shape)}", list(values.shape))
    error = float((values.detach().double() - wanted.detach().double()).abs().max())
    largest = max(float(wanted.detach().abs().max()), among)
    expect(error <= TOLERANCE * largest, f"{what} to be the same", f"a difference of {error:.2g} in {largest:.2g}")


@check("block_adapter", when=lambda subject: subject.create().rectified)
def branch_is_what_is_added(subject: Subject) -> None:
    """The block is a ReLU of `branch` plus the input, or plus `skip` of the input, as `rectified` says."""
    adapter = subject.create()
    inputs = entering(adapter)[0].double()
    module: Any = _loaded(adapter, randomised(adapter), 0).double().eval()
    close(torch.relu(_sum(module, inputs)), module(inputs), "relu(branch + input)")


@check("block_adapter", when=lambda subject: subject.create().closing is not None)
def closing_ends_the_block(subject: Subject) -> None:
    """The block is the LayerNorm that `closing` names, of `branch` plus the input, or plus `skip` of the input."""
    adapter = subject.create()
    inputs = entering(adapter)[0].double()
    module: Any = _loaded(adapter, randomised(adapter), 0).double().eval()
    norm: Any = dict(module.named_modules()).get(adapter.closing or "")
    expect(isinstance(norm, nn.LayerNorm), f"a LayerNorm called {adapter.closing}", type(norm).__name__)
    close(norm(_sum(module, inputs)), module(inputs), "the normalised sum")


def _sum(module: nn.Module, inputs: Tensor) -> Tensor:
    """Of a block's branch and what it is added to."""
    expect(has_branch(module), "a method `branch`", "none")
    return summed(module)(inputs)


@check("block_adapter", when=lambda subject: subject.create().positionwise)
def positions_are_computed_alone(subject: Subject) -> None:
    """With `positionwise`, channels are last and what leaves a position depends on nothing but what enters there."""
    adapter = subject.create()
    expect(adapter.channels_last, "channels in the last axis", "others")
    inputs = entering(adapter)[0].double()
    module = _loaded(adapter, randomised(adapter), 0).double().eval()
    close(module(inputs.flatten(0, -2)), module(inputs).flatten(0, -2), "each position's features")


def _adds_plainly(adapter: BlockAdapter) -> bool:
    """Whether nothing stands behind the sum of branch and input; of other blocks `branch` says what is added."""
    return bool(adapter.readers()) and not adapter.rectified and adapter.closing is None


@check("block_adapter", when=lambda subject: _adds_plainly(subject.create()))
def readers_complete_the_block(subject: Subject) -> None:
    """What the last reader gives, behind its BatchNorm, is what is added to the input, or to `skip` of it."""
    adapter = subject.create()
    inputs = entering(adapter)[0].double()
    module: Any = _loaded(adapter, randomised(adapter), 0).double().eval()
    reader = adapter.readers()[-1]
    given: list[Tensor] = []
    last = dict(module.named_modules())[reader.norm or reader.layer]
    last.register_forward_hook(lambda _, __, left: given.append(left))
    output = module(inputs)
    wanted = output - passed_on(module, inputs)
    added = given[0] if given[0].shape == wanted.shape else given[0].movedim(-1, 1)
    close(added, wanted, f"what {reader.norm or reader.layer} gives, added to the input or to `skip` of it,")


@check("block_adapter", when=lambda subject: bool(subject.create().readers()))
def readers_read_what_is_declared(subject: Subject) -> None:
    """`readers` name layers, and BatchNorms, of the module; `features` is what enters the `readout`."""
    adapter = subject.create()
    module: Any = _loaded(adapter, randomised(adapter), 0).double().eval()
    layers = dict(module.named_modules())
    for reader in adapter.readers():
        layer, norm = layers.get(reader.layer), layers.get(reader.norm or "")
        expect(isinstance(layer, READERS), f"a Linear or convolution called {reader.layer}", type(layer).__name__)
        fits = reader.norm is None or isinstance(norm, nn.modules.batchnorm._BatchNorm)
        expect(fits, f"a BatchNorm called {reader.norm}", type(norm).__name__)
    if adapter.readout is not None:
        entered: list[Tensor] = []
        layers[adapter.readout].register_forward_hook(lambda _, given, __: entered.append(given[0]))
        inputs = entering(adapter)[0].double()
        module(inputs)
        expect(has_features(module), "a method `features`", "none")
        read = read_out(module)(inputs)
        same = torch.equal(entered[0], read) or torch.equal(entered[0], read.movedim(1, -1))
        expect(same, f"features as they enter {adapter.readout}", "others")
