"""How much memory a translation takes beside the network itself."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import paramtrans
from paramtrans.evaluation.footprint import peak_memory
from paramtrans.networks.forward.lockstep import Forward, Lockstep
from paramtrans.networks.graph.groups import analyse, prove_groups
from paramtrans.networks.graph.labels import squeezed
from paramtrans.networks.graph.proof import largest_difference
from paramtrans.networks.graph.stand_ins import stand_ins
from paramtrans.networks.loading.wrappers import copied
from paramtrans.ops.distances import RelativeError
from paramtrans.storage import sealed_params


def wide_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 512), nn.LayerNorm(512)).eval()


def test_a_proof_copies_what_becomes_smaller_alone() -> None:
    network = wide_network()
    analysis = analyse(network, ((torch.randn(2, 512),), {}))
    [group] = analysis.groups
    size = sum(parameter.nbytes for parameter in network.parameters())
    # The units that stay are half of it, one weight is scaled while it is read, and so is its smaller form.
    assert peak_memory(network, lambda: prove_groups(analysis, {group: 1024})) < 2.1 * size
    assert sum(tensor.nbytes for tensor in stand_ins(network).constants.values()) < 0.01 * size
    shared = dict(copied(network, share=True).named_parameters())
    assert all(shared[name] is parameter for name, parameter in network.named_parameters())


def test_what_is_compared_in_pieces_is_what_is_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paramtrans.ops.chunks.chunks.__kwdefaults__", {"size": 7})
    given, wanted = torch.randn(5, 9), torch.randn(5, 9)
    error = RelativeError()
    error.add(given, wanted)
    assert error.value == pytest.approx(float((given - wanted).square().mean() / wanted.var(0, correction=0).mean()))
    assert largest_difference([wanted], [given]) == pytest.approx(
        float((wanted - given).abs().max() / wanted.abs().max())
    )
    given[4, 8] = torch.nan
    assert largest_difference([wanted], [given]) == float("inf")


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    whole = torch.randn(4, 6)
    params = {"whole": whole, "again": whole, "rows": whole[1:3], "turned": whole.T}
    sealed_params.save_params(tmp_path / "x.safetensors", params, {})
    read = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in params.items())


def test_a_label_lets_go_of_what_it_was_cut_from() -> None:
    label = squeezed(torch.arange(4).expand(8, 9, 4).contiguous())
    assert label.shape == (1, 1, 4)
    assert label.untyped_storage().nbytes() == label.nbytes


def test_what_a_layer_was_called_with_is_gone_behind_it() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    entered: list[weakref.ref[torch.Tensor]] = []
    gone: list[bool] = []
    network[3].register_forward_pre_hook(lambda *_: gone.append(entered[-1]() is None))
    layers = {id(network[number].weight): str(number) for number in (2, 4)}
    with Lockstep([Forward(lambda: network(torch.randn(6, 3)), layers)]) as passes:
        for calls in passes.layers():
            entered.append(weakref.ref(calls[0].args[0]))
    assert gone == [True]


def held_by_tensors() -> int:
    """Bytes of all tensors that the collector knows, each storage once."""
    storages = [x.untyped_storage() for x in gc.get_objects() if type(x) in (torch.Tensor, nn.Parameter)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_little_is_held_while_layers_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_hidden_layers=2)).eval()
    tokens = torch.randint(0, 50, (16, 64))
    held, features = list[int](), tokens.numel() * 64 * 4
    monkeypatch.setattr("paramtrans.utils.memory.give_back", lambda of_thread=False: held.append(held_by_tensors()))
    gc.collect()
    gc.freeze()  # what is there already is not looked at
    try:
        paramtrans.translate(network, calibrate=tokens)
    finally:
        gc.unfreeze()
    # The smaller network, the features that both have at hand, and the equations of one layer.
    assert max(held) < 16 * features


def test_no_keys_and_values_are_kept_for_tokens_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_hidden_layers=1)).eval()
    kept: list[int] = []
    update = transformers.DynamicCache.update
    monkeypatch.setattr(
        transformers.DynamicCache, "update", lambda *args, **kwargs: kept.append(1) or update(*args, **kwargs)
    )
    tokens = torch.randint(0, 50, (8, 7))
    small = paramtrans.translate(network, calibrate=tokens)
    assert not kept and network.config.use_cache
    assert small.config.use_cache and small(tokens).past_key_values is not None and kept
