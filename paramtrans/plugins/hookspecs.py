"""Every hook of paramtrans, on one page. Implement them as module-level functions, named and marked alike.

    from paramtrans import Component, hookimpl

    @hookimpl
    def paramtrans_translators():
        return [Component("lookup", "The nearest training pair's target", "my_package.lookup:Lookup")]

and announce the module in your distribution: `[project.entry-points.paramtrans] my_plugin = "my_package.plugin"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

from paramtrans.api.specs import Component

if TYPE_CHECKING:
    from paramtrans.api.job import Job
    from paramtrans.api.specs import RunInfo

HOOK_VERSION = 1
"""Raised when a hook changes in a way that breaks plugins written for the version before."""

hookspec = pluggy.HookspecMarker("paramtrans")
hookimpl = pluggy.HookimplMarker("paramtrans")


@hookspec
def paramtrans_block_adapters() -> list[Component]:
    """Kinds of blocks: subclasses of `paramtrans.BlockAdapter`.

    Example: `[Component("pointwise", "1×1 convolution", "my_package.blocks:Pointwise")]`
    """


@hookspec
def paramtrans_translators() -> list[Component]:
    """Ways to turn source parameters into target parameters: subclasses of `paramtrans.Translator`.

    Example: `[Component("lookup", "The nearest training pair's target", "my_package.lookup:Lookup")]`
    """


@hookspec
def paramtrans_augmenters() -> list[Component]:
    """Random changes of parameters while a translator is trained: subclasses of `paramtrans.Augmenter`.

    Example: `[Component("permute", "Permute hidden channels", "my_package.augment:Permute")]`
    """


@hookspec
def paramtrans_objectives() -> list[Component]:
    """Losses for translators: subclasses of `paramtrans.Objective`.

    Example: `[Component("cosine", "1 - cosine of predicted and trained target", "my_package.losses:Cosine")]`
    """


@hookspec
def paramtrans_tasks() -> list[Component]:
    """Hosts with data and metric: subclasses of `paramtrans.Task`.

    Example: `[Component("speech", "Keyword spotting", "my_package.speech:Speech")]`
    """


@hookspec
def paramtrans_rivals() -> list[Component]:
    """Ways to fill the target block without the translator: subclasses of `paramtrans.Rival`.

    Example: `[Component("mean_target", "Mean of all trained targets", "my_package.rivals:MeanTarget")]`
    """


@hookspec
def paramtrans_probes() -> list[Component]:
    """Inputs to compare on what blocks compute: subclasses of `paramtrans.Probes`.

    Example: `[Component("tones", "Pure tones of random pitch", "my_package.probes:Tones")]`
    """


@hookspec
def paramtrans_executors() -> list[Component]:
    """Places to train zoo shards: subclasses of `paramtrans.Executor`.

    Example: `[Component("slurm", "One array job a zoo", "my_package.slurm:Slurm")]`
    """


@hookspec
def paramtrans_architectures() -> list[Component]:
    """What may stand before the colon of `--arch`: subclasses of `paramtrans.ArchitectureSource`.

    Example: `[Component("timm", "Networks of timm", "my_package.timm:Timm")]`
    """


@hookspec
def paramtrans_width_rules() -> list[Component]:
    """Rules for how many hidden units each block keeps: subclasses of `paramtrans.WidthRule`.

    Example: `[Component("latency", "Within so many milliseconds", "my_package.widths:Latency")]`
    """


@hookspec
def paramtrans_metrics() -> list[Component]:
    """Numbers beside a task's own score, measured for every method: subclasses of `paramtrans.Metric`.

    Example: `[Component("top_5", "Share of labels among the five highest", "my_package.metrics:Top5")]`
    """


@hookspec
def paramtrans_report_sections() -> list[Component]:
    """Sections of a run's page: subclasses of `paramtrans.ReportSection`.

    Example: `[Component("costs", "What the run cost", "my_package.sections:Costs")]`
    """


@hookspec
def paramtrans_pretrained_translators() -> list[Component]:
    """Translators ready to use: folders (`pathlib.Path`) that `save_pretrained` wrote, loaded by name.

    Example: `[Component("digits", "Digits, conv to MLP", "my_package.folders:DIGITS")]`
    """


@hookspec
def paramtrans_commands() -> list[Component]:
    """Subcommands of `paramtrans`: `click.Command` objects, imported when called.

    Example: `[Component("prune", "Delete old runs", "my_package.cli:prune")]`
    """


@hookspec
def paramtrans_run_started(run: RunInfo) -> None:
    """A run begins, or goes on after an interruption.

    Args:
        run: Its folder `run.dir`, which exists, and its resolved config, `run.config`.

    Example: `def paramtrans_run_started(run): print(run.dir)`
    """


@hookspec
def paramtrans_zoo_started(run: RunInfo, step: int, shards: int) -> None:
    """A step of a zoo begins.

    Args:
        run: As in `paramtrans_run_started`.
        step: 1 for whole hosts, 2 for target blocks.
        shards: How many shards have to be trained.

    Example: `def paramtrans_zoo_started(step, shards): print(f"step {step}: {shards} shards")`
    """


@hookspec
def paramtrans_shard_finished(run: RunInfo, job: Job, left: int) -> None:
    """A shard has been written, wherever it was trained.

    Called in the process of the run, soon after: the shards of other processes may be noticed several at once.

    Args:
        run: As in `paramtrans_run_started`.
        job: The shard, and all that decided what is in it.
        left: How many shards are not there yet.

    Example: `def paramtrans_shard_finished(job, left): print(job.file, left)`
    """


@hookspec
def paramtrans_zoo_finished(run: RunInfo, step: int) -> None:
    """All shards of a step of a zoo are there.

    Args:
        run: As in `paramtrans_run_started`.
        step: 1 for whole hosts, 2 for target blocks.

    Example: `def paramtrans_zoo_finished(step): print(step)`
    """


@hookspec
def paramtrans_epoch_ended(run: RunInfo, epoch: int, metrics: dict[str, float]) -> None:
    """An epoch of translator training ended.

    Args:
        run: As in `paramtrans_run_started`.
        epoch: Counted from 1.
        metrics: `loss`, `lr` and, when evaluated, `select`: the task's metric on the selection hosts.

    Example: `def paramtrans_epoch_ended(epoch, metrics): print(epoch, metrics["loss"])`
    """


@hookspec
def paramtrans_run_finished(run: RunInfo, result: dict[str, Any]) -> None:
    """A run is complete, and what it found is written.

    Args:
        run: As in `paramtrans_run_started`.
        result: The object that `paramtrans run --json` prints.

    Example: `def paramtrans_run_finished(result): print(result["methods"]["translated"]["mean"])`
    """
