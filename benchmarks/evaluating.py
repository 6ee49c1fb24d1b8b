"""Many hosts evaluated at once against one host at a time in plain PyTorch."""

from __future__ import annotations

import torch
from torch.func import functional_call

from benchmarks.setting import Setting
from benchmarks.turns import Row, rate, row, take_turns
from paramtrans.api.stacking import join
from paramtrans.api.task import Split
from paramtrans.evaluation.metrics import measured


def rows(setting: Setting) -> list[Row]:
    """The same accuracies of the same hosts, in model-images a second."""
    builder, size = setting.builder, setting.size
    hosts, test = setting.hosts(size.hosts), builder.task.split("test")
    images = Split(test.inputs[: size.images], test.labels[: size.images])
    blocks = {"source": (builder.runner.source, hosts.source)}
    host = setting.host().eval()
    params = join({"former": hosts.former, "block": hosts.source, "latter": hosts.latter})

    metrics = {"accuracy": builder.metric}

    def ours() -> torch.Tensor:
        return measured(builder.runner, hosts, blocks, images, metrics, setting.device)["accuracy"]["source"]

    @torch.no_grad()
    def theirs(batch: int = 500) -> torch.Tensor:
        scores = []
        given, labels = images.inputs.to(setting.device), images.labels.to(setting.device)
        for number in range(len(hosts)):
            model = {name: tensor[number] for name, tensor in params.items()}
            hits = 0.0
            for start in range(0, len(images), batch):
                outputs = functional_call(host, model, (builder.task.to_input(given[start : start + batch]),))
                hits += builder.metric.measure(outputs[None], labels[start : start + batch]).sum().item()
            scores.append(hits / len(images))
        return torch.tensor(scores, dtype=torch.float64)

    torch.testing.assert_close(ours(), theirs(), atol=0.1, rtol=0)
    amount = len(hosts) * len(images)
    rates = take_turns({"ours": lambda: rate(amount, ours), "theirs": lambda: rate(amount, theirs)}, size.rounds)
    name = f"evaluating {len(hosts)} hosts on {len(images):,} images"
    return [row(name, "one host at a time", "model-images/s", rates["ours"], rates["theirs"])]
