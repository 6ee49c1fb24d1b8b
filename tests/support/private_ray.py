"""Runs the tiny config with plugins of its own on a real Ray cluster of two nodes. Run by `test_private_set.py`.

private_ray.py FOLDER: the run is made below it, and what happened written to `found.json`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from paramtrans import components, config, run
from paramtrans.plugins import Plugins

SUPPORT = Path(__file__).parent
NODE = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


def main(folder: Path) -> None:
    (folder / "ray").mkdir()
    os.environ["RAY_TMPDIR"] = str(folder)  # for what Ray keeps below its default folder, whichever one it is given
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "temp_dir": str(folder / "ray")})
    cluster.add_node(**NODE, num_cpus=2)
    private = Plugins()
    private.load_entry_points()
    private.load_file(SUPPORT / "tiny_task.py")
    settings = [f"run.dir={folder / 'run'}", "run.device=cpu", f'executor={{name="ray", address="{cluster.address}"}}']
    result = run(config.load(SUPPORT / "tiny.toml", private.registry(), settings), loaded=private)
    globally_known = any(entry.name == "tiny" for entry in components())
    report = {"hosts": result.methods["translated"]["n"], "globally_known": globally_known}
    (folder / "found.json").write_text(json.dumps(report))  # to standard output Ray writes too
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
