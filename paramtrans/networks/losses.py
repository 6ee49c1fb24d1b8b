"""What a translation lost, as a record; `measuring` measures it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from paramtrans.api.options import BaseOptions

Kind: TypeAlias = Literal["scores", "tokens", "embedding", "values"]
"""What an output is: class scores on axis 1, scores of the next token or an embedding on the last, or anything else."""


class Costs(BaseOptions):
    """What a network costs to keep and to run."""

    parameters: int
    bytes: int
    """Of all tensors."""
    flops: int | None = None
    """Floating-point operations of one example. None here and below: without inputs, or not to be had."""
    latency_ms: float | None = None
    """Milliseconds that one example takes on this machine, the median of several passes."""
    peak_bytes: int | None = None
    """Bytes of all tensors that are there at once, at most, in a pass of one example."""


class Share(BaseOptions):
    """A share, or a difference of two, with its 95% interval."""

    value: float
    ci95: tuple[float, float]


class Accuracy(BaseOptions):
    """How many predictions are the label, before and after."""

    examples: int
    before: Share
    after: Share
    change: Share
    """After less before, of the same examples."""


class Losses(BaseOptions):
    """What a translation lost."""

    held_out: bool | None = None
    """Whether errors and measures are of inputs that nothing was fitted to; None: there were no inputs."""
    examples: int = 0
    """How many they are of."""
    blocks: dict[str, float | None] = Field(default_factory=dict)
    """Relative reconstruction error of each block by its path, as `paramtrans_blocks` says it."""
    outputs: dict[str, float] = Field(default_factory=dict)
    """Of each output of the network by its name: mean squared change over its variance, around the mean of each
    channel; "" is the only one. Outputs that are the same for all inputs are left out."""
    predicts: Kind | None = None
    """What the first output was taken for."""
    agreement: float | None = None
    """Share of predictions that stayed the same: of class scores, or of scores of the next token."""
    expected_change: Share | None = None
    """Change of accuracy that is to be expected, without labels: the mean probability that the untouched network gives
    to the class that the smaller one says, less that of its own class."""
    perplexity: tuple[float, float] | None = None
    """Of the next token, before and after."""
    cosine: float | None = None
    """Mean cosine of embeddings before and after."""
    before: Costs
    after: Costs
    accuracy: Accuracy | None = None
