"""Why translated blocks are as good as they are: likeness of hidden units, silent ones, errors, and confidence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from paramtrans.api.adapter import BlockAdapter
from paramtrans.api.hosts import Hosts
from paramtrans.api.records import Diagnosed, MethodDiagnosis
from paramtrans.api.runner import Runner
from paramtrans.api.specs import BlockSpec, Reader
from paramtrans.api.stacking import Params, take
from paramtrans.backends.vmap import Vmap
from paramtrans.ops import symmetry
from paramtrans.ops.distances import divergence, relative_error
from paramtrans.ops.readout import UpToReadout

HOSTS_AT_ONCE = 16


class Diagnosis:
    """Looks at target blocks in their hosts, on network inputs `[n, ...]` without labels.

    Outputs are compared as `scores` of classes, or else as values.
    """

    def __init__(self, runner: Runner, target: BlockAdapter, hosts: Hosts, inputs: Tensor, scores: bool) -> None:
        self.runner, self.target, self.hosts, self.inputs, self.scores = runner, target, hosts, inputs, scores

    @torch.no_grad()
    def of(self, blocks: Params, losses: Tensor, trained: Params | None = None) -> MethodDiagnosis:
        """What there is to say of one method: means over hosts, and the confidence in each host's block.

        `losses` are what each host lost by the task's metric, `[models]`: what the confidence is held against.
        `trained` are the targets of training pairs, for the distance to the nearest.
        """
        pieces = [self._piece(blocks, piece) for piece in torch.arange(len(self.hosts)).split(HOSTS_AT_ONCE)]
        features, outputs, mute = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        confidence = torch.exp(-outputs)
        return MethodDiagnosis(
            unit_cosine=likeness(blocks, self.target.spec),
            silent_units=mute.mean().item() if mute.numel() else None,
            feature_error=features.mean().item(),
            output_divergence=outputs.mean().item() if self.scores else None,
            output_error=None if self.scores else outputs.mean().item(),
            nearest_pair=None if trained is None else nearest(blocks, trained, self.target.spec),
            spearman=_correlation(-confidence, losses),
            confidence=[round(value, 4) for value in confidence.tolist()],
        )

    def _piece(self, blocks: Params, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Feature error, that of the outputs and share of silent units of some hosts, `[models]` each."""
        hosts, piece = self.hosts.pick(chosen), take(blocks, chosen.tolist())
        piece = {name: tensor.to(self.inputs.device) for name, tensor in piece.items()}
        entering = self.runner.former(hosts.former, self.inputs.expand(len(hosts), *self.inputs.shape))
        wanted, reached = self.runner.source(hosts.source, entering), self.runner.target(piece, entering)
        outputs = [self.runner.latter(hosts.latter, features) for features in (reached, wanted)]
        mute = silent(self.target, piece, entering)
        share = torch.empty(0) if mute is None else mute.float().mean(1).cpu()
        self.scores = self.scores and outputs[0].shape[-1] > 1  # one output of two classes is a value
        of_outputs = divergence(*outputs) if self.scores else relative_error(*outputs)
        return relative_error(reached, wanted).cpu(), of_outputs.cpu(), share


def silent(target: BlockAdapter, params: Params, entering: Tensor) -> Tensor | None:
    """Which of the units that a block's last layer reads are zero on all that enters: `[models, units]`.

    `entering` is `[models, n, *slot]`. None where the adapter does not say which units these are.
    """
    if target.readout is None or target.units(Reader(target.readout)) is None:
        return None
    heard = Vmap(UpToReadout(target.module()))({f"block.{name}": tensor for name, tensor in params.items()}, entering)
    return heard.abs().movedim(-1 if target.channels_last else 2, 1).flatten(2).amax(2) == 0


def likeness(params: Params, spec: BlockSpec) -> float | None:
    """Mean cosine between what feeds any two hidden units of a block; 1 where all are one and the same.

    None for blocks without a group of several units that something feeds.
    """
    cosines = []
    for group in spec.symmetries:
        stacks = [params[m.tensor].movedim(m.axis + 1, 1) for m in group.members if m.scale > 0]
        fed = [stack.reshape(len(stack), group.size, -1) for stack in stacks]  # a bias has no further axes
        if fed and group.size > 1:
            units = normalize(torch.cat(fed, dim=2), dim=2)
            products = units @ units.mT
            cosines.append((products.sum((1, 2)) - products.diagonal(dim1=1, dim2=2).sum(1)).mean())
            cosines[-1] = cosines[-1] / (group.size * (group.size - 1))
    return torch.stack(cosines).mean().item() if cosines else None


def nearest(params: Params, trained: Params, spec: BlockSpec) -> float:
    """Mean distance of blocks to the nearest of some trained ones, relative to the mean distance among these.

    Near 0 the blocks are copies; rescaled units count as the same, permuted ones do not.
    """
    rows, trained_rows = (_rows(symmetry.balance(blocks, spec)) for blocks in (params, trained))
    among = torch.cdist(trained_rows, trained_rows)
    typical = among.sum() / max(1, len(trained_rows) * (len(trained_rows) - 1))
    return (torch.cdist(rows, trained_rows).amin(1).mean() / typical.clamp_min(1e-12)).item()


def describe(section: Diagnosed) -> list[tuple[str, ...]]:
    """The diagnosis of a run as rows of a table, a heading first."""
    values = any(diagnosis.output_error is not None for diagnosis in section.methods.values())
    of_outputs = ("output_error", "output error") if values else ("output_divergence", "divergence")
    names = ("unit_cosine", "silent_units", "feature_error", of_outputs[0], "nearest_pair", "spearman")
    heading = ("method", "unit cosine", "silent units", "feature error", of_outputs[1], "nearest pair", "ρ confidence")
    rows = [
        (method, *("–" if diagnosis[name] is None else f"{diagnosis[name]:.2f}" for name in names))
        for method, diagnosis in section.methods.items()
    ]
    return [heading, *rows]


def _rows(params: Params) -> Tensor:
    return torch.cat([params[name].flatten(1).cpu().float() for name in sorted(params)], dim=1)


def _correlation(predicted: Tensor, losses: Tensor) -> float | None:
    """Spearman's rank correlation; None where one of them does not vary."""
    from scipy.stats import spearmanr  # takes a second to import, so only when it is needed

    if len(losses) < 3 or predicted.std() == 0 or losses.std() == 0:
        return None
    return float(spearmanr(predicted.numpy(), losses.cpu().numpy()).statistic)
