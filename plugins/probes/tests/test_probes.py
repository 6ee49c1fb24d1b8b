"""What each kind of probes promises beyond the battery."""

from __future__ import annotations

import copy

import pytest
import torch
from paramtrans_probes.recalled import StatisticsDistance
from paramtrans_probes.synthetic import bezier
from torch import Tensor, nn

from paramtrans import FeatureSpec, Hosts, ProbeCase, Split, Task, components, draw_probes
from paramtrans.api.probes import Probes
from paramtrans.backends.host_runner import network
from paramtrans.errors import DataError, SpecMismatch


class Pictures(Task):
    """Ten images of colour, and a host around a slot of four channels."""

    slot = FeatureSpec(4, 8, 8)

    def former(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())

    def latter(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(256, 2))

    def split(self, name: str) -> Split:
        return Split(torch.arange(10).view(10, 1, 1, 1).expand(10, 3, 8, 8), torch.zeros(10))

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError


SHAPE = (3, 8, 8)


def probes(name: str, **options: object) -> Probes:
    created: Probes = components().create("probe", name, **options)
    return created


def case(shape: tuple[int, ...] = SHAPE, seed: int = 0, **more: object) -> ProbeCase:
    return ProbeCase(shape, torch.Generator().manual_seed(seed), **more)  # type: ignore[arg-type]


def test_images_are_different_training_images_and_all_of_them_where_there_are_fewer() -> None:
    drawn = probes("images", count=7).draw(case(task=Pictures(Pictures.Options())))
    assert len({float(image.max()) for image in drawn}) == 7
    everything = probes("images", count=64).draw(case(task=Pictures(Pictures.Options())))
    assert sorted((255 * image.max()).round().item() for image in everything) == list(range(10))


def test_strokes_are_centred_and_chained_where_they_are_asked_to_be() -> None:
    shape, places = (1, 28, 28), torch.arange(28.0)

    def off(**options: object) -> float:
        """Mean distance of the centre of mass from the image's centre, in pixels, along an axis."""
        mass = probes("strokes", count=20, strokes=2, **options).draw(case(shape))[:, 0].sum(1)
        return float(((mass * places).sum(1) / mass.sum(1) - 13.5).abs().mean())

    assert off(centred=True) < 1 < off()
    joined, apart = (probes("strokes", count=20, chained=chained).draw(case(shape)) for chained in (True, False))
    assert joined.shape == apart.shape and not torch.equal(joined, apart)


@pytest.mark.parametrize(("name", "match"), [("images", "without one"), ("bn_statistics", "hosts, task and source")])
def test_probes_say_what_they_lack(name: str, match: str) -> None:
    with pytest.raises(SpecMismatch, match=match):
        probes(name).draw(case())


@pytest.mark.parametrize("name", ["smooth", "strokes"])
def test_pictures_are_not_drawn_for_networks_that_take_none(name: str) -> None:
    with pytest.raises(SpecMismatch, match="try noise"):
        probes(name).draw(case((20,)))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 17), (1, 5, 5)])
def test_strokes_suit_any_size_and_leave_the_border_of_a_large_image_empty(shape: tuple[int, ...]) -> None:
    drawn = probes("strokes", count=20).draw(case(shape))
    assert drawn.shape == (20, *shape)
    assert drawn.min() >= 0 and 0 < drawn.max() <= 1
    if shape[1] == 28:
        assert (drawn.flatten(1).amax(1) > 0.5).all()
        assert 0.03 < drawn.mean() < 0.3
        assert drawn[..., 0, :].max() == 0 and drawn[..., :, -1].max() == 0


def test_a_bezier_curve_begins_and_ends_at_its_outer_corners_and_is_straight_between_corners_in_a_row() -> None:
    corners = torch.tensor([[[0.0, 0.0], [1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]])
    torch.testing.assert_close(bezier(corners, 4)[0], corners[0])
    random = torch.rand(3, 4, 2)
    torch.testing.assert_close(bezier(random, 9)[:, [0, -1]], random[:, [0, 3]])


def test_recalled_inputs_have_statistics_nearer_to_those_the_network_remembers() -> None:
    """The network remembers those of dark noise."""
    source = components().create("block_adapter", "basic_block", channels=4)
    task = Pictures(Pictures.Options())
    module = network(task, source)
    for _ in range(50):
        module(0.3 * torch.rand(32, *SHAPE))
    params = {name: t[None] for name, t in module.state_dict().items() if "num_batches" not in name}
    hosts = Hosts.from_network(params)
    distance = StatisticsDistance(network(task, source))
    given = case(task=task, hosts=hosts, source=source)
    few, many = (probes("bn_statistics", count=16, steps=steps).draw(given) for steps in (1, 60))
    assert many.shape == (1, 16, *SHAPE)
    assert distance(params, many) < 0.5 * distance(params, few)


def test_inputs_for_a_network_of_ones_own_take_its_units_and_leave_it_as_it_was() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    for _ in range(50):
        module(5 + 2 * torch.randn(32, *SHAPE))
    before = {name: tensor.clone() for name, tensor in module.eval().state_dict().items()}
    few, many = (draw_probes(module, SHAPE, count=40, lr=0.1, steps=steps) for steps in (1, 80))
    assert many.shape == (40, *SHAPE) and many.max() > 3
    distance = StatisticsDistance(copy.deepcopy(module))
    assert distance.of_one(before, many[:32]) < 0.2 * distance.of_one(before, few[:32])
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in module)
    assert torch.equal(many, draw_probes(module, SHAPE, count=40, lr=0.1, steps=80))
    with pytest.raises(DataError, match="does not take"):
        draw_probes(module, (1, 8, 8))


def test_a_network_without_batchnorm_remembers_nothing() -> None:
    with pytest.raises(SpecMismatch, match="try strokes or smooth"):
        StatisticsDistance(nn.Sequential(nn.Conv2d(1, 1, 3)))
