"""Blocks of real networks given to other architectures, from unlabelled inputs.

Rows of `docs/results/architectures.json`: ResNets on FashionMNIST (files that `fashion_resnet.py` wrote), MiniLM, and
SmolLM2. Rows that the file has already are left as they are, so that it can be stopped and goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from math import exp
from pathlib import Path

import torch
from architecture_rows import STAGES, Subject, Wanted, at_random, rows
from fashion_resnet import FOLDER, KEPT_OUT, CifarResNet, accuracy, augmented, read, train
from safetensors.torch import load_file
from torch import Tensor, nn

RESNET = ("depthwise_separable", "bottleneck", "low_rank_conv?rank=16", "grouped_conv?groups=4")
WIDER = {f"stages.{stage}.*": f"bottleneck?hidden={[12 * 2**stage] * 2}" for stage in range(3)}
"""Bottlenecks of three quarters of the channels, where half is usual."""
MINILM = {
    "grouped_query": "grouped_query",
    "latent_attention": "latent_attention?rank=192",
    "linear_attention": "linear_attention",
    "linear_attention, window of 4": "linear_attention?window=4",
    "state_space": "state_space",
    "conv_mixer": "conv_mixer",
}
"""Targets for the attention of MiniLM, by the name that the table has."""
EVERY, SECOND = "model.layers.*.self_attn", "model.layers.*[13579].self_attn"
SMOLLM2 = {
    "grouped_query, 3 → 1 key heads": {EVERY: "grouped_query?key_heads=1"},
    "latent_attention, rank 192": {EVERY: "latent_attention?rank=192"},
    "linear_attention, window of 64, every second layer": {SECOND: "linear_attention?window=64"},
    "state_space, every second layer": {SECOND: "state_space"},
}
"""The same for SmolLM2, with the layers that it is for; its attention has 9 query heads of 64 values."""


def resnets(options: argparse.Namespace) -> Subject:
    """All basic blocks of each network, to each family, from 64 and from 512 images."""
    images, labels = read(options.data, "train")
    test = read(options.data, "t10k")

    def trained(small: nn.Module) -> float | None:
        """The target's architecture from a random start, trained on labels as the original was."""
        if not options.train:
            return None
        network = at_random(small)
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        train(network, images[:-KEPT_OUT], labels[:-KEPT_OUT], 0, peak=0.1)
        return accuracy(network, *test)

    return Subject(
        "ResNet-8 on FashionMNIST",
        "BasicBlock",
        "accuracy, %",
        [_resnet(path) for path in options.networks],
        {target: {"stages.*.*": target} for target in RESNET} | {"bottleneck, three quarters": WIDER},
        options.inputs or (512, 64),
        lambda count, number: _drawn(images, count, number).split(64),
        lambda network: [accuracy(network, *test)],
        test[0][:64],
        trained=trained,
        moved=_moved,
    )


def _resnet(path: Path) -> nn.Module:
    network = CifarResNet()
    network.load_state_dict(load_file(path))
    return network.eval()


def _drawn(images: Tensor, count: int, seed: int) -> Tensor:
    """Unlabelled images that no network was trained on."""
    generator = torch.Generator().manual_seed(100 + seed)
    return images[-KEPT_OUT:][torch.randperm(KEPT_OUT, generator=generator)[:count]]


def _moved(batches: Sequence[Tensor], copies: int) -> list[Tensor]:
    """The images, and copies as the networks were trained on.

    Copies of one image stand at places that leave one rest when divided by eight: one in eight is kept aside.
    """
    generator = torch.Generator().manual_seed(0)
    return [*batches, *(augmented(batch, generator) for _ in range(copies) for batch in batches)]


def minilm(options: argparse.Namespace) -> Subject:
    """The attention of all six layers, to each family, from sentences."""
    import minilm as example

    network = example.minilm()
    calibration, test = example.sentences()
    held = example.batches(test[: options.held_out])
    wanted = example.embeddings(network, held)
    return Subject(
        "MiniLM",
        "attention",
        "cosine",
        [network],
        {name: {"encoder.layer.*.attention": target} for name, target in MINILM.items()},
        options.inputs or (500,),
        lambda count, number: example.batches(calibration[:count]),
        lambda other: (example.embeddings(other, held) * wanted).sum(1).tolist(),
        held[len(held) // 2],
        {"batch": 16},
    )


def smollm2(options: argparse.Namespace) -> Subject:
    """The attention of all or of half of the thirty layers, from tokens in rows of 256."""
    import smollm2 as example

    network, tokenizer = example.smollm2()
    calibration, test = example.rows_of(tokenizer)
    test = test[: options.held_out or example.HELD_OUT]

    def inputs(count: int, number: int) -> list[dict[str, Tensor]]:
        rows = calibration[: max(1, count // example.LENGTH)]
        return [{"input_ids": ids} for ids in rows.split(example.BATCH)]

    return Subject(
        example.MODEL,
        "attention",
        f"perplexity on {len(test)} × {example.LENGTH} tokens",
        [network],
        SMOLLM2,
        options.inputs or (65_536,),
        inputs,
        lambda other: example.surprise(other, test).tolist(),
        {"input_ids": test[:1]},
        {"batch": 4},
        ("start", "feature matching"),
        exp,
    )


MODELS = {"resnets": resnets, "minilm": minilm, "smollm2": smollm2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=MODELS, help="which networks")
    parser.add_argument("networks", nargs="*", type=Path, help="for resnets: files of fashion_resnet.py")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of FashionMNIST's files")
    parser.add_argument("--train", action="store_true", help="also train each target on labels, as an upper mark")
    parser.add_argument("--target", action="append", help="one of the targets, by its name in the table; else all")
    parser.add_argument(
        "--stage", action="append", choices=STAGES, help="one of the stages; those of the model by default"
    )
    parser.add_argument("--inputs", action="append", type=int, help="how many images, sentences or tokens")
    parser.add_argument(
        "--held-out", type=int, help="sentences, or rows of tokens, to measure on; fewer for a first look"
    )
    parser.add_argument("-o", "--output", type=Path, help="JSON file that rows are put into; those in it are left")
    options = parser.parse_args()
    if (options.model == "resnets") != bool(options.networks):
        parser.error("resnets, and no other model, take files of fashion_resnet.py")
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    subject = MODELS[options.model](options)
    unknown = {*(options.target or ())} - subject.targets.keys()
    if unknown:
        parser.error(f"--target {unknown.pop()}: {options.model} has {', '.join(subject.targets)}")
    for row in rows(subject, Wanted(options.target, options.stage), options.output):
        print(json.dumps(row.as_dict()), flush=True)


if __name__ == "__main__":
    main()
