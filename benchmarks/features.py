"""Step 2 with the frozen former's features kept, each image and its mirror image, against making them at every step.

python -m benchmarks.features [--images 4096] [--rounds 3] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from benchmarks import machine
from benchmarks.setting import BATCH, FULL, Setting
from benchmarks.turns import Row, row, take_turns
from benchmarks.zoo import STACK
from paramtrans.api.task import Split
from paramtrans.config import HostTraining
from paramtrans.utils import memory
from paramtrans.zoo import host_training

EPOCHS, TRAIN = 10, 60_000
"""Of the paper."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--images", type=int, default=4096, help="training images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/results/scale_features.json"))
    options = parser.parse_args()
    setting = Setting(FULL)
    seconds = measure(setting, options.images, options.rounds)
    channels, height, width = setting.builder.task.slot.shape
    whole = 4 * 2 * TRAIN * STACK * channels * height * width
    text = (
        f"Step 2 of {STACK} hosts on {options.images:,} images, {EPOCHS} epochs with random flips, making the features "
        "included; the results are the same bit for bit. Features are kept where each image is used three times or "
        f"more and half of the free memory holds them: for the paper's {TRAIN:,} images {whole / 1e9:.1f} GB a shard. "
        "Images per second of processor time, so that other work on the machine counts less. "
        f"Written by `python -m benchmarks.features`. Measured on {machine.words()}."
    )
    shown = {
        "": seconds.name,
        "against": seconds.against,
        "ratio": f"{seconds.ratio:.2f}×",
        "spread": f"{seconds.spread:.2f}",
        "ours": f"{seconds.ours:,g}",
        "theirs": f"{seconds.theirs:,g}",
        "unit": seconds.unit,
    }
    print(json.dumps(shown, ensure_ascii=False))
    document = {"title": "Features of the frozen former, kept", "text": text, "rows": [shown]}
    options.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def measure(setting: Setting, images: int, rounds: int) -> Row:
    """Both ways in turns, whole shards."""
    builder, seeds = setting.builder, setting.seeds(STACK)
    whole = builder.task.split("train")
    few = Split(whole.inputs[:images], whole.labels[:images])
    hosts = host_training.train_hosts(builder.task, builder.source, HostTraining(steps=1), seeds)
    training = HostTraining(epochs=EPOCHS, batch_size=BATCH, lr=0.01, momentum=0.9)

    def turn(spare: int) -> Callable[[], float]:
        def train() -> float:
            started = time.process_time()
            with patch.object(builder.task, "split", lambda name: few), patch.object(memory, "spare", lambda: spare):
                host_training.train_targets(builder.task, builder.target, hosts, training, seeds)
            return STACK * EPOCHS * images / (time.process_time() - started)

        return train

    seconds = take_turns({"kept": turn(memory.spare()), "anew": turn(0)}, rounds)
    return row("step 2, features kept", "made at every step", "model-images/s", seconds["kept"], seconds["anew"])


if __name__ == "__main__":
    main()
