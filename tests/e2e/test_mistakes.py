"""What people get wrong in Python: each mistake is answered by an error of ours that says what, why and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.resnet import BasicBlock

import paramtrans
from paramtrans import components, config
from paramtrans.api.modules import initial
from paramtrans.errors import ConfigError, DataError, ParamtransError, SpecMismatch, StoreError, UnknownName
from paramtrans.networks.widths import Ratio

REGISTRY = components()
MLP = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))
IMAGES = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(channels: int = 6) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, channels, 3), BasicBlock(channels, channels), nn.Flatten())


HOSTS = nn.Sequential(REGISTRY.create("block_adapter", "basic_block", channels=6, hidden=6).module())


def translating(**arguments: Any) -> Callable[[], Any]:
    return lambda: paramtrans.translate(arguments.pop("module", network()), **arguments)


def calibrating(calibrate: Any) -> Callable[[], Any]:
    return translating(calibrate=calibrate)


NETWORKS = {
    "parameters alone": (translating(module={"weight": IMAGES}), SpecMismatch, "takes an nn.Module, not dict"),
    "no units": (translating(module=nn.Linear(8, 4), calibrate=IMAGES), SpecMismatch, "Linear shows no hidden units"),
    "no blocks": (translating(by="blocks"), SpecMismatch, "no adapter recognises a block of.*--by units"),
    "no such path": (
        translating(blocks="layer9", calibrate=IMAGES),
        SpecMismatch,
        r'no group of units has a path that matches "layer9"; there are "1"',
    ),
    "no such path of a ratio": (
        translating(ratio={"layer9": 0.5}, calibrate=IMAGES),
        SpecMismatch,
        r'matches "layer9"; there are "1"',
    ),
    "a ratio in words": (translating(ratio="half", calibrate=IMAGES), SpecMismatch, "ratio: 'half' is no share"),
    "a near name": (translating(translator="refti"), UnknownName, 'did you mean "refit"'),
    "an untrained one": (translating(translator="mixer"), SpecMismatch, "has to be trained first"),
    "one trained for others": (
        translating(translator="mnist_conv_to_conv"),
        SpecMismatch,
        r"blocks of another kind \(BasicBlock, 6 channels, 6 hidden\) than those of this Sequential",
    ),
    "options of a trained one": (
        translating(translator="mnist_conv_to_conv", options={"ridge": 1}),
        SpecMismatch,
        r"has its own \(ridge\)",
    ),
    "no inputs": (
        translating(translator="prune"),
        SpecMismatch,
        "give inputs.*calibrate=.*--probes smooth --input 3,224,224.*no adapter recognises a block of this Sequential",
    ),
    "no inputs for what looks at them": (
        translating(module=HOSTS),
        SpecMismatch,
        r"0: .*calibrate=.* prune, select, merge",
    ),
    "one for blocks": (translating(translator="low_rank", calibrate=IMAGES), SpecMismatch, "low_rank writes blocks"),
}
INPUTS = {
    "wrong shape": (
        calibrating(IMAGES[:, :1]),
        DataError,
        r"not take .*\(\[8, 1, 8, 8\] torch.float32\): Runt",
    ),
    "wrong shape later": (calibrating([IMAGES, IMAGES[:, :1]]), DataError, r"not take .*\[8, 1, 8, 8\]"),
    "wrong type": (calibrating(IMAGES.double()), DataError, "float64"),
    "wrong name": (calibrating({"x": IMAGES}), DataError, r"\(x \[8, 3, 8, 8\].*unexpected keyword argument 'x'"),
    "an array": (calibrating([IMAGES.numpy()]), DataError, "not ndarray"),
    "a number": (calibrating(64), DataError, "not int"),
    "nothing in it": (calibrating([IMAGES[:0]]), DataError, "first batch is empty"),
    "not finite": (calibrating(IMAGES * torch.inf), DataError, "not finite"),
    "shuffled": (
        calibrating(DataLoader(IMAGES, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(0))),
        DataError,
        r"other inputs each time.*list\(loader\)",
    ),
}
WIDE, NARROW = (REGISTRY.create("block_adapter", "conv", channels=4, hidden=size) for size in (6, 2))
BLOCKS = initial(WIDE.module, [0, 1])
WRONG_BLOCKS = {
    "other names": ({"a": IMAGES}, "missing .*; unexpected a"),
    "other sizes": (initial(NARROW.module, [0]), r".* has shape .*, expected .*\[models, \*shape\]"),
    "not stacked": ({name: tensor[0] for name, tensor in BLOCKS.items()}, "conv1.weight has shape"),
}


def saved(tmp_path: Any) -> str:
    path = str(tmp_path / "small.safetensors")
    paramtrans.save_translated(paramtrans.translate(network(), "prune", calibrate=IMAGES), path)
    return path


def answered(what: Callable[[], Any], kind: type[ParamtransError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        what()
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(("what", "kind", "message"), [*NETWORKS.values(), *INPUTS.values()], ids=[*NETWORKS, *INPUTS])
def test_translating_a_network(what: Callable[[], Any], kind: type[ParamtransError], message: str) -> None:
    answered(what, kind, message)


@pytest.mark.parametrize(("blocks", "message"), WRONG_BLOCKS.values(), ids=WRONG_BLOCKS)
@pytest.mark.parametrize("name", ["prune", "refit", "matching", "mlp", "equivariant"])
def test_translating_blocks_that_are_others(name: str, blocks: dict[str, Tensor], message: str) -> None:
    options = {"mlp": {"width": 8}, "equivariant": {"layers": 1}}.get(name, {})
    translator = REGISTRY.create("translator", name, WIDE, NARROW, **options)
    answered(lambda: translator.translate(blocks), SpecMismatch, f"the source blocks: {message}")


@pytest.mark.parametrize(
    "given",
    [
        {"translator": 3},
        {"blocks": 3},
        {"options": ["ridge"]},
        {"then": ["matching"]},
        {"then": "matching"},
        {"then": {"matching": 3}},
        {"to": 3},
        {"finish": "much"},
        {"seed": "x"},
        {"by": "layers"},
        {"widths": 3},
        {"widths": Ratio(0.5), "ratio": 0.5},
        {"reporter": print},
        {"registry": {"translator": "refit"}},
    ],
    ids=str,
)
def test_an_argument_of_another_kind_is_named(given: dict[str, Any]) -> None:
    name = "ratio" if "ratio" in given else next(iter(given))
    with pytest.raises(SpecMismatch, match=f"^{name}: "):
        paramtrans.translate(
            nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6)), calibrate=torch.ones(8, 6), **given
        )


def test_nothing_done_is_said_to_callers_too(caplog: pytest.LogCaptureFixture) -> None:
    small = paramtrans.translate(MLP, "prune", ratio=0.999, calibrate=torch.rand(8, 6))
    assert "nothing was translated" in caplog.text and small.paramtrans_blocks == ()


def test_naming_what_is_not_there() -> None:
    answered(lambda: REGISTRY.create("translators", "mlp"), UnknownName, 'did you mean "translator"')
    answered(lambda: REGISTRY.create("translator", "mpl"), UnknownName, 'did you mean "mlp"')
    answered(lambda: REGISTRY.create("block_adapter", "conv", channels=4), ConfigError, "hidden: required")


def test_running_what_is_no_config() -> None:
    for given in ("examples/mnist_conv_to_conv.toml", {"task": {"name": "mnist"}}):
        answered(lambda given=given: paramtrans.run(given), ConfigError, "validated config, not .*config.load")
    answered(lambda: config.read("nowhere.toml"), ConfigError, "nowhere.toml: No such file")


def test_rebuilding_from_another_network(tmp_path: Any) -> None:
    path = saved(tmp_path)
    answered(lambda: paramtrans.load_translated(path, nn.Linear(2, 2)), StoreError, "does not fit the network")
    answered(
        lambda: paramtrans.load_translated(path, network(4)),
        StoreError,
        r"0.weight is \[6, .*here it is \[4, .*untranslated",
    )
    answered(lambda: paramtrans.load_translated(path), StoreError, "say what makes the untranslated network")


def test_a_tensor_or_a_dictionary_is_one_batch() -> None:
    plain = paramtrans.translate(network().eval(), ratio=1.0, calibrate=[IMAGES])
    assert plain.paramtrans_blocks == ()
    torch.manual_seed(0)
    whole = network().eval()
    results = [paramtrans.translate(whole, calibrate=given) for given in ([IMAGES], IMAGES, {"input": IMAGES})]
    assert all(torch.equal(result(IMAGES), results[0](IMAGES)) for result in results)
