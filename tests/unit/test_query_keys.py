"""Dimensions of queries and keys: exact in other axes, the best of their number, in the network's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

import paramtrans
from paramtrans import SpecMismatch
from paramtrans.evaluation.costs import parameters
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.graph.groups import Analysis, analyse, prove_groups
from paramtrans.networks.units.query_keys import in_principal_axes, pairs_of, query_keys
from paramtrans.networks.units.rounding import Rounding
from paramtrans.networks.units.selection import Asked, hidden_groups, selected
from paramtrans.networks.units.widths import GroupSizes


class Attention(nn.Module):
    """Attention whose code goes by the sizes of its layers, so that queries and keys may have a width of their own."""

    def __init__(self, heads: int = 2, norm: bool = False, packed: bool = False) -> None:
        super().__init__()
        self.heads, self.packed = heads, packed
        self.query, self.key = nn.Linear(12, 8 * heads), nn.Linear(12, 8 * heads)
        self.both = nn.Linear(12, 16 * heads)
        self.value, self.out = nn.Linear(12, 6 * heads), nn.Linear(6 * heads, 12)
        self.norm = nn.LayerNorm(8) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        query, key = self.both(x).chunk(2, -1) if self.packed else (self.query(x), self.key(x))
        query, key, value = (
            t.unflatten(-1, (self.heads, t.shape[-1] // self.heads)).transpose(1, 2)
            for t in (query, key, self.value(x))
        )
        scale = 8**-0.5
        mixed = scaled_dot_product_attention(self.norm(query), key, value, scale=scale)
        output: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return output


@pytest.fixture
def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(48, 7, 12, generator=generator) @ torch.randn(12, 12, generator=generator)


def sharp(network: nn.Module) -> nn.Module:
    """A network whose heads look at few tokens, in eval mode."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.5 * parameter.shape[1] ** -0.5)
        else:
            nn.init.normal_(parameter)
    return network.eval()


def analysed(network: nn.Module, tokens: Tensor) -> Analysis:
    return analyse(network, ((tokens[:2],), {}))


@pytest.mark.parametrize("packed", [False, True])
def test_principal_axes_change_nothing_and_come_in_their_order(tokens: Tensor, packed: bool) -> None:
    network = sharp(Attention(packed=packed))
    analysis = analysed(network, tokens)
    [group] = query_keys(analysis)
    [(queries, keys)] = pairs_of(analysis, group)
    wanted = ("both.weight", "both.weight") if packed else ("query.weight", "key.weight")
    assert (queries.layer.weight, keys.layer.weight) == wanted
    turned, scores = in_principal_axes(analysis, [group], Examples([tokens]), 0)
    torch.testing.assert_close(turned(tokens), network(tokens), rtol=1e-4, atol=1e-4)
    assert not torch.equal(turned.state_dict()[wanted[0]], network.state_dict()[wanted[0]])
    for of_head in scores[group.path].view(2, 8):
        assert (of_head.diff() <= 0).all() and of_head[0] > 2 * of_head[-1]


def test_logits_of_low_rank_are_kept_exactly(tokens: Tensor) -> None:
    network = sharp(Attention())
    for rows in (slice(0, 8), slice(8, 16)):
        network.key.weight.data[rows] = torch.randn(8, 4) @ torch.randn(4, 12) / 4
        network.key.bias.data[rows] = 0
    small = paramtrans.translate(network, query_key=0.5, calibrate=tokens)
    assert (small.query.out_features, small.key.out_features, small.value.out_features) == (8, 8, 12)
    torch.testing.assert_close(small(tokens), network(tokens), rtol=1e-3, atol=1e-3)


def test_axes_are_better_than_dimensions_as_they_are(tokens: Tensor) -> None:
    network = sharp(Attention())
    analysis = analysed(network, tokens)
    small = paramtrans.translate(network, query_key=0.5, calibrate=tokens)
    from paramtrans.networks.graph.narrow import narrow

    [group] = query_keys(analysis)
    queries, keys = network.query(tokens), network.key(tokens)
    energies = queries.square().mean((0, 1)) * keys.var((0, 1))
    chosen = narrow(network, analysis.removal({group: group.units.choose(energies, 8)}), [])
    wanted = network(tokens).detach()
    errors = [(other(tokens) - wanted).square().mean().item() for other in (small, chosen)]
    assert errors[0] < errors[1] / 2


@pytest.mark.thorough
def test_values_follow_where_the_code_has_one_number_for_both() -> None:
    network = sharp(BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20)))
    ids = {"input_ids": torch.randint(20, (40, 5), generator=torch.Generator().manual_seed(0))}
    analysis = analyse(network, ((), {"input_ids": ids["input_ids"][:2]}))
    selection = selected(analysis, Asked(query_key=0.5), Examples([ids]), 0)
    [bundle] = selection.together
    assert [group.path.rpartition(".")[2] for group in bundle] == ["query", "value"]
    alone = {group: count for group, count in selection.counts.items() if group is bundle[0]}
    assert prove_groups(analysis, alone).refused and not prove_groups(analysis, *as_arguments(selection)).refused
    small = paramtrans.translate(network, query_key=0.5, calibrate=ids)
    attention = small.encoder.layer[0].attention
    assert attention.self.attention_head_size == 4 and attention.output.dense.in_features == 8
    assert small(**ids)[0].shape == network(**ids)[0].shape


def test_code_that_scales_products_by_their_number_is_refused_with_what_to_do(tokens: Tensor) -> None:
    network = sharp(Attention())

    class Scaled(Attention):
        def forward(self, x: Tensor) -> Tensor:
            layers = (self.query, self.key, self.value)
            parts = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in layers)
            output: Tensor = self.out(scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
            return output

    network.__class__ = Scaled
    with pytest.raises(SpecMismatch, match=r"computes something else.*let it keep the scale in an attribute"):
        paramtrans.translate(network, query_key=0.5, calibrate=tokens)


class OneWidth(nn.Module):
    """Attention whose code has one number for the width of queries, keys and values, perhaps of one head."""

    def __init__(self, heads: int, key_heads: int, written_out: bool) -> None:
        super().__init__()
        self.heads, self.key_heads, self.width, self.written_out = heads, key_heads, 8, written_out
        self.query, self.out = nn.Linear(12, 8 * heads), nn.Linear(8 * heads, 12)
        self.key, self.value = nn.Linear(12, 8 * key_heads), nn.Linear(12, 8 * key_heads)

    def forward(self, x: Tensor) -> Tensor:
        shape, repeated = x.shape[:2], self.heads // self.key_heads
        query = self.query(x).view(*shape, self.heads, self.width).transpose(1, 2)
        key, value = (
            t.view(*shape, self.key_heads, self.width).transpose(1, 2).repeat_interleave(repeated, 1)
            for t in (self.key(x), self.value(x))
        )
        if self.written_out:
            mixed = (query @ key.mT / 3).softmax(-1) @ value
        else:
            mixed = scaled_dot_product_attention(query, key, value, scale=1 / 3)
        output: Tensor = self.out(mixed.transpose(1, 2).reshape(*shape, self.heads * self.width))
        return output


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize(("heads", "key_heads"), [(1, 1), (4, 1), (4, 2)])
def test_values_of_one_head_or_of_one_key_head_follow_too(
    heads: int, key_heads: int, written_out: bool, tokens: Tensor
) -> None:
    network = sharp(OneWidth(heads, key_heads, written_out))
    small = paramtrans.translate(network, query_key=0.5, calibrate=tokens)
    assert small.width == 4 and small(tokens).shape == tokens.shape
    widths = [layer.out_features for layer in (small.query, small.key, small.value)]
    assert widths == [4 * heads, 4 * key_heads, 4 * key_heads] and small.out.in_features == 4 * heads


def test_a_translator_that_cannot_choose_values_refuses_their_queries_too(tokens: Tensor) -> None:
    network = nn.Sequential(OneWidth(4, 2, False), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3))
    said = "becomes smaller together with 0.value, of which merge takes no mean of heads.*; take another translator"
    with pytest.raises(SpecMismatch, match=said):
        paramtrans.translate(sharp(network), "merge", query_key=0.5, calibrate=tokens)
    small = paramtrans.translate(sharp(network), "merge", query_key=0.5, ratio=0.5, calibrate=tokens)
    assert small[1].out_features == 10 and small[0].width == 8


@pytest.mark.thorough
def test_budgets_count_what_queries_keys_and_their_values_give_up() -> None:
    network = sharp(BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20)))
    ids = {"input_ids": torch.randint(20, (40, 5), generator=torch.Generator().manual_seed(0))}
    analysis = analyse(network, ((), {"input_ids": ids["input_ids"][:2]}))
    small = paramtrans.translate(network, query_key=0.5, ratio=0.5, calibrate=ids)  # half of the heads too
    selection = selected(analysis, Asked(query_key=0.5), Examples([ids]), 0)
    sizes = GroupSizes(analysis, hidden_groups(analysis, "*"), Examples([ids]), 0, *as_arguments(selection))
    counts = sizes.share(0.5, Rounding())
    assert sizes.parameters(counts) == parameters(small) == parameters(sizes.smaller(counts))


def test_translators_go_on_from_values_but_not_from_queries_and_keys(tokens: Tensor) -> None:
    then = {"quantise": {"bits": 4}}
    small = paramtrans.translate(sharp(Attention()), query_key=0.5, ratio=0.5, then=then, calibrate=tokens)
    errors = {group.path: group.feature_error for group in small.paramtrans_blocks}
    assert errors["query#2"] is None and errors["query"] > 0.0  # dimensions of the heads, and whole heads
    with pytest.raises(SpecMismatch, match=r"quantise: can go on from none of these units; leave it out \(query"):
        paramtrans.translate(sharp(Attention()), query_key=0.5, then=then, calibrate=tokens)


def as_arguments(selection: Any) -> tuple[Any, Any]:
    return selection.counts, selection.together


@pytest.mark.thorough
def test_rotary_pairs_go_together_in_all_layers_and_generation_goes_on(tmp_path: Path) -> None:
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=12,
        vocab_size=20,
    )
    network = sharp(LlamaForCausalLM(config))
    ids = {"input_ids": torch.randint(20, (40, 5), generator=torch.Generator().manual_seed(0))}
    small = paramtrans.translate(network, query_key=0.5, calibrate=ids)
    assert small.model.rotary_emb.inv_freq.shape == (2,) and small.model.layers[0].self_attn.head_dim == 4
    prompt = ids["input_ids"][:1]
    cached, plain = (
        small.generate(prompt, max_new_tokens=4, do_sample=False, use_cache=cache, pad_token_id=0)
        for cache in (True, False)
    )
    assert torch.equal(cached, plain)
    paramtrans.save_translated(small, tmp_path / "small.safetensors")
    again = paramtrans.load_translated(tmp_path / "small.safetensors", LlamaForCausalLM(config))
    assert torch.equal(again(**ids).logits, small(**ids).logits)


def test_dimensions_of_a_single_head_stay_unless_they_are_asked_for(tokens: Tensor) -> None:
    network = sharp(nn.Sequential(Attention(heads=1), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3)))
    small = paramtrans.translate(network, ratio=0.5, calibrate=tokens)
    assert (small[0].query.out_features, small[0].key.out_features, small[1].out_features) == (8, 8, 10)
    narrower = paramtrans.translate(network, query_key=0.5, calibrate=tokens)
    assert (narrower[0].query.out_features, narrower[1].out_features) == (4, 20)


def test_a_wrong_number_of_heads_shows_in_attention_that_was_hardly_trained() -> None:
    """Its weights are tiny, so that it looks at all tokens alike, whatever its heads."""
    torch.manual_seed(0)
    network = BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20)).eval()
    ids = {"input_ids": torch.randint(20, (40, 5), generator=torch.Generator().manual_seed(0))}
    small = paramtrans.translate(network, query_key=0.5, calibrate=ids)
    assert small.encoder.layer[0].attention.self.attention_head_size == 4


def test_without_queries_and_keys_of_layers_it_is_said_what_they_have_to_be(tokens: Tensor) -> None:
    for network in (nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 4)), Attention(norm=True)):
        with pytest.raises(SpecMismatch, match="of Linear layers that write no values, and of no norm"):
            paramtrans.translate(network.eval(), query_key=0.5, calibrate=tokens)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"query_key": 1.5}, "no share of the dimensions of queries and keys"),
        ({"query_key": 0.5, "by": "blocks"}, "is found in the graph"),
        ({"query_key": 0.5, "blocks": "nowhere"}, 'no heads have queries and keys at "nowhere"'),
        ({"rotate": True}, "give stream=SHARE"),
        ({"rotate": "yes", "stream": 0.5}, "takes True or False"),
    ],
)
def test_what_cannot_be_is_said(asked: dict[str, Any], message: str, tokens: Tensor) -> None:
    with pytest.raises(SpecMismatch, match=message):
        paramtrans.translate(sharp(Attention()), calibrate=tokens, **asked)


def test_two_groups_that_share_their_values_are_refused_together() -> None:
    """Phi turns some dimensions of a head and leaves the others: two groups, beside one of values."""
    transformers = pytest.importorskip("transformers")
    config = transformers.PhiConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0
    )
    network = transformers.PhiForCausalLM(config).eval()
    ids = torch.randint(1, 20, (8, 6), generator=torch.Generator().manual_seed(0))
    with pytest.raises(SpecMismatch, match=r"none can be made smaller: model\.layers\.0\.self_attn"):
        paramtrans.translate(network, query_key=0.5, calibrate=ids.split(4))
