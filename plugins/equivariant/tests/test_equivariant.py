"""What the equivariant translator promises beyond the battery: symmetry, any width, and probes of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from paramtrans_equivariant.probing import Seen, SolvedReadout
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
TARGETS = {"conv": {"hidden": 2}, "mlp": {"hidden": 5}, "attention": {}}


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


def context(target: Any, found: Hosts) -> Context:
    return Context(found, HostRunner(TASK, SOURCE, target))


def translator(target: Any, seed: int = 0, further: Sequence[Any] = (), **options: Any) -> Any:
    """One whose weights have left where they started."""
    torch.manual_seed(seed)
    made = components().create("translator", "equivariant", SOURCE, target, width=8, heads=2, **options)
    for other in further:
        made.add_family(other)
    made.double().start(SOURCE.read(hosts(8).source), context(target, hosts(8)))
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return made.eval()


def permuted(found: Hosts, order: Tensor) -> Hosts:
    """The same hosts with the channels of the slot in another order."""
    parts = {"former": dict(found.former), "latter": dict(found.latter), "source": dict(found.source)}
    for path, axis in TASK.stream().items():
        part, _, leaf = path.partition(".")
        parts[part][leaf] = parts[part][leaf].index_select(axis + 1, order)
    for member in SOURCE.spec.stream:
        parts["source"][member.tensor] = parts["source"][member.tensor].index_select(member.axis + 1, order)
    return replace(found, **parts)


def function(target: Any, params: Params, inputs: Tensor) -> Tensor:
    return block_stacked(target)(params, inputs)


def features() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(MODELS, 5, CHANNELS, 6, 6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("own", [{}, OWN], ids=["block alone", "own probes"])
@pytest.mark.parametrize("name", TARGETS)
def test_permuting_and_rescaling_the_sources_units_changes_nothing(name: str, own: dict[str, Any]) -> None:
    target, found = adapter(name, **TARGETS[name]), hosts()
    made = translator(target, surroundings=VALUES, **own)
    moved = replace(found, source=random_orbit(found.source, SOURCE.spec, torch.Generator().manual_seed(3)))
    one, other = (function(target, made.translate(h.source, context(target, h)), features()) for h in (found, moved))
    assert not torch.equal(found.source["conv2.weight"], moved.source["conv2.weight"])
    assert (one - other).abs().max() <= 1e-9 * one.abs().max()


@pytest.mark.parametrize("own", [{}, OWN], ids=["block alone", "own probes"])
@pytest.mark.parametrize("name", TARGETS)
def test_permuting_the_channels_of_the_host_permutes_those_of_the_target(name: str, own: dict[str, Any]) -> None:
    target, found, order = adapter(name, **TARGETS[name]), hosts(), torch.tensor([2, 0, 3, 1])
    made, moved = translator(target, surroundings=VALUES, **own), permuted(found, order)
    one, other = (made.translate(h.source, context(target, h)) for h in (found, moved))
    wanted = function(target, one, features())[:, :, order]
    assert (function(target, other, features()[:, :, order]) - wanted).abs().max() <= 1e-9 * wanted.abs().max()


@pytest.mark.parametrize("name", ["conv", "mlp", "basic_block"])
def test_one_set_of_weights_reads_and_writes_blocks_of_any_width(name: str) -> None:
    made, found = translator(adapter(name, hidden=2), **OWN), hosts()
    for hidden in (1, 3, 4, 9):
        target = adapter(name, hidden=hidden)
        resized = made.resized(SOURCE, target)
        fresh = translator(target, seed=1, **OWN)
        fresh.load_state_dict(made.state_dict())
        written, wanted = (each.translate(found.source, context(target, found)) for each in (resized, fresh))
        assert [tuple(t.shape[1:]) for t in written.values()] == [t.shape for t in target.spec.tensors]
        assert all(t.isfinite().all() and torch.equal(t, wanted[key]) for key, t in written.items())
    assert all(one is other for one, other in zip(made.parameters(), resized.parameters(), strict=True))
    assert made.translate(found.source, context(made.target, found))  # and it keeps its own size


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("first", TARGETS)
def test_each_of_several_families_is_written_as_equivariantly_as_one_alone(name: str, first: str) -> None:
    """Whichever of them was first; units are permuted and rescaled, then channels permuted."""
    own, *further = (adapter(each, **TARGETS[each]) for each in sorted(TARGETS, key=lambda each: each != first))
    target, found, order = adapter(name, **TARGETS[name]), hosts(), torch.tensor([2, 0, 3, 1])
    made = translator(own, further=further, surroundings=VALUES, **OWN).resized(SOURCE, target)
    one = made.translate(found.source, context(target, found))
    moved = replace(found, source=random_orbit(found.source, SOURCE.spec, torch.Generator().manual_seed(3)))
    same, wanted = (
        function(target, p, features()) for p in (one, made.translate(moved.source, context(target, moved)))
    )
    assert (same - wanted).abs().max() <= 1e-9 * wanted.abs().max()
    moved = permuted(found, order)
    other = made.translate(moved.source, context(target, moved))
    assert (
        function(target, other, features()[:, :, order]) - wanted[:, :, order]
    ).abs().max() <= 1e-9 * wanted.abs().max()


def test_families_share_what_is_read_and_differ_by_their_tokens() -> None:
    conv, mlp = adapter("conv", hidden=2), adapter("mlp", hidden=5)
    made, found = translator(conv, further=[mlp]), hosts()
    alone = translator(conv)
    assert alone.state_dict().keys() < made.state_dict().keys()
    added = {name for name, _ in made.named_parameters()} - {name for name, _ in alone.named_parameters()}
    assert all(name.startswith("tokens.") or "family1_" in name for name in added)
    for target, own, other in ((conv, {"tokens.0"}, added - {"tokens.0"}), (mlp, added - {"tokens.0"}, {"tokens.0"})):
        made.zero_grad()
        written = made.resized(SOURCE, target)(SOURCE.read(found.source), context(target, found))
        torch.stack([t.square().sum() for t in written.values()]).sum().backward()
        reached = {key for key, p in made.named_parameters() if p.grad is not None}
        shared = {"embed.group_hidden.linear.weight", "rounds.0.layers.0.mlp.1.weight"}
        assert own | shared <= reached and reached.isdisjoint(other)
        assert ("rounds.0.heads.group_hidden.weight" in reached) == (target is conv)


def test_adding_a_family_changes_nothing_that_was_there() -> None:
    conv, mlp = adapter("conv", hidden=2), adapter("mlp", hidden=5)
    made, found = translator(conv, **OWN), hosts()
    before, written = made.state_dict(), made.translate(found.source, context(conv, found))
    made.add_family(mlp)
    made.double().add_family(adapter("mlp", hidden=3))  # of a family that it knows by now
    assert [target.options.hidden for target in made.families] == [2, 5]
    after = made.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    again = made.translate(found.source, context(conv, found))
    assert all(torch.equal(again[name], tensor) for name, tensor in written.items())


def test_a_family_that_was_not_added_is_named_with_those_that_were() -> None:
    made = translator(adapter("conv", hidden=2), further=[adapter("mlp", hidden=5)])
    with pytest.raises(SpecMismatch, match=r"Attention \(channels=4.*another family than .*: Conv \(.*; MLP \("):
        made.resized(SOURCE, adapter("attention"))
    with pytest.raises(SpecMismatch, match=r"Conv \(.*bias=True\), is of another family"):
        made.resized(SOURCE, adapter("conv", hidden=2, bias=True))


def test_balancing_keeps_the_function_and_undoes_rescaling() -> None:
    source = hosts().source
    moved = random_orbit(source, SOURCE.spec, torch.Generator().manual_seed(3))
    one, other = (SOURCE.read(balance(params, SOURCE.spec)) for params in (source, moved))
    assert (
        function(SOURCE, balance(source, SOURCE.spec), features()) - function(SOURCE, source, features())
    ).abs().max() < 1e-9
    for name in ("conv1.weight", "conv2.weight"):
        assert torch.allclose(one[name].flatten(1).norm(dim=1), other[name].flatten(1).norm(dim=1), rtol=1e-9)


@pytest.mark.parametrize(("name", "options"), [*TARGETS.items(), ("conv", {"hidden": 2, "bias": True})], ids=str)
def test_the_readout_is_the_ridge_regression(name: str, options: dict[str, Any]) -> None:
    """At its solution the squared error has no slope, for a target whose ReLU hides nothing."""
    target = adapter(name, **options)
    entering = features()[:1] + 1
    wanted = entering + torch.rand_like(entering)  # positive everywhere, so that the ReLU hides nothing
    params = {key: t.double() for key, t in initial(target.module, [4]).items()}
    solved = SolvedReadout(target, ridge=1e-9)(params, Seen(entering, wanted, torch.ones(1, 1, 1, 1, 1)))
    module = target.module().double()
    module.load_state_dict({key: t[0] for key, t in solved.items()})
    weights = [
        module.get_parameter(f"{target.readout}.{key}")
        for key in ("weight", "bias")
        if f"{target.readout}.{key}" in solved
    ]
    branch = module.get_submodule(target.readout)(_entering(module, target, entering[0]))
    goal = (wanted - entering)[0] if name != "mlp" else (wanted - entering)[0].movedim(1, -1)
    gradients = torch.autograd.grad((branch - goal).square().mean(), weights)
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients)


def _entering(module: nn.Module, target: Any, inputs: Tensor) -> Tensor:
    found: Tensor = module.features(inputs)  # type: ignore[operator]
    return found.movedim(1, -1) if isinstance(module.get_submodule(target.readout), nn.Linear) else found


def test_a_target_that_can_do_what_the_source_does_is_made_to() -> None:
    """All units are kept, and the first convolution is where it starts; the second one is found on the probes."""
    target, found = adapter("conv", hidden=CHANNELS, bias=True), hosts()
    found.source["bn2.bias"] += 5  # so that the ReLU hides nothing
    made = (
        components()
        .create("translator", "equivariant", SOURCE, target, probes=16, input=[1, 6, 6], ridge=1e-6)
        .double()
    )
    written = made.translate(found.source, context(target, found))
    seen = made.probes(made.run_source, context(target, found))
    error = (function(target, written, seen.entering) - seen.wanted).abs().max()
    assert error < 0.01 * (seen.wanted - seen.entering).abs().max()


def test_positions_that_nothing_reads_are_left_out_of_the_regression() -> None:
    target, found = adapter("conv", hidden=2), hosts()
    found.latter["0.weight"][:] = 1
    found.latter["2.weight"].view(MODELS, 3, 2, 6, 6)[..., 3:] = 0
    worth = {}
    for weigh in (True, False):
        made = translator_with(target, probes=4, input=[1, 6, 6], weigh=weigh).double()
        written = made.translate(found.source, context(target, found))
        seen = made.probes(made.run_source, context(target, found))
        error = (function(target, written, seen.entering) - seen.wanted)[..., :3].square().mean()
        worth[weigh] = error
        assert bool((seen.weights[..., 3:] == 0).all()) == weigh
    assert worth[True] < worth[False]


def test_probes_are_learned_and_need_a_host() -> None:
    target, found = adapter("conv", hidden=2), hosts()
    made = translator(target, **OWN)
    made(SOURCE.read(found.source), context(target, found))["conv2.weight"].square().sum().backward()
    assert made.probes.inputs.grad.abs().sum() > 0
    with pytest.raises(SpecMismatch, match="hosts and a runner"):
        made.translate(found.source)
    wrong = translator_with(target, probes=2, input=[3, 6, 6]).double()
    with pytest.raises(SpecMismatch, match=r"translator\.input: .*\[3, 6, 6\]"):
        wrong.translate(found.source, context(target, found))


def translator_with(target: Any, **options: Any) -> Any:
    return components().create("translator", "equivariant", SOURCE, target, **options)


@pytest.mark.parametrize("options", [{"probes": 2}, {"rounds": 2}, {"width": 9}])
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        translator_with(adapter("conv", hidden=2), **options)
