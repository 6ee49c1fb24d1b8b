"""Feature matching does what it says: nearer to the source, never further, without dead units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from paramtrans_matching.search import Search
from paramtrans_matching.start import revive_dead_units
from paramtrans_matching.translator import Matching, MatchingExamples, _models_at_once
from paramtrans_matching.units import match_units
from torch import Tensor, nn

from paramtrans import BlockAdapter, Context, FeatureSpec, Hosts, Split, Task, components
from paramtrans.api.modules import initial
from paramtrans.api.stacking import Params
from paramtrans.api.units import UnitPiece
from paramtrans.backends.host_runner import HostRunner
from paramtrans.errors import SpecMismatch
from paramtrans.ops.distances import divergence, relative_error
from paramtrans.ops.sensitivity import sensitivity


class Slot(Task):
    """A host around a slot of four channels, without data."""

    slot = FeatureSpec(4, 6, 6)

    def former(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())

    def latter(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(144, 3))

    def split(self, name: str) -> Split:
        raise NotImplementedError

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError


MODELS = 3
TASK = Slot(Slot.Options())


def adapter(name: str, **options: object) -> BlockAdapter:
    created: BlockAdapter = components().create("block_adapter", name, channels=4, **options)
    return created


SOURCE = adapter("basic_block")
TARGETS = {"conv": adapter("conv", hidden=3), "mlp": adapter("mlp", hidden=6), "attention": adapter("attention")}


def context(target: BlockAdapter, count: int = 24, **more: object) -> Context:
    seeds = range(MODELS)
    hosts = Hosts(initial(TASK.former, seeds), initial(SOURCE.module, seeds), initial(TASK.latter, seeds))
    inputs = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    return Context(hosts, HostRunner(TASK, SOURCE, target), inputs, **more)  # type: ignore[arg-type]


def errors(target: BlockAdapter, blocks: Params, surroundings: Context) -> tuple[Tensor, Tensor]:
    """Of features and of outputs, on the probes, `[models]` each."""
    runner, hosts = surroundings.runner, surroundings.hosts
    assert runner is not None and hosts is not None
    [entering] = surroundings.entering()
    expected, features = runner.source(hosts.source, entering.original), runner.target(blocks, entering.reached)
    outputs = runner.latter(hosts.latter, features), runner.latter(hosts.latter, expected)
    return relative_error(features, expected), divergence(*outputs)


def match(target: BlockAdapter, surroundings: Context, **options: object) -> Params:
    translator = components().create("translator", "matching", SOURCE, target, **options)
    assert surroundings.hosts is not None
    written: Params = translator.translate(surroundings.hosts.source, surroundings)
    return written


@pytest.mark.kernels
@pytest.mark.parametrize("name", TARGETS)
def test_features_come_nearer_from_a_given_start(name: str) -> None:
    target = TARGETS[name]
    start = initial(target.module, range(10, 10 + MODELS))
    surroundings = context(target, start=start)
    errors_before, _ = errors(target, start, surroundings)
    errors_after, _ = errors(target, match(target, surroundings, steps=80, batch=8), surroundings)
    assert (errors_after < 0.7 * errors_before).all()


def test_matching_outputs_is_distillation() -> None:
    target = TARGETS["conv"]
    surroundings = context(target, start=initial(target.module, range(10, 10 + MODELS)))
    features, outputs = (
        errors(target, match(target, surroundings, steps=60, **share), surroundings)
        for share in ({"features": 1}, {"features": 0, "outputs": 1})
    )
    assert (outputs[1] < features[1]).all() and (features[0] < outputs[0]).all()


def test_features_that_the_outputs_do_not_depend_on_count_for_nothing() -> None:
    """Where the latter blocks read half of the positions, the block is better there than one matched everywhere."""
    target = TARGETS["conv"]
    surroundings = context(target, start=initial(target.module, range(10, 10 + MODELS)))
    assert surroundings.hosts is not None and surroundings.runner is not None
    surroundings.hosts.latter["1.weight"].view(MODELS, 3, 4, 6, 6)[..., 3:] = 0
    [entering] = surroundings.entering()
    expected = surroundings.runner.source(surroundings.hosts.source, entering.original)
    weights = sensitivity(surroundings.runner.latter, surroundings.hosts.latter, expected)
    assert (weights[..., 3:] == 0).all() and torch.allclose(weights.flatten(1).mean(1), torch.ones(MODELS))
    matched = {weigh: match(target, surroundings, steps=80, lr=0.02, weigh=weigh) for weigh in (True, False)}
    read = {k: surroundings.runner.target(blocks, entering.reached)[..., :3] for k, blocks in matched.items()}
    better, worse = (relative_error(read[weigh], expected[..., :3]) for weigh in (True, False))
    assert (better < worse).all()


def test_a_rate_that_diverges_leaves_the_start() -> None:
    """Where the start is nearer than what is left behind such steps: units that are silent for ever, and so zeros."""
    target = TARGETS["conv"]
    fresh = initial(target.module, range(10, 10 + MODELS))
    start = match(target, context(target, start=fresh), steps=30, lr=0.02)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    surroundings = context(target, start=start)
    nearer = errors(target, start, surroundings)[0] < 0.5 * errors(target, zeros, surroundings)[0]
    written = match(target, surroundings, steps=3, lr=1e30)
    assert nearer.any() and all(torch.equal(written[name][nearer], start[name][nearer]) for name in start)


def test_silent_units_are_revived_and_the_others_left_alone() -> None:
    target = TARGETS["conv"]
    params = initial(target.module, range(MODELS))
    params["conv1.weight"][1, 2] = -params["conv1.weight"][1, 2].abs()  # behind positive inputs
    params["conv1.weight"][2] = 0
    entering = torch.rand(MODELS, 5, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    revived = revive_dead_units(target, params, entering, Context())
    assert torch.equal(revived["conv2.weight"], params["conv2.weight"])
    assert torch.equal(revived["conv1.weight"][0], params["conv1.weight"][0])
    assert torch.equal(revived["conv1.weight"][1, :2], params["conv1.weight"][1, :2])
    heard = torch.stack([torch.conv2d(x, w, padding=1) for x, w in zip(entering, revived["conv1.weight"], strict=True)])
    assert (heard.relu().amax((1, 3, 4)) > 0).all()


def test_without_a_start_it_begins_at_default_blocks_of_its_seed() -> None:
    target = TARGETS["mlp"]
    blocks, repeated, other_seed = (match(target, context(target, seed=seed), steps=1) for seed in (1, 1, 2))
    assert all(torch.equal(blocks[name], repeated[name]) for name in blocks)
    assert not torch.equal(blocks["fc1.weight"], other_seed["fc1.weight"])


def test_many_probes_are_kept_for_fewer_models_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    target = TARGETS["conv"]
    start = initial(target.module, range(10, 10 + MODELS))
    together = match(target, context(target, start=start), steps=5)
    monkeypatch.setattr("paramtrans_matching.translator.VALUES_AT_ONCE", 2 * 24 * 4 * 6 * 6)
    assert _models_at_once(context(target)) == 1
    alone = match(target, context(target, start=start), steps=5)
    assert all(torch.allclose(alone[name], together[name], atol=1e-5) for name in alone)


def test_without_probes_it_says_what_it_needs() -> None:
    translator = components().create("translator", "matching", SOURCE, TARGETS["conv"])
    with pytest.raises(SpecMismatch, match="probes"):
        translator.translate(initial(SOURCE.module, [0]))


def test_a_block_with_nothing_to_gain_stays_as_it_came() -> None:
    """From the source itself there is nothing to gain: whatever the steps do, what stood there is kept."""
    source = TARGETS["conv"]
    start = initial(source.module, range(MODELS))
    translator = components().create("translator", "matching", source, source, steps=20)
    entering = torch.rand(MODELS, 8, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    examples = MatchingExamples(entering, translator.run_source(start, entering), None, None)
    search = Search(
        start,
        list(start),
        lambda params, chosen: translator._distance(params, examples, None, chosen),
        iter(lambda: torch.arange(6), None),
        [torch.tensor([6, 7])],
    )
    written, better = search.run(search.relative_rates(), 20, start)
    assert not better.any() and all(torch.equal(written[name], start[name]) for name in start)


def test_a_rate_is_chosen_by_the_size_of_the_parameters() -> None:
    """With the default rate a block that is near already comes nearer, of small weights as of large ones."""
    target = TARGETS["conv"]
    for factor in (1e-2, 1.0, 1e2):
        source_params = initial(target.module, range(MODELS))
        source_params = {**source_params, "conv2.weight": factor * source_params["conv2.weight"]}
        start = {name: 1.1 * tensor for name, tensor in source_params.items()}
        entering = torch.rand(MODELS, 16, 4, 6, 6, generator=torch.Generator().manual_seed(1))
        translator = components().create("translator", "matching", target, target)
        examples = MatchingExamples(entering, translator.run_source(source_params, entering), None, None)

        def distance(
            params: Params, chosen: Tensor, translator: Matching = translator, examples: MatchingExamples = examples
        ) -> Tensor:
            return translator._distance(params, examples, None, chosen)

        search = Search(start, list(start), distance, iter(lambda: torch.arange(12), None), [torch.arange(12, 16)])
        written, better = search.run(search.relative_rates(), 60, start)
        everything = torch.arange(16)
        assert better.all() and (distance(written, everything) < 0.5 * distance(start, everything)).all()


@pytest.mark.parametrize(("examples", "gone_through"), [(6, [4, 3, 1, 4, 3]), (3, [4, 3]), (100, [4, 3, 1, 4, 3, 1])])
def test_a_step_takes_batches_of_further_shapes_until_there_are_so_many_examples(
    examples: int, gone_through: list[int]
) -> None:
    """Two steps; never an example twice in one."""
    sizes: list[int] = []

    def run(params: Mapping[str, Tensor], entered: Sequence[Tensor]) -> tuple[Tensor, ...]:
        sizes.append(len(entered[0]))
        return (entered[0] * params["weight"],)

    batches = [([torch.randn(n, length)], (torch.randn(n, length),)) for n, length in ((4, 2), (3, 5), (1, 7))]
    match_units(UnitPiece("", {"weight": torch.ones(1)}, run, batches, 0), 2, 0.1, examples)
    assert sizes[3:-3] == gone_through  # behind a round that measures, and before another one
