"""What existing modules are, by their layers and names; whether they compute what that says is measured afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from paramtrans.api.adapter import Recognised
from paramtrans_blocks.activations import activation_name
from paramtrans_blocks.folding import EPS

PASSED = (nn.Dropout, nn.Dropout2d, nn.Identity)
"""Layers that do nothing outside training."""
Leaf = tuple[str, nn.Module]


def conv_chains(module: nn.Module) -> list[Recognised]:
    """Blocks in which convolutions follow each other."""
    if isinstance(module, nn.Sequential):
        return [chain for run in _runs(module) if (chain := _chain(run, "none", None)) is not None]
    if isinstance(getattr(module, "use_res_connect", None), bool) and isinstance(
        getattr(module, "conv", None), nn.Module
    ):
        leaves = [(f"conv.{path}", leaf) for path, leaf in _leaves(module.conv)]  # type: ignore[arg-type]
        chain = _chain(leaves, "identity" if module.use_res_connect else "none", None, is_module=True)
        return [chain] if chain else []
    return _resnet(module)


def basic_blocks(module: nn.Module) -> list[Recognised]:
    """Modules of two convolutions and two BatchNorms by these names, and nothing else: those of hosts, and many
    written by hand. torchvision's, which have more, are convolution chains."""
    names = ("conv1", "bn1", "conv2", "bn2")
    if {name for name, _ in module.named_children()} != {*names}:
        return []
    chain = _chain([(name, module.get_submodule(name)) for name in names], "identity", "relu", is_module=True)
    if chain is None:
        return []
    options, kernel = chain.options, chain.options["steps"][0]["kernel"]
    plain = {"kernel": kernel, "stride": 1, "padding": kernel // 2, "dilation": 1, "bias": False, "norm": EPS}
    as_basic = all(plain.items() <= step.items() for step in options["steps"])
    if not as_basic or kernel % 2 == 0 or options["out"] != options["channels"]:
        return []
    sizes = {"channels": options["channels"], "hidden": options["hidden"][0], "kernel": kernel}
    return [Recognised(sizes, chain.layers, whole=True)]


def linear_chains(module: nn.Module) -> list[Recognised]:
    """Blocks in which Linear layers follow each other on the last axis."""
    if isinstance(module, nn.Sequential):
        return [chain for run in _runs(module) if (chain := _mlp(run)) is not None]
    for names, act, (norm_before, norm_behind), skip in FEED_FORWARD:
        layers = [_at(module, name) for name in names]
        activation = activation_name(_at(module, act))
        if all(isinstance(layer, nn.Linear) for layer in layers) and activation:
            # nn.TransformerEncoderLayer has one norm, which stands before the layers or behind the sum, as it says.
            norm_first = getattr(module, "norm_first", None)
            norms = {
                "norm": "" if norm_first is False else norm_before,
                "closing": "" if norm_first is True else norm_behind,
            }
            norms_at = {name: (path, _at(module, path)) for name, path in norms.items()}
            chain = _feed_forward(names, layers, activation, norms_at, skip)
            return [chain] if chain else []
    return []


FEED_FORWARD: tuple[tuple[tuple[str, str], str, tuple[str, str], str], ...] = (
    (("linear1", "linear2"), "activation", ("norm2", "norm2"), "identity"),  # nn.TransformerEncoderLayer
    (("mlp.0", "mlp.3"), "mlp.1", ("ln_2", ""), "identity"),  # torchvision's EncoderBlock
    (
        ("intermediate.dense", "output.dense"),
        "intermediate.intermediate_act_fn",
        ("layernorm_after", "output.LayerNorm"),
        "identity",
    ),  # ViT, BERT
    (("fc1", "fc2"), "act", ("", ""), "none"),
    (("fc1", "fc2"), "activation_fn", ("", ""), "none"),
    (("fc1", "fc2"), "activation", ("", ""), "none"),
)
"""Names of the two layers, of the activation, of a LayerNorm before them and of one behind the sum, and what is added
to what they give."""


def heads(module: nn.Module) -> list[Recognised]:
    """Attention with layers of their own for queries, keys and values."""
    for names, out, norm in ATTENTION:
        layers = [_at(module, name) for name in (*names, out)]
        # The block's own code must go by the sizes of layers, or by this one number, which stays as it is.
        owners = (module, _at(module, names[0].rpartition(".")[0]))
        width = next((head_width for owner in owners for head_width in _head_widths(owner)), None)
        if width is None or not all(isinstance(layer, nn.Linear) for layer in layers):
            continue
        channels, values, biases = (
            layers[0].in_features,
            layers[0].out_features,
            {layer.bias is None for layer in layers},
        )
        shapes = {(layer.in_features, layer.out_features) for layer in layers[:3]} | {layers[3].weight.shape}
        if shapes != {(channels, values)} or len(biases) > 1 or values % width:
            continue
        closing = _at(module, norm)
        options = {"channels": channels, "heads": values // width, "width": width, "bias": not biases.pop()}
        layer_paths = dict(zip(("query", "key", "value", "out"), (*names, out), strict=True))
        if isinstance(closing, nn.LayerNorm):
            options |= {"closing": closing.eps}
            layer_paths |= {"closing": norm}
        return [Recognised(options | {"skip": "identity" if norm else "none"}, layer_paths)]
    return []


ATTENTION: tuple[tuple[tuple[str, str, str], str, str], ...] = (
    (("self.query", "self.key", "self.value"), "output.dense", "output.LayerNorm"),  # BERT
    (("attention.query", "attention.key", "attention.value"), "output.dense", ""),  # ViT
    (("q_proj", "k_proj", "v_proj"), "out_proj", ""),  # CLIP, Whisper
)
"""Names of the layers for queries, keys and values, of the one behind, and of a LayerNorm of its sum with the input."""


def _head_widths(module: Any) -> list[int]:
    """Values of one head, where a module holds their number."""
    widths = [getattr(module, name, None) for name in ("attention_head_size", "head_dim")]
    return [width for width in widths if isinstance(width, int)]


def _resnet(module: nn.Module) -> list[Recognised]:
    """torchvision's BasicBlock and Bottleneck, or what is built like them."""
    names = [name for name, _ in module.named_children()]
    count = sum(1 for i in (1, 2, 3) if f"conv{i}" in names and f"bn{i}" in names)
    if count < 2 or not isinstance(getattr(module, "relu", None), nn.ReLU) or "downsample" not in dir(module):
        return []
    if set(names) - {"relu", "downsample", *(f"{kind}{i}" for kind in ("conv", "bn") for i in range(1, count + 1))}:
        return []
    leaves: list[Leaf] = []
    for i in range(1, count + 1):
        leaves += [(f"{kind}{i}", module.get_submodule(f"{kind}{i}")) for kind in ("conv", "bn")]
        leaves += [("relu", nn.ReLU())] if i < count else []
    down = module.downsample
    chain = _chain(leaves, "identity" if down is None else "projection", "relu", down, is_module=True)
    return [chain] if chain else []


def _chain(
    leaves: list[Leaf], skip: str, final: str | None, down: Any = None, is_module: bool = False
) -> Recognised | None:
    """A chain of all these leaves up to its last dense convolution; None where they are no such chain."""
    steps: list[dict[str, Any]] = []
    layers: dict[str, str] = {}
    sizes: list[int] = []
    for path, leaf in leaves:
        if isinstance(leaf, nn.Conv2d):
            step = _step(leaf)
            if step is None:
                return None
            steps.append(step)
            sizes += [] if step["depthwise"] else [leaf.out_channels]
            layers[f"conv{len(steps)}"] = path
        elif not steps or not _may_follow(leaf, steps[-1]):
            return None
        elif isinstance(leaf, nn.BatchNorm2d):
            layers[f"bn{len(steps)}"] = path
    while steps and steps[-1]["depthwise"]:
        layers.pop(f"bn{len(steps)}", None), layers.pop(f"conv{len(steps)}")
        steps.pop()
    if len(sizes) < 2 or not steps:
        return None
    if not is_module:  # what follows the sum of the last convolution is left to the network
        steps[-1] |= {"activation": None, "pool": None}
    first_conv = next(leaf for _, leaf in leaves if isinstance(leaf, nn.Conv2d))
    options = {"channels": first_conv.in_channels, "hidden": sizes[:-1], "out": sizes[-1], "steps": steps, "skip": skip}
    if skip == "projection":
        if not _projects(down):
            return None
        layers |= {"downsample.0": "downsample.0", "downsample.1": "downsample.1"}
        options["skip_stride"] = down[0].stride[0]
    return Recognised(options | {"final": final}, layers, is_module)


def _step(conv: nn.Conv2d) -> dict[str, Any] | None:
    """A convolution as a step, without what follows; None unless square, zero-padded, and dense or, in groups, with as
    many channels out as in."""
    depthwise = conv.groups > 1 and conv.in_channels == conv.out_channels
    sizes = [conv.kernel_size, conv.stride, conv.padding, conv.dilation]
    if any(isinstance(size, str) or len(set(size)) > 1 for size in sizes) or conv.padding_mode != "zeros":
        return None
    if conv.groups > 1 and not depthwise:
        return None
    kernel, stride, padding, dilation = (int(size[0]) for size in sizes)
    named = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return {
        **named,
        "depthwise": depthwise,
        "together": conv.in_channels // conv.groups if depthwise else 1,
        "bias": conv.bias is not None,
        "norm": None,
        "activation": None,
        "pool": None,
    }


def _may_follow(leaf: nn.Module, step: dict[str, Any]) -> bool:
    """Whether a layer may follow in this step; notes it there."""
    plain = not step["activation"] and not step["pool"]
    if isinstance(leaf, PASSED):
        return True
    if isinstance(leaf, nn.BatchNorm2d):
        fits = plain and not step["norm"] and leaf.affine and leaf.track_running_stats
        step["norm"] = leaf.eps
        return fits
    if (activation := activation_name(leaf)) is not None:
        fits = plain
        step["activation"] = activation
        return fits
    if isinstance(leaf, nn.MaxPool2d | nn.AvgPool2d) and not step["pool"] and not leaf.ceil_mode:
        sizes = (leaf.kernel_size, leaf.stride, leaf.padding)
        if all(isinstance(size, int) for size in sizes):
            kind = "max" if isinstance(leaf, nn.MaxPool2d) else "average"
            step["pool"] = dict(zip(("kernel", "stride", "padding"), sizes, strict=True), kind=kind)
            return True
    return False


def _projects(down: Any) -> bool:
    """Whether a downsample path is a 1×1 convolution with BatchNorm."""
    if not isinstance(down, nn.Sequential) or len(down) != 2 or not isinstance(down[0], nn.Conv2d):
        return False
    conv, norm = down[0], down[1]
    square = len(set(conv.stride)) == 1 and conv.kernel_size == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
    return square and conv.bias is None and isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats


def _mlp(leaves: list[Leaf]) -> Recognised | None:
    """A chain of Linear layers with one kind of activation between them."""
    linears = [(path, leaf) for path, leaf in leaves if isinstance(leaf, nn.Linear)]
    if len(linears) < 2 or not isinstance(leaves[0][1], nn.Linear):
        return None
    paths = [path for path, _ in leaves]
    between = leaves[: paths.index(linears[-1][0])]
    kinds = [activation_name(leaf) for _, leaf in between if not isinstance(leaf, (nn.Linear, *PASSED))]
    alternate = [isinstance(leaf, nn.Linear) for _, leaf in between if not isinstance(leaf, PASSED)]
    if len(set(kinds)) != 1 or kinds[0] is None or alternate != [True, False] * (len(linears) - 1):
        return None
    names, layers = zip(*linears, strict=True)
    return _feed_forward(names, list(layers), kinds[0], {}, "none")


def _feed_forward(
    names: tuple[str, ...], layers: list[Any], activation: str, norms: dict[str, tuple[str, Any]], skip: str
) -> Recognised | None:
    biases = {layer.bias is not None for layer in layers}
    sizes = [layers[0].in_features, *(layer.out_features for layer in layers)]
    if len(biases) > 1 or (skip == "identity" and sizes[0] != sizes[-1]):
        return None
    options = {"channels": sizes[0], "hidden": sizes[1:-1], "out": sizes[-1], "activation": activation}
    layer_paths = {f"fc{i}": name for i, name in enumerate(names, 1)}
    for name, (path, norm) in norms.items():
        if isinstance(norm, nn.LayerNorm):
            options[name] = norm.eps
            layer_paths = {"norm": path, **layer_paths} if name == "norm" else {**layer_paths, name: path}
    return Recognised(options | {"bias": biases.pop(), "skip": skip}, layer_paths)


def _runs(module: nn.Sequential) -> Iterator[list[Leaf]]:
    """Leaves of a Sequential, cut at layers that are not known; each run begins with a layer of weights."""
    run: list[Leaf] = []
    kinds = (nn.Conv2d, nn.Linear)
    for path, leaf in _leaves(module):
        same_kind = not run or not isinstance(leaf, kinds) or type(leaf) is type(run[0][1])
        is_known = isinstance(leaf, (*kinds, *PASSED, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d)) or activation_name(
            leaf
        )
        if run and (not is_known or not same_kind):
            yield run
            run = []
        if is_known and (run or isinstance(leaf, kinds)):
            run.append((path, leaf))
    if run:
        yield run


def _leaves(module: nn.Module, prefix: str = "") -> Iterator[Leaf]:
    """Layers of nested Sequentials in order; a module of another kind is one leaf."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential):
            yield from _leaves(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _at(module: nn.Module, path: str) -> Any:
    """What stands at a dotted path, or None."""
    value: Any = module
    for name in path.split(".") if path else ["\0"]:
        value = getattr(value, name, None)
    return value
