"""Smaller language models as GGUF, by llama.cpp's converter.

Where that is not installed (as in most environments of the tests), a stand-in shows how it is called, and what becomes
of its answers; the test with the real one is skipped then.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import paramtrans
from paramtrans.cli.main import main
from paramtrans.errors import ConfigError, SpecMismatch
from paramtrans.networks.results.gguf import FOLDER, NAMES, converter

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
STAND_IN = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
given = {"arguments": sys.argv[2:], "files": sorted(path.name for path in folder.iterdir())}
given["config"] = json.loads((folder / "config.json").read_text())
pathlib.Path(sys.argv[sys.argv.index("--outfile") + 1]).write_text(json.dumps(given))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small Llama with a tokenizer of bytes, of a kind that the converter knows."""
    torch.manual_seed(0)
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    vocabulary |= {letter: len(vocabulary) + number for number, letter in enumerate("▁abcdefgh")}
    model = tokenizers.models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    tokenizer = tokenizers.Tokenizer(model)
    spaces, byte_fallback, fuse = (getattr(tokenizers.decoders, name) for name in ("Replace", "ByteFallback", "Fuse"))
    tokenizer.decoder = tokenizers.decoders.Sequence([spaces("▁", " "), byte_fallback(), fuse()])
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path / "model")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.LlamaConfig(**sizes, vocab_size=len(vocabulary), num_key_value_heads=2)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tokens = torch.randint(3, 250, (40, 8), generator=torch.Generator().manual_seed(0))
    save_file({"input_ids": tokens}, tmp_path / "tokens.safetensors")
    return tmp_path / "model"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "llama.cpp" / NAMES[0]
    script.parent.mkdir()
    script.write_text(STAND_IN)
    monkeypatch.setenv(FOLDER, str(script.parent))
    return script


def translate(folder: Path, *more: str) -> int:
    inputs, output = str(folder.parent / "tokens.safetensors"), str(folder.parent / "small.safetensors")
    command = ["translate", str(folder), "--arch", f"hf:{folder}", "--calibrate", inputs, "-o", output]
    return main([*command, "--blocks", "*.mlp", "--quiet", *more])


def test_the_converter_is_given_a_stock_folder(folder: Path, stand_in: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = folder.parent / "small.gguf"
    assert translate(folder, "--gguf", str(file)) == 0
    given = json.loads(file.read_text())
    arguments = dict(zip(given["arguments"][::2], given["arguments"][1::2], strict=True))
    assert arguments["--outtype"] == "f32" and arguments["--model-name"] == "model"
    assert given["config"]["intermediate_size"] == 32 and {"tokenizer.json", "README.md"} <= set(given["files"])
    assert "not compared with the network" in caplog.text  # as this is no GGUF
    assert not [*folder.parent.glob(".gguf*")]


def test_nothing_is_written_where_the_converter_fails(folder: Path, stand_in: Path) -> None:
    network = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    tokens, file = load_file(folder.parent / "tokens.safetensors"), folder.parent / "small.gguf"
    for script, said in {"raise SystemExit('no such model')": "no such model", "": "wrote no file"}.items():
        stand_in.write_text(script)
        with pytest.raises(SpecMismatch, match=said):
            paramtrans.save_gguf(network, f"hf:{folder}", file, tokens)
    assert not file.exists() and not [*folder.parent.glob(".gguf*")]


def test_without_a_converter_no_work_is_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(FOLDER, raising=False)
    assert translate(folder, "--gguf", str(folder.parent / "small.gguf")) == 2
    assert FOLDER in capsys.readouterr().err and not (folder.parent / "small.safetensors").exists()
    monkeypatch.setenv(FOLDER, str(folder))
    with pytest.raises(ConfigError, match=f"holds no {NAMES[0]}"):
        converter(f"hf:{folder}")
    with pytest.raises(ConfigError, match="takes models of --arch hf:FOLDER, and not"):
        converter("torchvision:resnet18")


def test_a_converter_on_the_path_is_taken(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    program = tmp_path / "bin" / NAMES[-1]
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n{STAND_IN}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert converter(f"hf:{folder}") == [str(program)]


@pytest.mark.slow
def test_what_the_real_converter_writes_gives_the_same(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    try:
        converter(f"hf:{folder}")
    except ConfigError as error:
        pytest.skip(str(error))
    if not (find_spec("gguf") and find_spec("accelerate")):
        pytest.skip("transformers reads GGUF by gguf and accelerate")
    file = folder.parent / "small.gguf"
    assert translate(folder, "--gguf", str(file)) == 0
    assert "not compared" not in caplog.text
    small = paramtrans.load_translated(folder.parent / "small.safetensors", network=f"hf:{folder}")
    loaded = transformers.LlamaForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokens = load_file(folder.parent / "tokens.safetensors")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(tokens).logits, small(tokens).logits, rtol=1e-4, atol=1e-4)
    assert loaded.config.intermediate_size == 32
