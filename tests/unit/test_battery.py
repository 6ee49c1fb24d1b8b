"""Everything that comes with paramtrans through the conformance kit, and what each component promises beside that."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import paramtrans.testing.translators as translators
from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.modules import initial
from paramtrans.api.probes import ProbeCase
from paramtrans.api.specs import BlockSpec
from paramtrans.errors import ConfigError, TrainingError
from paramtrans.plugins import components
from paramtrans.testing import conformance, subjects
from paramtrans.testing.blocks import close
from paramtrans.testing.every import BASES
from paramtrans.testing.samples import (
    CHANNELS,
    MODELS,
    Slot,
    SlotOptions,
    batch,
    context,
    entering,
    evaluate,
    features,
    hosts,
    randomised,
    rival_case,
    runner,
    trials,
)
from paramtrans.testing.symmetries import permuted

REGISTRY = components()
HELPED = {("task", "fashion_mnist"), ("task", "usps"), ("translator", "trained"), ("executor", "ray")}
"""What cannot be tried without help: a download, a run that is finished, a cluster."""

test_conformance = conformance("paramtrans")


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in REGISTRY.of_kind("translator")])
def test_every_pair_of_blocks_is_translated_as_declared_or_refused(name: str) -> None:
    for subject in subjects(name, kind="translator"):
        subject.once("attempts", partial(translators.attempts, subject, all_pairs=True))
        translators.refuses_clearly(subject)
        translators.writes_what_is_declared(subject)


def test_every_component_is_tried_but_those_that_need_help() -> None:
    tried = {(subject.kind, subject.name) for subject in subjects("paramtrans")}
    ours = {(e.kind, e.name) for e in REGISTRY if e.kind in BASES and e.provider.distribution == "paramtrans"}
    assert ours - tried == HELPED


def block(name: str, **options: Any) -> BlockAdapter:
    """A block at the sizes given, or at those of its first trial."""
    first = trials(REGISTRY.load("block_adapter", name), "block_adapter")[0]
    adapter: BlockAdapter = REGISTRY.create("block_adapter", name, **{**first, **options})
    return adapter


BLOCKS = [entry.name for entry in REGISTRY.of_kind("block_adapter") if entry.provider.distribution == "paramtrans"]


@pytest.mark.parametrize("options", [{}, {"hidden": 3, "kernel": 1}, {"hidden": 5, "kernel": 5}], ids=str)
def test_a_folded_basic_block_is_a_conv_block_with_biases(options: dict[str, Any]) -> None:
    source = block("basic_block", **options)
    folded = source.read(randomised(source))
    target = block("conv", bias=True, hidden=source.hidden, kernel=source.options.kernel)
    assert {t.name: t.shape for t in target.spec.tensors} == {t.name: t.shape for t in source.reading.tensors}
    close(evaluate(target, folded, features()), evaluate(source, randomised(source), features()), "the output")


@pytest.mark.parametrize("options", [{"kernel": 2}, {"kernel": 0}, {"hidden": 0}, {"channels": 0}, {"hidden": -1}])
@pytest.mark.parametrize("name", ["basic_block", "conv"])
def test_sizes_that_make_no_block_are_refused(name: str, options: dict[str, Any]) -> None:
    model = REGISTRY.load("block_adapter", name).Options
    with pytest.raises(ValidationError):
        model(**{"channels": CHANNELS, "hidden": 2, **options})


@pytest.mark.parametrize("name", ["mixer", "mlp", "attention", "conv"])
@pytest.mark.parametrize("target", ["conv", "basic_block", "mlp", "attention"])
def test_a_new_translator_starts_at_a_sane_block(name: str, target: str) -> None:
    """With the template start it writes one default-initialised block, whatever it reads."""
    source, adapter = block("basic_block"), block(target)
    translator = REGISTRY.create("translator", name, source, adapter, layers=1, width=8)
    written = translator.translate(hosts(source, None).source)
    for spec in adapter.spec.tensors:
        default = initial(adapter.module, [0])[spec.name]
        tensor = written[spec.name]
        torch.testing.assert_close(tensor[0], tensor[1])
        if spec.kind.startswith("norm"):
            torch.testing.assert_close(tensor[:1], default)
        else:
            assert 0 < tensor.abs().max() <= 3 * default.abs().max()


@pytest.mark.parametrize(("name", "option"), [("mask", "share"), ("noise", "scale")])
def test_augmenters_of_strength_zero_change_nothing_and_wrong_strengths_are_refused(name: str, option: str) -> None:
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


@pytest.mark.parametrize("name", [name for name in BLOCKS if block(name).spec.symmetries])
def test_an_orbit_has_other_parameters_and_the_same_function(name: str) -> None:
    adapter = block(name)
    params = randomised(adapter)
    moved = REGISTRY.create("augmenter", "orbit").change(params, adapter.spec, torch.Generator().manual_seed(1))
    inputs = entering(adapter)
    assert any(not torch.allclose(moved[key], params[key]) for key in params)
    torch.testing.assert_close(
        evaluate(adapter, moved, inputs), evaluate(adapter, params, inputs), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("options", [{}, {"features": 0, "outputs": 1}], ids=str)
@pytest.mark.parametrize("name", BLOCKS)
def test_the_functional_objective_is_zero_where_the_prediction_is_the_source(name: str, options: dict) -> None:
    adapter = block(name)
    objective = REGISTRY.create("objective", "functional", runner(adapter, adapter), **options)
    given = hosts(adapter, None)
    at_the_source = objective(dict(given.source), batch(given)).abs()
    assert at_the_source < 1e-6
    assert objective(randomised(adapter, MODELS, 77), batch(given)) > 1e-6 + 10 * at_the_source


def test_the_functional_objective_is_blind_to_symmetries() -> None:
    adapter = block("conv", hidden=3)
    objective = REGISTRY.create("objective", "functional", runner(adapter, adapter))
    given = hosts(adapter, None)
    [group] = adapter.spec.symmetries
    moved = permuted(given.source, group, seed=3)
    assert objective(moved, batch(given)).abs() < 1e-6


def test_parameter_mse_is_zero_at_the_trained_target_and_needs_one() -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    objective = REGISTRY.create("objective", "mse", runner(source, target))
    given = hosts(source, target)
    assert objective.needs_targets and objective(dict(given.target), batch(given)) == 0
    with pytest.raises(TrainingError, match=r"zoo\.pairs"):
        objective(dict(given.target), batch(hosts(source, None)))


@pytest.mark.parametrize("name", ["conv", "mlp", "attention"])
def test_matching_mse_is_blind_to_the_order_of_units_and_mse_is_not(name: str) -> None:
    target = block(name, **({} if name == "attention" else {"hidden": 5}))
    mse, matching = (REGISTRY.create("objective", kind, runner(target, target)) for kind in ("mse", "matching_mse"))
    given = hosts(target, target)
    moved = given.target
    for seed, group in enumerate(target.spec.symmetries):
        moved = permuted(moved, group, seed)
    assert matching(moved, batch(given)) == 0 < mse(moved, batch(given))
    other = randomised(target, MODELS, 77)
    assert 0 < matching(other, batch(given)) <= mse(other, batch(given))


def test_normalised_mse_does_not_know_how_large_a_tensor_is() -> None:
    target = block("conv", hidden=3)
    given_hosts, predicted = hosts(target, target), randomised(target, MODELS, 77)
    for normalise in (True, False):
        objective = REGISTRY.create("objective", "mse", runner(target, target), normalise=normalise)
        large = {name: 1000 * tensor if name == "conv1.weight" else tensor for name, tensor in predicted.items()}
        given = batch(given_hosts)
        trained = given.target | {"conv1.weight": 1000 * given.target["conv1.weight"]}
        before, after = objective(predicted, given), objective(large, replace(given, target=trained))
        assert torch.isclose(before, after, rtol=1e-4) == normalise


@pytest.mark.parametrize("name", [entry.name for entry in REGISTRY.of_kind("probe")])
def test_probes_are_in_the_range_of_images_and_enter_every_slot(name: str) -> None:
    source = block("basic_block")
    first = trials(REGISTRY.load("probe", name), "probe")[0]
    probes = REGISTRY.create("probe", name, **{**first, "count": 6})
    task, given = Slot(SlotOptions()), hosts(source, None)
    drawn = probes.draw(ProbeCase((1, 4, 4), torch.Generator().manual_seed(3), task, given, source))
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert probes.real == (name == "images")
    around = replace(context(given, source, source), inputs=drawn, own_inputs=probes.own_inputs)
    [entering] = around.entering()
    assert entering.reached.shape == (MODELS, 6, CHANNELS, 4, 4)
    [part] = around.pick([2, 0]).entering()
    torch.testing.assert_close(part.reached, entering.reached[[2, 0]])


def test_a_zero_block_passes_the_residual_alone() -> None:
    target = block("attention")
    filled = REGISTRY.create("rival", "zero_block").fill(rival_case(block("basic_block"), target))
    torch.testing.assert_close(evaluate(target, filled, features(4)), features(4).double())


def test_random_initialisation_is_of_the_hosts_own_seed_and_of_the_rivals() -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    rival, whole = REGISTRY.create("rival", "random_init"), rival_case(source, target)
    filled = rival.fill(whole)["conv1.weight"]
    part = rival.fill(replace(whole, hosts=whole.hosts.pick([2])))["conv1.weight"]
    other = rival.fill(rival_case(source, target, seed=1))["conv1.weight"]
    assert torch.equal(filled[2], part[0]) and len(filled.unique(dim=0)) == 4 and not torch.equal(filled, other)


@pytest.mark.parametrize("name", ["random_replacement", "greedy_replacement"])
def test_replacements_are_trained_targets_of_pairs(name: str) -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    this = rival_case(source, target)
    filled = REGISTRY.create("rival", name).fill(this)
    for i in range(4):
        matches = [j for j in range(6) if all(torch.equal(filled[key][i], this.pairs.target[key][j]) for key in filled)]
        assert len(matches) == 1


def test_greedy_replacement_takes_the_nearest_source() -> None:
    source, target = block("basic_block"), block("conv", hidden=2)
    this = rival_case(source, target)
    near = this.pairs.pick([5, 0, 3])
    moved = {key: tensor + 1e-4 for key, tensor in near.source.items()}
    filled = REGISTRY.create("rival", "greedy_replacement").fill(
        replace(this, hosts=replace(near, source=moved, target=None))
    )
    assert all(torch.equal(filled[key], near.target[key]) for key in filled)


def test_specifications_count_values() -> None:
    paper = REGISTRY.create("block_adapter", "basic_block", channels=6).spec
    assert isinstance(paper, BlockSpec)
    assert (paper.parameters, paper.numel) == (2 * 324 + 24, 2 * 324 + 48)
