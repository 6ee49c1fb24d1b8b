"""Attention of language models given to other architectures: causal, with rotary positions, with a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from paramtrans_blocks.source_attention import attention_of
from torch import Tensor

import paramtrans
from paramtrans.networks.parts.finding import find_parts

transformers = pytest.importorskip("transformers")
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 4,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
ROTARY = {"rope_type": "llama3", "rope_theta": 50.0, "factor": 4.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8}  # fmt: skip
LAYERS = "model.layers.*.self_attn"
GENERATED: dict[str, Any] = {
    "max_new_tokens": 5,
    "do_sample": False,
    "return_dict_in_generate": True,
    "output_logits": True,
}


@pytest.fixture
def llama() -> Any:
    """Six query heads on three of keys, as SmolLM2 has nine on three."""
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(2, 40, (12, 9), generator=torch.Generator().manual_seed(0))


def translated(network: Any, target: str, tokens: Tensor, **more: Any) -> Any:
    options = {"steps": 0} | more
    return paramtrans.translate(network, to={LAYERS: target}, options=options, calibrate={"input_ids": tokens})


def logits(network: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        scores: Tensor = network(input_ids=tokens).logits
    return scores


EXACT = {
    "as many key heads": "grouped_query?key_heads=3",
    "full rank": "latent_attention?rank=24",
    "a window over all": "linear_attention?window=20",
}


@pytest.mark.parametrize("target", EXACT.values(), ids=EXACT)
def test_where_nothing_is_cut_a_language_model_stays_as_it_is(llama: Any, tokens: Tensor, target: str) -> None:
    """At lengths, too, that were not among the calibration inputs."""
    small = translated(llama, target, tokens)
    assert all(block.started == "closed form" for block in small.paramtrans_blocks)
    longer = torch.randint(2, 40, (2, 17), generator=torch.Generator().manual_seed(1))
    for inputs in (tokens, longer):
        expected = logits(llama, inputs)
        assert (logits(small, inputs) - expected).abs().max() < 1e-5 * expected.abs().max()


CUT = (
    "state_space",
    "grouped_query",
    "latent_attention?rank=4",
    "linear_attention",
    "linear_attention?window=2",
    "conv_mixer?reach=3",
)


@pytest.mark.parametrize("target", CUT)
def test_a_block_goes_on_from_its_cache_as_without_one(llama: Any, tokens: Tensor, target: str) -> None:
    small = translated(llama, target, tokens)
    with_cache, without = (small.generate(tokens[:2], use_cache=cache, **GENERATED) for cache in (True, False))
    assert torch.equal(with_cache.sequences, without.sequences)
    torch.testing.assert_close(torch.stack(with_cache.logits), torch.stack(without.logits), rtol=1e-4, atol=1e-5)
    later = tokens.clone()
    later[:, 5:] = 3
    torch.testing.assert_close(logits(small, later)[:, :5], logits(small, tokens)[:, :5])


def test_a_latent_cache_holds_the_rank_alone(llama: Any, tokens: Tensor) -> None:
    small = translated(llama, "latent_attention?rank=4", tokens)
    cache = small.generate(tokens[:2], **GENERATED).past_key_values
    assert sum(layer.keys.shape[-1] + layer.values.shape[-1] for layer in cache.layers) == 2 * 4


def test_padding_is_refused_as_it_does_not_reach_the_block(llama: Any, tokens: Tensor) -> None:
    small = translated(llama, "grouped_query", tokens)
    mask = torch.ones_like(tokens)
    logits_of_whole = small(input_ids=tokens, attention_mask=mask).logits
    torch.testing.assert_close(logits_of_whole, logits(small, tokens))
    mask[0, :3] = 0
    with pytest.raises(paramtrans.SpecMismatch, match=r"attention_mask.*without padding"):
        small(input_ids=tokens, attention_mask=mask)


def test_a_cache_of_fixed_size_is_refused(llama: Any, tokens: Tensor) -> None:
    small = translated(llama, "linear_attention", tokens)
    cache = transformers.StaticCache(config=llama.config, max_cache_len=30)
    with pytest.raises(paramtrans.SpecMismatch, match=r"StaticCache.*use_cache=False"):
        small(input_ids=tokens, past_key_values=cache)


def test_such_a_network_comes_back_from_its_file_with_its_cache(llama: Any, tokens: Tensor, tmp_path: Path) -> None:
    small = translated(llama, "latent_attention?rank=4", tokens)
    paramtrans.save_translated(small, tmp_path / "small.safetensors")
    again = paramtrans.load_translated(tmp_path / "small.safetensors", transformers.LlamaForCausalLM(llama.config))
    assert again.paramtrans_blocks == small.paramtrans_blocks
    assert torch.equal(
        again.generate(tokens[:2], **GENERATED).sequences, small.generate(tokens[:2], **GENERATED).sequences
    )


@pytest.mark.parametrize(
    "positions", [{"rope_type": "default", "rope_theta": 10000.0}, ROTARY], ids=["plain", "scaled"]
)
def test_heads_masks_and_frequencies_are_read_off_a_decoder(tokens: Tensor, positions: dict[str, Any]) -> None:
    torch.manual_seed(0)
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, rope_parameters=positions)).eval()
    [part, _], _ = find_parts(llama, [LAYERS], {"input_ids": tokens})
    source = attention_of(part.part)
    assert source is not None
    options = source[0].options
    assert (options.heads, options.width, options.key_heads, options.causal, options.bias) == (6, 4, 3, True, False)
    wanted = llama.model.rotary_emb.inv_freq
    torch.testing.assert_close(torch.tensor(options.frequencies), wanted, rtol=1e-4, atol=1e-7)


def test_shared_keys_and_values_lose_less_than_their_means(llama: Any, tokens: Tensor) -> None:
    """Means are what heads share in the paper of grouped queries; here each head's own map goes into its queries."""
    small = translated(llama, "grouped_query", tokens)
    mean = translated(llama, "grouped_query", tokens)
    for name, block in mean.named_modules():
        if name.endswith("self_attn"):
            whole = llama.get_submodule(name)
            state = {"query": whole.q_proj, "out": whole.o_proj, "key": whole.k_proj, "value": whole.v_proj}
            for layer, source in state.items():
                weight = source.weight.detach()
                if layer in ("key", "value"):
                    weight = weight.view(3, 4, 24).mean(0)
                block.block.get_submodule(layer).weight.data.copy_(weight)
    expected = logits(llama, tokens)
    errors = [float((logits(network, tokens) - expected).square().mean()) for network in (small, mean)]
    assert errors[0] < 0.8 * errors[1]


def test_layers_of_other_sizes_than_the_attention_has_begin_at_random(llama: Any, tokens: Tensor) -> None:
    small = translated(llama, "linear_attention?key_heads=1", tokens)
    assert {block.started for block in small.paramtrans_blocks} == {"random"}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["latent_attention", "linear_attention", "state_space"])
def test_a_program_of_such_a_network_gives_the_same(llama: Any, tokens: Tensor, target: str) -> None:
    """For programs transformers writes masks out that are None otherwise, and leaves the cache away."""
    small = translated(llama, target, tokens)
    kwargs = {"input_ids": tokens, "use_cache": False}
    program = torch.export.export(small, (), kwargs, strict=False).module()
    torch.testing.assert_close(program(**kwargs).logits, logits(small, tokens))


def test_a_block_translated_without_a_cache_goes_on_from_none(llama: Any, tokens: Tensor) -> None:
    llama.config.use_cache = False
    small = translated(llama, "linear_attention", tokens)
    small(input_ids=tokens, use_cache=True)  # all positions are there
    with pytest.raises(paramtrans.SpecMismatch, match=r"is called with a cache, as it was not when.*use_cache=False"):
        small.generate(tokens[:2], use_cache=True, **GENERATED)
    small.generate(tokens[:2], use_cache=False, **GENERATED)


def test_layers_of_a_model_in_half_precision_begin_in_closed_form(llama: Any, tokens: Tensor) -> None:
    inputs = {"input_ids": tokens}
    small = paramtrans.translate(
        llama.bfloat16(), to={"model.layers.0.mlp.up_proj": "monarch?blocks=4"}, options={"steps": 0}, calibrate=inputs
    )
    assert small.paramtrans_blocks[0].started == "closed form"
    assert {tensor.dtype for tensor in small.parameters()} == {torch.bfloat16}
    with pytest.raises(paramtrans.SpecMismatch, match="in half precision, translate it in float32, or give"):
        translated(llama, "grouped_query?key_heads=1", tokens)
