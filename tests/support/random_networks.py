"""Small random networks of images and of tokens, from the operations that networks are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

Draw = Callable[[st.SearchStrategy[Any]], Any]
ACTIVATIONS = (F.relu, F.gelu, F.hardswish, torch.tanh, F.silu, F.leaky_relu, torch.abs, F.softplus)
SIDE, LENGTH = 6, 5


class Step(nn.Module):
    """A function of layers, which it owns."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


class Attention(nn.Module):
    """Self-attention, packed or not, with fewer heads for keys where asked."""

    def __init__(self, width: int, heads: int, key_heads: int, head_dim: int, fast: bool, packed: bool) -> None:
        super().__init__()
        self.heads, self.key_heads, self.head_dim, self.fast = heads, key_heads, head_dim, fast
        self.packed = nn.Linear(width, 3 * heads * head_dim) if packed and heads == key_heads else None
        sizes = [] if self.packed else [heads, key_heads, key_heads]
        self.separate = nn.ModuleList(nn.Linear(width, size * head_dim) for size in sizes)
        self.out = nn.Linear(heads * head_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        if self.packed is not None:
            q, k, v = self.packed(x).view(batch, length, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        else:
            split = (layer(x).view(batch, length, -1, self.head_dim) for layer in self.separate)
            q, k, v = (part.transpose(1, 2) for part in split)
        if self.key_heads != self.heads:
            k, v = (part.repeat_interleave(self.heads // self.key_heads, 1) for part in (k, v))
        if self.fast:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


def network(draw: Draw) -> tuple[nn.Module, Tensor]:
    """A network in eval mode with random statistics, and inputs for it."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    made, inputs = _images(draw) if draw(st.booleans()) else _tokens(draw)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return made.eval(), inputs


def _images(draw: Draw) -> tuple[nn.Module, Tensor]:
    channels = draw(st.sampled_from([3, 4]))
    inputs, steps = torch.randn(2, channels, SIDE, SIDE), list[nn.Module]()
    for _ in range(draw(st.integers(1, 4))):
        step, channels = _image_step(draw, channels, depth=0)
        steps.append(step)
    if draw(st.booleans()):
        head = Step(lambda x, layer: layer(x.mean((2, 3))), nn.Linear(channels, 3))
    else:
        head = Step(lambda x, layer: layer(F.adaptive_avg_pool2d(x, 2).flatten(1)), nn.Linear(4 * channels, 3))
    return nn.Sequential(*steps, head), inputs


def _image_step(draw: Draw, channels: int, depth: int, keep: bool = False) -> tuple[nn.Module, int]:
    """A step, and how many channels leave it; as many as enter it with `keep`."""
    kinds = ["conv", "norm", "activation", "depthwise", "gate", "shuffle"]
    kinds += ["residual", "squeeze", "parts"] if depth < 2 else []
    kinds += ["concat"] if depth < 2 and not keep else []
    kind = draw(st.sampled_from(kinds))
    wide = channels if keep else draw(st.sampled_from([2, 4, 6, 8]))
    if kind == "conv":
        kernel, bias = draw(st.sampled_from([1, 3, (3, 1)])), draw(st.booleans())
        groups = 2 if draw(st.booleans()) and channels % 2 == wide % 2 == 0 else 1
        return nn.Conv2d(channels, wide, kernel, padding="same", groups=groups, bias=bias), wide
    if kind == "norm":
        norms = [nn.BatchNorm2d(channels, affine=draw(st.booleans())), nn.InstanceNorm2d(channels, affine=True)]
        norms += [nn.GroupNorm(2, channels)] if channels % 2 == 0 else []
        return draw(st.sampled_from(norms)), channels
    if kind == "depthwise":
        return nn.Conv2d(channels, channels, 3, padding=1, groups=channels), channels
    if kind == "gate":
        pair = (nn.Conv2d(channels, wide, 1), nn.Conv2d(channels, wide, 3, padding=1))
        return Step(lambda x, a, b: a(x) * torch.sigmoid(b(x)), *pair), wide
    if kind == "shuffle" and channels % 2 == 0:
        return Step(
            lambda x: x.view(len(x), 2, -1, SIDE, SIDE).transpose(1, 2).reshape(len(x), -1, SIDE, SIDE)
        ), channels
    if kind == "residual":
        branch = nn.Sequential(
            *(_image_step(draw, channels, depth + 1, True)[0] for _ in range(draw(st.integers(1, 3))))
        )
        thin = draw(st.sampled_from([2, 4, 8]))
        around = nn.Sequential(nn.Conv2d(channels, thin, 1), nn.ReLU(), nn.Conv2d(thin, channels, 1))
        return Step(lambda x, a, b: x + b(a(x)), branch, around), channels
    if kind == "concat":
        branch, more = _image_step(draw, channels, depth + 1)
        return Step(lambda x, branch: torch.cat([x, branch(x)], 1), branch), channels + more
    if kind == "squeeze":
        layers = (nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1))
        return Step(lambda x, a, b: x * torch.sigmoid(b(F.relu(a(x.mean((2, 3), keepdim=True))))), *layers), channels
    if kind == "parts" and channels % 2 == 0:
        branch, _ = _image_step(draw, channels // 2, depth + 1, True)
        return Step(lambda x, branch: torch.cat([x.chunk(2, 1)[0], branch(x.chunk(2, 1)[1])], 1), branch), channels
    return Step(draw(st.sampled_from(ACTIVATIONS))), channels


def _tokens(draw: Draw) -> tuple[nn.Module, Tensor]:
    width = draw(st.sampled_from([4, 6, 8]))
    steps = [_token_step(draw, width) for _ in range(draw(st.integers(1, 4)))]
    if draw(st.booleans()):
        steps += [steps[0]]  # a layer that is passed twice
    return nn.Sequential(nn.Linear(3, width), *steps, nn.Linear(width, 3)), torch.randn(2, LENGTH, 3)


def _token_step(draw: Draw, width: int) -> nn.Module:
    kind = draw(st.sampled_from(["linear", "norm", "mlp", "gated", "packed gate", "attention", "activation", "conv"]))
    hidden, activation = draw(st.sampled_from([4, 6, 10])), draw(st.sampled_from(ACTIVATIONS))
    norm = draw(st.sampled_from([nn.LayerNorm(width), nn.RMSNorm(width), nn.Identity()]))
    up, gate, down = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)
    if kind == "linear":
        return nn.Linear(width, width, bias=draw(st.booleans()))
    if kind == "norm":
        return norm
    if kind == "mlp":
        return Step(lambda x, n, a, b: x + b(activation(a(n(x)))), norm, up, down)
    if kind == "gated":
        return Step(lambda x, n, a, g, b: x + b(activation(g(n(x))) * a(n(x))), norm, up, gate, down)
    if kind == "packed gate":
        both = nn.Linear(width, 2 * hidden)

        def gated(x: Tensor, packed: nn.Module, b: nn.Module) -> Tensor:
            gate, value = packed(x).chunk(2, -1)
            result: Tensor = x + b(activation(gate) * value)
            return result

        return Step(gated, both, down)
    if kind == "attention":
        heads, key_heads = draw(st.sampled_from([(2, 2), (4, 4), (4, 2), (4, 1)]))
        attention = Attention(width, heads, key_heads, 2, draw(st.booleans()), draw(st.booleans()))
        return Step(lambda x, n, a: x + a(n(x)), norm, attention)
    if kind == "conv":
        layers = (nn.Conv1d(width, hidden, 3, padding=1), nn.Conv1d(hidden, width, 1))
        return Step(lambda x, a, b: b(F.relu(a(x.transpose(1, 2)))).transpose(1, 2), *layers)
    return Step(activation)
