"""Translators that are trained: the base class, and the one for backbones that turn tokens into tokens."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from paramtrans.api import stacking as stacks
from paramtrans.api.modules import initial
from paramtrans.api.options import BaseOptions
from paramtrans.api.specs import BlockSpec
from paramtrans.api.stacking import Params
from paramtrans.api.translator import Translator
from paramtrans.errors import SpecMismatch
from paramtrans.ops.tokens import TokenLayout
from paramtrans.utils import seeds

if TYPE_CHECKING:
    from paramtrans.api.adapter import BlockAdapter
    from paramtrans.api.context import Context


class LearnedTranslator(Translator, nn.Module):
    """A translator with weights of its own. Subclasses implement `forward` on what the source adapter reads."""

    learns: ClassVar[bool] = True

    def __init__(self, options: BaseOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        nn.Module.__init__(self)
        Translator.__init__(self, options, source, target)

    def start(self, reading: Params, context: Context) -> None:
        """Set statistics. Called once before training.

        Args:
            reading: What is read of the sources of all training hosts, each `[hosts, *shape]`.
            context: These hosts.
        """

    @abstractmethod
    def forward(self, reading: Params, context: Context | None = None) -> Params:
        """Target blocks, differentiable in the weights.

        Args:
            reading: What `source.read` returned (possibly augmented), each `[models, *shape]`.
            context: As in `translate`.

        Returns:
            Stacked tensors of `target.spec`.
        """

    @property
    def families(self) -> tuple[BlockAdapter, ...]:
        """A target block of each family that it writes, the one that it was made for first."""
        return (self.target,)

    def add_family(self, target: BlockAdapter) -> None:
        """Make room for target blocks of a further family, with new weights; a known one stays as it is.

        Args:
            target: A block of the family. Called before training.

        Raises:
            SpecMismatch: blocks of one family alone are written, as they are unless a subclass knows better.
        """
        raise SpecMismatch(f"{type(self).__name__} writes blocks of one family; train another for other families")

    def resized(self, source: BlockAdapter, target: BlockAdapter) -> Self:
        """The same translator, sharing its weights, for blocks at other sizes.

        Args:
            source: The source block.
            target: The target block, of any family that the translator writes.

        Returns:
            Another translator.

        Raises:
            SpecMismatch: the weights fit one size alone, as they do unless a subclass knows better.
        """
        raise SpecMismatch(f"{type(self).__name__} translates blocks of one size; train another for other sizes")

    @torch.no_grad()
    def translate(self, source: Params, context: Context | None = None) -> Params:
        stacks.check(source, self.source.spec, "the source blocks")
        was_training = self.training
        self.eval()
        try:
            return self.forward(self.source.read(source), context)
        finally:
            self.train(was_training)


class TokenOptions(BaseOptions):
    """Options that all token translators share."""

    standardize: bool = True
    """Shift and scale every value read to mean 0 and deviation 1 over the training sources. The paper does not."""
    start: Literal["template", "none"] = "template"
    """`template`: the network's output is a change to one default-initialised target block, zero at first, so that
    training starts at a sane block whose hidden units differ. `none`: the output is the block, as in the paper."""
    start_seed: int = 0
    """Seed of the template."""


class TokenTranslator(LearnedTranslator):
    """Source block → tokens → backbone → tokens → target block, for any sizes and any pair of families.

    Tokens and the linear map in and out of the backbone are those of KT, section 3; `TokenLayout` says how a block is
    cut into tokens.
    """

    Options: ClassVar[type[BaseOptions]] = TokenOptions
    options: TokenOptions
    mean: Tensor
    deviation: Tensor
    template: Tensor
    scale: Tensor

    def __init__(self, options: TokenOptions, source: BlockAdapter, target: BlockAdapter) -> None:
        super().__init__(options, source, target)
        width = source.reading.token_width or _width(source.reading)
        self.reads = TokenLayout(source.reading.tensors, width)
        self.writes = TokenLayout(target.spec.tensors, width)
        self.backbone = self.build((self.reads.count, width), (self.writes.count, width))
        self.register_buffer("mean", torch.zeros(self.reads.count, width))
        self.register_buffer("deviation", torch.ones(self.reads.count, width))
        if options.start == "template":
            base, scale = template(target, options.start_seed)
            self.register_buffer("template", self.writes.pack(base)[0])
            self.register_buffer("scale", self.writes.pack(scale)[0])
            layers = [m for m in self.backbone.modules() if isinstance(m, nn.Linear | nn.Conv1d)]
            if not layers:
                raise SpecMismatch("the backbone has no Linear or Conv1d that writes; build one, or set start to none")
            last = layers[-1]
            nn.init.zeros_(last.weight)
            if last.bias is not None:
                nn.init.zeros_(last.bias)

    @abstractmethod
    def build(self, source: tuple[int, int], target: tuple[int, int]) -> nn.Module:
        """The backbone, which maps `[models, *source]` tokens to `[models, *target]`.

        Its last Linear or Conv1d must be the layer that writes.

        Args:
            source: Number of the source's tokens, and values in each.
            target: The same of the target's.

        Returns:
            A module.
        """

    def start(self, reading: Params, context: Context) -> None:
        if self.options.standardize:
            tokens = self.reads.pack(reading)
            self.mean.copy_(tokens.mean(0))
            deviation = tokens.std(0, correction=0)
            # Padding never varies; a deviation of 1 leaves it at zero.
            self.deviation.copy_(torch.where(deviation > 1e-8, deviation, 1))

    def forward(self, reading: Params, context: Context | None = None) -> Params:
        tokens = (self.reads.pack(reading) - self.mean) / self.deviation
        written = self.backbone(tokens)
        if written.shape != (wanted := (len(tokens), self.writes.count, self.writes.width)):
            raise SpecMismatch(f"the backbone gives tokens {list(written.shape)}, and {list(wanted)} are to be written")
        if self.options.start == "template":
            written = self.template + self.scale * written
        return positive(self.writes.unpack(written), self.target.spec)


def positive(params: Params, spec: BlockSpec) -> Params:
    """Running variances through softplus, which keeps them above zero; other tensors stay as they are.

    Args:
        params: Stacked tensors of `spec`, unbounded.
        spec: It says which tensors must be positive.
    """
    above_zero = {tensor.name for tensor in spec.tensors if tensor.positive}
    return {name: softplus(t) if name in above_zero else t for name, t in params.items()}


def before_positive(params: Params, spec: BlockSpec) -> Params:
    """The inverse of `positive`."""
    above_zero = {tensor.name for tensor in spec.tensors if tensor.positive}
    return {name: t + torch.log(-torch.expm1(-t)) if name in above_zero else t for name, t in params.items()}


def template(target: BlockAdapter, seed: int) -> tuple[Params, Params]:
    """A block to start from, and how far learning typically moves each of its values.

    Args:
        target: The block; it is initialised as its module is by default.
        seed: What the block is drawn from.

    Returns:
        The block before `positive`, and one scale for each value; both are stacks of one model.
    """
    block = initial(target.module, [seeds.derive(seed, "template")])
    scale = {}
    for name, value in block.items():
        size = float(value.std()) if value.numel() > 1 else 0.0
        # Constant defaults (a normalisation's ones and zeros) tell no scale; biases and gains move by tenths.
        scale[name] = torch.full_like(value, size if size > 1e-8 else 0.1)
    return before_positive(block, target.spec), scale


def _width(spec: BlockSpec) -> int:
    """Token width where the adapter names none: the smallest row of its matrices."""
    return min((t.shape[-1] for t in spec.tensors if len(t.shape) > 1), default=1)
