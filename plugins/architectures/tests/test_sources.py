"""Networks of other libraries: built by name, made smaller by the command, and back in the library's own form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import paramtrans
from paramtrans.cli.main import main
from paramtrans.cli.networks import read_network
from paramtrans.errors import ConfigError, StoreError
from paramtrans.networks.loading import architectures, parameter_files
from paramtrans.networks.results.stock import save_stock

transformers = pytest.importorskip("transformers")
TOKENS = torch.randint(0, 50, (40, 7), generator=torch.Generator().manual_seed(0))
ALONE = """
import sys
sys.modules["paramtrans"] = None
import torch, transformers
from safetensors.torch import load_file, save_file
model = getattr(transformers, sys.argv[1]).from_pretrained(sys.argv[2]).eval()
with torch.no_grad():
    save_file({"out": model(load_file(sys.argv[3])["input_ids"])[0].float().contiguous()}, sys.argv[4])
"""


def llama(**more: object) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads, **more)).eval()


def bert() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return transformers.BertForMaskedLM(transformers.BertConfig(**sizes, num_attention_heads=4)).eval()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("make", "blocks", "shards"),
    [
        (llama, "*", "20KB"),
        pytest.param(llama, "*.mlp", "1MB", marks=pytest.mark.slow),
        # Heads of BERT are as wide as its config divides them: their number stays.
        pytest.param(bert, "bert.encoder.layer.?", "1MB", marks=pytest.mark.slow),
    ],
)
def test_a_folder_of_transformers_becomes_a_smaller_one(tmp_path: Path, make, blocks: str, shards: str) -> None:
    model_folder, out, stock = tmp_path / "given", tmp_path / "small.safetensors", tmp_path / "stock"
    model = make()
    model.save_pretrained(model_folder, max_shard_size=shards)
    (model_folder / "tokenizer_config.json").write_text('{"model_max_length": 7}')
    (tmp_path / "mine.txt").write_text("mine")
    (model_folder / "vocabulary.txt").symlink_to(tmp_path / "mine.txt")
    save_file({"input_ids": TOKENS}, tmp_path / "tokens.safetensors")
    arguments = [str(model_folder), "--arch", f"hf:{model_folder}", "--by", "units", "--blocks", blocks, "-o", str(out)]
    inputs = ["--calibrate", str(tmp_path / "tokens.safetensors")]
    assert main(["translate", *arguments, *inputs, "--stock", str(stock), "--quiet"]) == 0
    small = paramtrans.load_translated(out, network=f"hf:{model_folder}")
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert json.loads((stock / "tokenizer_config.json").read_text()) == {"model_max_length": 7}
    assert not (stock / "vocabulary.txt").exists()
    arguments = [type(model).__name__, str(stock), str(tmp_path / "tokens.safetensors"), str(tmp_path / "theirs")]
    subprocess.run([sys.executable, "-c", ALONE, *arguments], check=True)
    with torch.no_grad():
        ours = small(TOKENS)[0]
    theirs = parameter_files.read_parameters(_renamed(tmp_path / "theirs"))["out"]
    assert (ours - theirs).abs().max() <= 1e-4 * ours.abs().max()


def _renamed(path: Path) -> Path:
    return path.rename(path.with_suffix(".safetensors"))


def test_layers_of_different_widths_have_no_stock_form(tmp_path: Path) -> None:
    model_folder = tmp_path / "given"
    llama().save_pretrained(model_folder)
    network = parameter_files.with_parameters(architectures.build(f"hf:{model_folder}"), model_folder)
    small = paramtrans.translate(network, "prune", blocks="model.layers.0.mlp", by="units", calibrate=TOKENS)
    with pytest.raises(ConfigError, match="give all layers the same widths"):
        save_stock(small, f"hf:{model_folder}", tmp_path / "stock", TOKENS)
    assert not (tmp_path / "stock").exists() and not [*tmp_path.glob(".stock*")]


def test_half_precision_stays_and_wrappers_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = llama().to(torch.bfloat16)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    torch.save({"model_state_dict": state}, tmp_path / "x.pt")
    model.save_pretrained(tmp_path / "given")
    again = parameter_files.with_parameters(architectures.build(f"hf:{tmp_path / 'given'}"), tmp_path / "x.pt")
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    assert torch.equal(again.lm_head.weight, model.lm_head.weight) and "'module.' before all names" in caplog.text


def test_a_base_model_s_parameters_are_found_in_the_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = llama()
    save_file({name: t.clone() for name, t in model.model.state_dict().items()}, tmp_path / "x.safetensors")
    model.save_pretrained(tmp_path / "given")
    again = parameter_files.with_parameters(architectures.build(f"hf:{tmp_path / 'given'}"), tmp_path / "x.safetensors")
    assert torch.equal(again.model.norm.weight, model.model.norm.weight) and "is put before all names" in caplog.text


def test_a_config_names_models_alone_and_doubles_become_the_network_s_own(tmp_path: Path) -> None:
    model = llama()
    model.config.architectures = ["PreTrainedTokenizerFast"]
    model.config.save_pretrained(tmp_path)
    assert type(architectures.build(f"hf:{tmp_path}")).__name__ == "LlamaModel"
    save_file({name: t.double() for name, t in model.model.state_dict().items()}, tmp_path / "x.safetensors")
    again = parameter_files.with_parameters(architectures.build(f"hf:{tmp_path}"), tmp_path / "x.safetensors")
    assert {p.dtype for p in again.parameters()} == {torch.float32}


def test_no_record_names_a_folder_or_options_without_bounds(tmp_path: Path) -> None:
    for named in ("hf:/etc", "torchvision:resnet18?weights=DEFAULT", "timm:resnet18?checkpoint_path=/etc/passwd"):
        with pytest.raises(StoreError, match="name the architecture yourself"):
            architectures.build_from_file(named, 2**30, "x.json")


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="download the model first"):
        architectures.build(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(ConfigError, match="cannot be used"):
        architectures.build(f"hf:{tmp_path}")
    with pytest.raises(ConfigError, match="did you mean"):
        architectures.build("timm:resnett18")


def test_timm_s_networks_are_built_by_name() -> None:
    network = architectures.build("timm:test_resnet?num_classes=3")
    assert network.num_classes == 3


def vit() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, image_size=8, patch_size=4)).eval()


def test_files_of_other_names_than_the_model_s_are_read_as_the_library_reads_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = vit()
    model.save_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    assert not written.keys() <= model.state_dict().keys(), "this version writes the names that it reads"
    save_file(written | {"old_head.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    again = read_network(tmp_path, f"hf:{tmp_path}")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert "old_head.weight" in caplog.text
    save_file({name: t for name, t in written.items() if "classifier" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(StoreError, match="does not fit the architecture"):
        read_network(tmp_path, f"hf:{tmp_path}")
