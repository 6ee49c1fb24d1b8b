"""Writes loss, learning rate and metric of every epoch, and the metric of all methods, as TensorBoard events."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from paramtrans import hookimpl

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from paramtrans.api.specs import RunInfo


@hookimpl
def paramtrans_run_started(run: RunInfo) -> None:
    if (left := _writers.pop(str(run.dir), None)) is not None:  # of a run that failed in this process
        left.close()


@hookimpl
def paramtrans_epoch_ended(run: RunInfo, epoch: int, metrics: dict[str, float]) -> None:
    if not _is_installed():
        return
    writer = _writer(run, first=epoch)
    for name, value in metrics.items():
        writer.add_scalar(f"training/{name}", value, epoch)


@hookimpl
def paramtrans_run_finished(run: RunInfo, result: dict[str, Any]) -> None:
    if not _is_installed():
        return
    writer = _writer(run)
    for name, summary in result["methods"].items():
        writer.add_scalar(f"{result['metric']['name']}/{name}", summary["mean"], 0)
    writer.close()
    del _writers[str(run.dir)]


def _is_installed() -> bool:
    """Without TensorBoard, the extra `paramtrans[tensorboard]`, nothing is written."""
    return find_spec("tensorboard") is not None


_writers: dict[str, SummaryWriter] = {}


def _writer(run: RunInfo, first: int = 0) -> SummaryWriter:
    """One writer for each run of this process; what an interrupted one wrote from epoch `first` on is replaced."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    key = str(run.dir)
    if key not in _writers:
        _writers[key] = SummaryWriter(str(run.dir / "tensorboard"), purge_step=first)
    return _writers[key]
