"""Blocks of real networks given to other architectures, from unlabelled inputs.

Rows of `docs/results/architectures.json`: ResNets on FashionMNIST (files that `fashion_resnet.py` wrote), and MiniLM.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from fashion_resnet import FOLDER, KEPT_OUT, CifarResNet, accuracy, read, train
from measure import interval, milliseconds
from safetensors.torch import load_file
from torch import Tensor, nn

import paramtrans
from paramtrans.networks.blocks.finding import costs

STAGES: dict[str, Mapping[str, Any]] = {
    "start": {"steps": 0},
    "feature matching": {},
    "feature matching, then outputs": {"finish": 600},
    "feature matching, then outputs for longer": {"finish": 2400},
}
"""How far the new blocks are fitted."""
CONVOLUTIONS = ("depthwise_separable", "bottleneck", "low_rank_conv?rank=16")
ATTENTION = {
    "grouped_query": "grouped_query",
    "latent_attention": "latent_attention?rank=192",
    "linear_attention": "linear_attention",
    "linear_attention, window of 4": "linear_attention?window=4",
    "conv_mixer": "conv_mixer",
}
"""Targets for the attention of MiniLM, by the name that the table has."""


@dataclass(frozen=True)
class Row:
    """One number of the table, and what it is of."""

    model: str
    source: str
    target: str
    blocks: int
    inputs: int
    stage: str
    error: float | None
    """Mean relative reconstruction error of the blocks, on inputs kept aside."""
    metric: str
    value: float
    ci95: tuple[float, float] | None
    original: float
    random: float
    """The same metric with the new blocks as PyTorch initialises them."""
    trained: float | None
    """With the whole network of the target's architecture trained on all labels, as the original was."""
    parameters: tuple[int, int]
    """Of the blocks, before and after."""
    flops: float
    """Of the network, as a share of before."""
    latency_ratio: float
    """Of one run of the network on one thread, over that of before."""
    seconds: float
    """For translating one network."""
    models: int

    def as_dict(self) -> dict[str, Any]:
        row = asdict(self)
        return {{"source": "from", "target": "to"}.get(name, name): value for name, value in row.items()}


@dataclass(frozen=True)
class Translated:
    """A network with other blocks, and what it took."""

    network: nn.Module
    seconds: float

    @property
    def error(self) -> float:
        errors = [block.feature_error for block in self.network.paramtrans_blocks]
        return sum(errors) / len(errors)

    @property
    def parameters(self) -> tuple[int, int]:
        before, after = zip(*(block.parameters for block in self.network.paramtrans_blocks), strict=True)
        return sum(before), sum(after)


def translated(
    network: nn.Module, to: Mapping[str, str], inputs: Iterable[Any], options: Mapping[str, Any]
) -> Translated:
    started = time.process_time()
    fitting = {name: value for name, value in options.items() if name != "finish"}
    finish = {"steps": options["finish"], "batch": options.get("batch", 64)} if "finish" in options else None
    small = paramtrans.translate(network, to=to, options=fitting, finish=finish, calibrate=inputs)
    return Translated(small, time.process_time() - started)


def at_random(small: nn.Module) -> nn.Module:
    """The same network with the new blocks as PyTorch initialises them."""
    fresh = copy.deepcopy(small)
    torch.manual_seed(0)
    for block in small.paramtrans_blocks:
        for module in fresh.get_submodule(block.path).modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return fresh


def resnets(options: argparse.Namespace) -> list[Row]:
    """All basic blocks of each network, to each family, from 64 and from 512 images."""
    images, labels = read(options.data, "train")
    test = read(options.data, "t10k")
    networks = [_resnet(path) for path in options.networks]
    originals = [accuracy(network, *test) for network in networks]
    rows = []
    for target in options.target or CONVOLUTIONS:
        to = {"stages.*.*": target}
        trained = _trained(
            translated(networks[0], to, [images[:64]], {"steps": 0}).network, images, labels, test, options
        )
        for count in options.images or (512, 64):
            inputs = [_drawn(images, count, seed).split(64) for seed in range(len(networks))]
            for stage in options.stage or STAGES:
                settings = STAGES[stage]
                made = [
                    translated(net, to, its_inputs, settings) for net, its_inputs in zip(networks, inputs, strict=True)
                ]
                values = [accuracy(smaller.network, *test) for smaller in made]
                fresh = [accuracy(at_random(smaller.network), *test) for smaller in made]
                rows.append(
                    _row(
                        ("ResNet-8 on FashionMNIST", "BasicBlock", target, count, stage, "accuracy, %"),
                        made,
                        (values, originals, fresh, trained),
                        (networks[0], test[0][:64]),
                    )
                )
                _tell(rows[-1], options.output)
    return rows


def _resnet(path: Path) -> nn.Module:
    network = CifarResNet()
    network.load_state_dict(load_file(path))
    return network.eval()


def _drawn(images: Tensor, count: int, seed: int) -> Tensor:
    """Unlabelled images that no network was trained on."""
    generator = torch.Generator().manual_seed(100 + seed)
    return images[-KEPT_OUT:][torch.randperm(KEPT_OUT, generator=generator)[:count]]


def _trained(
    small: nn.Module, images: Tensor, labels: Tensor, test: tuple[Tensor, Tensor], options: argparse.Namespace
) -> float | None:
    """The target's architecture from a random start, trained on labels as the original was."""
    if not options.train:
        return None
    network = at_random(small)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    train(network, images[:-KEPT_OUT], labels[:-KEPT_OUT], 0, peak=0.1)
    return accuracy(network, *test)


def minilm(options: argparse.Namespace) -> list[Row]:
    """The attention of all six layers, to each family."""
    import minilm as example

    network = example.minilm()
    calibration, test = example.sentences()
    inputs, held = example.batches(calibration[: options.sentences]), example.batches(test)
    wanted = example.embeddings(network, held)

    def cosines(other: nn.Module) -> list[float]:
        return (example.embeddings(other, held) * wanted).sum(1).tolist()

    rows = []
    for name in options.target or ATTENTION:
        target = ATTENTION[name]
        for stage in options.stage or STAGES:
            settings = STAGES[stage]
            small = translated(network, {"encoder.layer.*.attention": target}, inputs, {"batch": 16, **settings})
            values = cosines(small.network)
            fresh = cosines(at_random(small.network))
            rows.append(
                _row(
                    ("MiniLM", "attention", name, len(calibration[: options.sentences]), stage, "cosine"),
                    [small],
                    (values, [1.0], fresh, None),
                    (network, held[len(held) // 2]),
                )
            )
            _tell(rows[-1], options.output)
    return rows


def _row(
    what: tuple[str, str, str, int, str, str],
    made: Sequence[Translated],
    values: tuple[Sequence[float], Sequence[float], Sequence[float], float | None],
    timed: tuple[nn.Module, Any],
) -> Row:
    model, source, target, count, stage, metric = what
    scores, originals, fresh, trained = values
    network, batch = timed
    small = made[0].network
    run: Callable[[nn.Module], Any] = lambda net: net(**batch) if isinstance(batch, Mapping) else net(batch)  # noqa: E731
    before, after = milliseconds([_Run(network, run), _Run(small, run)], torch.empty(0), 10)
    flops = [costs(net, batch)["flops"] for net in (network, small)]
    return Row(
        model,
        source,
        target,
        len(small.paramtrans_blocks),
        count,
        stage,
        sum(smaller.error for smaller in made) / len(made),
        metric,
        sum(scores) / len(scores),
        interval(scores)[1],
        sum(originals) / len(originals),
        sum(fresh) / len(fresh),
        trained,
        made[0].parameters,
        flops[1] / flops[0],
        after / before,
        sum(smaller.seconds for smaller in made) / len(made),
        len(made),
    )


class _Run(nn.Module):
    """A network with its own batch, to be timed."""

    def __init__(self, network: nn.Module, run: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        self.network, self.run = network, run

    @torch.no_grad()
    def forward(self, _: Tensor) -> Any:
        return self.run(self.network)


def _tell(row: Row, output: Path | None) -> None:
    """Print a row and keep it, in the place of an earlier one of the same."""
    print(json.dumps(row.as_dict()), flush=True)
    if output is None:
        return
    rows = json.loads(output.read_text()) if output.exists() else []
    key = ("model", "from", "to", "inputs", "stage", "metric")
    new = row.as_dict()
    rows = [old for old in rows if any(old[name] != new[name] for name in key)]
    output.write_text(json.dumps([*rows, new], indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", type=Path, help="files of fashion_resnet.py; without any, MiniLM")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of FashionMNIST's files")
    parser.add_argument("--train", action="store_true", help="also train each target on labels, as an upper mark")
    parser.add_argument("--target", action="append", help="one of the targets; all by default")
    parser.add_argument("--stage", action="append", choices=STAGES, help="one of the stages; all by default")
    parser.add_argument("--images", action="append", type=int, help="for ResNets; 512 and 64 by default")
    parser.add_argument("--sentences", type=int, default=500, help="for MiniLM")
    parser.add_argument("-o", "--output", type=Path, help="JSON file that rows are put into")
    options = parser.parse_args()
    torch.set_num_threads(1)
    (resnets if options.networks else minilm)(options)


if __name__ == "__main__":
    main()
