"""`paramtrans zoo take`: one host of a zoo, or of a file of hosts, as a network of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from paramtrans.cli.main import main

TESTS = Path(__file__).parents[1]
ZOO = TESTS / "golden" / "zoos" / "066201f858fbb542"
FILE = TESTS.parent / "examples" / "data" / "paper_hosts.safetensors"
TINY = ("--plugin", TESTS / "support" / "tiny_task.py")

Do = Callable[..., tuple[int, str, str]]


@pytest.fixture
def do(capsys: pytest.CaptureFixture[str], fresh_plugins: Callable[[], object]) -> Do:
    """Runs a command in this process: its status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        fresh_plugins()
        status = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


def test_a_host_of_a_zoo_goes_into_the_architecture_that_is_named(do: Do, tmp_path: Path) -> None:
    out = tmp_path / "host.safetensors"
    status, shown, err = do("zoo", "take", ZOO, out, *TINY, "--number", 2, "--role", "train", "--json")
    assert status == 0, err
    architecture = json.loads(shown)["architecture"]
    assert architecture.startswith("task:tiny:basic_block")
    status, shown, err = do("inspect", out, "--arch", architecture, *TINY, "--json")
    assert status == 0 and [block["path"] for block in json.loads(shown)["blocks"]] == ["block"], err
    [shard] = ZOO.glob("hosts/train-*.safetensors")
    assert load_file(out)["former.0.weight"].equal(load_file(shard)["former.0.weight"][2])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((ZOO, "host.safetensors", *TINY, "--number", 2), "has 2 hosts of role report, and no number 2"),
        ((FILE, "host.safetensors", "--number", 17), "has 17 hosts, counted from 0"),
        ((FILE, "host.pt"), "must end in .safetensors"),
        (("nowhere.safetensors", "host.safetensors"), "cannot be read"),
        (("nowhere", "host.safetensors"), 'zoo "nowhere"'),
    ],
)
def test_what_is_not_there_is_told_and_nothing_is_written(
    do: Do, arguments: tuple[object, ...], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = do("zoo", "take", *arguments)
    assert (status, out) == (2, "") and problem in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())
