"""Captured programs (`torch.export`) as networks: translated as the network that they were captured from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from paramtrans import SpecMismatch, as_program, load_translated, save_exported, save_translated, translate
from paramtrans.errors import DataError, StoreError
from paramtrans.networks.forward.activations import call
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.graph.exported_programs import read_program

IMAGES = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Code(nn.Module):
    """A network whose code between two convolutions, of 8 and 4 units, is a function."""

    def __init__(self, code: Callable[[Tensor], Tensor], hidden: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.code = nn.Conv2d(3, 8, 3, padding=1), code
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(hidden, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.code(self.norm(self.first(images)).relu_()))  # type: ignore[no-any-return]


def exported(network: nn.Module, batch: Any, dynamic: bool = True) -> ExportedProgram:
    """The network as a program, for any number of examples or for those of the batch."""
    named = batch if isinstance(batch, dict) else {}
    args = () if named else (batch,)
    sizes = {0: Dim.AUTO} if dynamic else None
    shapes: Any = dict.fromkeys(named, sizes) if named else (sizes,)
    return torch.export.export(network, args, named, dynamic_shapes=shapes if dynamic else None, strict=False)


def outputs(network: nn.Module, batch: Any) -> list[Tensor]:
    with torch.no_grad():
        return tensors_in(call(network, batch))


NUMBERS: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, tuple[int, int]]]] = {
    "view": (lambda x: x.view(-1, 8, 36).view(-1, 8, 6, 6), {"view.1.1": (8, 4), "view_1.1.1": (8, 4)}),
    "unflatten": (lambda x: x.unflatten(1, (4, 2)).relu().flatten(1, 2), {"unflatten.2.0": (4, 2)}),
    "split": (lambda x: torch.mul(*x.split(4, 1)), {"split.1": (4, 2)}),
    "slice": (lambda x: torch.cat((x[:, 4:], x[:, :4]), 1), {"slice_2.2": (4, 2), "slice_4.3": (4, 2)}),
    "narrow": (lambda x: torch.cat((x.narrow(1, 4, 4), x.narrow(1, 0, 4)), 1), {"narrow.2": (4, 2)}),
    "zeros": (lambda x: x + x.new_zeros(1, 8, 1, 1), {"new_zeros.1.1": (8, 4)}),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_in_operations_follow(name: str) -> None:
    code, expected = NUMBERS[name]
    program = exported(Code(code, 4 if name == "split" else 8).eval(), IMAGES[:2]).module()
    small = translate(program, calibrate=IMAGES, blocks="first")
    assert small.get_parameter("first.weight").shape == (4, 3, 3, 3)
    settings = {size.attribute: (size.before, size.after) for size in small.paramtrans_sizes}  # type: ignore[union-attr]
    assert expected.items() <= settings.items()
    assert outputs(small, IMAGES)[0].shape == (64, 4, 4, 4)


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_program_becomes_what_its_network_becomes(dynamic: bool) -> None:
    network = Code(lambda x: x.flatten(2).unflatten(2, (6, 6))).eval()
    program = exported(network, IMAGES[:2] if dynamic else IMAGES, dynamic)
    before = {name: tensor.clone() for name, tensor in program.state_dict.items()}
    small, expected = translate(program.module(), calibrate=IMAGES), translate(network, calibrate=IMAGES, by="units")
    assert torch.equal(outputs(small, IMAGES)[0], outputs(expected, IMAGES)[0])
    assert small.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in program.state_dict.items())
    with pytest.raises(SpecMismatch, match=r"ExportedProgram; give its module\(\)"):
        translate(program, calibrate=IMAGES)  # type: ignore[arg-type]


def flattened(images: Tensor) -> Tensor:
    """Code that holds the number of units, which no attribute has."""
    return images.view(len(images), 8, 36).softmax(2).view(len(images), 8, 6, 6)


@pytest.mark.thorough
def test_numbers_in_code_follow_in_the_captured_program(tmp_path: Path) -> None:
    network = Code(flattened).eval()
    with pytest.raises(SpecMismatch, match=r"as_program\(network, inputs\)"):
        translate(network, calibrate=IMAGES, by="units", blocks="first")
    program = as_program(network, IMAGES)
    torch.testing.assert_close(outputs(program, IMAGES), outputs(network, IMAGES))
    small = translate(program, calibrate=IMAGES, blocks="first")
    assert small.get_parameter("first.weight").shape == (4, 3, 3, 3)
    save_translated(small, tmp_path / "small.safetensors")
    save_exported(small, tmp_path / "small.pt2", IMAGES)
    loaded = load_translated(tmp_path / "small.safetensors", network=as_program(network, IMAGES))
    assert torch.equal(outputs(loaded, IMAGES)[0], outputs(small, IMAGES)[0])
    assert torch.equal(outputs(read_program(tmp_path / "small.pt2"), IMAGES)[0], outputs(small, IMAGES)[0])
    with pytest.raises(StoreError, match="as_program"):
        load_translated(tmp_path / "small.safetensors", network=Code(flattened))


def test_a_program_for_batches_of_one_size_is_given_these(caplog: pytest.LogCaptureFixture) -> None:
    network = Code(lambda x: x.view(8, 8, 36).softmax(2).view(8, 8, 6, 6)).eval()
    program = as_program(network, IMAGES[:8])
    assert "batches of 8 examples alone" in caplog.text
    small = translate(program, calibrate=IMAGES, blocks="first")
    assert small.get_parameter("first.weight").shape == (4, 3, 3, 3)
    assert outputs(small, IMAGES[:8])[0].shape == (8, 4, 4, 4)
    with pytest.raises(DataError, match="exported for batches of 8"):
        translate(program, calibrate=IMAGES[:5])


def swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 16, [2], [4], [4, 4], num_classes=5)


def vit() -> nn.Module:
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 1, "num_heads": 4, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **sizes)  # type: ignore[no-any-return]


def resnet() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(num_classes=5)


def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "use_cache": False}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads))  # type: ignore[no-any-return]


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    config = transformers.BertConfig(**sizes, num_attention_heads=4)
    return transformers.BertForSequenceClassification(config)  # type: ignore[no-any-return]


def batch_of(make: Callable[[], nn.Module]) -> Any:
    generator = torch.Generator().manual_seed(0)
    if make in (llama, bert):
        tokens = torch.randint(0, 50, (64, 7), generator=generator)
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return torch.randn(64, 3, 16, 16, generator=generator)


@pytest.mark.thorough
@pytest.mark.parametrize("make", [vit, llama, bert, pytest.param(resnet, marks=pytest.mark.slow)])
def test_an_exported_network_becomes_what_it_becomes_itself(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, batch = make().eval(), batch_of(make)
    few = {name: tensor[:2] for name, tensor in batch.items()} if isinstance(batch, dict) else batch[:2]
    torch.export.save(exported(network, few), tmp_path / "network.pt2")
    blocks = "layer1.*" if make is resnet else "*"
    small = translate(read_program(tmp_path / "network.pt2"), calibrate=[batch], blocks=blocks)
    expected = translate(network, calibrate=[batch], blocks=blocks, by="units")
    assert [(group.path, group.units) for group in small.paramtrans_blocks] == [  # type: ignore[union-attr]
        (group.path, group.units)
        for group in expected.paramtrans_blocks  # type: ignore[union-attr]
    ]
    torch.testing.assert_close(outputs(small, batch), outputs(expected, batch), rtol=1e-4, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("dynamic", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_heads_of_a_swin_go_with_its_program(dynamic: bool) -> None:
    torch.manual_seed(0)
    network, images = swin().eval(), batch_of(swin)
    program = as_program(network, images) if dynamic else exported(network, images[:4], dynamic=False).module()
    small = translate(program, calibrate=images.split(16))
    heads = [group for group in small.paramtrans_blocks if group.kind == "groups"]  # type: ignore[union-attr]
    assert [group.units for group in heads] == [(4, 2)] * 2
    assert small.get_parameter("features.1.0.attn.qkv.weight").shape == (24, 16)
    assert outputs(small, images[:4])[0].shape == (4, 5)
    live = translate(network, calibrate=images.split(16), by="units")
    assert not any(group.kind == "groups" for group in live.paramtrans_blocks)  # type: ignore[union-attr]


class Recent(nn.Module):
    """Of a long text it reads the last tokens alone; it is not one to be captured for all lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(20, 8), nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.shape[1] > 8:
            tokens = tokens[:, -8:]
        hidden: Tensor = self.down(torch.relu(self.up(self.embed(tokens))))
        return hidden.mean(1)


def test_a_program_refuses_sizes_that_it_was_not_captured_for(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    network, tokens, longer = Recent().eval(), torch.randint(20, (8, 6)), torch.randint(20, (4, 12))
    program = as_program(network, tokens)
    assert "takes tokens with axis 1 of length 8 at most" in caplog.text
    save_exported(program, tmp_path / "program.pt2", tokens)
    for captured in (program, translate(program, calibrate=tokens), read_program(tmp_path / "program.pt2")):
        assert outputs(captured, torch.randint(20, (1, 3)))[0].shape == (1, 4)
        with pytest.raises(DataError, match=r"axis 1 has length 12; this program was captured for 8 at most"):
            captured(longer)


def test_a_program_refuses_other_sizes_than_fixed_ones() -> None:
    program = exported(Code(lambda x: x).eval(), IMAGES[:2]).module()
    small = translate(program, calibrate=IMAGES)
    with pytest.raises(DataError, match=r"axis 2 has length 12; this program was captured for \d+ alone"):
        small(torch.randn(2, 3, 12, 12))
