"""PyTorch's attention module computed from its layers, and made smaller by whole heads."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans.networks.forward.attention import PlainAttention, with_plain_attention

TOKENS, KEYS, EXAMPLES, WIDTH, HEADS = 5, 7, 3, 8, 2


def _inputs(batched: bool, batch_first: bool, widths: tuple[int, int, int]) -> list[Tensor]:
    shapes = zip((TOKENS, KEYS, KEYS), widths, strict=True)
    inputs = [torch.randn(EXAMPLES, tokens, width) for tokens, width in shapes]
    if not batched:
        return [tensor[0] for tensor in inputs]
    return inputs if batch_first else [tensor.transpose(0, 1) for tensor in inputs]


def _both(module: nn.MultiheadAttention, inputs: list[Tensor], **settings: object) -> tuple[list[Tensor], list[Tensor]]:
    module.eval()
    expected = module(*inputs, **settings)
    with with_plain_attention(module):
        assert type(module) is PlainAttention
        given = module(*inputs, **settings)
    assert type(module) is nn.MultiheadAttention
    return [part for part in given if part is not None], [part for part in expected if part is not None]


@pytest.mark.parametrize(("batched", "batch_first", "need_weights"), [*product((True, False), repeat=3)])
def test_it_computes_what_pytorch_s_own_class_does(batched: bool, batch_first: bool, need_weights: bool) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
    given, expected = _both(module, _inputs(batched, batch_first, (WIDTH,) * 3), need_weights=need_weights)
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("average", [True, False])
def test_also_with_masks_other_widths_and_no_bias(average: bool) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, bias=False, kdim=6, vdim=4, batch_first=True)
    padding = torch.zeros(EXAMPLES, KEYS, dtype=torch.bool)
    padding[0, -2:] = True
    for mask in (torch.rand(TOKENS, KEYS) > 0.7, torch.rand(EXAMPLES * HEADS, TOKENS, KEYS) > 0.7):
        mask[..., 0] = False
        given, expected = _both(
            module,
            _inputs(True, True, (WIDTH, 6, 4)),
            key_padding_mask=padding,
            attn_mask=mask,
            average_attn_weights=average,
        )
        torch.testing.assert_close(given, expected)


def test_tokens_that_the_module_adds_itself_stay_with_pytorch_s_class() -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True)
    with with_plain_attention(module):
        assert type(module) is nn.MultiheadAttention


def _encoder() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval()


@torch.no_grad()
def test_an_encoder_of_pytorch_loses_heads_and_comes_back_from_its_file(tmp_path: Path) -> None:
    network, inputs = _encoder(), torch.randn(64, 6, 16)
    small = paramtrans.translate(network, calibrate=inputs.split(16), by="units")
    groups = {group.path: group.units for group in small.paramtrans_blocks}  # type: ignore[union-attr]
    assert groups["layers.0.self_attn"] == groups["layers.1.self_attn"] == (4, 2)
    paramtrans.save_translated(small, tmp_path / "small.safetensors")
    loaded = paramtrans.load_translated(tmp_path / "small.safetensors", _encoder()).eval()
    padding = torch.zeros(64, 6, dtype=torch.bool)
    padding[:, -2:] = True  # PyTorch's encoder would take its fast path, and nested tensors, for these
    for settings in ({}, {"src_key_padding_mask": padding}):
        torch.testing.assert_close(loaded(inputs, **settings), small(inputs, **settings))


@torch.no_grad()
def test_its_output_layer_makes_up_for_the_heads_that_are_gone() -> None:
    network, inputs = _encoder(), torch.randn(96, 6, 16)
    for parameter in network.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.5)
    errors = {}
    for translator in ("select", "refit"):
        small = paramtrans.translate(network, translator, calibrate=inputs.split(16), by="units", blocks="*.self_attn")
        errors[translator] = (small(inputs) - network(inputs)).square().mean().item()
    assert errors["refit"] < 0.8 * errors["select"]
