"""Parts of PyTorch's own encoders given to other architectures; their code looks into its parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import paramtrans
from paramtrans import SpecMismatch
from paramtrans.networks.parts.encoders import keep_layer_by_layer


def encoder() -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False).eval()


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(40, 5, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("part", ["layers.0.self_attn", "layers.1.norm1", "layers.0", "layers.*"])
def test_a_part_of_an_encoder_becomes_another(part: str, tokens: Tensor, tmp_path: Path) -> None:
    network = encoder()
    small = paramtrans.translate(network, to={part: "linear_map"}, calibrate=tokens, options={"steps": 5})
    assert type(network) is nn.TransformerEncoder and type(network.layers[0]) is nn.TransformerEncoderLayer
    outputs = small(tokens)
    assert outputs.shape == tokens.shape
    paramtrans.save_translated(small, tmp_path / "small.safetensors")
    again = paramtrans.load_translated(tmp_path / "small.safetensors", encoder())
    assert torch.allclose(again(tokens), outputs, atol=1e-6)


@pytest.mark.parametrize("is_causal", [False, True])
def test_encoders_that_do_not_look_into_their_layers_compute_the_same(is_causal: bool, tokens: Tensor) -> None:
    network, plain = encoder(), encoder()
    keep_layer_by_layer(plain, "layers.0.self_attn")
    assert type(plain) is not nn.TransformerEncoder and type(plain.layers[1]) is nn.TransformerEncoderLayer
    padding = torch.zeros(40, 5, dtype=torch.bool)
    padding[::2, 3:] = not is_causal
    mask = nn.Transformer.generate_square_subsequent_mask(5) if is_causal else None
    masks = {"mask": mask, "src_key_padding_mask": None if is_causal else padding, "is_causal": is_causal}
    with torch.no_grad():
        wanted, given = (side(tokens, **masks) for side in (network, plain))
    assert torch.allclose(given[~padding], wanted[~padding], atol=1e-6)


class Asking(nn.Module):
    """A network whose code asks a part for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(8, 8)

    def forward(self, features: Tensor) -> Tensor:
        return self.part(features) / self.part.out_features


def test_a_network_that_asks_its_part_for_more_is_refused_before_any_work(tokens: Tensor) -> None:
    with pytest.raises(SpecMismatch, match=r"in the place of part: .*no attribute 'out_features'"):
        paramtrans.translate(Asking().eval(), to={"part": "low_rank_linear?rank=2"}, calibrate=tokens[:, 0])


def test_attention_that_is_given_one_tensor_three_times_is_found(tokens: Tensor) -> None:
    """`attention(x, x, x)`: other features take all three places."""
    network = encoder()
    small = paramtrans.translate(
        network, to={"layers.0.self_attn": "linear_attention?window=8"}, calibrate=tokens, options={"steps": 0}
    )
    [block] = small.paramtrans_blocks
    assert block.started == "closed form"
    assert torch.allclose(small(tokens), network(tokens), atol=1e-5)  # the window is over all positions


@pytest.mark.parametrize("positions", [2, 7])
def test_layers_with_positions_first_are_refused(positions: int) -> None:
    class PositionsFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1, enable_nested_tensor=False)

        def forward(self, x: Tensor) -> Tensor:
            features: Tensor = self.encoder(x.transpose(0, 1))
            return features.mean(0)

    inputs = torch.randn(40, positions, 8, generator=torch.Generator().manual_seed(1))
    with pytest.raises(SpecMismatch, match=r"linear1: the first axis of its features is not that of the examples"):
        paramtrans.translate(
            PositionsFirst().eval(),
            to={"encoder.layers.0.linear1": "low_rank_linear?rank=2"},
            calibrate=inputs.split(20),
        )
