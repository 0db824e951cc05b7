"""The processes that train together: how many, on what, and what each has of its cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lance_align.errors import ArgumentError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What Ray Train is asked for.

    Attributes:
        workers: processes.
        cpus: logical CPUs of each.
        use_gpu: whether each has a GPU of its own; their gradients then travel by NCCL, else by Gloo.
    """

    workers: int
    cpus: int
    use_gpu: bool

    @property
    def resources(self) -> dict[str, float]:
        """Of each worker, by Ray's names."""
        return {"CPU": self.cpus, **({"GPU": 1} if self.use_gpu else {})}

    def __str__(self) -> str:
        """What is asked for, in words."""
        return f"{self.workers} workers with {self.cpus} CPUs{' and a GPU' if self.use_gpu else ''} each"


def training_group(nodes: Sequence[Mapping[str, Any]], *, workers: int, device: str) -> Group:
    """Divide a cluster among workers so that all of them fit on its nodes at once.

    With GPUs a worker has the CPUs that the poorest node with GPUs has for each: what a head or a node without GPUs has
    is of no use beside a GPU elsewhere. Without, it has as many as leave every worker a place.

    Args:
        nodes: what ``ray.nodes()`` says.
        workers: above 0.
        device: of the options: ``auto`` takes GPUs where there are any.

    Raises:
        ArgumentError: fewer GPUs or CPUs than workers, or a device that workers cannot share.
    """
    there = [node["Resources"] for node in nodes if node.get("Alive", True)]
    gpus = [(int(node.get("CPU", 0)), count) for node in there if (count := int(node.get("GPU", 0)))]
    cpus = [int(node.get("CPU", 0)) for node in there]
    if device not in ("auto", "cpu", "cuda"):
        raise ArgumentError(f"device={device!r} cannot be shared by {workers} workers; expected auto, cpu or cuda")
    if device == "cuda" or (device == "auto" and gpus):
        found = sum(count for _, count in gpus)
        if found < workers:
            fewer = f"give workers={found}, or device='cpu'" if found else "give device='cpu'"
            raise ArgumentError(f"workers={workers}, but the cluster has {found} GPUs; {fewer}")
        return Group(workers=workers, cpus=min(node_cpus // count for node_cpus, count in gpus), use_gpu=True)
    fitting = (each for each in range(max(cpus, default=0), 0, -1) if sum(one // each for one in cpus) >= workers)
    share = next(fitting, 0)
    if not share:
        raise ArgumentError(f"workers={workers}, but the cluster has {sum(cpus)} CPUs; give fewer workers")
    return Group(workers=workers, cpus=share, use_gpu=False)


def said_of(nodes: Sequence[Mapping[str, Any]], free: Mapping[str, float]) -> str:
    """What a cluster has, node by node, and what of it is free, for an error."""
    there = [node["Resources"] for node in nodes if node.get("Alive", True)]
    each = ", ".join(sorted(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in there))
    return f"nodes of {each}; {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs of them are free"
