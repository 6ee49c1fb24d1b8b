"""Layers of a target that read hidden units, solved for so that the target does what the source does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase

from paramtrans.api.block_module import has_skip, passed_on, read_out, summed
from paramtrans.api.specs import Reader
from paramtrans.api.stacking import Params, models
from paramtrans.errors import SpecMismatch
from paramtrans.ops.halves import Halves
from paramtrans.ops.least_squares import GramMatrices
from paramtrans.ops.views import View, centred, plain, whole

if TYPE_CHECKING:
    from paramtrans.api.adapter import BlockAdapter
    from paramtrans.api.context import Context

Seen = dict[str, tuple[Tensor, Tensor]]
"""For each layer looked at, what entered it and what left it."""


class Taps:
    """Stacked blocks, run with a look at some of their layers; through `forward` where that is another method."""

    def __init__(self, module: nn.Module, layers: tuple[str, ...], forward: Callable[[Tensor], Tensor] | None = None):
        self.module, self.layers = module.eval(), layers
        if forward is not None:
            setattr(module, "forward", forward)  # noqa: B010 - mypy takes methods for constants

    @torch.no_grad()
    def __call__(self, params: Params, inputs: Tensor) -> tuple[Tensor, Seen]:
        """Inputs `[models, n, ...]` → outputs and what was seen, all `[models, n, ...]`."""
        if len(inputs) > 1:
            result: tuple[Tensor, Seen] = vmap(self._run_model)(params, inputs)
            return result
        output, seen = self._run_model({name: tensor[0] for name, tensor in params.items()}, inputs[0])
        return output[None], {name: (entered[None], left[None]) for name, (entered, left) in seen.items()}

    def _run_model(self, params: Params, inputs: Tensor) -> tuple[Tensor, Seen]:
        seen: Seen = {}

        def look_at(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
            return lambda _, given, left: seen.__setitem__(name, (given[0], left))

        handles = [self.module.get_submodule(name).register_forward_hook(look_at(name)) for name in self.layers]
        try:
            output: Tensor = functional_call(self.module, params, (inputs,))
        finally:
            for handle in handles:
                handle.remove()
        return output, seen


class UpToReadout(nn.Module):
    """A block as far as what enters its readout."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return read_out(self.block)(x)


class Readout:
    """Least-squares reconstruction (closed form) of the target's readers, one after the other.

    Each reader is fitted to what the source's reader gives; the last one completes the source's output. This is how
    Optimal Brain Surgeon (Hassibi and Stork, 1992) makes up for what was removed, on activations in place of a Hessian,
    and what GRAIL (arXiv 2602.23795) and CORP (arXiv 2602.05243) do in networks.

    Args:
        source: The block that is done alike.
        target: The block whose readers are solved for.

    Raises:
        SpecMismatch: the target's adapter names no such layer, or one of a kind that is not solved for.
    """

    def __init__(self, source: BlockAdapter, target: BlockAdapter) -> None:
        self.source, self.target = source, target
        self.readers = target.readers()
        if not self.readers:
            raise SpecMismatch("the target's adapter names no layer that reads hidden units, so none can be solved for")
        if source.channels_last != target.channels_last:
            raise SpecMismatch(
                "one block has its channels in the last axis, the other in the second: they cannot change places"
            )
        module, names = target.module(), tuple(reader.layer for reader in self.readers)
        self.layers = {name: _solvable(module, name) for name in names}
        self.eps = {r.norm: _norm(module, r.norm).eps for r in self.readers if r.norm is not None}
        if (source.closing is None) != (target.closing is None):
            raise SpecMismatch("one block ends in a normalisation, the other does not; the readout is not solved for")
        # Where both end in a ReLU or a LayerNorm, what enters it is compared; else what the source gives in the end.
        whole, alike = source.module(), target.closing is not None or (source.rectified and target.rectified)
        shared = tuple(reader.layer for reader in source.readers() if reader.layer in names)
        self._source = Taps(whole, shared, summed(whole) if alike else None)
        self._target = Taps(module, names)
        beside = target.module()
        skips = has_skip(beside)
        self._skip = Taps(beside, (), partial(passed_on, beside)) if skips else None

    def gram_matrices(
        self, index: int, params: Params, source: Params, context: Context, retained: Tensor | None
    ) -> Halves:
        """Gram matrices of one reader, summed over the context's probes.

        Args:
            index: Which of the readers.
            params: The target's tensors so far, each `[models, *shape]`.
            source: The source blocks, each `[models, *shape]`.
            context: Hosts and probes.
            retained: For a reader that is not the last: the source's units that it should give, `[models, units]`.
        """
        reader, halves = self.readers[index], Halves(context.count)
        layer = self.layers[reader.layer]
        for piece in context.entering():
            output, seen = self._source(source, piece.original)
            _, target_seen = self._target(params, piece.reached)
            if retained is None:
                wanted = self._entering_norm(self._completing(output, params, piece.reached), params)
            else:
                wanted = _pick(seen[reader.layer][1], retained, -1 if isinstance(layer, nn.Linear) else 2)
            halves.add(layer, target_seen[reader.layer][0], wanted)
        return halves

    def solve(self, index: int, params: Params, halves: Halves, ridge: float | None = None) -> Params:
        """The target's tensors, with one reader replaced by the ridge regression on its Gram matrices.

        Args:
            index: Which of the readers.
            params: The target's tensors, each `[models, *shape]`; the solution is pulled towards the reader in them.
            halves: What `gram_matrices` gave.
            ridge: How strongly; None chooses the strength for each model on held-out examples.
        """
        reader, name = self.readers[index], f"{self.readers[index].layer}.weight"
        start, view, total = params[name].flatten(2).mT.double(), self.view(index), halves.total()
        if view is whole:
            start = torch.cat([start, self._constant(params, reader, start)], dim=1)
        strength = halves.ridge(view, start) if ridge is None else start.new_full((models(params),), ridge)
        weights = view(total).ridge(start, strength)
        changed = dict(params)
        if view is whole:
            weights, constant = weights[:, :-1], weights[:, -1]
            changed |= _with_constant(params, reader, constant)
        return changed | {name: weights.mT.reshape(params[name].shape).to(params[name])}

    @staticmethod
    def _constant(params: Params, reader: Reader, weights: Tensor) -> Tensor:
        """What a reader adds to its outputs so far: `[models, 1, outputs]`."""
        bias = params.get(f"{reader.layer}.bias")
        return torch.zeros_like(weights[:, :1]) if bias is None else bias[:, None].to(weights)

    def view(self, index: int) -> View:
        """How a reader's Gram matrices are to be seen: with a constant where it has a bias, or a mean after it."""
        reader = self.readers[index]
        has_bias = self.layers[reader.layer].bias is not None or reader.norm is not None
        return whole if has_bias else plain

    def scoring_view(self, index: int) -> View:
        """How they are to be seen for scoring units: what is the same for all rows goes into the constant."""
        return centred if self.view(index) is whole else plain

    def importance_matrices(self, index: int, params: Params, halves: Halves) -> tuple[GramMatrices, Tensor]:
        """Gram matrices of a reader for scoring units: what the normalisation after it enlarges counts for more.

        Args:
            index: Which of the readers.
            params: The source's or target's tensors, each `[models, *shape]`.
            halves: What `gram_matrices` gave.

        Returns:
            The matrices, and the reader's weights in the same measure, `[models, values, outputs]`.
        """
        reader, matrices = self.readers[index], self.scoring_view(index)(halves.total()).gram_matrices()
        weights = params[f"{reader.layer}.weight"].flatten(2).mT.double()
        if reader.norm is None:
            return matrices, weights
        gain = self._gain(params, reader.norm)[:, None]
        return matrices.scaled(gain), weights * gain

    def revive_channels(self, params: Params) -> Params:
        """The same function, up to channels that the last normalisation had (nearly) shut: it lets them through again.

        What should leave such a channel could not be said by what enters it.
        """
        reader = self.readers[-1]
        if reader.norm is None:
            return params
        gain = self._gain(params, reader.norm)
        typical = gain.abs().mean(1, keepdim=True).clamp_min(1e-6)
        opened = torch.where(gain.abs() < 0.01 * typical, typical, gain)
        weight, ratio = params[f"{reader.layer}.weight"], gain / opened
        deviation = torch.sqrt(params[f"{reader.norm}.running_var"] + self.eps[reader.norm])
        return params | {
            f"{reader.layer}.weight": weight * ratio.view(*ratio.shape, *[1] * (weight.ndim - 2)),
            f"{reader.norm}.weight": opened * deviation,
            f"{reader.norm}.running_mean": params[f"{reader.norm}.running_mean"] * ratio,
        }

    def _completing(self, output: Tensor, params: Params, reached: Tensor) -> Tensor:
        """What the target's branch should be for its sum to be the source's, in the layout of its last layer."""
        wanted = output - (reached if self._skip is None else self._skip(params, reached)[0])
        last = self.layers[self.readers[-1].layer]
        return wanted.movedim(2, -1) if isinstance(last, nn.Linear) and not self.target.channels_last else wanted

    def _entering_norm(self, wanted: Tensor, params: Params) -> Tensor:
        """What has to enter the normalisation behind the last reader, if there is one, for `wanted` to leave it."""
        norm = self.readers[-1].norm
        if norm is None:
            return wanted
        after = (self._gain(params, norm), params[f"{norm}.bias"], params[f"{norm}.running_mean"])
        gain, bias, mean = (t.view(len(t), 1, -1, *[1] * (wanted.ndim - 3)) for t in after)
        return (wanted - bias) / gain + mean

    def _gain(self, params: Params, norm: str) -> Tensor:
        """What a normalisation multiplies each channel by: `[models, channels]`."""
        return params[f"{norm}.weight"] * torch.rsqrt(params[f"{norm}.running_var"] + self.eps[norm])


def _with_constant(params: Params, reader: Reader, constant: Tensor) -> Params:
    """The tensor that holds the reader's constant: its bias, or the mean that the normalisation behind it takes off."""
    bias = f"{reader.layer}.bias"
    if bias in params:
        return {bias: constant.to(params[bias])}
    mean = f"{reader.norm}.running_mean"
    return {mean: (params[mean] - constant).to(params[mean])}


def _pick(left: Tensor, retained: Tensor, axis: int) -> Tensor:
    """The retained units `[models, units]` of what left a layer, `[models, n, ...]`, along their axis."""
    return torch.stack(
        [units.index_select(axis % left.ndim - 1, chosen) for units, chosen in zip(left, retained, strict=True)]
    )


def _solvable(module: nn.Module, name: str) -> nn.Module:
    """The layer of this name, if it is a Linear or an ordinary convolution; raises `SpecMismatch`."""
    layer = module.get_submodule(name)
    plain = isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == 1 and isinstance(layer.padding, tuple)
    if isinstance(layer, nn.Linear) or (plain and layer.padding_mode == "zeros"):
        return layer
    raise SpecMismatch(f"{name} is {layer}; only Linear and zero-padded convolutions of one group are solved for")


def _norm(module: nn.Module, name: str) -> _NormBase:
    """The normalisation of this name, if it is a fixed scale and shift outside training; raises `SpecMismatch`."""
    layer = module.get_submodule(name)
    if isinstance(layer, _NormBase) and layer.affine and layer.track_running_stats:
        return layer
    raise SpecMismatch(
        f"{name} is {layer}; behind a layer to solve for, only BatchNorm with running statistics may stand"
    )
