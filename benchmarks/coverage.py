"""How many networks of other zoos are translated, and how much smaller they become.

python -m benchmarks.coverage [--zoo ZOO ...] [--only NAME ...] [--seconds N] [--gib N] [--again] [--refit] [--rival]
                              [--out FILE]

Every network has random weights and loses half of the units of each group (structure alone, as `prune` leaves it out);
each group is held to the proof. Networks that stand in the file already are left out, so that a run can be gone on
with. Operations are counted on the input that the proof was run with, of one example. `--refit` also translates each
network as a user would, with `refit` and 16 inputs of its kind, where it takes one tensor.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import resource
import signal
import time
import warnings
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from benchmarks.coverage_models import build, names
from paramtrans.evaluation.costs import count

ZOOS = ("torchvision", "timm", "transformers")
RATIO = 0.5
INPUTS = 16


def measure(zoo: str, name: str) -> dict[str, Any]:
    """One row of the table."""
    from paramtrans.networks.graph.groups import analyse, prove_groups
    from paramtrans.networks.graph.narrow import narrow

    network, args, kwargs = build(zoo, name)
    network.requires_grad_(False)  # PyTorch's counter hooks into gradients, which views of parameters lack
    whole = cost(network, args, kwargs)
    row: dict[str, Any] = {"zoo": zoo, "model": name, "parameters": whole[0], "flops": whole[1]}
    start = time.perf_counter()
    analysis = analyse(network, (args, kwargs))
    free = [group for group in analysis.groups if not group.stream and not group.inner]
    wanted = {group: group.units.allowed(round(len(group) * RATIO)) for group in free}
    proven = prove_groups(analysis, wanted)
    kept = {group: group.units.choose(torch.zeros(len(group)), count) for group, count in proven.counts.items()}
    small = narrow(network, analysis.removal(kept), list(proven.settings))
    row["seconds"] = round(time.perf_counter() - start, 1)
    left = cost(small, args, kwargs)
    row |= {"parameters_kept": round(left[0] / whole[0], 4), "flops_kept": round(left[1] / max(1, whole[1]), 4)}
    row |= {"groups": len(proven.counts), "refused": proven.refused, "proof": proven.difference}
    return row | {"unknown": analysis.unknown()}


def refit(zoo: str, name: str) -> dict[str, Any]:
    """A network translated with `refit` and 16 inputs; how far its outputs are off on 16 others."""
    from paramtrans import translate

    network, args, kwargs = build(zoo, name)
    if kwargs or len(args) != 1 or not args[0].is_floating_point():
        return {"error": "it takes more than one tensor"}
    whole = cost(network, args, {})
    inputs, others = torch.randn(2, INPUTS, *args[0].shape[1:])
    start = time.process_time()
    small = translate(network, "refit", ratio=RATIO, calibrate=inputs)
    row: dict[str, Any] = {"seconds": round(time.process_time() - start, 1)}
    left = cost(small, args, {})
    row |= {"parameters_kept": round(left[0] / whole[0], 4), "flops_kept": round(left[1] / max(1, whole[1]), 4)}
    wanted = flat(network, others)
    return row | {"output_error": difference(flat(small, others), wanted)}


@torch.no_grad()
def flat(network: nn.Module, inputs: Tensor) -> Tensor:
    """All that a network gives for some inputs, in double precision."""
    leaves = [leaf for leaf in tree_leaves(network(inputs)) if isinstance(leaf, Tensor)]
    return torch.cat([leaf.double().flatten() for leaf in leaves])


def difference(given: Tensor, wanted: Tensor) -> float | None:
    """The relative difference of two outputs; None where zeros are wanted, as of a head that begins so."""
    if not wanted.any():
        return None
    return float(f"{((given - wanted).norm() / wanted.norm()).item():.3g}")


def rival(zoo: str, name: str) -> dict[str, Any]:
    """What Torch-Pruning keeps of the same network at the same ratio."""
    import torch_pruning

    network, args, kwargs = build(zoo, name)
    whole, given = cost(network, args, kwargs), kwargs or args
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1:]
    pruner = torch_pruning.pruner.MagnitudePruner(
        network, given, torch_pruning.importance.MagnitudeImportance(), pruning_ratio=RATIO, ignored_layers=last
    )
    pruner.step()
    left = cost(network, args, kwargs)
    return {"parameters_kept": round(left[0] / whole[0], 4), "flops_kept": round(left[1] / max(1, whole[1]), 4)}


@torch.no_grad()
def cost(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
    """Parameters, and operations for one example."""
    given = copy.deepcopy((args, kwargs))
    operations = count(lambda: network(*given[0], **given[1]))
    examples = len((*args, *kwargs.values())[0])
    return sum(parameter.numel() for parameter in network.parameters()), operations // examples


def _job(work: Any, zoo: str, name: str, seconds: float, memory: int, answers: Any) -> None:
    torch.set_num_threads(1)
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent + seconds) + 1, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    try:
        answers.put(work(zoo, name))
    except BaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        answers.put({"error": f"{type(error).__name__}: {' '.join(lines)[:300]}"})


def alone(work: Any, zoo: str, name: str, seconds: float, memory: int) -> dict[str, Any]:
    """What a function says of a network, in a process of its own with limits on processor time and memory."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=_job, args=(work, zoo, name, seconds, memory, answers))
    process.start()
    try:
        while True:
            try:
                return dict(answers.get(timeout=1))
            except Empty:
                if process.is_alive() or not answers.empty():
                    continue
                if process.exitcode == -signal.SIGXCPU:
                    return {"error": f"not done after {seconds:.0f} s"}
                return {"error": f"the process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def summary(rows: list[dict[str, Any]]) -> str:
    """What came of a zoo, in a line each."""
    lines = []
    for zoo in ZOOS:
        of_zoo = [row for row in rows if row["zoo"] == zoo]
        done = [row for row in of_zoo if row.get("groups")]
        if of_zoo:
            kept = [sum(row[key] for row in done) / max(1, len(done)) for key in ("parameters_kept", "flops_kept")]
            lines.append(
                f"{zoo}: {len(done)} of {len(of_zoo)}; of parameters {kept[0]:.2f} and of operations {kept[1]:.2f} kept"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--zoo", nargs="*", choices=ZOOS, default=list(ZOOS))
    parser.add_argument("--only", nargs="*", help="names of networks")
    parser.add_argument("--seconds", type=float, default=180, help="processor time for each network, at most")
    parser.add_argument("--gib", type=float, default=8, help="memory for each network, at most")
    parser.add_argument("--again", action="store_true", help="those too that stand in the file")
    parser.add_argument("--failed", action="store_true", help="those again that failed")
    parser.add_argument("--refit", action="store_true", help="translated with 16 inputs, too")
    parser.add_argument("--rival", action="store_true", help="Torch-Pruning beside it")
    parser.add_argument("--out", type=Path, default=Path("docs/results/coverage.json"))
    options = parser.parse_args()
    limits = (options.seconds, int(options.gib * 2**30))
    rows: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out.exists() else []
    further = {"refit": refit} if options.refit else {}
    further |= {"torch_pruning": rival} if options.rival else {}
    known = {(row["zoo"], row["model"]): row for row in rows}
    for zoo in options.zoo:
        __import__({"transformers": "transformers"}.get(zoo, zoo))
        for name in names(zoo):
            before = known.get((zoo, name))
            wanted = not options.only or name in options.only
            done = before is not None and not (options.failed and not before.get("groups"))
            if not wanted or (done and not options.again and not further):
                continue
            row = dict(before or {})
            if not done or options.again:
                row |= {"zoo": zoo, "model": name} | alone(measure, zoo, name, *limits)
            for key, work in further.items():
                if key not in row or options.again:
                    row[key] = alone(work, zoo, name, *limits)
            known[zoo, name] = row
            options.out.write_text(json.dumps(list(known.values()), indent=1, ensure_ascii=False) + "\n")
            said = row.get("error") or f"{row['groups']} groups, {row['flops_kept']:.2f}, {len(row['refused'])} refused"
            print(f"{zoo} {name}: {said} {row.get('seconds', '')}", flush=True)
    print(summary(list(known.values())))


if __name__ == "__main__":
    main()
