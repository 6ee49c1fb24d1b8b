"""Operators that a file may name: those of ATen that compute tensors from tensors and numbers, and arithmetic of sizes.

ATen as a whole is no safe list: it also has operators that read and write files (`from_file`, `save`), change what the
process shares (`manual_seed`, `set_grad_enabled`), or trust what they are given.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

from paramtrans.networks.graph.rules.table import RULES

ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)", re.ASCII)
FURTHER = {
    "__xor__", "_adaptive_avg_pool3d", "_native_batch_norm_legit_no_training", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "absolute", "adaptive_max_pool3d", "addmv", "addr", "aminmax", "angle",
    "argwhere", "as_strided", "bilinear", "bincount", "block_diag", "bucketize", "cdist", "clip", "col2im",
    "complex", "conj", "copysign", "cosine_similarity", "count_nonzero", "cross", "cummax", "cummin", "diag",
    "diag_embed", "diagonal_scatter", "diff", "dist", "divide", "embedding_bag", "erfc", "fft_fft", "fft_fft2",
    "fft_fftn", "fft_ifft", "fft_ifft2", "fft_ifftn", "fft_irfft", "fft_irfft2", "fft_irfftn", "fft_rfft",
    "fft_rfft2", "fft_rfftn", "fill", "fliplr", "flipud", "float_power", "grid_sampler", "gru", "heaviside",
    "hypot", "im2col", "imag", "index_add", "index_copy", "index_fill", "index_put", "inner", "isclose", "isin",
    "istft", "kron", "kthvalue", "linalg_inv", "linalg_matmul", "linalg_norm", "linalg_pinv", "linalg_qr",
    "linalg_solve", "linalg_svd", "logaddexp", "logit", "lstm", "masked_scatter", "masked_select", "matrix_exp",
    "max_pool3d_with_indices", "max_unpool2d", "median", "mode", "multiply", "nanmean", "nansum",
    "native_group_norm", "native_layer_norm", "negative", "nonzero", "numel", "outer", "pairwise_distance",
    "pdist", "polar", "put", "quantile", "randint", "randint_like", "randn_like", "randperm", "range", "ravel",
    "real", "reflection_pad3d", "renorm", "replication_pad3d", "rnn_relu", "rnn_tanh", "round", "scatter",
    "scatter_add", "scatter_reduce", "select_scatter", "sgn", "sinc", "size", "slice_scatter", "slogdet",
    "special_entr", "special_expit", "special_logit", "square", "std_mean", "stft", "subtract", "sum_to_size",
    "svd", "sym_numel", "sym_storage_offset", "sym_stride", "take", "tensordot", "trace", "trapezoid",
    "tril_indices", "triu_indices", "unique_dim", "vander", "vdot", "view_as_complex", "view_as_real", "zero",
}  # fmt: skip
"""Operators that no rule is for, so that no units are known behind them, and that a network may have."""
TYPES = re.compile(r"(Optional\[)*(List\[)?(Optional\[)?(Tensor|int|float|bool|number|complex|Device)\]*", re.ASCII)
"""Types of arguments, as schemas name them: tensors, numbers, lists of these. Kinds of tensors are numbers there."""
TEXTS = {
    "approximate", "rounding_mode", "mode", "padding", "equation", "indexing", "reduce", "side", "ord", "pad_mode",
    "interpolation", "padding_side", "norm", "driver",
}  # fmt: skip
"""Arguments that are text, and say how something is computed."""
CHECKS = ("_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_constrain_range")
"""Operators that only check, of which nothing is computed, as their names begin."""
SIZES: dict[str, Callable[..., Any]] = {
    f"_operator.{function.__name__}": function
    for function in (
        operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv, operator.mod, operator.neg,
        operator.pos, operator.abs, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
        operator.and_, operator.or_, operator.not_,
    )
} | {
    f"torch.{function.__name__}": function
    for function in (torch.sym_max, torch.sym_min, torch.sym_float, torch.sym_int, torch.sym_not, torch.sym_ite)
}  # fmt: skip
"""Functions of sizes that are known when the program runs."""


def known(name: str) -> OpOverload | Callable[..., Any] | None:
    """The operator of this name; None for what no file may name.

    Args:
        name: As a file of `torch.export` has it: `torch.ops.aten.linear.default`, `_operator.mul`.
    """
    if name in SIZES:
        return SIZES[name]
    parts = ATEN.fullmatch(name)
    if parts is None or not {parts[1], parts[1].removesuffix("_")} & {*RULES, *FURTHER}:
        return None
    overload = getattr(getattr(torch.ops.aten, parts[1], None), parts[2], None)
    if not isinstance(overload, OpOverload):
        return None
    types = ((argument.name, str(argument.type)) for argument in overload._schema.arguments)
    return overload if all(_harmless(*argument) for argument in types) else None


def only_checks(name: str) -> bool:
    """Whether an operator of this name computes nothing."""
    parts = ATEN.fullmatch(name)
    return parts is not None and parts[1].startswith(CHECKS)


def _harmless(name: str, kind: str) -> bool:
    """Whether an argument of this name and type is a tensor, a number, or text that says how something is computed."""
    if kind in ("str", "Optional[str]"):
        return name in TEXTS
    return TYPES.fullmatch(kind) is not None
