"""How much memory a translation takes beside the network itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from paramtrans.evaluation.footprint import peak_memory
from paramtrans.networks.graph.groups import analyse, prove_groups
from paramtrans.networks.graph.proof import largest_difference
from paramtrans.networks.graph.stand_ins import stand_ins
from paramtrans.networks.loading.wrappers import copied
from paramtrans.ops.distances import RelativeError, relative_error
from paramtrans.storage import sealed_params

LARGE = """
import json, resource, sys
import torch, transformers
import paramtrans
torch.set_num_threads(1)
sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 16, "vocab_size": 32768}
config = transformers.LlamaConfig(**sizes, num_attention_heads=8, num_key_value_heads=4, tie_word_embeddings=True)
network = transformers.LlamaForCausalLM(config).eval()
inputs = [{"input_ids": rows} for rows in torch.randint(0, 32768, (16, 256)).split(8)]
small = paramtrans.translate(network, calibrate=inputs, by="units", blocks="*.mlp", options={"ridge": 1e-3})
paramtrans.measure_losses(network, small, inputs, predicts="tokens")
paramtrans.save_translated(small, sys.argv[1])
peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak": peak, "size": sum(p.nbytes for p in network.parameters())}))
"""


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
    assert error.value == pytest.approx(float(relative_error(given[None].double(), wanted[None].double())))
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


@pytest.mark.slow
def test_a_large_model_takes_at_most_twice_its_size_and_a_gibibyte(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    command = [sys.executable, "-c", LARGE, str(tmp_path / "small.safetensors")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(result.stdout.splitlines()[-1])
    assert measured["size"] > 250 * 2**20
    assert measured["peak"] < 2 * measured["size"] + 2**30
