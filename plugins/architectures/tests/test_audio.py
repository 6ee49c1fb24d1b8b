"""Recordings as calibration inputs, with the model's own feature extractor."""

from __future__ import annotations

import json
import math
import struct
import wave
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file

import paramtrans
from paramtrans.api.architecture import Recording
from paramtrans.cli.main import main
from paramtrans.cli.networks import read_network
from paramtrans.errors import ConfigError, DataError
from paramtrans.networks.loading import architectures
from paramtrans.networks.loading.audio_files import read_audio, resampled
from paramtrans.networks.loading.calibration import Drawing, read_inputs

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def tone(seconds: float, rate: int, pitch: float = 440.0) -> numpy.ndarray:
    """A tone that grows louder, between -1 and 1."""
    time = numpy.arange(int(seconds * rate)) / rate
    return 0.8 * numpy.sin(2 * math.pi * pitch * time) * time / seconds


def write(path: Path, channels: list[numpy.ndarray], rate: int, width: int = 2) -> None:
    """A `.wav` with whole numbers of `width` bytes, written by the standard library."""
    samples = numpy.stack(channels, axis=1).flatten()
    whole = (samples * (2 ** (8 * width - 1) - 1)).astype(numpy.int64) + (128 if width == 1 else 0)
    signed = width > 1
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), width, rate, 0, "NONE", ""))
        file.writeframes(b"".join(int(value).to_bytes(width, "little", signed=signed) for value in whole))


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Recordings of a second or less at two rates; 0.3 s is shorter than all others."""
    (tmp_path / "sounds" / "inner").mkdir(parents=True)
    for number in range(5):
        rate, seconds = (8000, 1.2) if number % 2 else (16000, 1.0 if number else 0.3)
        path = tmp_path / "sounds" / ("inner" if number % 2 else "") / f"{number}.wav"
        write(path, [tone(seconds, rate, 200.0 + 50 * number)], rate)
    return tmp_path / "sounds"


def folder(path: Path, kind: str) -> Path:
    """A model with its feature extractor, as transformers saves both."""
    torch.manual_seed(0)
    if kind == "wav2vec2":
        sizes = {**SIZES, "conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (8, 8), "num_labels": 3}
        sizes |= {"num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
        model = transformers.Wav2Vec2ForSequenceClassification(transformers.Wav2Vec2Config(**sizes))
        extractor = transformers.Wav2Vec2FeatureExtractor()
    elif kind == "ast":
        sizes = {**SIZES, "max_length": 100, "num_mel_bins": 16, "num_labels": 3}
        model = transformers.ASTForAudioClassification(transformers.ASTConfig(**sizes))
        extractor = transformers.ASTFeatureExtractor(max_length=100, num_mel_bins=16)
    else:
        layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        widths = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 40, "num_mel_bins": 16}
        tokens = {"decoder_start_token_id": 1, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
        lengths = {"max_source_positions": 50, "max_target_positions": 40}
        config = transformers.WhisperConfig(**layers, **widths, **tokens, **lengths)
        model = transformers.WhisperForConditionalGeneration(config)
        extractor = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    model.save_pretrained(path)
    extractor.save_pretrained(path)
    return path


def inputs(model_folder: Path, data: Path, **drawing: int) -> list:
    architecture = f"hf:{model_folder}"
    return read_inputs(data, read_network(model_folder, architecture), architecture, Drawing(**drawing))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_whole_numbers_of_all_sizes_are_read_as_the_same_sound(tmp_path: Path, width: int) -> None:
    samples = tone(0.1, 16000)
    write(tmp_path / "x.wav", [samples, -0.5 * samples], 16000, width)
    recording = read_audio(tmp_path / "x.wav")
    assert recording.rate == 16000 and recording.samples.shape == (1600,)
    expected = torch.from_numpy(0.25 * samples).float()
    torch.testing.assert_close(recording.samples, expected, rtol=0, atol=2.0 ** (2 - 8 * width) + 1e-6)


def test_floating_point_recordings_are_read(tmp_path: Path) -> None:
    from scipy.io import wavfile

    samples = tone(0.1, 16000).astype(numpy.float32)
    wavfile.write(tmp_path / "x.wav", 16000, samples)
    assert numpy.array_equal(read_audio(tmp_path / "x.wav").samples.numpy(), samples)


def test_flac_is_read_where_soundfile_is_installed(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "x.flac", tone(0.1, 16000), 16000)
    recording = read_audio(tmp_path / "x.flac")
    torch.testing.assert_close(recording.samples.double(), torch.from_numpy(tone(0.1, 16000)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (44100, 16000), (48000, 16000)])
def test_a_tone_stays_the_same_tone_at_another_rate(rate: int, wanted: int) -> None:
    recording = Recording(torch.from_numpy(tone(0.5, rate)).float(), rate)
    samples, expected = resampled(recording, wanted), torch.from_numpy(tone(0.5, wanted)).float()
    assert len(samples) == len(expected)
    middle = slice(200, -200)  # at the ends the filter sees silence
    assert (samples - expected)[middle].abs().max() < 1e-2


def test_a_model_on_waves_is_given_its_extractor_s_values_in_batches_of_one_length(
    sounds: Path, tmp_path: Path
) -> None:
    model_folder = folder(tmp_path / "model", "wav2vec2")
    batches = inputs(model_folder, sounds)
    assert [tuple(batch["input_values"].shape) for batch in batches] == [(4, 16000), (1, 4800)]
    extractor = transformers.AutoFeatureExtractor.from_pretrained(model_folder)
    samples = resampled(read_audio(sounds / "inner" / "1.wav"), 16000)[:16000]
    expected = extractor(samples.numpy(), sampling_rate=16000, return_tensors="pt")["input_values"]
    assert any(torch.allclose(row, expected[0]) for row in batches[0]["input_values"])
    [two] = inputs(model_folder, sounds / "inner", length=2)
    assert two["input_values"].shape == (2, 16000)  # 1.2 seconds are one whole one
    network = architectures.build(f"hf:{model_folder}").bfloat16()
    halves = read_inputs(sounds, network, f"hf:{model_folder}")
    assert {batch["input_values"].dtype for batch in halves} == {torch.bfloat16}


def test_recordings_of_different_lengths_alone_are_cut_to_one(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.wav", [tone(0.2 + number / 10, 16000)], 16000)
    [batch] = inputs(folder(tmp_path / "model", "wav2vec2"), tmp_path)
    assert batch["input_values"].shape == (3, 3200)


def test_a_decoder_is_given_what_the_model_says_itself(sounds: Path, tmp_path: Path) -> None:
    model_folder = folder(tmp_path / "model", "whisper")
    batches = inputs(model_folder, sounds)
    assert [tuple(batch["input_features"].shape) for batch in batches] == [(4, 16, 100), (1, 16, 100)]
    network = transformers.WhisperForConditionalGeneration.from_pretrained(model_folder).eval()
    for batch in batches:
        tokens = batch["decoder_input_ids"]
        assert bool((tokens[:, 0] == 1).all()) and tokens.shape[1] > 1
        with torch.no_grad():
            scores = network(**batch).logits
        assert torch.equal(scores.argmax(-1)[:, :-1], tokens[:, 1:])


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["ast", "wav2vec2"])
def test_recordings_from_the_shell_make_a_smaller_folder(sounds: Path, tmp_path: Path, kind: str) -> None:
    model_folder, out, stock = folder(tmp_path / "model", kind), tmp_path / "small.safetensors", tmp_path / "stock"
    command = ["translate", str(model_folder), "--arch", f"hf:{model_folder}", "--calibrate", str(sounds), "--quiet"]
    blocks = {"ast": "*.intermediate,*.mlp", "wav2vec2": "*.feed_forward"}[kind]
    more = ["--examples", "4", "--blocks", blocks, "-o", str(out), "--stock", str(stock)]
    assert main([*command, *more]) == 0
    batches = inputs(model_folder, sounds, examples=4)
    network = transformers.AutoModelForAudioClassification.from_pretrained(model_folder).eval()
    expected = paramtrans.translate(network, calibrate=batches, blocks=blocks)
    small = paramtrans.load_translated(out, network=f"hf:{model_folder}")
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], tensor)
    loaded = transformers.AutoModelForAudioClassification.from_pretrained(stock).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batches[0]).logits, small(**batches[0]).logits, rtol=1e-4, atol=1e-4)
    assert transformers.AutoFeatureExtractor.from_pretrained(stock).sampling_rate == 16000
    losses = json.loads((tmp_path / "small.safetensors.json").read_text())["losses"]
    assert losses["predicts"] == "scores" and losses["agreement"] is not None


def test_what_is_no_recording_is_told(tmp_path: Path) -> None:
    write(tmp_path / "whole.wav", [tone(0.1, 16000)], 16000)
    content = (tmp_path / "whole.wav").read_bytes()
    header, samples = content[:44], content[44:]
    files = {
        "cut.wav": (content[:500], "cannot be read as a recording"),
        "nothing.wav": (b"", "cannot be read as a recording"),
        "text.wav": (b"RIFF\0\0\0\0WAVEfmt x", "cannot be read as a recording"),
        "other.wav": (header[:20] + struct.pack("<H", 85) + header[22:] + samples, "cannot be read as a recording"),
        "channels.wav": (header[:22] + b"\0\0" + header[24:] + samples, "cannot be read as a recording|is empty"),
        "fast.wav": (header[:24] + struct.pack("<II", 2**20, 2**21) + header[32:] + samples, "samples a second"),
        "still.wav": (header[:24] + struct.pack("<II", 0, 0) + header[32:] + samples, "samples a second"),
        "empty.wav": (header[:4] + struct.pack("<I", 36) + header[8:40] + bytes(4), "is empty"),
    }
    for name, (damaged, problem) in files.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{name}: .*({problem})"):
            read_audio(tmp_path / name)
    (tmp_path / "x.flac").write_bytes(b"fLaC")
    with pytest.raises(DataError, match=r"x\.flac: .*(soundfile|cannot be read as a recording)"):
        read_audio(tmp_path / "x.flac")


def test_recordings_that_are_nothing_for_a_model_are_told(sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes images, no audio"):
        read_inputs(sounds, torch.nn.Linear(2, 2), "torchvision:resnet18")
    transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=9)).save_pretrained(tmp_path / "bert")
    with pytest.raises(ConfigError, match="has no feature extractor that can be used"):
        inputs(tmp_path / "bert", sounds)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "bert")
    with pytest.raises(ConfigError, match="takes no recordings"):
        inputs(tmp_path / "bert", sounds)
    with pytest.raises(DataError, match="makes fewer than two inputs; give more audio"):
        inputs(folder(tmp_path / "model", "ast"), sounds, examples=1)
    (sounds / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match="holds both images and recordings"):
        read_inputs(sounds)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whisper", "t5"])
def test_of_an_encoder_and_a_decoder_the_next_tokens_are_the_decoder_s(sounds: Path, tmp_path: Path, kind: str) -> None:
    if kind == "whisper":
        model_folder, data = folder(tmp_path / "model", kind), sounds
    else:
        torch.manual_seed(0)
        sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
        transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).save_pretrained(tmp_path / "model")
        model_folder, data = tmp_path / "model", tmp_path / "tokens.safetensors"
        save_file({name: torch.randint(2, 50, (6, 8)) for name in ("input_ids", "decoder_input_ids")}, data)
    out, page = tmp_path / "small.safetensors", tmp_path / "page.html"
    command = ["translate", str(model_folder), "--arch", f"hf:{model_folder}", "--calibrate", str(data), "--quiet"]
    assert main([*command, "--predicts", "tokens", "-o", str(out), "--report", str(page)]) == 0
    losses = json.loads((tmp_path / "small.safetensors.json").read_text())["losses"]
    assert losses["perplexity"] is not None and losses["agreement"] is not None
    network = read_network(model_folder, f"hf:{model_folder}")
    expected = perplexity(network, read_inputs(data, network, f"hf:{model_folder}"))
    assert losses["perplexity"][0] == pytest.approx(expected, rel=1e-4)
    assert "continuation" in page.read_text() or page.stat().st_size > 1000


@torch.no_grad()
def perplexity(network: torch.nn.Module, batches: list) -> float:
    """Perplexity of a decoder's own tokens."""
    losses = []
    for batch in batches:
        scores = network(**batch).logits[:, :-1].flatten(0, 1)
        tokens = batch["decoder_input_ids"][:, 1:].flatten()
        losses.append(torch.nn.functional.cross_entropy(scores, tokens, reduction="none"))
    return float(torch.cat(losses).mean().exp())
