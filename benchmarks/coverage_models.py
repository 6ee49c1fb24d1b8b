"""Networks of the zoos of others, with random weights and as small as the zoo allows, each with an input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Built = tuple[nn.Module, tuple[Tensor, ...], dict[str, Any]]
SIZES = (64, 96, 128, 224)
"""Widths of images, of which the first is taken that a network runs with."""
HALF, HALVED = 112, ("vit_l_16", "vit_h_14")
"""Built for images of half the width, as they are large themselves."""


def names(zoo: str) -> list[str]:
    """What is built of a zoo."""
    return list({"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[zoo]())


def build(zoo: str, name: str) -> Built:
    """A network in eval mode, and what it is called with."""
    torch.manual_seed(0)
    made = {"torchvision": _build_torchvision, "timm": _build_timm, "transformers": _build_transformers}[zoo](name)
    return made[0].eval(), made[1], made[2]


# torchvision


def _torchvision() -> Iterator[str]:
    from torchvision import models

    for name in models.list_models():
        if "quantized" not in name and not name.startswith("raft"):
            yield name


def _build_torchvision(name: str) -> Built:
    from torchvision import models
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    builder = models.get_model_builder(name)
    module = builder.__module__
    if ".detection" in module:
        network = models.get_model(name, weights=None, weights_backbone=None).backbone
        assert isinstance(network, BackboneWithFPN | nn.Module)
        return _first_that_runs([lambda: network], [(3, 128, 128), (3, 320, 320)])
    options: dict[str, Any] = {"weights": None}
    if ".segmentation" in module:
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    if name in HALVED:
        options["image_size"] = HALF
    network = models.get_model(name, **options).eval()
    if ".video" in module:
        tried: list[tuple[int, ...]] = [(3, 8, 64, 64), (3, 16, 112, 112), (3, 16, 224, 224)]
    else:
        tried = [(3, size, size) for size in ((HALF,) if name in HALVED else SIZES)]
    return _first_that_runs([lambda: network], tried)


def _first_that_runs(factories: list[Callable[[], nn.Module]], shapes: list[tuple[int, ...]]) -> Built:
    error: Exception | None = None
    for make in factories:
        for shape in shapes:
            given = torch.randn(2, *shape)
            try:
                network = make().eval()
                with torch.no_grad():
                    network(given)
            except Exception as refusal:  # a size that the network is not for
                error = refusal
                continue
            return network, (given,), {}
    raise RuntimeError(f"no size of image suits it: {error}")


# timm


# fmt: off
SMALL = [
    "test_", "atto", "femto", "pico", "nano", "xxs", "xx_small", "xxsmall", "005", "050", "xs", "x_small", "small",
    "tiny", "micro", "_t", "_s", "b0", "18", "10", "0",
]
# fmt: on
"""What names of small variants have in them, the smallest first."""


def _timm() -> Iterator[str]:
    import timm

    first = [min(models, key=_rank) for module in timm.list_modules() if (models := timm.list_models(module=module))]
    yield from dict.fromkeys([*first, *timm.list_models("test_*")])


def _rank(name: str) -> tuple[int, int, str]:
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(name)
    size = cfg.input_size[-1] if cfg else 224
    return next((i for i, word in enumerate(SMALL) if word in name), len(SMALL)), size, name


def _build_timm(name: str) -> Built:
    import timm

    size = timm.create_model(name, pretrained=False).default_cfg["input_size"][-1]
    sizes = [side for side in SIZES if side < size]
    for side in sizes:
        try:
            return _first_that_runs(
                [partial(timm.create_model, name, pretrained=False, img_size=side)], [(3, side, side)]
            )
        except RuntimeError:
            continue
    return _first_that_runs(
        [lambda: timm.create_model(name, pretrained=False)], [(3, side, side) for side in [*sizes, size]]
    )


# transformers


WIDE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 99,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 64,
}
BOTH: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "vocab_size": 99,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    "max_position_embeddings": 64,
}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 99, "use_cache": False}
GROUPED = {"num_key_value_heads": 2}
IMAGE = {"image_size": 32, "patch_size": 8}
STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 32, 64], "embedding_size": 16}
WAVES = {
    "conv_dim": (32, 32, 32),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 4, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
# fmt: off
TEXT = [
    "bert", "roberta", "distilbert", "albert", "electra", "deberta", "deberta-v2", "modernbert", "mpnet",
    "roformer", "camembert", "xlm-roberta", "ernie", "squeezebert", "fnet", "nystromformer", "convbert", "layoutlm",
    "gpt2", "gpt_neox", "gptj", "opt", "phi", "bloom", "falcon", "mamba", "codegen", "gpt_neo", "openai-gpt",
]
# fmt: on
# fmt: off
LLAMAS = [
    "llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "phi3", "starcoder2", "stablelm",
    "olmo", "olmo2", "cohere", "granite", "smollm3", "glm", "mixtral", "persimmon", "helium",
]
# fmt: on
PAIRED = ["bart", "pegasus", "mbart", "marian", "blenderbot", "blenderbot-small", "m2m_100"]
PATCHES = ["vit", "deit", "beit", "dinov2", "ijepa", "vit_msn", "clip_vision_model", "siglip_vision_model"]
STAGED = [
    "resnet",
    "regnet",
    "convnext",
    "convnextv2",
    "swin",
    "swinv2",
    "poolformer",
    "segformer",
    "mobilenet_v2",
    "mobilenet_v1",
    "bit",
]
SOUND = ["wav2vec2", "hubert", "wavlm", "unispeech", "data2vec-audio"]
OWN: dict[str, dict[str, Any]] = {
    "distilbert": {"hidden_dim": 128, "dim": 64, "n_layers": 2, "n_heads": 4},
    "albert": {"embedding_size": 32},
    "electra": {"embedding_size": 64},
    "squeezebert": {"embedding_size": 64},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "openai-gpt": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gptj": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 8},
    "codegen": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 8},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "bloom": {"n_layer": 2, "n_head": 4},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16},
    "qwen3": {"head_dim": 16},
    "glm": {"head_dim": 16},
    "helium": {"head_dim": 16},
    "mixtral": {"num_local_experts": 2},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
    "mamba": {"state_size": 8},
    "fnet": {"num_attention_heads": None},
    "resnet": {"layer_type": "basic"},
    "regnet": {"groups_width": 8},
    "swin": {"embed_dim": 16, "num_heads": [1, 2, 4, 4], "window_size": 4, "image_size": 64, "patch_size": 2},
    "swinv2": {"embed_dim": 16, "num_heads": [1, 2, 4, 4], "window_size": 4, "image_size": 64, "patch_size": 2},
    "segformer": {"num_attention_heads": [1, 2, 4, 4]},
    "bit": {"layer_type": "preactivation", "num_groups": 4},
}


def _transformers() -> Iterator[str]:
    yield from [*TEXT, *LLAMAS, "t5", "mt5", "umt5", *PAIRED, *PATCHES, *STAGED, *SOUND]
    yield from ("clip", "whisper", "speech_to_text", "audio-spectrogram-transformer", "patchtst")


def _build_transformers(name: str) -> Built:
    from transformers import AutoConfig, AutoModel

    options, inputs = _small(name)
    config = AutoConfig.for_model(name, **{key: value for key, value in options.items() if value is not None})
    return AutoModel.from_config(config), (), inputs


def _small(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Options of a small architecture, and what it is called with."""
    tokens = {"input_ids": torch.arange(3, 27).view(2, 12)}
    sizes = OWN.get(name, {})
    if name in ("t5", "mt5", "umt5"):
        return T5, {**tokens, "decoder_input_ids": torch.arange(3, 17).view(2, 7)}
    if name in PAIRED:
        return BOTH, {**tokens, "decoder_input_ids": torch.arange(3, 17).view(2, 7)}
    if name in PATCHES:
        return WIDE | IMAGE | sizes, {"pixel_values": torch.randn(2, 3, 32, 32)}
    if name in STAGED:
        wide = {} if name in ("resnet", "regnet", "convnext", "convnextv2", "poolformer", "bit", "segformer") else sizes
        return STAGES | wide | sizes, {"pixel_values": torch.randn(2, 3, 64, 64)}
    if name in SOUND:
        return WIDE | WAVES | sizes, {"input_values": torch.randn(2, 2000)}
    if name == "clip":
        parts = {"text_config": dict(WIDE), "vision_config": WIDE | IMAGE, "projection_dim": 32}
        return parts, {**tokens, "pixel_values": torch.randn(2, 3, 32, 32)}
    if name == "whisper":
        sound = {"max_source_positions": 32, "max_target_positions": 32, "num_mel_bins": 16}
        given = {"input_features": torch.randn(2, 16, 64), "decoder_input_ids": torch.arange(3, 17).view(2, 7)}
        return BOTH | sound, given
    if name == "speech_to_text":
        sound = {"input_feat_per_channel": 16, "max_source_positions": 64, "max_target_positions": 32}
        given = {"input_features": torch.randn(2, 64, 16), "decoder_input_ids": torch.arange(3, 17).view(2, 7)}
        return BOTH | sound | {"conv_channels": 32}, given
    if name == "audio-spectrogram-transformer":
        return WIDE | {"max_length": 64, "num_mel_bins": 32}, {"input_values": torch.randn(2, 64, 32)}
    if name == "patchtst":
        series = {"d_model": 64, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "context_length": 32}
        return series | {"num_input_channels": 3}, {"past_values": torch.randn(2, 32, 3)}
    return WIDE | (GROUPED if name in LLAMAS else {}) | sizes, tokens
