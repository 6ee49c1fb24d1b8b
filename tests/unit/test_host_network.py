"""Hosts as ordinary networks: built by name, filled from a zoo or a file of hosts, refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from paramtrans import components
from paramtrans.errors import ConfigError, ParamtransError, SpecMismatch, StoreError
from paramtrans.networks.loading import architectures, host_network, parameter_files
from paramtrans.networks.loading.host_network import HostNetwork
from paramtrans.plugins import Plugins
from paramtrans.zoo import exchange
from paramtrans.zoo.host_file import HostFile

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "data" / "paper_hosts.safetensors"
ZOO = ROOT / "tests" / "golden" / "zoos" / "066201f858fbb542"
REGISTRY = components()


def host(options: str = "") -> HostNetwork:
    built = architectures.build(f"task:mnist:basic_block{options}")
    assert isinstance(built, HostNetwork)
    return built.eval()


def test_a_host_is_its_parts_one_after_the_other() -> None:
    network, images = host(), torch.rand(3, 1, 28, 28)
    outputs = network(images)
    assert outputs.shape == (3, 10)
    assert torch.equal(outputs, network.latter(network.block(network.former(images))))
    assert {name.partition(".")[0] for name in network.state_dict()} == {"former", "block", "latter"}


def test_options_are_those_of_the_task_and_behind_block_those_of_the_block() -> None:
    network = architectures.build("task:mnist:conv?channels=8&block.hidden=3&block.bias=true")
    assert network.block.conv1.weight.shape == (3, 8, 3, 3) and network.block.conv1.bias is not None
    task, block = {"name": "mnist", "channels": 8, "flip": True}, {"name": "conv", "channels": 8, "hidden": 3}
    architecture = host_network.architecture(task, block, REGISTRY)
    assert architecture == "task:mnist:conv?channels=8&flip=true&block.hidden=3"
    again = architectures.build(architecture)
    assert isinstance(again, HostNetwork) and again.task.options.flip and again.block.conv1.out_channels == 3


def test_copies_of_a_network_carry_no_data() -> None:
    task = REGISTRY.create("task", "digits")
    task.prepare(Path())
    network = HostNetwork(task, REGISTRY.create("block_adapter", "mlp", channels=6, hidden=2))
    assert network.task.options == task.options and not network.task._splits


@pytest.mark.parametrize(
    ("architecture", "problem"),
    [
        ("task:mnist", "add the block in its slot, as in task:mnist:BLOCK"),
        ("task:mnits:conv", 'did you mean "mnist"'),
        ("task:mnist:basic_blok", 'did you mean "basic_block"'),
        ("task:mnist:conv?block.hiden=3", 'hiden: unknown option; did you mean "hidden"'),
        ("task:mnist:conv?block.channels=8&block.hidden=3", "has the channels of its task's slot"),
        (
            "mnist",
            r"expected torchvision:NAME, export:FILE\.pt2, hf:FOLDER, task:TASK:BLOCK, timm:NAME or FILE\.py:FACTORY",
        ),
    ],
)
def test_a_wrong_name_is_told(architecture: str, problem: str) -> None:
    with pytest.raises(ParamtransError, match=problem):
        architectures.build(architecture)


def test_a_block_that_does_not_fit_the_slot_is_refused() -> None:
    task = REGISTRY.create("task", "mnist")
    with pytest.raises(SpecMismatch, match="block has 4, the host's slot has 6"):
        HostNetwork(task, REGISTRY.create("block_adapter", "mlp", channels=4, hidden=2))


def test_a_host_of_a_file_is_a_network() -> None:
    network, tensors = host(), HostFile(FILE).tensors
    network.load_state_dict(HostFile(FILE).network(16))
    assert torch.equal(network.former[0].weight, tensors["former.0.weight"][16])
    assert torch.equal(network.block.bn2.running_var, tensors["source.bn2.running_var"][16])
    with pytest.raises(StoreError, match=r"paper_hosts\.safetensors.*\b17 hosts.*\b17\b"):
        HostFile(FILE).network(17)


def test_a_file_of_hosts_is_not_taken_for_one() -> None:
    with pytest.raises(StoreError, match=r"paper_hosts\.safetensors.*paramtrans zoo take"):
        parameter_files.with_parameters(host(), FILE)


def test_other_tensors_are_no_file_of_hosts(tmp_path: Path) -> None:
    for number, tensors in enumerate([{}, {"a": torch.zeros(())}, {"a": torch.zeros(2), "b": torch.zeros(3)}]):
        save_file(tensors, tmp_path / f"{number}.safetensors")
        with pytest.raises(StoreError, match="is no file of hosts"):
            HostFile(tmp_path / f"{number}.safetensors").network(0)


def test_a_host_of_a_zoo_is_a_network(tiny_plugins: Plugins) -> None:
    zoo, registry = exchange.contents(ZOO), tiny_plugins.registry()
    architecture = host_network.architecture(zoo.recipe["task"], zoo.recipe["source"], registry)
    network = architectures.build(architecture, registry=registry)
    network.load_state_dict(exchange.take(zoo, "report", 1))
    [file] = [file for file in zoo.files if file.target is None and file.role == "report"]
    hosts = zoo.load(file)
    state = network.state_dict()
    for name, tensor in hosts.items():
        assert torch.equal(state[name.replace("source.", "block.")], tensor[1]), name
    with pytest.raises(StoreError, match="has 2 hosts of role report, and no number 2"):
        exchange.take(zoo, "report", 2)


def test_no_file_is_run_where_a_record_names_the_architecture() -> None:
    with pytest.raises(
        ConfigError, match=r"expected torchvision:NAME, export:FILE\.pt2, hf:FOLDER, task:TASK:BLOCK, timm:NAME$"
    ):
        architectures.build("nets.py:factory", files=False)
    assert isinstance(architectures.build("task:mnist:basic_block", files=False), HostNetwork)
