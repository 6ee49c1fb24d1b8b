"""Trains the tiny zoo on a Ray cluster of three nodes, one of which is killed under it. Run by `test_ray.py`.

lost_node.py FOLDER: the zoo is made below it, and what happened written to `found.json`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from paramtrans import config
from paramtrans.api.job import Job
from paramtrans.builder import Builder
from paramtrans.plugins import plugins
from paramtrans.zoo import Zoo

SUPPORT = Path(__file__).parent
NODE = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
"""Little shared memory, for machines that have little."""


def main(folder: Path) -> None:
    begun = folder / "begun"
    begun.mkdir()
    os.environ["TEST_BEGUN"] = str(begun)
    (folder / "ray").mkdir()
    os.environ["RAY_TMPDIR"] = str(folder)  # for what Ray keeps below its default folder, whichever one it is given
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "temp_dir": str(folder / "ray")})
    doomed, _ = (cluster.add_node(**NODE, num_cpus=1) for _ in range(2))
    report: dict[str, Any] = {}

    def kill() -> None:
        while not (begun / doomed.node_id).exists():
            time.sleep(0.01)
        report["shards_when_killed"] = len(list(folder.glob("cache/zoos/*/hosts/*.safetensors")))
        cluster.remove_node(doomed, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    zoo = _zoo(folder, cluster.address)
    for step in (1, 2):
        jobs = [_noting(job) for job in zoo.missing(step)]
        report[f"jobs_{step}"] = len(jobs)
        zoo.builder.executor.run(jobs, lambda steps: None)
    killer.join()
    report["missing"] = len(zoo.missing(1)) + len(zoo.missing(2))
    report["nodes"] = {"begun": len(list(begun.iterdir())), "alive": _alive(wanted=2)}
    (folder / "found.json").write_text(json.dumps(report))  # to standard output Ray writes too
    ray.shutdown()
    cluster.shutdown()


def _noting(job: Job) -> Job:
    """The job, with a plugin that notes where it is begun."""
    files = (*job.plugins.files, str(SUPPORT / "begun.py"))
    return job.model_copy(update={"plugins": replace(job.plugins, files=files)})


def _alive(wanted: int, seconds: float = 60) -> int:
    """The nodes that Ray holds alive. It hears of a dead one only some time after: so it is asked until `wanted`."""
    end = time.monotonic() + seconds
    while (alive := sum(node["Alive"] for node in ray.nodes())) != wanted and time.monotonic() < end:
        time.sleep(0.2)
    return alive


def _zoo(folder: Path, address: str) -> Zoo:
    loaded = plugins()
    loaded.load_file(SUPPORT / "tiny_task.py")
    settings = ["run.device=cpu", f'executor={{name="ray", address="{address}"}}']
    config_ = config.load(SUPPORT / "tiny.toml", loaded.registry(), settings)
    return Zoo(Builder(config_, loaded.registry()), folder / "cache")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
