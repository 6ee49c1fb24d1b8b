"""Models of transformers without some of their layers: generation, config, and the folder that their class loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import paramtrans
from paramtrans.cli.main import main
from paramtrans.errors import ConfigError
from paramtrans.networks.results.stock import save_stock

transformers = pytest.importorskip("transformers")
TOKENS = torch.randint(3, 50, (40, 9), generator=torch.Generator().manual_seed(0))
SIZES = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4, "pad_token_id": 0}
TURNS = ["sliding_attention", "full_attention"] * 2


def model(kind: str, head: str = "ForCausalLM", **more: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, "num_hidden_layers": 4, **more})
    made = getattr(transformers, f"{kind}{head}")(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # so that layers matter
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return made


def without_first(network: Any, path: str = "model.layers") -> Any:
    """The network without its first layer: what counts positions by the first layer's cache would be wrong."""
    return paramtrans.translate(network, depth=0, blocks=f"{path}.0", calibrate={"input_ids": TOKENS})


def generated(network: Any, cache: bool) -> torch.Tensor:
    settings = {"max_new_tokens": 8, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    return torch.stack(network.generate(TOKENS[:2], use_cache=cache, **settings).logits)


@pytest.mark.parametrize(
    ("kind", "head", "path", "more"),
    [
        ("Llama", "ForCausalLM", "model.layers", {"num_key_value_heads": 2}),
        pytest.param("GPT2", "LMHeadModel", "transformer.h", {}, marks=pytest.mark.slow),
        pytest.param("Qwen2", "ForCausalLM", "model.layers", {"num_key_value_heads": 2}, marks=pytest.mark.slow),
    ],
)
def test_generation_with_a_cache_is_that_without(kind: str, head: str, path: str, more: dict[str, Any]) -> None:
    network = model(kind, head, **more)
    shorter = without_first(network, path)
    assert len(shorter.get_submodule(path)) == 3 and len(network.get_submodule(path)) == 4
    torch.testing.assert_close(generated(shorter, True), generated(shorter, False), rtol=1e-4, atol=1e-4)


def sliding() -> Any:
    """A model whose layers take turns: a window over the last tokens, or all of them."""
    torch.manual_seed(0)
    turns = {"sliding_window": 4, "layer_types": TURNS, "num_key_value_heads": 2, "head_dim": 4}
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**SIZES, num_hidden_layers=4, **turns)).eval()


def test_each_layer_that_stays_keeps_its_kind_of_cache() -> None:
    shorter = without_first(sliding())
    torch.testing.assert_close(generated(shorter, True), generated(shorter, False), rtol=1e-4, atol=1e-4)


def test_the_config_follows_and_that_of_the_original_stays() -> None:
    network = sliding()
    shorter = without_first(network)
    assert (network.config.num_hidden_layers, shorter.config.num_hidden_layers) == (4, 3)
    # Four heads are no four layers.
    assert shorter.config.num_attention_heads == 4
    assert shorter.config.layer_types == TURNS[1:] and network.config.layer_types == TURNS
    assert all(module.config is shorter.config for module in shorter.modules() if "config" in vars(module))


def test_the_config_of_one_side_of_a_model_follows() -> None:
    sizes = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": 3, "attention_heads": 2, "ffn_dim": 16}.items()
    }
    torch.manual_seed(0)
    config = transformers.BartConfig(vocab_size=50, d_model=16, **sizes)
    network = transformers.BartForConditionalGeneration(config).eval()
    batch = {"input_ids": TOKENS, "decoder_input_ids": TOKENS[:, :4]}
    shorter = paramtrans.translate(network, depth=0, blocks="model.decoder.layers.0", calibrate=batch)
    assert (shorter.config.encoder_layers, shorter.config.decoder_layers) == (3, 2)


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "head"), [("Llama", "ForCausalLM"), ("Bert", "ForMaskedLM")])
def test_a_folder_with_fewer_layers_comes_out(tmp_path: Path, kind: str, head: str, capsys) -> None:
    folder, out, stock = tmp_path / "given", tmp_path / "x.safetensors", tmp_path / "stock"
    model(kind, head).save_pretrained(folder)
    save_file({"input_ids": TOKENS}, tmp_path / "tokens.safetensors")
    command = ["translate", str(folder), "--arch", f"hf:{folder}", "--calibrate", str(tmp_path / "tokens.safetensors")]
    assert main([*command, "--depth", "0.5", "-o", str(out), "--stock", str(stock), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert told.count("Layer → left out") == 2
    assert f'given network="hf:{folder}"' in told
    assert json.loads((stock / "config.json").read_text())["num_hidden_layers"] == 2
    theirs = getattr(transformers, f"{kind}{head}").from_pretrained(stock).eval()
    ours = paramtrans.load_translated(out, f"hf:{folder}")
    with torch.no_grad():
        torch.testing.assert_close(theirs(TOKENS).logits, ours(TOKENS).logits)


def test_fewer_and_narrower_layers_come_out_together(tmp_path: Path) -> None:
    network = model("Llama", num_key_value_heads=2)
    network.save_pretrained(tmp_path / "given")
    batch = {"input_ids": TOKENS}
    small = paramtrans.translate(network, "prune", depth=0.5, ratio={"*.mlp": 0.5, "*": 1.0}, calibrate=batch)
    save_stock(small, f"hf:{tmp_path / 'given'}", tmp_path / "stock", batch)
    config = json.loads((tmp_path / "stock" / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"]) == (2, 16)


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "head"), [("Llama", "ForCausalLM"), ("Bert", "ForMaskedLM")])
def test_narrower_heads_have_no_form_in_their_library_and_that_is_said(kind: str, head: str, tmp_path: Path) -> None:
    network = model(kind, head)
    network.save_pretrained(tmp_path / "given")
    batch = {"input_ids": TOKENS}
    small = paramtrans.translate(network, "prune", query_key=0.5, calibrate=batch)
    with pytest.raises(
        ConfigError, match=r"\(--query-key\).*: leave out --query-key, or use paramtrans\.load_translated"
    ):
        save_stock(small, f"hf:{tmp_path / 'given'}", tmp_path / "stock", batch)
    assert not (tmp_path / "stock").exists()
