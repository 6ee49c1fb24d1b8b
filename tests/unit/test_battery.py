"""Every registered component of each kind through the checks of its kind, whoever provides it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.func import functional_call

from paramtrans import hosts as stacks
from paramtrans import load_translator, save_translator
from paramtrans.blocks import BlockAdapter
from paramtrans.config import ComponentConfig
from paramtrans.errors import ConfigError, SpecMismatch
from paramtrans.hosts import Hosts, Params
from paramtrans.plugins import Plugins
from paramtrans.protocols import (
    Augmenter,
    Batch,
    Context,
    Executor,
    Objective,
    ProbeCase,
    Probes,
    Rival,
    RivalCase,
    Split,
    Task,
    Translator,
)
from paramtrans.registry import Entry, Registry
from paramtrans.specs import BlockSpec, FeatureSpec, SymmetryGroup
from paramtrans.stacked import HostRunner, Vmap, block_stacked, initial, trained_names

CHANNELS, MODELS, BATCH = 4, 3, 5


def _registry() -> Registry:
    loaded = Plugins()
    loaded.load_entry_points()
    return loaded.registry()


REGISTRY = _registry()

BLOCKS: dict[str, list[dict[str, Any]]] = {
    "basic_block": [
        {},
        {"hidden": 2, "kernel": 1},
        {"hidden": 7, "kernel": 5, "read": "weights"},
        {"hidden": 3, "read": "all"},
    ],
    "conv": [{"hidden": 2}, {"hidden": 1, "kernel": 5}, {"hidden": 5, "kernel": 1, "bias": True}],
    "mlp": [{"hidden": 9}, {"hidden": 1}],
    "attention": [{}, {"hidden": 3}],
}
SMALL: dict[str, dict[str, Any]] = {
    "equivariant": {"layers": 1, "width": 8, "heads": 2},
    "mixer": {"layers": 2, "width": 8, "token_width": 8, "channel_width": 8},
    "mlp": {"layers": 1, "width": 8},
    "attention": {"layers": 1, "width": 8, "heads": 2, "feedforward": 8},
    "conv": {"layers": 1, "width": 8, "kernel": 3},
}
FIXED: dict[str, dict[str, Any]] = {"matching": {"steps": 3, "batch": 4}, "refit": {}}
"""Translators that learn nothing beforehand."""
TRANSLATORS = {e.name: SMALL.get(e.name, {}) for e in REGISTRY.of_kind("translator") if e.name not in FIXED}
AUGMENTERS: dict[str, dict[str, Any]] = {"mask": {"share": 0.3}, "noise": {"scale": 0.1}}
OBJECTIVES: dict[str, list[dict[str, Any]]] = {
    "mse": [{}],
    "functional": [{}, {"features": 0, "outputs": 1}, {"features": 0, "task": 1}, {"outputs": 0.5, "task": 0.5}],
}
RIVALS: dict[str, dict[str, Any]] = {
    "zero_block": {},
    "random_init": {},
    "random_replacement": {},
    "greedy_replacement": {},
}
PROBES: dict[str, dict[str, Any]] = {
    "images": {},
    "noise": {},
    "smooth": {},
    "strokes": {},
    "bn_statistics": {"steps": 3},
}
KNOWN = {
    "block_adapter": set(BLOCKS),
    "translator": set(SMALL) | set(FIXED),
    "augmenter": set(AUGMENTERS),
    "objective": set(OBJECTIVES),
    "rival": set(RIVALS),
    "probe": set(PROBES),
}
BASES = {
    "block_adapter": BlockAdapter,
    "translator": Translator,
    "augmenter": Augmenter,
    "objective": Objective,
    "rival": Rival,
    "probe": Probes,
    "task": Task,
    "executor": Executor,
}
CASES = [(name, options) for name, some in BLOCKS.items() for options in some]
each_block = pytest.mark.parametrize(("name", "options"), CASES, ids=str)
each_fixed_translator = pytest.mark.parametrize("name", FIXED)
each_translator = pytest.mark.parametrize("name", TRANSLATORS)
each_token_translator = pytest.mark.parametrize(
    "name", [name for name in TRANSLATORS if "start" in REGISTRY.load("translator", name).Options.model_fields]
)
each_augmenter = pytest.mark.parametrize("name", AUGMENTERS)
each_rival = pytest.mark.parametrize("name", RIVALS)


def block(name: str, **options: Any) -> BlockAdapter:
    adapter: BlockAdapter = REGISTRY.create("block_adapter", name, channels=CHANNELS, **options)
    return adapter


def randomised(adapter: BlockAdapter, count: int = MODELS, seed: int = 0) -> Params:
    """Blocks whose normalisation, statistics too, is far from its defaults."""
    params = initial(adapter.module, range(seed, seed + count))
    generator = torch.Generator().manual_seed(seed)
    for tensor in adapter.spec.tensors:
        if tensor.kind.startswith("norm"):
            noise = torch.rand(params[tensor.name].shape, generator=generator)
            params[tensor.name] = noise + 0.5 if tensor.kind in ("norm_weight", "norm_variance") else noise - 0.5
    return params


def features(count: int = MODELS, channels: int = CHANNELS) -> Tensor:
    return torch.randn(count, BATCH, channels, 6, 5, generator=torch.Generator().manual_seed(9))


def evaluate(adapter: BlockAdapter, params: Params, inputs: Tensor) -> Tensor:
    """One plain module after the other, in eval mode and double precision."""
    module = adapter.module().double().eval()
    double = {name: tensor.double() for name, tensor in params.items()}
    single = ({name: tensor[i] for name, tensor in double.items()} for i in range(len(inputs)))
    return torch.stack([functional_call(module, s, (x,)) for s, x in zip(single, inputs.double(), strict=True)])


# Every kind


@pytest.mark.parametrize("kind", KNOWN)
def test_every_registered_component_goes_through_the_battery(kind: str) -> None:
    assert {entry.name for entry in REGISTRY.of_kind(kind)} - KNOWN[kind] == set(), "give it small options above"


def entries(*kinds: str) -> Any:
    found = [entry for entry in REGISTRY if entry.kind in kinds]
    return pytest.mark.parametrize("entry", found, ids=lambda entry: f"{entry.kind}-{entry.name}")


@entries(*BASES)
def test_components_are_of_their_kind_and_complete(entry: Entry) -> None:
    cls = entry.resolve()
    assert issubclass(cls, BASES[entry.kind])
    assert not cls.__abstractmethods__
    assert entry.component.summary and "\n" not in entry.component.summary


@entries(*BASES)
def test_options_refuse_what_they_do_not_know(entry: Entry) -> None:
    kinds = {"augmenter": AUGMENTERS, "translator": TRANSLATORS | FIXED, "rival": RIVALS, "probe": PROBES}
    options = kinds.get(entry.kind, {}).get(entry.name, {})
    if entry.kind == "block_adapter":
        options = {"channels": CHANNELS, **BLOCKS[entry.name][0]}
    model = entry.resolve().Options
    assert model(**options).model_config["frozen"] is True
    with pytest.raises(ValidationError) as caught:
        model(**options, no_such_option=1)
    assert [error["type"] for error in caught.value.errors()] == ["extra_forbidden"]


@entries(*BASES)
def test_every_option_is_documented(entry: Entry) -> None:
    own = {"channels", "kernel", "hidden", "layers", "width", "heads", "dropout", "features"}
    fields = entry.resolve().Options.model_fields
    assert [name for name, field in fields.items() if not field.description and name not in own] == []


@pytest.mark.parametrize("point", entry_points(group="paramtrans"), ids=lambda point: point.name)
def test_the_plugin_module_of_a_plugin_imports_no_torch(point: Any) -> None:
    code = f"import importlib, sys; importlib.import_module({point.module!r}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


# Blocks


@each_block
def test_branch_and_readout_are_what_the_adapter_promises(name: str, options: dict[str, Any]) -> None:
    adapter = block(name, **options)
    params, inputs = randomised(adapter), features().double()
    module = adapter.module().double().eval()
    module.load_state_dict({name: tensor[0] for name, tensor in params.items()}, strict=False)
    if adapter.rectified:
        assert torch.equal(torch.relu(module.branch(inputs[0]) + inputs[0]), module(inputs[0]))
    if adapter.readout is not None:
        entered: list[Tensor] = []
        module.get_submodule(adapter.readout).register_forward_hook(lambda _, given, __: entered.append(given[0]))
        module(inputs[0])
        read = module.features(inputs[0])
        assert read.shape[0] == BATCH and read.shape[2:] == inputs.shape[3:]
        assert torch.equal(entered[0], read) or torch.equal(entered[0], read.movedim(-3, -1))


@each_block
def test_the_specification_is_the_modules_state(name: str, options: dict[str, Any]) -> None:
    adapter = block(name, **options)
    state = {key: tuple(t.shape) for key, t in adapter.module().state_dict().items() if "num_batches" not in key}
    assert {t.name: t.shape for t in adapter.spec.tensors} == state
    assert list(adapter.spec.names) == list(state)
    trained = {key for key, _ in adapter.module().named_parameters()}
    assert {t.name for t in adapter.spec.tensors if t.trained} == trained
    assert {t.name for t in adapter.spec.tensors if t.positive} == {key for key in state if key.endswith("running_var")}


@each_block
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (14, 14)])
def test_a_new_block_keeps_the_shape_and_is_finite(name: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    inputs = torch.randn(2, CHANNELS, *size)
    outputs = block(name, **options).module()(inputs)
    assert outputs.shape == inputs.shape and outputs.isfinite().all()


@each_block
def test_the_function_depends_on_every_trained_tensor(name: str, options: dict[str, Any]) -> None:
    module = block(name, **options).module()
    module(torch.randn(4, CHANNELS, 5, 5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@each_block
def test_reading_is_exactly_what_is_announced_and_leaves_the_block_alone(name: str, options: dict[str, Any]) -> None:
    adapter = block(name, **options)
    params = randomised(adapter)
    before = {key: tensor.clone() for key, tensor in params.items()}
    read = adapter.read(params)
    stacks.check(read, adapter.reading, "reading")
    assert list(read) == list(adapter.reading.names)
    assert all(torch.equal(params[key], before[key]) for key in before)
    each = [adapter.read(stacks.take(params, [i])) for i in range(MODELS)]
    assert all(torch.equal(stacks.concatenate(each)[key], read[key]) for key in read)


@each_block
@pytest.mark.parametrize("training", [False, True])
def test_stacked_blocks_are_single_blocks(name: str, options: dict[str, Any], training: bool) -> None:
    """Outputs, gradients of parameters and inputs, and running statistics."""
    adapter = block(name, **options)
    params, inputs = randomised(adapter), features()
    weight = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(4))
    expected = [single(adapter, stacks.take(params, [i]), inputs[i], weight[i], training) for i in range(MODELS)]
    trained = trained_names(adapter.module())
    found = {key: tensor.clone().requires_grad_(key in trained) for key, tensor in params.items()}
    x = inputs.clone().requires_grad_()
    outputs = block_stacked(adapter)(found, x, training)
    (outputs * weight).sum().backward()
    for i, (wanted, gradients, state) in enumerate(expected):
        close(outputs[i], wanted)
        close(x.grad[i], gradients["input"])
        for key, tensor in found.items():
            close(tensor[i].detach(), state[key])
            if key in trained:
                close(tensor.grad[i], gradients[key])


def single(
    adapter: BlockAdapter, params: Params, inputs: Tensor, weight: Tensor, training: bool
) -> tuple[Tensor, dict[str, Tensor], Params]:
    """Output, gradients and state afterwards of one plain module in double precision."""
    module = adapter.module().double().train(training)
    module.load_state_dict({key: tensor[0].double() for key, tensor in params.items()}, strict=False)
    x = inputs.double().requires_grad_()
    output = module(x)
    (output * weight).sum().backward()
    gradients = {"input": x.grad, **{key: p.grad for key, p in module.named_parameters()}}
    return output.detach(), gradients, module.state_dict()


def close(found: Tensor, wanted: Tensor) -> None:
    """Within 1e-5 of the largest value."""
    error = (found.detach().double() - wanted).abs().max()
    assert error <= 1e-5 * wanted.abs().max().clamp_min(1e-3), f"{error} of {wanted.abs().max()}"


@each_block
def test_the_blocks_own_layout_equals_vmap(name: str, options: dict[str, Any]) -> None:
    adapter = block(name, **options)
    params, inputs = randomised(adapter), features()
    close(block_stacked(adapter)(params, inputs), Vmap(adapter.module())(params, inputs).double())


def permuted(params: Params, group: SymmetryGroup, generator: torch.Generator) -> Params:
    """By a random cycle through all units, so that none stays where it is."""
    cycle = torch.randperm(group.size, generator=generator)
    order = torch.empty_like(cycle).scatter_(0, cycle, cycle.roll(1))
    changed = dict(params)
    for member in group.members:
        changed[member.tensor] = changed[member.tensor].index_select(member.axis + 1, order)
    return changed


def rescaled(params: Params, group: SymmetryGroup, generator: torch.Generator) -> Params:
    factors = torch.exp(torch.randn(group.size, generator=generator, dtype=torch.float64))
    changed = dict(params)
    for member in group.members:
        shape = [group.size if axis == member.axis + 1 else 1 for axis in range(changed[member.tensor].ndim)]
        changed[member.tensor] = changed[member.tensor] * (factors**member.scale).view(shape)
    return changed


CHANGES: dict[str, Callable[..., Params]] = {"permuted": permuted, "rescaled": rescaled}


@each_block
@pytest.mark.parametrize("change", CHANGES)
def test_a_symmetry_leaves_the_function_unchanged(name: str, options: dict[str, Any], change: str) -> None:
    adapter = block(name, **options)
    params, inputs = randomised(adapter), features()
    double = {key: tensor.double() for key, tensor in params.items()}
    groups = [g for g in adapter.spec.symmetries if change == "permuted" or g.rescale]
    assert groups
    for seed, group in enumerate(groups):
        moved = CHANGES[change](double, group, torch.Generator().manual_seed(seed))
        assert group.size == 1 or any(not torch.equal(moved[key], double[key]) for key in double)
        torch.testing.assert_close(
            evaluate(adapter, moved, inputs), evaluate(adapter, double, inputs), rtol=1e-5, atol=1e-5
        )


@each_block
def test_what_is_read_has_the_symmetries_it_announces(name: str, options: dict[str, Any]) -> None:
    """Permuting a block, then reading it, is reading it, then permuting by the groups of the reading."""
    adapter = block(name, **options)
    params = randomised(adapter)
    names = {group.name for group in adapter.spec.symmetries}
    assert {group.name for group in adapter.reading.symmetries} == names
    for own, read in zip(adapter.spec.symmetries, adapter.reading.symmetries, strict=True):
        moved = adapter.read(permuted(params, own, torch.Generator().manual_seed(1)))
        wanted = permuted(adapter.read(params), read, torch.Generator().manual_seed(1))
        assert all(torch.equal(moved[key], wanted[key]) for key in moved)


@each_block
def test_symmetries_name_axes_that_exist(name: str, options: dict[str, Any]) -> None:
    adapter = block(name, **options)
    for spec in (adapter.spec, adapter.reading):
        shapes = {tensor.name: tensor.shape for tensor in spec.tensors}
        for group in spec.symmetries:
            assert [shapes[m.tensor][m.axis] for m in group.members] == [group.size] * len(group.members)


@pytest.mark.parametrize("options", [{}, {"hidden": 3, "kernel": 1}, {"hidden": 5, "kernel": 5}], ids=str)
def test_a_folded_basic_block_is_a_conv_block_with_biases(options: dict[str, Any]) -> None:
    source = block("basic_block", **options)
    folded = source.read(randomised(source))
    target = block("conv", bias=True, hidden=source.hidden, kernel=source.options.kernel)
    assert {t.name: t.shape for t in target.spec.tensors} == {t.name: t.shape for t in source.reading.tensors}
    close(evaluate(target, folded, features()), evaluate(source, randomised(source), features()))


@pytest.mark.parametrize("options", [{"kernel": 2}, {"kernel": 0}, {"hidden": 0}, {"channels": 0}, {"hidden": -1}])
@pytest.mark.parametrize("name", ["basic_block", "conv"])
def test_sizes_that_make_no_block_are_refused(name: str, options: dict[str, Any]) -> None:
    model = REGISTRY.load("block_adapter", name).Options
    with pytest.raises(ValidationError):
        model(**{"channels": CHANNELS, "hidden": 2, **options})


# Translators


class Slot(Task):
    """A host with a slot of four channels, and a few random images."""

    slot = FeatureSpec(CHANNELS, 4, 4)

    def former(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU())

    def latter(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * 16, 3))

    def stream(self) -> dict[str, int]:
        return {"former.0.weight": 0, "former.1.weight": 0, "former.1.bias": 0}

    def split(self, name: str) -> Split:
        generator = torch.Generator().manual_seed(12)
        return Split(torch.randint(256, (9, 1, 4, 4), generator=generator), torch.zeros(9, dtype=torch.long))

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return (
            nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
            .view(labels.shape)
            .mean(1)
        )

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return 100.0 * (outputs.argmax(-1) == labels)


@cache
def around(seeds: tuple[int, ...]) -> tuple[Params, Params]:
    """Former and latter blocks, which no test may change."""
    task = Slot(Slot.Options())
    return initial(task.former, seeds), initial(task.latter, seeds)


def hosts(source: BlockAdapter, target: BlockAdapter | None, count: int = MODELS, seed: int = 0) -> Hosts:
    task = Slot(Slot.Options())
    seeds = tuple(range(seed, seed + count))
    trained = None if target is None else randomised(target, count, seed + 50)
    former, latter = around(seeds)
    return Hosts(former, randomised(source, count, seed), latter, trained, seeds, task.stream())


def translator(name: str, source: BlockAdapter, target: BlockAdapter, seed: int = 0, **options: Any) -> Any:
    """A translator as it is somewhere in training: statistics set, and no weight where it started."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = REGISTRY.create("translator", name, source, target, **{**TRANSLATORS[name], **options})
        start(made, hosts(source, None, 8))
        for parameter in made.parameters():  # a new one may write nothing but its template
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return made


def context(made: Any, found: Hosts) -> Context:
    return Context(found, HostRunner(Slot(Slot.Options()), made.source, made.target))


def start(made: Any, found: Hosts) -> None:
    made.start(made.source.read(found.source), context(made, found))


def forward(made: Any, found: Hosts) -> Params:
    written: Params = made(made.source.read(found.source), context(made, found))
    return written


def translate(made: Any, found: Hosts) -> Params:
    written: Params = made.translate(found.source, context(made, found))
    return written


def without_gradient(made: Any, written: Params) -> list[str]:
    """Parameters that a random function of the written values does not reach, or where its gradient is not finite."""
    generator = torch.Generator().manual_seed(6)
    sum((t * torch.randn(t.shape, generator=generator)).sum() for t in written.values()).backward()
    return [
        key for key, p in made.named_parameters() if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()
    ]


PAIRS = list(itertools.product(CASES, CASES))


@each_translator
def test_every_pair_of_blocks_is_translated_with_gradients_for_every_parameter(name: str) -> None:
    for (source_name, source_options), (target_name, target_options) in PAIRS:
        source, target = block(source_name, **source_options), block(target_name, **target_options)
        made = translator(name, source, target)
        written = forward(made, hosts(source, None))
        where = f"{source_name} {source_options} → {target_name} {target_options}"
        stacks.check(written, target.spec, where)
        assert all((written[t.name] > 0).all() for t in target.spec.tensors if t.positive), where
        assert without_gradient(made, written) == [], where


@each_token_translator
def test_without_a_template_gradients_reach_every_parameter_too(name: str) -> None:
    source, target = block("basic_block"), block("attention")
    made = translator(name, source, target, start="none")
    assert without_gradient(made, forward(made, hosts(source, None))) == []


@each_translator
def test_models_are_translated_independently_of_each_other(name: str) -> None:
    source, target = block("basic_block", hidden=3), block("basic_block", hidden=2)
    made, found = translator(name, source, target, dropout=0.5), hosts(source, None, 6)
    whole, some = translate(made, found), translate(made, found.pick([4, 1]))
    for key, tensor in some.items():
        torch.testing.assert_close(tensor, whole[key][[4, 1]], rtol=1e-5, atol=1e-6)
    assert all(not torch.equal(whole[key][0], whole[key][1]) for key in whole)


@each_translator
def test_the_same_seed_gives_the_same_translation_and_another_seed_another(name: str) -> None:
    source, target = block("mlp", hidden=3), block("conv", hidden=2)
    found = hosts(source, None)
    one, same, other = (translate(translator(name, source, target, seed), found) for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@each_translator
def test_translating_needs_no_gradient_and_keeps_the_mode_and_the_input(name: str) -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    made, found = translator(name, source, target, dropout=0.5).train(), hosts(source, None)
    before = {key: tensor.clone() for key, tensor in found.source.items()}
    one, again = translate(made, found), translate(made, found)
    assert made.training
    assert all(torch.equal(one[key], again[key]) and not one[key].requires_grad for key in one)
    assert all(torch.equal(found.source[key], before[key]) for key in before)


@each_token_translator
@pytest.mark.parametrize("target", ["conv", "basic_block", "mlp", "attention"])
def test_a_new_translator_starts_at_a_sane_block(name: str, target: str) -> None:
    """With the template start it writes one default-initialised block, whatever it reads."""
    source, adapter = block("basic_block"), block(target, **BLOCKS[target][0])
    made = REGISTRY.create("translator", name, source, adapter, **TRANSLATORS[name])
    written = translate(made, hosts(source, None))
    for spec in adapter.spec.tensors:
        default = initial(adapter.module, [0])[spec.name]
        tensor = written[spec.name]
        torch.testing.assert_close(tensor[0], tensor[1])
        if spec.kind.startswith("norm"):
            torch.testing.assert_close(tensor[:1], default)
        else:
            assert 0 < tensor.abs().max() <= 3 * default.abs().max()


@each_translator
def test_source_values_that_never_vary_do_no_harm(name: str) -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    found = hosts(source, None)
    constant = Hosts(
        found.former, {k: torch.ones_like(t) for k, t in found.source.items()}, found.latter, stream=found.stream
    )
    made = translator(name, source, target)
    start(made, constant)
    assert all(tensor.isfinite().all() for tensor in forward(made, constant).values())


@each_translator
@pytest.mark.filterwarnings("ignore:std")
def test_a_single_training_source_does_no_harm(name: str) -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    made, found = translator(name, source, target), hosts(source, None, 1)
    start(made, found)
    assert all(tensor.isfinite().all() for tensor in forward(made, found).values())


@each_translator
@pytest.mark.parametrize("target", ["conv", "basic_block"])
def test_a_saved_translator_has_the_same_state_and_translations(name: str, target: str, tmp_path: Any) -> None:
    source, adapter = block("basic_block"), block(target, **BLOCKS[target][0])
    made, found = translator(name, source, adapter), hosts(source, None)
    described = [
        ComponentConfig.model_validate({"name": n, **a.options.model_dump(mode="json")})
        for n, a in (("basic_block", source), (target, adapter))
    ]
    save_translator(tmp_path, made, name, *described)
    loaded = load_translator(tmp_path)
    assert made.state_dict().keys() == loaded.state_dict().keys()
    assert all(torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in made.state_dict().items())
    one, other = translate(made, found), translate(loaded, found)
    assert all(torch.equal(one[key], other[key]) for key in one)


@each_fixed_translator
def test_fixed_translators_write_every_pair_of_blocks_or_say_that_it_does_not_fit(name: str) -> None:
    fits = 0
    for (source_name, source_options), (target_name, target_options) in PAIRS:
        source, target = block(source_name, **source_options), block(target_name, **target_options)
        found = hosts(source, None)
        before = {key: tensor.clone() for key, tensor in found.source.items()}
        try:
            written = probed(name, source, target, found)
        except SpecMismatch as error:
            assert len(str(error)) > 20
            continue
        fits += 1
        where = f"{source_name} {source_options} → {target_name} {target_options}"
        stacks.check(written, target.spec, where)
        assert all(tensor.isfinite().all() for tensor in written.values()), where
        assert all((written[t.name] > 0).all() for t in target.spec.tensors if t.positive), where
        assert all(torch.equal(found.source[key], before[key]) for key in before), where
    assert fits


@each_fixed_translator
@pytest.mark.parametrize("target", ["conv", "mlp"])
def test_fixed_translators_treat_each_model_alone_and_always_alike(name: str, target: str) -> None:
    source, adapter = block("basic_block", hidden=3), block(target, **BLOCKS[target][0])
    found, start = hosts(source, None, 6), randomised(adapter, 6, seed=30)
    torch.manual_seed(1)
    whole = probed(name, source, adapter, found, start)
    torch.manual_seed(2)
    again = probed(name, source, adapter, found, start)
    some = probed(name, source, adapter, found.pick([4, 1]), stacks.take(start, [4, 1]))
    for key, tensor in whole.items():
        assert torch.equal(tensor, again[key])
        torch.testing.assert_close(some[key], tensor[[4, 1]], rtol=1e-4, atol=1e-4)


@each_fixed_translator
def test_fixed_translators_need_probes_and_say_so(name: str) -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    made = REGISTRY.create("translator", name, source, target, **FIXED[name])
    found = hosts(source, None)
    if not made.needs_probes:
        stacks.check(made.translate(found.source), target.spec, name)
        return
    for lacking in (None, context(made, found)):
        with pytest.raises(SpecMismatch, match=r"give it a context with .*probes"):
            made.translate(found.source, lacking)


@each_fixed_translator
def test_fixed_translators_are_saved(name: str, tmp_path: Any) -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    made = REGISTRY.create("translator", name, source, target, **FIXED[name])
    described = [
        ComponentConfig.model_validate({"name": n, **a.options.model_dump(mode="json")})
        for n, a in (("basic_block", source), ("conv", target))
    ]
    save_translator(tmp_path, made, name, *described)
    loaded = load_translator(tmp_path)
    assert type(loaded) is type(made) and loaded.options == made.options


def probed(name: str, source: BlockAdapter, target: BlockAdapter, found: Hosts, start: Params | None = None) -> Params:
    """What a translator makes of the hosts' blocks by means of a dozen images."""
    made = REGISTRY.create("translator", name, source, target, **FIXED[name])
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(13))
    written: Params = made.translate(found.source, replace(context(made, found), inputs=images, start=start))
    return written


# Augmenters


@each_augmenter
def test_augmenters_are_seeded_keep_shapes_and_do_not_touch_their_input(name: str) -> None:
    augment = REGISTRY.create("augmenter", name, **AUGMENTERS[name])
    params = randomised(block("basic_block"), 8)
    before = {key: tensor.clone() for key, tensor in params.items()}
    torch.manual_seed(1)
    one = augment(params, torch.Generator().manual_seed(3))
    torch.manual_seed(2)
    same, other = (augment(params, torch.Generator().manual_seed(seed)) for seed in (3, 4))
    assert list(one) == list(params)
    assert all(one[key].shape == params[key].shape and one[key].dtype == params[key].dtype for key in params)
    assert all(torch.equal(params[key], before[key]) for key in before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    assert any(not torch.equal(one[key], params[key]) for key in one)


@each_augmenter
def test_augmenters_of_strength_zero_change_nothing_and_wrong_strengths_are_refused(name: str) -> None:
    [option] = AUGMENTERS[name]
    params = randomised(block("conv", hidden=2))
    same = REGISTRY.create("augmenter", name, **{option: 0})(params, torch.Generator().manual_seed(0))
    assert all(torch.equal(same[key], params[key]) for key in params)
    with pytest.raises(ConfigError):
        REGISTRY.create("augmenter", name, **{option: -0.1})


def test_masking_sets_the_given_share_to_zero_and_keeps_the_rest() -> None:
    params = {"w": 1 + torch.rand(4, 100, 100)}
    masked = REGISTRY.create("augmenter", "mask", share=0.3)(params, torch.Generator().manual_seed(0))["w"]
    gone = masked == 0
    assert torch.equal(masked[~gone], params["w"][~gone])
    assert abs(gone.float().mean().item() - 0.3) < 0.01
    assert not torch.equal(gone[0], gone[1])


def test_noise_has_the_given_deviation() -> None:
    params = {"w": torch.ones(4, 100, 100)}
    noisy = REGISTRY.create("augmenter", "noise", scale=0.2)(params, torch.Generator().manual_seed(0))["w"]
    assert abs((noisy - 1).std().item() - 0.2) < 0.005 and abs((noisy - 1).mean().item()) < 0.005


# Objectives and rivals


def batch(found: Hosts) -> Batch:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.rand(len(found), BATCH, 1, 4, 4, generator=generator)
    return Batch(found, found.target, inputs, torch.randint(3, (len(found), BATCH), generator=generator))


OBJECTIVE_CASES = [(name, options) for name, some in OBJECTIVES.items() for options in some]
each_objective = pytest.mark.parametrize(("name", "options"), OBJECTIVE_CASES, ids=str)


@each_objective
@pytest.mark.parametrize("target", BLOCKS)
def test_objectives_are_finite_scalars_whose_gradient_reaches_every_tensor_statistics_too(
    name, options, target
) -> None:
    source, adapter = block("basic_block"), block(target, **BLOCKS[target][0])
    objective = REGISTRY.create("objective", name, HostRunner(Slot(Slot.Options()), source, adapter), **options)
    found = hosts(source, adapter)
    predicted = {key: tensor.requires_grad_() for key, tensor in randomised(adapter, MODELS, 77).items()}
    loss = objective(predicted, batch(found))
    assert loss.shape == () and loss.isfinite() and loss > 0
    loss.backward()
    for tensor in adapter.spec.tensors:
        gradient = predicted[tensor.name].grad
        assert gradient is not None and gradient.isfinite().all(), tensor.name
        assert gradient.flatten(1).abs().sum(1).min() > 0, tensor.name
    assert all(t.grad is None and not t.requires_grad for part in found.parts().values() for t in part.values())


@each_objective
def test_an_objective_does_not_change_the_hosts(name: str, options: dict[str, Any]) -> None:
    source = block("basic_block")
    objective = REGISTRY.create("objective", name, HostRunner(Slot(Slot.Options()), source, source), **options)
    found = hosts(source, source)
    before = {part: {k: t.clone() for k, t in params.items()} for part, params in found.parts().items()}
    predicted = randomised(source, MODELS, 77)
    kept = {key: tensor.clone() for key, tensor in predicted.items()}
    objective(predicted, batch(found))
    assert all(torch.equal(before[part][k], t) for part, params in found.parts().items() for k, t in params.items())
    assert all(torch.equal(predicted[key], kept[key]) for key in kept)


@pytest.mark.parametrize("options", [{}, {"features": 0, "outputs": 1}], ids=str)
@pytest.mark.parametrize("name", BLOCKS)
def test_the_functional_objective_is_zero_where_the_prediction_is_the_source(name: str, options: dict) -> None:
    adapter = block(name, **BLOCKS[name][0])
    objective = REGISTRY.create(
        "objective", "functional", HostRunner(Slot(Slot.Options()), adapter, adapter), **options
    )
    found = hosts(adapter, None)
    assert objective(dict(found.source), batch(found)).abs() < 1e-6
    assert objective(randomised(adapter, MODELS, 77), batch(found)) > 1e-5


def test_the_functional_objective_is_blind_to_symmetries() -> None:
    adapter = block("conv", hidden=3)
    objective = REGISTRY.create("objective", "functional", HostRunner(Slot(Slot.Options()), adapter, adapter))
    found = hosts(adapter, None)
    [group] = adapter.spec.symmetries
    moved = permuted(found.source, group, torch.Generator().manual_seed(3))
    assert objective(moved, batch(found)).abs() < 1e-6


def test_parameter_mse_is_zero_at_the_trained_target_and_needs_one() -> None:
    from paramtrans.errors import TrainingError

    source, target = block("basic_block"), block("conv", hidden=2)
    objective = REGISTRY.create("objective", "mse", HostRunner(Slot(Slot.Options()), source, target))
    found = hosts(source, target)
    assert objective.needs_targets and objective(dict(found.target), batch(found)) == 0
    with pytest.raises(TrainingError, match=r"zoo\.pairs"):
        objective(dict(found.target), batch(hosts(source, None)))


def case(source: BlockAdapter, target: BlockAdapter, seed: int = 0) -> RivalCase:
    return RivalCase(hosts(source, None, 4, seed=20), hosts(source, target, 6), source, target, seed)


@each_rival
@pytest.mark.parametrize("target", BLOCKS)
def test_rivals_fill_every_tensor_and_do_so_again(name: str, target: str) -> None:
    source, adapter = block("basic_block"), block(target, **BLOCKS[target][0])
    rival = REGISTRY.create("rival", name)
    torch.manual_seed(1)
    one = rival.fill(case(source, adapter))
    torch.manual_seed(2)
    again = rival.fill(case(source, adapter))
    stacks.check(one, adapter.spec, name)
    assert stacks.models(one) == 4
    assert all(torch.equal(one[key], again[key]) and one[key].isfinite().all() for key in one)
    assert all((one[t.name] > 0).all() for t in adapter.spec.tensors if t.positive)


@each_rival
def test_rivals_run_without_pairs_unless_they_say_that_they_need_them(name: str) -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    rival = REGISTRY.create("rival", name)
    assert rival.needs_pairs == name.endswith("_replacement")
    if not rival.needs_pairs:
        filled = rival.fill(RivalCase(hosts(source, None, 4), None, source, target, 0))
        assert stacks.models(filled) == 4


@pytest.mark.parametrize("name", PROBES)
def test_probes_are_network_inputs_seeded_and_in_the_range_of_the_tasks_own(name: str) -> None:
    source = block("basic_block")
    probes = REGISTRY.create("probe", name, **{"count": 6, **PROBES[name]})
    task, found = Slot(Slot.Options()), hosts(source, None)

    def draw(seed: int) -> Tensor:
        return probes.draw(ProbeCase((1, 4, 4), torch.Generator().manual_seed(seed), task, found, source))

    torch.manual_seed(1)
    one = draw(3)
    torch.manual_seed(2)
    assert torch.equal(one, draw(3)) and not torch.equal(one, draw(4))
    assert one.shape == ((MODELS, 6, 1, 4, 4) if probes.own_inputs else (6, 1, 4, 4))
    assert one.dtype == torch.float32 and not one.requires_grad and one.min() >= 0 and one.max() <= 1
    assert probes.real == (name == "images")
    made = Context(found, HostRunner(task, source, source), one, own_inputs=probes.own_inputs)
    [entering] = made.entering()
    assert entering.reached.shape == (MODELS, 6, CHANNELS, 4, 4)
    [part] = made.pick([2, 0]).entering()
    torch.testing.assert_close(part.reached, entering.reached[[2, 0]])


def test_a_zero_block_passes_the_residual_alone() -> None:
    target = block("attention")
    filled = REGISTRY.create("rival", "zero_block").fill(case(block("basic_block"), target))
    torch.testing.assert_close(evaluate(target, filled, features(4)), features(4).double())


def test_random_initialisation_is_of_the_hosts_own_seed_and_of_the_rivals() -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    rival, whole = REGISTRY.create("rival", "random_init"), case(source, target)
    filled = rival.fill(whole)["conv1.weight"]
    part = rival.fill(RivalCase(whole.hosts.pick([2]), None, source, target, 0))["conv1.weight"]
    other = rival.fill(case(source, target, seed=1))["conv1.weight"]
    assert torch.equal(filled[2], part[0]) and len(filled.unique(dim=0)) == 4 and not torch.equal(filled, other)


@pytest.mark.parametrize("name", ["random_replacement", "greedy_replacement"])
def test_replacements_are_trained_targets_of_pairs(name: str) -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    this = case(source, target)
    filled = REGISTRY.create("rival", name).fill(this)
    for i in range(4):
        matches = [j for j in range(6) if all(torch.equal(filled[key][i], this.pairs.target[key][j]) for key in filled)]
        assert len(matches) == 1


def test_greedy_replacement_takes_the_nearest_source() -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    this = case(source, target)
    near = this.pairs.pick([5, 0, 3])
    moved = {key: tensor + 1e-4 for key, tensor in near.source.items()}
    filled = REGISTRY.create("rival", "greedy_replacement").fill(
        RivalCase(Hosts(near.former, moved, near.latter, None, near.seeds), this.pairs, source, target, 0)
    )
    assert all(torch.equal(filled[key], near.target[key]) for key in filled)


def test_specifications_count_values() -> None:
    paper = REGISTRY.create("block_adapter", "basic_block", channels=6).spec
    assert isinstance(paper, BlockSpec)
    assert (paper.parameters, paper.numel) == (2 * 324 + 24, 2 * 324 + 48)
