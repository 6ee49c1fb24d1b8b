"""Residual streams of real architectures at small size, rotated; those that cannot be are refused by reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from paramtrans.errors import SpecMismatch
from paramtrans.networks import files
from paramtrans.networks.forward.activations import arguments, call, first_examples
from paramtrans.networks.forward.outputs import tensors_in
from paramtrans.networks.stream.rotation import Rotated, rotated

pytestmark = pytest.mark.thorough
transformers = pytest.importorskip("transformers")
TOKENS = {"input_ids": torch.randint(3, 50, (6, 9), generator=torch.Generator().manual_seed(0))}
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SIZES = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "pad_token_id": 0}
GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}
OPT = {"vocab_size": 50, "hidden_size": 16, "ffn_dim": 24, "word_embed_proj_dim": 16, "num_attention_heads": 4}
VIT = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}


def uneven(network: Any) -> Any:
    """A network in eval mode none of whose parameters is constant: norms have weights that matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network.eval()


def language_model(kind: str, head: str = "ForCausalLM", **more: Any) -> Any:
    torch.manual_seed(0)
    sizes = more or SIZES
    layers = {} if "n_layer" in sizes else {"num_hidden_layers": 2}
    config = getattr(transformers, f"{kind}Config")(**{**sizes, **layers})
    return uneven(getattr(transformers, f"{kind}{head}")(config))


def image_model(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    return uneven(pytest.importorskip("timm").create_model(name, **arguments))


def torchvision_model() -> Any:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    return uneven(VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=5))


def turned(network: Any, inputs: Any) -> Rotated:
    """A rotated network that gives what the network does."""
    positional, named = arguments(first_examples(inputs, 2))
    result = rotated(network, (positional, named), [inputs])
    with torch.no_grad():
        given, wanted = (tensors_in(call(model, inputs)) for model in (result.network, network))
    for output, wanted_output in zip(given, wanted, strict=True):
        assert float((output - wanted_output).abs().max()) < 1e-4 * float(wanted_output.abs().max())
    energies = result.streams[0].energies
    assert bool((energies.diff() <= 1e-9).all()) and float(energies[0]) > 1
    return result


HEADED = {**SIZES, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("kind", "head", "sizes", "untied"),
    [
        ("Llama", "ForCausalLM", HEADED, False),
        pytest.param("Llama", "ForCausalLM", {**HEADED, "tie_word_embeddings": True}, True, marks=pytest.mark.slow),
        pytest.param("Qwen2", "ForCausalLM", HEADED, False, marks=pytest.mark.slow),
        ("Qwen3", "ForCausalLM", {**HEADED, "head_dim": 4}, False),
        pytest.param("Mistral", "ForCausalLM", HEADED, False, marks=pytest.mark.slow),
        pytest.param("Gemma", "ForCausalLM", {**HEADED, "head_dim": 4}, True, marks=pytest.mark.slow),
        ("GPT2", "LMHeadModel", GPT2, True),
        ("OPT", "ForCausalLM", OPT, True),
        ("GPTNeoX", "ForCausalLM", SIZES, False),
        ("Falcon", "ForCausalLM", SIZES, True),
        ("Llama", "ForSequenceClassification", HEADED, False),
    ],
)
def test_language_models_give_the_same(kind: str, head: str, sizes: dict[str, Any], untied: bool) -> None:
    result = turned(language_model(kind, head, **sizes), TOKENS)
    assert ("lm_head" in {change.module for change in result.changes if change.kind == "untied"}) == untied
    if untied:
        assert result.network.config.tie_word_embeddings is False


@pytest.mark.parametrize(
    "make",
    [
        torchvision_model,
        lambda: image_model("vit_tiny_patch16_224", **VIT),
        lambda: image_model("vit_tiny_patch16_224", **VIT, global_pool="avg", class_token=False),
        lambda: image_model("deit3_small_patch16_224", **VIT),  # LayerScale
        lambda: image_model("cait_xxs24_224", **VIT),
    ],
)
def test_image_models_give_the_same(make: Any) -> None:
    result = turned(make(), IMAGES)
    assert {change.kind for change in result.changes} == {"rms_norm"}
    assert float(result.streams[0].energies[-1]) < 1e-9


@pytest.mark.parametrize(
    ("make", "inputs", "why"),
    [
        (lambda: language_model("Bert", "ForMaskedLM"), TOKENS, "result of a norm goes back.*modeling_bert.py"),
        (lambda: language_model("Gemma2", **{**HEADED, "head_dim": 4}), TOKENS, "goes back.*modeling_gemma2.py"),
        (lambda: language_model("Cohere", **HEADED), TOKENS, "mean adds up units.*modeling_cohere.py"),
        (
            lambda: image_model(
                "swin_tiny_patch4_window7_224",
                img_size=32,
                embed_dim=16,
                depths=(2, 2),
                num_heads=(2, 2),
                window_size=4,
            ),
            IMAGES,
            "layer_norm reads the stream behind scales",
        ),
        (
            lambda: image_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)),
            IMAGES,
            "conv2d works on groups of units",
        ),
        (
            lambda: image_model("resnet18"),
            IMAGES,
            "batch_norm works on each unit",
        ),
    ],
)
def test_others_are_refused(make: Any, inputs: Any, why: str) -> None:
    network = make()
    with pytest.raises(SpecMismatch, match=why):
        turned(network, inputs)


def test_an_untied_model_is_loaded_by_its_own_class(tmp_path: Path) -> None:
    network = language_model("Llama", **HEADED, tie_word_embeddings=True)
    result = turned(network, TOKENS)
    result.network.save_pretrained(tmp_path)
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**TOKENS).logits, network(**TOKENS).logits, rtol=1e-4, atol=1e-4)
    assert network.config.tie_word_embeddings is True


def test_a_rotated_network_is_loaded_from_its_record(tmp_path: Path) -> None:
    result = turned(language_model("GPT2", "LMHeadModel", **GPT2), TOKENS)
    setattr(result.network, files.ATTRIBUTE, ())
    setattr(result.network, files.MODULES, result.changes)
    files.save_translated(result.network, tmp_path / "rotated.safetensors")
    fresh = language_model("GPT2", "LMHeadModel", **GPT2)
    loaded = files.load_translated(tmp_path / "rotated.safetensors", fresh)
    with torch.no_grad():
        assert torch.equal(loaded(**TOKENS).logits, result.network(**TOKENS).logits)
    assert getattr(loaded, files.MODULES) == result.changes
