"""Texts and images as calibration inputs, with the model's own tokenizer and the model's own preprocessing."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy
import pytest
import torch
from paramtrans_architectures import hub_cache
from paramtrans_architectures.hub_cache import own_files
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights

import paramtrans
from paramtrans.api.architecture import Origin
from paramtrans.cli.main import main
from paramtrans.errors import ConfigError, DataError
from paramtrans.networks.loading import architectures
from paramtrans.networks.loading.calibration import Drawing, read_inputs
from paramtrans.networks.results import model_card

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
WORDS = [f"w{number}" for number in range(40)]
TEXTS = [" ".join(random.Random(seed).choices(WORDS, k=3 + seed % 4)) for seed in range(60)]
SIZES = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
SPECIAL = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "</s>": 4}


def tokenizer(kind: str) -> transformers.PreTrainedTokenizerFast:
    vocabulary = SPECIAL | {word: number for number, word in enumerate(WORDS, len(SPECIAL))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if kind == "bert":
        around = [(name, SPECIAL[name]) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=around)
    more = {"unk_token": "[UNK]", "pad_token": "[PAD]", **({"eos_token": "</s>"} if kind == "llama" else {})}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **more)


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A model with its tokenizer, as transformers saves both."""
    torch.manual_seed(0)
    if request.param == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    elif request.param == "bert":
        model = transformers.BertModel(transformers.BertConfig(**SIZES))
    else:
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
        )
    model.save_pretrained(tmp_path / "model")
    tokenizer(request.param).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def inputs(folder: Path, data: Path, **drawing: int) -> list:
    return read_inputs(data, architectures.build(f"hf:{folder}"), f"hf:{folder}", Drawing(**drawing))


@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_a_causal_model_reads_texts_one_after_the_other_in_rows_of_one_length(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": text, "id": 3}) for text in TEXTS))
    rows = torch.cat([batch["input_ids"] for batch in inputs(folder, tmp_path / "x.jsonl", length=10)])
    drawn = [*TEXTS]
    random.Random(0).shuffle(drawn)
    tokens = tokenizer("llama")(" </s> ".join(drawn) + " </s>")["input_ids"]
    assert rows.flatten().tolist() == tokens[: len(tokens) // 10 * 10]
    few = torch.cat([batch["input_ids"] for batch in inputs(folder, tmp_path / "x.jsonl", length=10, examples=7)])
    assert torch.equal(few, rows[:7])
    other_seed = torch.cat([batch["input_ids"] for batch in inputs(folder, tmp_path / "x.jsonl", length=10, seed=1)])
    assert other_seed.shape == rows.shape and not torch.equal(other_seed, rows)


@pytest.mark.parametrize("folder", ["bert", "t5"], indirect=True)
def test_any_other_model_reads_each_text_alone_in_batches_without_padding(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("\n".join(TEXTS))
    batches = inputs(folder, tmp_path / "x.txt", length=6)
    rows = [row for batch in batches for row in batch["input_ids"].tolist()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert sorted(rows) == sorted(tokenizer(text, truncation=True, max_length=6)["input_ids"] for text in TEXTS)
    assert [len(batch["input_ids"]) for batch in batches] == sorted(map(len, (b["input_ids"] for b in batches)))[::-1]
    network = architectures.build(f"hf:{folder}").eval()
    with torch.no_grad():
        assert all(torch.is_tensor(network(**batch)[0]) for batch in batches)


def test_a_tokenizer_that_transformers_makes_up_is_none(tmp_path: Path) -> None:
    network = transformers.BertModel(transformers.BertConfig(**SIZES | {"vocab_size": 5000}))
    network.save_pretrained(tmp_path / "bert")
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS))
    with pytest.raises(ConfigError, match=r"has no tokenizer that can be used .*download its files too"):
        read_inputs(tmp_path / "texts.txt", network.eval(), f"hf:{tmp_path / 'bert'}")


@pytest.mark.parametrize("folder", ["bert"], indirect=True)
def test_texts_of_different_lengths_alone_are_cut_to_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("w1 w2 w3\n\nw4 w5\nw6 w7 w8\n")  # two paragraphs
    [batch] = inputs(folder, tmp_path / "x.txt")
    assert batch["input_ids"].shape == (2, 5)


@pytest.mark.thorough
@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_texts_from_the_shell_make_a_smaller_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("\n".join(TEXTS))
    flags = ["--calibrate", str(tmp_path / "x.txt"), "--length", "8", "--examples", "24", "--seed", "3", "--quiet"]
    flags += ["--predicts", "tokens"]  # untrained, it tells none better than by chance
    out, stock, blobs = tmp_path / "small.safetensors", tmp_path / "stock", tmp_path / "models--acme--tiny" / "blobs"
    snapshot, _ = blobs.parent / "snapshots" / "0123", blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n")
    for file in [*folder.iterdir()]:  # as a hub's client keeps them
        file.rename(blobs / file.name)
        (snapshot / file.name).symlink_to(blobs / file.name)
    folder = snapshot
    command = ["translate", str(folder), "--arch", f"hf:{folder}", "-o", str(out), "--stock", str(stock)]
    assert main([*command, *flags]) == 0
    batches = inputs(folder, tmp_path / "x.txt", length=8, examples=24, seed=3)
    expected = paramtrans.translate(
        transformers.LlamaForCausalLM.from_pretrained(folder), calibrate=batches, by="units", seed=3
    )
    small = paramtrans.load_translated(out, network=f"hf:{folder}")
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], tensor)
    assert transformers.AutoTokenizer.from_pretrained(stock)("w3")["input_ids"] == [len(SPECIAL) + 3]
    card, record = (stock / "README.md").read_text(), json.loads((tmp_path / "small.safetensors.json").read_text())
    assert card.startswith("---\nlibrary_name: transformers\nbase_model: acme/tiny\nlicense: apache-2.0\ntags:")
    parameters_before, parameters_after = (f"{record['losses'][side]['parameters']:,}" for side in ("before", "after"))
    assert (
        f"| parameters | {parameters_before} | {parameters_after} |" in card
        and f"| perplexity | {record['losses']['perplexity'][0]:.2f}" in card
    )
    assert "| model.layers.0.mlp | 24 → 12 |" in card and "by refit" in card and str(tmp_path) not in card


def test_links_to_a_hub_s_own_blobs_are_files_of_a_snapshot_and_no_others_are(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    model, shared = cache / "models--a--b", cache / "blobs"
    snapshot, other_blobs = model / "snapshots" / "0123", cache / "models--c--d" / "blobs"
    for new_folder in (snapshot, model / "blobs", shared / "ab", other_blobs):
        new_folder.mkdir(parents=True)
    blobs = {"a": model / "blobs" / "1", "b": shared / "ab" / "abcd", "c": other_blobs / "2", "d": tmp_path / "mine"}
    for name, blob in blobs.items():
        blob.write_text(name)
        (snapshot / name).symlink_to(blob)
    (snapshot / "e").symlink_to("a")
    (snapshot / "f").symlink_to("nothing")
    assert [file.name for file in own_files(snapshot)] == ["a", "e"]
    (shared / ".huggingface-shared-blobs").write_text("1\n")
    assert [file.name for file in own_files(snapshot)] == ["a", "b", "e"]
    model.rename(tmp_path / "elsewhere")  # links are to where the model was
    assert own_files(tmp_path / "elsewhere" / "snapshots" / "0123") == []


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images" / "inner").mkdir(parents=True)
    for number in range(5):
        values = numpy.random.default_rng(number).integers(0, 256, (40 + number, 50, 3), dtype=numpy.uint8)
        Image.fromarray(values).save(tmp_path / "images" / ("inner" if number % 2 else "") / f"{number}.png")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


def test_images_are_prepared_as_torchvision_s_weights_say(images: Path) -> None:
    network = architectures.build("torchvision:resnet18")
    [batch] = read_inputs(images, network, "torchvision:resnet18", Drawing(examples=3))
    drawn = sorted(images.rglob("*.png"))
    random.Random(0).shuffle(drawn)
    expected = [ResNet18_Weights.IMAGENET1K_V1.transforms()(Image.open(file)) for file in drawn[:3]]
    assert torch.equal(batch, torch.stack(expected))


def test_images_are_prepared_as_timm_s_settings_say(images: Path) -> None:
    timm = pytest.importorskip("timm")
    network = architectures.build("timm:test_resnet")
    [batch] = read_inputs(images, network, "timm:test_resnet")
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    assert len(batch) == 5 and batch.shape[1:] == prepare(Image.open(images / "0.png")).shape
    grey = architectures.build("timm:test_resnet?in_chans=1")
    with pytest.raises(ConfigError, match="takes 1 channels, and images have 3"):
        read_inputs(images, grey, "timm:test_resnet?in_chans=1")


def test_images_are_prepared_by_the_processor_of_a_folder(images: Path, tmp_path: Path) -> None:
    sizes = {name: value for name, value in SIZES.items() if name != "vocab_size"}
    config = transformers.ViTConfig(**sizes, image_size=16, patch_size=8)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    processor.save_pretrained(tmp_path / "vit")
    [batch] = inputs(tmp_path / "vit", images)
    assert batch.keys() == {"pixel_values"} and batch["pixel_values"].shape == (5, 3, 16, 16)
    with pytest.raises(ConfigError, match="--length is for texts"):
        inputs(tmp_path / "vit", images, length=3)
    (tmp_path / "x.txt").write_text("\n".join(TEXTS))
    with pytest.raises(ConfigError, match="has no tokenizer that can be used"):
        inputs(tmp_path / "vit", tmp_path / "x.txt")


def test_some_examples_of_several_inputs_stay_together(tmp_path: Path) -> None:
    arrays = {"a": torch.arange(50.0).double(), "b": torch.arange(50)}
    save_file(arrays, tmp_path / "x.safetensors")
    batches = read_inputs(tmp_path / "x.safetensors", drawing=Drawing(examples=40, seed=1))
    drawn = torch.cat([batch["b"] for batch in batches])
    assert [len(batch["a"]) for batch in batches] == [32, 8] and len(drawn.unique()) == 40
    assert torch.equal(torch.cat([batch["a"] for batch in batches]), drawn.float())


def test_numbers_of_a_file_get_the_precision_of_the_network(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4), "b": torch.arange(4)}, tmp_path / "x.safetensors")
    half = torch.nn.Linear(2, 2).bfloat16()
    for network, expected in {
        half: torch.bfloat16,
        torch.nn.Sequential(half, torch.nn.Linear(2, 2)): torch.float32,
    }.items():
        [batch] = read_inputs(tmp_path / "x.safetensors", network)
        assert (batch["a"].dtype, batch["b"].dtype) == (expected, torch.int64)
    numpy.save(tmp_path / "doubles.npy", numpy.full((4, 2), 1 / 3))
    [doubles] = read_inputs(tmp_path / "doubles.npy", torch.nn.Linear(2, 2).double())
    assert float(doubles[0, 0]) == 1 / 3  # no digit is lost on the way


@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_what_is_nothing_for_a_model_is_told(folder: Path, images: Path, tmp_path: Path) -> None:
    files = {
        "empty.txt": (" \n\n", "holds no texts"),
        "latin.txt": ("w\xe4", "no text in UTF-8"),
        "broken.jsonl": ('"w1"\n{', "line 2 is no JSON"),
        "other.jsonl": ('{"title": "w1"}', "line 1 holds no text"),
        "few.txt": ("w1 w2 w3 w4 w5", "makes fewer than two inputs"),
        "x.csv": ("w1", "calibration inputs are"),
    }
    for name, (content, problem) in files.items():
        (tmp_path / name).write_bytes(content.encode("latin-1"))
        with pytest.raises(DataError, match=problem):
            inputs(folder, tmp_path / name, length=4)
    with pytest.raises(ConfigError, match="takes 64 tokens at most"):
        inputs(folder, tmp_path / "few.txt", length=65)
    with pytest.raises(ConfigError, match="has no image processor that can be used"):
        inputs(folder, images)
    with pytest.raises(ConfigError, match=r"known of networks of a library alone \(--arch .*hf:FOLDER"):
        read_inputs(images, torch.nn.Linear(2, 2), "nets.py:f")
    with pytest.raises(ConfigError, match="takes images, no texts"):
        read_inputs(tmp_path / "few.txt", torch.nn.Linear(2, 2), "torchvision:resnet18")
    (images / "0.png").write_bytes((images / "2.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"0\.png: cannot be read as an image"):
        read_inputs(images, torch.nn.Linear(2, 2), "torchvision:resnet18")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        read_inputs(tmp_path / "none")


def test_a_card_takes_nothing_from_a_folder_that_is_more_than_a_word(tmp_path: Path) -> None:
    origin = Origin("x](http://a)", "transformers", "a/b\nlicense: mit", "mit\nbase_model: other")
    card = model_card.page(origin, [], None, [])
    assert "base_model" not in card and "license:" not in card and "x\\](http://a)" in card
    for header, stated in {
        "license: mit": "mit",
        "license: 'cc by'": "cc",
        "licence: x\nlicense: y": "x",
        "a: 1": None,
    }.items():
        (tmp_path / "README.md").write_text(f"---\n{header}\n---\nlicense: none")
        assert hub_cache.licence(tmp_path) == stated
