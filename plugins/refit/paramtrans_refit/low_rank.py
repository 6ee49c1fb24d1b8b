"""Low rank: each convolution as two thinner ones."""

from __future__ import annotations

import torch
from torch import Tensor

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.context import Context
from paramtrans.api.options import BaseOptions
from paramtrans.api.specs import TensorKind
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.errors import SpecMismatch


class LowRank(Translator):
    """Writes `low_rank` targets: for each convolution of the source two thinner ones, `thin1` and `wide1` and so on. Of
    all such pairs they are nearest to it in the squared error of weights (truncated SVD).

    Biases of the source that the target has no place for are left out.
    """

    def __init__(self, options: BaseOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        super().__init__(options, source, target)
        read = {tensor.name: tensor for tensor in source.reading.tensors}
        expected: dict[str, tuple[int, ...]] = {}
        shapes = {tensor.name: tensor.shape for tensor in target.spec.tensors}
        weights = [name for name, tensor in read.items() if tensor.kind is TensorKind.WEIGHT]
        self.layers = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
        """The source's convolutions."""
        for number, layer in enumerate(self.layers, 1):
            outputs, *inputs = read[f"{layer}.weight"].shape
            thin, wide = f"thin{number}", f"wide{number}"
            rank = shapes.get(f"{thin}.weight", (0,))[0]
            expected |= {f"{thin}.weight": (rank, *inputs), f"{wide}.weight": (outputs, rank, *(1 for _ in inputs[1:]))}
            if f"{wide}.bias" in shapes:
                expected[f"{wide}.bias"] = (outputs,)
        has_other_weights = len(weights) > len(self.layers)  # weights that are no layer's
        if (
            has_other_weights
            or expected != shapes
            or any(tensor.kind not in (TensorKind.WEIGHT, TensorKind.BIAS) for tensor in read.values())
        ):
            raise SpecMismatch(
                "writes low_rank targets of the source's own sizes, and reads sources without normalisation (set "
                "source.read to folded)"
            )

    @torch.no_grad()
    def translate(self, source: Params, context: Context | None = None) -> Params:
        read, shapes = self.source.read(source), {t.name: t.shape for t in self.target.spec.tensors}
        written: Params = {}
        for number, layer in enumerate(self.layers, 1):
            thin, wide = f"thin{number}", f"wide{number}"
            thin_weight, wide_weight = halves(read[f"{layer}.weight"], shapes[f"{thin}.weight"][0])
            written |= {f"{thin}.weight": thin_weight, f"{wide}.weight": wide_weight}
            if f"{wide}.bias" in shapes:
                written[f"{wide}.bias"] = read.get(
                    f"{layer}.bias", wide_weight.new_zeros(wide_weight.shape[:2])
                ).clone()
        return {name: written[name] for name in self.target.spec.names}


def halves(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Two factors of a convolution, nearest in the squared error of weights (truncated SVD: Eckart and Young 1936).

    Both have the same norm. A rank above that of the weight is filled up with zeros.

    Args:
        weight: `[models, out, in, *kernel]`.
        rank: Channels between the two.

    Returns:
        `[models, rank, in, *kernel]` and `[models, out, rank, 1, …]`.
    """
    left, values, right = torch.linalg.svd(weight.flatten(2), full_matrices=False)
    root = values[:, :rank].sqrt()
    thin, wide = root[..., None] * right[:, :rank], left[..., :rank] * root[:, None]
    missing = rank - thin.shape[1]
    thin = torch.cat([thin, thin.new_zeros(len(thin), missing, thin.shape[2])], dim=1)
    wide = torch.cat([wide, wide.new_zeros(*wide.shape[:2], missing)], dim=2)
    ones = [1] * (weight.ndim - 3)
    return thin.view(len(thin), rank, *weight.shape[2:]), wide.reshape(*wide.shape, *ones)
