"""Step 2 as it is against step 2 from kept features of the frozen former, each image and its mirror image.

python -m benchmarks.features [--images 8192] [--steps 40] [--rounds 5] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.setting import BATCH, FULL, Setting
from benchmarks.turns import rate, row, take_turns
from benchmarks.zoo import STACK
from paramtrans import stacked, steps
from paramtrans.hosts import Params, join

TRAIN = 60_000
PIECE = 256
FROZEN = frozenset({"latter"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--images", type=int, default=8192, help="images whose features are kept")
    parser.add_argument("--steps", type=int, default=FULL.steps, help="training steps in a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/results/scale_features.json"))
    options = parser.parse_args()
    setting = Setting(FULL)
    kept = features(setting, options.images)
    amount = STACK * options.steps * BATCH
    plain, from_kept = _plain(setting, options.steps), _from(kept, setting, options.steps)
    contestants = {"as it is": lambda: rate(amount, plain), "kept": lambda: rate(amount, from_kept)}
    found = take_turns(contestants, options.rounds)
    result = row("step 2 from kept features", "step 2 as it is", "model-images/s", found["kept"], found["as it is"])
    each = kept[:, 0].numel() // STACK * 4
    text = (
        f"Former features of {options.images:,} images and their mirror images, float32, kept in memory for {STACK} "
        "hosts and drawn from at random; both ways in turns, the time to make the features not counted. Written by "
        f"`python -m benchmarks.features`. Measured on {machine.words()}. Nothing is kept in step 2: for the paper's "
        f"{TRAIN:,} images a shard of {STACK} hosts would hold {2 * TRAIN * STACK * each / 1e9:.1f} GB, and the light "
        "protocols see an image less than once."
    )
    shown = {
        "": result.name,
        "against": result.against,
        "ratio": f"{result.ratio:.2f}×",
        "spread": f"{result.spread:.2f}",
        "kept": f"{result.ours:,g}",
        "as it is": f"{result.theirs:,g}",
        "unit": result.unit,
    }
    print(json.dumps(shown, ensure_ascii=False))
    document = {"title": "Features of the frozen former, kept", "text": text, "rows": [shown]}
    options.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


@torch.no_grad()
def features(setting: Setting, images: int) -> Tensor:
    """`[hosts, 2 * images, *slot]`."""
    former, params = stacked.stacked(setting.parts.task.former()), setting.hosts(STACK).former
    raw = setting.parts.task.split("train").inputs[:images]
    inputs = setting.parts.task.to_input(torch.cat([raw, raw.flip(-1)]))
    return torch.cat([former(params, piece.expand(STACK, *piece.shape)) for piece in inputs.split(PIECE)], dim=1)


def _plain(setting: Setting, count: int) -> Callable[[], None]:
    parts, hosts = setting.parts, setting.hosts(STACK)
    network = stacked.network_stacked(parts.task, parts.target, steps.FROZEN)
    frozen = join({"former": hosts.former, "latter": hosts.latter})
    batches = steps.batches_of(parts.task, parts.task.split("train"), setting.seeds(STACK), BATCH)
    return _training(setting, network, frozen, batches, count)


def _from(kept: Tensor, setting: Setting, count: int) -> Callable[[], None]:
    parts, hosts = setting.parts, setting.hosts(STACK)
    module = nn.Sequential(OrderedDict(block=parts.target.module(), latter=parts.task.latter()))
    module.latter.eval()
    network = stacked.OwnFlags(stacked.stacked(module))
    labels = parts.task.split("train").labels[: kept.shape[1] // 2].repeat(2)
    every = torch.arange(STACK)[:, None]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            chosen = torch.randint(kept.shape[1], (STACK, BATCH))
            yield kept[every, chosen], labels[chosen]

    return _training(setting, network, join({"latter": hosts.latter}), batches(), count)


def _training(
    setting: Setting, network: stacked.Stacked, frozen: Params, batches: Iterator[tuple[Tensor, Tensor]], count: int
) -> Callable[[], None]:
    """A turn of step 2."""
    params = join({"block": stacked.initial(setting.parts.target.module, setting.seeds(STACK))})
    optimizer = torch.optim.SGD([tensor.requires_grad_() for tensor in params.values()], 0.01, 0.9)

    def turn() -> None:
        for inputs, labels in islice(batches, count):
            optimizer.zero_grad()
            outputs = network(frozen | params, inputs, training=True)
            setting.parts.task.loss(outputs, labels).sum().backward()
            optimizer.step()

    return turn


if __name__ == "__main__":
    main()
