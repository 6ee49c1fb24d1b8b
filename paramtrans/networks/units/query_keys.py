"""Dimensions in which queries and keys are compared, brought into an order in which the last may go.

Attention sees queries and keys by their products alone, so those of a head may be multiplied by a matrix and by its
inverse. They are brought into the axes in which their products on the inputs are largest; leaving out the last of
these is then the best approximation of all logits of that rank (Eckart and Young, 1936). CORP (arXiv 2602.05243)
matches logits too, for dimensions that are chosen. Where something stands between, as rotary positions, pairs are
chosen by their products alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.fx import Node

from paramtrans.networks.forward.attention import with_plain_attention
from paramtrans.networks.forward.examples import Examples
from paramtrans.networks.forward.lockstep import Lockstep
from paramtrans.networks.graph.examples import forward_pass, read_values, row_pieces
from paramtrans.networks.graph.groups import Analysis, NamedGroup
from paramtrans.networks.graph.operators import name_of
from paramtrans.networks.graph.proof import named_tensors, run
from paramtrans.networks.graph.readers import ReaderLayer

SAME = 1e-4
"""Largest difference of outputs, relative to the largest, in the new axes."""
PRODUCTS = ("matmul", "bmm", "einsum")
"""Operations by which attention that is written out weighs its values."""
FLOOR = 1e-10
"""Squares of queries or keys along an axis, relative to the largest, that count as none."""


@dataclass(frozen=True)
class Side:
    """The queries or the keys of a group: rows of one layer."""

    layer: ReaderLayer
    rows: Tensor
    """`[units, rows]`: those of each unit. Several for queries that share a key."""


@dataclass(frozen=True)
class Moments:
    """Sums over tokens of what a layer gives."""

    count: int
    total: Tensor
    """`[outputs]`."""
    square: Tensor
    """Sum of outer products, `[outputs, outputs]`."""

    def of(self, rows: Tensor, centred: bool) -> Tensor:
        """Mean products of some outputs: `[..., n, n]` for rows `[..., n]`."""
        square = self.square[rows[..., :, None], rows[..., None, :]] / self.count
        mean = self.total[rows] / self.count
        return square - mean[..., :, None] * mean[..., None, :] if centred else square


@torch.no_grad()
def in_principal_axes(
    analysis: Analysis, groups: Iterable[NamedGroup], examples: Examples, seed: int
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network that gives the same, with queries and keys in their principal axes where that can be.

    Args:
        analysis: Of the network.
        groups: Query-key dimensions of its heads.
        examples: Calibration inputs; those kept aside are not looked at.
        seed: Draws tokens, where there are many.

    Returns:
        The network, and for each group by its path how much each unit counts, `[units]`.
    """
    pairs = {group: pairs_of(analysis, group) for group in groups}
    if not pairs:
        return analysis.network, {}
    layers = {side.layer.weight: side.layer for of_group in pairs.values() for pair in of_group for side in pair}
    moments = _moments(analysis, layers, examples, seed)
    network, scores = copy.deepcopy(analysis.network), dict[str, Tensor]()
    before = run(network, analysis.program)
    for group, of_group in pairs.items():
        products = [_products(pair, moments) for pair in of_group]
        scores[group.path] = torch.stack([product / product.sum() for product in products]).sum(0)
        if len(of_group) == 1 and of_group[0][1].rows.shape[1] == 1:
            names = {name for side in of_group[0] for name in (side.layer.weight, side.layer.bias) if name}
            kept = {name: named_tensors(network)[name].clone() for name in names}
            sizes = _turn(network, group, of_group[0], moments)
            if _same(before, run(network, analysis.program)):
                scores[group.path] = sizes
            else:  # something stands between the layers and the products
                for name, tensor in kept.items():
                    named_tensors(network)[name].copy_(tensor)
    return network, scores


def _products(pair: tuple[Side, Side], moments: Mapping[str, Moments]) -> Tensor:
    """Mean squared products of queries and keys, unit by unit: `[units]`."""
    squares = [
        moments[side.layer.weight].of(side.rows[..., None], centred=side is pair[1])[..., 0, 0].sum(1) for side in pair
    ]
    return squares[0] * squares[1]


def query_keys(analysis: Analysis, among: Iterable[NamedGroup] | None = None) -> list[NamedGroup]:
    """The groups whose units are dimensions in which queries and keys of single layers are compared.

    Args:
        analysis: Of the network.
        among: Groups that are looked at; None: all.
    """
    unread = [group for group in (analysis.groups if among is None else among) if not group.readers]
    return [group for group in unread if pairs_of(analysis, group)]


def pairs_of(analysis: Analysis, group: NamedGroup) -> list[tuple[Side, Side]]:
    """The queries and keys of a group, one pair for each attention that its units are in; none where they are not from
    layers alone. In a packed layer queries come first."""
    pairs = []
    for product in _products_over(analysis, group):
        first, second = (_side(analysis, group, operand) for operand in product.args[:2])
        if first is None or second is None:
            return []
        if first.layer is second.layer:
            first, second = replace(first, rows=first.rows[:, :-1]), replace(first, rows=first.rows[:, -1:])
        pairs.append((first, second))
    return pairs


def values_of(analysis: Analysis, queries: NamedGroup) -> list[NamedGroup]:
    """The groups whose units are the values of the heads, or of the one head, whose queries and keys these are.

    Args:
        analysis: Of the network.
        queries: Query-key dimensions.
    """
    names = analysis.program.names
    operands = [operand for product in _products_over(analysis, queries) for operand in _weighted(product)]
    writing = {names[node.name] for operand in operands for node in _behind(operand) if node.name in names}
    classes = frozenset().union(*queries.units.classes)
    return [
        group
        for group in analysis.groups
        if group.readers
        and not group.stream
        and any(axis.axis == 0 and axis.tensor in writing for axis in group.units.axes)
        and classes.isdisjoint(frozenset().union(*group.units.classes))
    ]


def _products_over(analysis: Analysis, group: NamedGroup) -> Iterator[Node]:
    """Products of two computed values that sum over units of a group."""
    classes = frozenset().union(*group.units.classes)
    for contraction in analysis.labelled.contractions:
        touched = analysis.classes.of[contraction.label.numpy()].ravel().tolist()
        of_two = len(contraction.node.all_input_nodes) > 1  # a sum over all axes is of one
        if contraction.operand == 0 and contraction.weight is None and of_two and not classes.isdisjoint(touched):
            yield contraction.node


def _weighted(product: Node) -> list[Node]:
    """What the products of queries and keys are the weights of: values, in PyTorch's own attention or behind."""
    if name_of(product) == "scaled_dot_product_attention":
        return [operand for operand in product.args[2:3] if isinstance(operand, Node)]
    behind, values = {product}, list[Node]()
    open_nodes = [product]
    while open_nodes:
        for user in open_nodes.pop().users:
            beside = [operand for operand in user.all_input_nodes if operand not in behind]
            if name_of(user) in PRODUCTS and beside:
                values += beside
            elif user not in behind:
                behind.add(user)
                open_nodes.append(user)
    return values


def _side(analysis: Analysis, group: NamedGroup, operand: object) -> Side | None:
    """The rows of a group in the layer that an operand of the products comes from."""
    names = analysis.program.names
    behind = {names[node.name] for node in _behind(operand) if node.name in names} & analysis.readers.keys()
    axes = [axis for axis in group.units.axes if axis.tensor in behind]
    layers = [analysis.readers[axis.tensor] for axis in axes]
    if len(axes) != 1 or layers[0].axis != 1 or layers[0].times != 1:
        return None
    return Side(layers[0], axes[0].indices)


def _behind(node: object) -> Iterable[Node]:
    """What a value is computed from, as far as the weights that it was multiplied by last."""
    open_nodes = [node] if isinstance(node, Node) else []
    seen: set[Node] = set()
    while open_nodes:
        current = open_nodes.pop()
        if current in seen:
            continue
        seen.add(current)
        yield current
        parents = current.all_input_nodes
        weights = [parent for parent in parents if parent.op == "placeholder"]
        multiplied = len(weights) < len(parents) and any(len(weight.meta["val"].shape) == 2 for weight in weights)
        open_nodes += weights if multiplied else parents


def _moments(
    analysis: Analysis, layers: Mapping[str, ReaderLayer], examples: Examples, seed: int
) -> dict[str, Moments]:
    """What these layers give on the calibration inputs, in one pass of the network."""
    tensors, moments = named_tensors(analysis.network), dict[str, Moments]()
    forwards = [forward_pass(analysis.network, batch.inputs, tensors, layers) for batch in examples.passed_here]
    with with_plain_attention(analysis.network), Lockstep(forwards) as passes:
        for calls in passes.layers():
            layer = layers[calls[0].layer]
            pieces = row_pieces(calls, examples, read_values(tensors[layer.weight], layer), seed)
            given = torch.cat([piece.output()[~examples.aside(piece.example)] for piece in pieces]).double()
            given = given if layer.bias is None else given + tensors[layer.bias].double()
            count, total, square = given.new_full((1,), len(given)), given.sum(0), given.mT @ given
            examples.processes.add([count, total, square])
            moments[layer.weight] = Moments(int(count), total, square)
            if len(moments) == len(layers):
                break  # what the network does behind the last of the layers is of no use
    return moments


def _turn(network: nn.Module, group: NamedGroup, pair: tuple[Side, Side], moments: Mapping[str, Moments]) -> Tensor:
    """Bring queries and keys of a group into their principal axes; the size of the products along each, `[units]`."""
    query_moments, key_moments = (moments[side.layer.weight] for side in pair)
    tensors = named_tensors(network)
    scores = torch.zeros(len(group), dtype=torch.double)
    cells = torch.zeros(len(group)) if group.units.cells is None else group.units.cells
    for cell in cells.unique():
        units = (cells == cell).nonzero()[:, 0]
        queries, keys = (side.rows[units].mT for side in pair)  # [rows of a unit, units]
        square = query_moments.of(queries, centred=False).sum(0)
        query_map, key_map, scores[units] = _principal_axes(square, key_moments.of(keys, centred=True)[0])
        for side, rows_of, matrix in zip(pair, (queries, keys), (query_map, key_map), strict=True):
            for name in filter(None, (side.layer.weight, side.layer.bias)):
                for rows in rows_of:
                    tensor = tensors[name].data
                    values = tensor[rows].double()
                    tensor[rows] = (matrix @ values.reshape(len(rows), -1)).view_as(values).to(tensor)
    return scores


def _principal_axes(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What queries and keys are multiplied by, and the root mean square of their products along each axis.

    Args:
        queries: Mean products of the queries' dimensions, `[n, n]`.
        keys: Those of the keys, from their mean: a constant that a query adds to all of its logits changes nothing.

    Returns:
        `[n, n]` and `[n, n]`, of which the transposed first times the second is the identity, and `[n]`, falling.
    """
    (query_root, query_inverse), (key_root, key_inverse) = _roots(queries), _roots(keys)
    left, sizes, right = torch.linalg.svd(query_root @ key_root)
    root = sizes.clamp_min(FLOOR * sizes[0]).sqrt()[:, None]
    return root * left.mT @ query_inverse, sizes[:, None] / root * right @ key_inverse, sizes


def _roots(square: Tensor) -> tuple[Tensor, Tensor]:
    """The root of a positive matrix, and its inverse."""
    values, vectors = torch.linalg.eigh(square)
    root = values.clamp_min(FLOOR * values[-1].clamp_min(1e-30)).sqrt()
    return vectors * root @ vectors.mT, vectors / root @ vectors.mT


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    """Whether outputs differ by rounding alone."""
    return all(
        bool((b.double() - a.double()).abs().max() <= SAME * b.double().abs().max())
        for b, a in zip(before, after, strict=True)
        if b.is_floating_point() and b.numel()
    )
