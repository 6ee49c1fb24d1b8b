"""What the equivariant translator promises beyond the battery: symmetry, any width, and probes of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from paramtrans import Context, FeatureSpec, Hosts, Split, Task, components
from paramtrans.api.modules import initial
from paramtrans.api.stacking import Params
from paramtrans.backends.host_runner import HostRunner, network
from paramtrans.backends.vmap import block_stacked
from paramtrans.errors import ConfigError, SpecMismatch
from paramtrans.ops.symmetry import balance, random_orbit

CHANNELS, MODELS = 4, 3
OWN = {"probes": 3, "input": [1, 6, 6], "rounds": 3, "layers": 1}
POINTWISE: dict[str, Any] = {"kernel": 1, "padding": 0, "norm": None}
TARGETS: dict[str, dict[str, Any]] = {
    "conv": {"hidden": 2},
    "mlp": {"hidden": 5},
    "attention": {},
    "bottleneck": {"hidden": [3, 2]},  # a convolution between two groups of units
    "conv_chain": {
        "hidden": [2, 3, 2],
        "steps": [*[POINTWISE] * 3, POINTWISE | {"activation": None}],
    },  # units that only such layers write and read
}


class Slot(Task):
    """A host around a slot of four channels."""

    slot = FeatureSpec(CHANNELS, 6, 6)

    def former(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU())

    def latter(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(CHANNELS, 2, 1), nn.Flatten(), nn.Linear(72, 3))

    def stream(self) -> dict[str, int]:
        norm = {f"former.1.{name}": 0 for name in ("weight", "bias", "running_mean", "running_var")}
        return {"former.0.weight": 0, "former.0.bias": 0, **norm, "latter.0.weight": 1}

    def split(self, name: str) -> Split:
        raise NotImplementedError

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError


TASK = Slot(Slot.Options())
VALUES = 9 + 1 + 4 + 2
"""Those of former and latter that the task declares for each channel."""


def adapter(name: str, **options: Any) -> Any:
    return components().create("block_adapter", name, channels=CHANNELS, **options)


SOURCE = adapter("basic_block")


def hosts(count: int = MODELS, seed: int = 0) -> Hosts:
    """Untrained hosts whose normalisation is far from its defaults, in double precision."""
    whole = initial(lambda: network(TASK, SOURCE), range(seed, seed + count))
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in whole.items():
        if "bn" in name or name.startswith("former.1"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + (-0.5 if name.endswith("bias") else 0.5))
    double = {name: tensor.double() for name, tensor in whole.items()}
    return Hosts.from_network(double, stream=TASK.stream())


def context(target: Any, around: Hosts) -> Context:
    return Context(around, HostRunner(TASK, SOURCE, target))


def translator(target: Any, seed: int = 0, further: Sequence[Any] = (), **options: Any) -> Any:
    """One whose weights have left where they started."""
    torch.manual_seed(seed)
    model = components().create("translator", "equivariant", SOURCE, target, width=8, heads=2, **options)
    for other in further:
        model.add_family(other)
    model.double().start(SOURCE.read(hosts(8).source), context(target, hosts(8)))
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def permuted(given: Hosts, order: Tensor) -> Hosts:
    """The same hosts with the channels of the slot in another order."""
    parts = {"former": dict(given.former), "latter": dict(given.latter), "source": dict(given.source)}
    for path, axis in TASK.stream().items():
        part, _, leaf = path.partition(".")
        parts[part][leaf] = parts[part][leaf].index_select(axis + 1, order)
    for member in SOURCE.spec.stream:
        parts["source"][member.tensor] = parts["source"][member.tensor].index_select(member.axis + 1, order)
    return replace(given, **parts)


def function(target: Any, params: Params, inputs: Tensor) -> Tensor:
    return block_stacked(target)(params, inputs)


def features() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(MODELS, 5, CHANNELS, 6, 6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, OWN], ids=["block alone", "own probes"])
@pytest.mark.parametrize("name", TARGETS)
def test_permuting_and_rescaling_the_sources_units_changes_nothing(name: str, options: dict[str, Any]) -> None:
    target, before = adapter(name, **TARGETS[name]), hosts()
    model = translator(target, surroundings=VALUES, **options)
    moved = replace(before, source=random_orbit(before.source, SOURCE.spec, torch.Generator().manual_seed(3)))
    first, second = (
        function(target, model.translate(h.source, context(target, h)), features()) for h in (before, moved)
    )
    assert not torch.equal(before.source["conv2.weight"], moved.source["conv2.weight"])
    assert (first - second).abs().max() <= 1e-9 * first.abs().max()


@pytest.mark.parametrize("options", [{}, OWN], ids=["block alone", "own probes"])
@pytest.mark.parametrize("name", TARGETS)
def test_permuting_the_channels_of_the_host_permutes_those_of_the_target(name: str, options: dict[str, Any]) -> None:
    target, before, order = adapter(name, **TARGETS[name]), hosts(), torch.tensor([2, 0, 3, 1])
    model, moved = translator(target, surroundings=VALUES, **options), permuted(before, order)
    first, second = (model.translate(h.source, context(target, h)) for h in (before, moved))
    wanted = function(target, first, features())[:, :, order]
    assert (function(target, second, features()[:, :, order]) - wanted).abs().max() <= 1e-9 * wanted.abs().max()


@pytest.mark.parametrize("name", ["conv", "mlp", "basic_block", "bottleneck"])
def test_one_set_of_weights_reads_and_writes_blocks_of_any_width(name: str) -> None:
    sizes = [(n, n + 1) if name == "bottleneck" else n for n in (2, 1, 3, 4, 9)]
    narrow, given = translator(adapter(name, hidden=sizes[0]), **OWN), hosts()
    for hidden in sizes[1:]:
        target = adapter(name, hidden=hidden)
        resized = narrow.resized(SOURCE, target)
        fresh = translator(target, seed=1, **OWN)
        fresh.load_state_dict(narrow.state_dict())
        written, wanted = (model.translate(given.source, context(target, given)) for model in (resized, fresh))
        assert [tuple(t.shape[1:]) for t in written.values()] == [t.shape for t in target.spec.tensors]
        assert all(t.isfinite().all() and torch.equal(t, wanted[key]) for key, t in written.items())
    assert all(ours is theirs for ours, theirs in zip(narrow.parameters(), resized.parameters(), strict=True))
    assert narrow.translate(given.source, context(narrow.target, given))  # and it keeps its own size


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("first", ["conv", "attention", "bottleneck"])
def test_each_of_several_families_is_written_as_equivariantly_as_one_alone(name: str, first: str) -> None:
    """Whichever of them was first; units are permuted and rescaled, then channels permuted."""
    first_family, *further = (
        adapter(kind, **TARGETS[kind]) for kind in sorted(TARGETS, key=lambda kind: kind != first)
    )
    target, before, order = adapter(name, **TARGETS[name]), hosts(), torch.tensor([2, 0, 3, 1])
    model = translator(first_family, further=further, surroundings=VALUES, **OWN).resized(SOURCE, target)
    written = model.translate(before.source, context(target, before))
    moved = replace(before, source=random_orbit(before.source, SOURCE.spec, torch.Generator().manual_seed(3)))
    same, wanted = (
        function(target, p, features()) for p in (written, model.translate(moved.source, context(target, moved)))
    )
    assert (same - wanted).abs().max() <= 1e-9 * wanted.abs().max()
    moved = permuted(before, order)
    other = model.translate(moved.source, context(target, moved))
    assert (
        function(target, other, features()[:, :, order]) - wanted[:, :, order]
    ).abs().max() <= 1e-9 * wanted.abs().max()


def test_families_share_what_is_read_and_differ_by_their_tokens() -> None:
    conv, mlp = adapter("conv", hidden=2), adapter("mlp", hidden=5)
    both, given = translator(conv, further=[mlp]), hosts()
    alone = translator(conv)
    assert alone.state_dict().keys() < both.state_dict().keys()
    added = {name for name, _ in both.named_parameters()} - {name for name, _ in alone.named_parameters()}
    assert all(name.startswith("tokens.") or "family1_" in name for name in added)
    for target, its_names, other_names in (
        (conv, {"tokens.0"}, added - {"tokens.0"}),
        (mlp, added - {"tokens.0"}, {"tokens.0"}),
    ):
        both.zero_grad()
        written = both.resized(SOURCE, target)(SOURCE.read(given.source), context(target, given))
        torch.stack([t.square().sum() for t in written.values()]).sum().backward()
        reached = {key for key, p in both.named_parameters() if p.grad is not None}
        shared = {"embed.group_hidden.linear.weight", "rounds.0.layers.0.mlp.1.weight"}
        assert its_names | shared <= reached and reached.isdisjoint(other_names)
        assert ("rounds.0.heads.group_hidden.weight" in reached) == (target is conv)


def test_a_source_with_a_layer_between_two_groups_of_units_is_refused_by_name() -> None:
    with pytest.raises(SpecMismatch, match=r"the source's conv2\.weight stands between two groups of units"):
        components().create("translator", "equivariant", adapter("bottleneck"), adapter("conv", hidden=2))


def test_adding_a_family_changes_nothing_that_was_there() -> None:
    conv, mlp = adapter("conv", hidden=2), adapter("mlp", hidden=5)
    grown, given = translator(conv, **OWN), hosts()
    before, written = grown.state_dict(), grown.translate(given.source, context(conv, given))
    grown.add_family(mlp)
    grown.double().add_family(adapter("mlp", hidden=3))  # of a family that it knows by now
    assert [target.options.hidden for target in grown.families] == [2, 5]
    after = grown.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    again = grown.translate(given.source, context(conv, given))
    assert all(torch.equal(again[name], tensor) for name, tensor in written.items())


def test_a_family_that_was_not_added_is_named_with_those_that_were() -> None:
    both = translator(adapter("conv", hidden=2), further=[adapter("mlp", hidden=5)])
    with pytest.raises(SpecMismatch, match=r"Attention \(channels=4.*another family than .*: Conv \(.*; MLP \("):
        both.resized(SOURCE, adapter("attention"))
    with pytest.raises(SpecMismatch, match=r"Conv \(.*bias=True\), is of another family"):
        both.resized(SOURCE, adapter("conv", hidden=2, bias=True))


def test_balancing_keeps_the_function_and_undoes_rescaling() -> None:
    source = hosts().source
    moved = random_orbit(source, SOURCE.spec, torch.Generator().manual_seed(3))
    first, second = (SOURCE.read(balance(params, SOURCE.spec)) for params in (source, moved))
    assert (
        function(SOURCE, balance(source, SOURCE.spec), features()) - function(SOURCE, source, features())
    ).abs().max() < 1e-9
    for name in ("conv1.weight", "conv2.weight"):
        assert torch.allclose(first[name].flatten(1).norm(dim=1), second[name].flatten(1).norm(dim=1), rtol=1e-9)


def test_a_target_that_can_do_what_the_source_does_is_made_to() -> None:
    """All units are kept, and the first convolution is where it starts; the second one is found on the probes."""
    target, given = adapter("conv", hidden=CHANNELS, bias=True), hosts()
    given.source["bn2.bias"] += 5  # so that the ReLU hides nothing
    model = (
        components()
        .create("translator", "equivariant", SOURCE, target, probes=16, input=[1, 6, 6], ridge=1e-6)
        .double()
    )
    written = model.translate(given.source, context(target, given))
    seen = model.probes(model.run_source, context(target, given))
    error = (function(target, written, seen.entering) - seen.wanted).abs().max()
    assert error < 0.01 * (seen.wanted - seen.entering).abs().max()


def test_positions_that_nothing_reads_are_left_out_of_the_regression() -> None:
    target, given = adapter("conv", hidden=2), hosts()
    given.latter["0.weight"][:] = 1
    given.latter["2.weight"].view(MODELS, 3, 2, 6, 6)[..., 3:] = 0
    worth = {}
    for weigh in (True, False):
        model = translator_with(target, probes=4, input=[1, 6, 6], weigh=weigh).double()
        written = model.translate(given.source, context(target, given))
        seen = model.probes(model.run_source, context(target, given))
        error = (function(target, written, seen.entering) - seen.wanted)[..., :3].square().mean()
        worth[weigh] = error
        assert bool((seen.weights[..., 3:] == 0).all()) == weigh
    assert worth[True] < worth[False]


def test_probes_are_learned_and_need_a_host() -> None:
    target, given = adapter("conv", hidden=2), hosts()
    learner = translator(target, **OWN)
    learner(SOURCE.read(given.source), context(target, given))["conv2.weight"].square().sum().backward()
    assert learner.probes.inputs.grad.abs().sum() > 0
    with pytest.raises(SpecMismatch, match="hosts and a runner"):
        learner.translate(given.source)
    wrong = translator_with(target, probes=2, input=[3, 6, 6]).double()
    with pytest.raises(SpecMismatch, match=r"translator\.input: .*\[3, 6, 6\]"):
        wrong.translate(given.source, context(target, given))


def translator_with(target: Any, **options: Any) -> Any:
    return components().create("translator", "equivariant", SOURCE, target, **options)


@pytest.mark.parametrize("options", [{"probes": 2}, {"rounds": 2}, {"width": 9}])
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        translator_with(adapter("conv", hidden=2), **options)
