"""The plan of a run, and of a sweep: hosts and targets still to train, and what they take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paramtrans.utils.counts import counted
from paramtrans.utils.progress import duration


@dataclass(frozen=True)
class Plan:
    """Estimates, for this machine as busy as it is now: hosts and targets still to train, and the whole of step 3."""

    run_dir: str
    zoo_dir: str
    hosts: dict[str, int]
    """Hosts of each role, `snapshots` where there are some, and `to_train`: hosts not in the cache yet."""
    targets_to_train: int
    seconds: dict[str, float]
    folders: dict[str, int]
    """Bytes in each folder of hosts or targets that it uses, once they are trained."""
    memory_bytes: int

    translator: dict[str, Any] | None
    """Its name, parameters, and the FLOPs of one translation, None where PyTorch cannot count them; parameters 0 for
    one that learns nothing. `again` where another run of the sweep learns the same, so that it is not trained twice."""

    @property
    def disk_bytes(self) -> int:
        return sum(self.folders.values())

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "disk_bytes": self.disk_bytes}

    def describe(self) -> str:
        """A few lines for people."""
        hosts = ", ".join(f"{count:,} {what}" for what, count in self.hosts.items() if what != "to_train")
        return "\n".join(
            [
                f"run     {self.run_dir}",
                f"zoo     {self.zoo_dir}",
                f"hosts   {hosts}; {self.hosts['to_train']:,} still to train",
                f"targets {self.targets_to_train:,} still to train",
                f"learns  {_translator(self.translator)}",
                *_totals(self.seconds, self.disk_bytes, self.memory_bytes),
            ]
        )


@dataclass(frozen=True)
class SweepPlan:
    """The plans of a sweep's runs; hosts and targets that an earlier run of it trains are not counted again."""

    sweep_dir: str
    runs: list[Plan]

    def as_dict(self) -> dict[str, Any]:
        runs = [run.as_dict() for run in self.runs]
        document = {"sweep_dir": self.sweep_dir, "runs": runs, "seconds": self.seconds, "disk_bytes": self.disk_bytes}
        return {**document, "zoos": len(self.zoos), "translators": self.translators}

    @property
    def seconds(self) -> dict[str, float]:
        """Of all runs, by stage."""
        return {
            name: round(sum(r.seconds[name] for r in self.runs), 1) for name in ("zoo_step1", "zoo_step2", "training")
        }

    @property
    def zoos(self) -> list[str]:
        """Folders of hosts, each once."""
        return list(dict.fromkeys(folder for run in self.runs for folder in run.folders if "targets" not in folder))

    @property
    def translators(self) -> int:
        """How many are trained."""
        learning = [run.translator for run in self.runs if run.translator and run.translator["parameters"]]
        return sum(not translator["again"] for translator in learning)

    @property
    def disk_bytes(self) -> int:
        folders: dict[str, int] = {}
        for run in self.runs:
            for folder, size in run.folders.items():
                folders[folder] = max(size, folders.get(folder, 0))
        return sum(folders.values())

    def describe(self) -> str:
        """A few lines for people."""
        hosts, targets = sum(r.hosts["to_train"] for r in self.runs), sum(r.targets_to_train for r in self.runs)
        memory = max((run.memory_bytes for run in self.runs), default=0)
        count = f"{counted(len(self.runs), 'run')}, {counted(len(self.zoos), 'zoo')}"
        return "\n".join(
            [
                f"sweep   {self.sweep_dir}: {count}, {counted(self.translators, 'translator')} to train",
                *(f"zoo     {zoo}" for zoo in self.zoos),
                f"hosts   {hosts:,} still to train",
                f"targets {targets:,} still to train",
                *(f"run     {Path(run.run_dir).name}: {_translator(run.translator)}" for run in self.runs),
                *_totals(self.seconds, self.disk_bytes, memory),
            ]
        )


def _translator(record: dict[str, Any] | None) -> str:
    if record is None:
        return "nothing; the methods need no training"
    if not record["parameters"]:
        return f"nothing ({record['name']})"
    again = "; as in a run before, so not trained again" if record["again"] else ""
    operations = "" if record["flops"] is None else f", {record['flops']:,} FLOPs for one translation"
    return f"{record['name']}, {record['parameters']:,} parameters{operations}{again}"


def _totals(seconds: dict[str, float], disk: int, memory: int) -> list[str]:
    stages = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
    return [
        f"time    about {duration(sum(seconds.values()))} ({stages}), without evaluation",
        f"disk    {disk / 2**20:,.1f} MiB for the zoo",
        f"memory  about {memory / 2**30:.1f} GiB",
    ]
