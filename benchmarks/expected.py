"""Whether the change of accuracy that is expected without labels is the one that comes.

python -m benchmarks.expected [--images N] [--out FILE]

The 17 hosts of `examples/data`, which no translator was trained on, each translated by the translators that come with
paramtrans, without an image, and by two without training. What `measure_losses` expects of each, from training images
without labels, stands beside what the 10,000 test images say.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from scipy.stats import spearmanr
from torch import nn

import paramtrans
from paramtrans import components
from paramtrans.networks.loading import architectures
from paramtrans.zoo.host_file import HostFile

HOSTS = Path(__file__).parents[1] / "examples" / "data" / "paper_hosts.safetensors"
CALIBRATION = 64
"""Images for the refit; others than those that losses are expected by."""


@dataclass(frozen=True)
class Row:
    """A way to translate, and its hosts."""

    translator: str
    hosts: int
    images: int
    """Kept aside, without labels, that the expectation is of."""
    expected: float
    """Points of accuracy, the mean over hosts; so are those below."""
    measured: float
    difference: float
    """Mean absolute difference of the two."""
    spearman: float
    """Rank correlation over hosts."""

    def line(self) -> str:
        """A row of a table in Markdown."""
        changes = f"{self.expected:+.1f} | {self.measured:+.1f} | {self.difference:.1f}"
        return f"| `{self.translator}` | {changes} | {self.spearman:.2f} |".replace("-", "−")


def measured(images: int) -> list[Row]:
    """A row for each way to translate."""
    task = components().create("task", "mnist")
    with TemporaryDirectory() as folder:
        task.prepare(Path(folder))
        test, train = task.split("test"), task.split("train")
    inputs = task.to_input(train.inputs[: CALIBRATION + images])
    calibration, unlabelled = inputs.split([CALIBRATION, images])
    ways: dict[str, Callable[[nn.Module], nn.Module]] = {
        entry.name: lambda host, name=entry.name: paramtrans.translate(host, name)  # type: ignore[misc]
        for entry in components().of_kind("pretrained_translator")
    }
    ways["prune"] = lambda host: paramtrans.translate(host, "prune", ratio=0.5)
    ways["refit"] = lambda host: paramtrans.translate(host, "refit", ratio=0.5, calibrate=calibration)
    hosts = [_host(number) for number in range(HostFile(HOSTS).count)]
    labelled = list(zip(task.to_input(test.inputs).split(1000), test.labels.split(1000), strict=True))
    rows = []
    for name, translate in ways.items():
        pairs = []
        for host in hosts:
            losses = paramtrans.measure_losses(host, translate(host), unlabelled, evaluate=labelled)
            assert losses.expected_change is not None and losses.accuracy is not None
            pairs.append((100 * losses.expected_change.value, 100 * losses.accuracy.change.value))
        expected, came = torch.tensor(pairs).T
        difference, correlation = (expected - came).abs().mean(), spearmanr(expected, came).statistic
        rows.append(
            Row(name, len(hosts), losses.examples, *map(float, (expected.mean(), came.mean(), difference, correlation)))
        )
        print(rows[-1].line(), flush=True)
    return rows


def _host(number: int) -> nn.Module:
    network = architectures.build("task:mnist:basic_block")
    network.load_state_dict(HostFile(HOSTS).network(number))
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.expected", description=__doc__)
    parser.add_argument("--images", type=int, default=4096, help="without labels; one in eight is kept aside")
    parser.add_argument("--out", type=Path, default=Path("docs/results/expected.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    rows = [asdict(row) for row in measured(options.images)]
    options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
