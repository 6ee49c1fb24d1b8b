"""A block in place of attention: no position looks at another; each takes the mean of all through a gate of its own."""

import torch
from pydantic import PositiveInt
from torch import nn

from paramtrans import BlockAdapter, BlockOptions, Component, SpecMismatch, hookimpl, initial


class PooledOptions(BlockOptions):
    """Sizes. `channels` is there already."""

    hidden: PositiveInt
    """Hidden units of the gate."""


class PooledAttention(BlockAdapter):
    """here(x) + (1 + tanh gate(x)) · value(mean of x over all positions)."""

    Options = PooledOptions
    channels_last = True
    trials = ({"hidden": 2},)

    @classmethod
    def options_for(cls, part):
        if part.entering.ndim != 3 or part.entering.shape != part.leaving.shape:
            raise SpecMismatch("only parts that keep the shape of [batch, positions, channels] can be pooled")
        return {"channels": part.entering.shape[-1], "hidden": max(1, part.entering.shape[-1] // 8)}

    def module(self):
        return PooledModule(self.options.channels, self.options.hidden)

    @torch.no_grad()
    def warm_start(self, part):
        """Attention over a single position is linear: `seen @ x + bias`. Two factors share it out to x and the mean."""
        x = part.entering
        singles = torch.cat([x.new_zeros(1, x.shape[-1]), torch.eye(x.shape[-1]).to(x)])[:, None]
        try:
            made = part.module(singles)
        except (TypeError, ValueError, RuntimeError):
            return None  # the module needs more than features, such as a mask
        made = (made[0] if isinstance(made, tuple) else made)[:, 0]
        bias, seen = made[0], (made[1:] - made[0]).T
        shares = torch.stack([(at @ seen.T).flatten() for at in (x, mean(x).expand_as(x))], dim=1)
        here, value = torch.linalg.lstsq(shares, (part.leaving - bias).reshape(-1, 1)).solution[:, 0]
        known = {"here.weight": here * seen, "here.bias": bias, "value.weight": value * seen}
        return {**initial(self.module, seeds=[0]), **{name: tensor[None] for name, tensor in known.items()}}


def mean(x):
    return x.mean(dim=tuple(range(1, x.ndim - 1)), keepdim=True)


class PooledModule(nn.Module):
    """`[batch, ..., channels]` → the same shape."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.here, self.value = nn.Linear(channels, channels), nn.Linear(channels, channels, bias=False)
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels), nn.Tanh())

    def forward(self, x):
        return self.here(x) + (1 + self.gate(x)) * self.value(mean(x))


@hookimpl
def paramtrans_block_adapters():
    return [Component("pooled_attention", "a gated mean over all positions", f"{__name__}:PooledAttention")]
