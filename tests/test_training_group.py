"""What each of several training workers is given of a cluster; nodes are as `ray.nodes()` says them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lance_align.errors import ArgumentError
from lance_align.jobs.training_group import Group, said_of, training_group


def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": float(cpus), **({"GPU": float(gpus)} if gpus else {}), "memory": 1e9}}


HEAD, GPU_NODE = node(16), node(96, 8)


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "group"),
    [
        ([HEAD, GPU_NODE, GPU_NODE], 16, "auto", Group(workers=16, cpus=12, use_gpu=True)),
        ([HEAD, GPU_NODE, node(32, 8)], 4, "cuda", Group(workers=4, cpus=4, use_gpu=True)),
        ([node(4, 8)], 8, "auto", Group(workers=8, cpus=0, use_gpu=True)),
        ([GPU_NODE, node(96, 8, alive=False)], 2, "cpu", Group(workers=2, cpus=48, use_gpu=False)),
        ([node(10), node(2)], 2, "auto", Group(workers=2, cpus=5, use_gpu=False)),
        ([node(2)], 2, "auto", Group(workers=2, cpus=1, use_gpu=False)),
    ],
)
def test_a_worker_has_what_its_node_has_for_it(
    nodes: list[dict[str, Any]], workers: int, device: str, group: Group
) -> None:
    assert training_group(nodes, workers=workers, device=device) == group


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "message"),
    [
        ([HEAD, node(32, 4)], 8, "auto", "workers=8, but the cluster has 4 GPUs; give workers=4, or device='cpu'"),
        ([HEAD, node(32, 4)], 8, "cuda", "workers=8, but the cluster has 4 GPUs"),
        ([HEAD], 2, "cuda", "the cluster has 0 GPUs; give device='cpu'"),
        ([node(2), node(1)], 4, "auto", "workers=4, but the cluster has 3 CPUs; give fewer workers"),
        ([GPU_NODE], 2, "cuda:1", "device='cuda:1' cannot be shared by 2 workers"),
        ([HEAD], 2, "mps", "device='mps' cannot be shared by 2 workers"),
    ],
)
def test_what_does_not_fit_is_said(nodes: list[dict[str, Any]], workers: int, device: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        training_group(nodes, workers=workers, device=device)


@given(
    st.lists(st.tuples(st.integers(0, 64), st.integers(0, 8)), max_size=6),
    st.integers(1, 32),
    st.sampled_from(["auto", "cpu", "cuda"]),
)
def test_all_workers_fit_on_the_nodes_at_once(sizes: list[tuple[int, int]], workers: int, device: str) -> None:
    """Or Ray would wait for ever for a place for the last of them."""
    try:
        group = training_group([node(*size) for size in sizes], workers=workers, device=device)
    except ArgumentError:
        wanted = [gpus for _, gpus in sizes if gpus] if device != "cpu" else []
        assert sum(wanted or ([] if device == "cuda" else [cpus for cpus, _ in sizes])) < workers
        return
    assert not (group.use_gpu and device == "cpu")
    places = 0
    for cpus, gpus in sizes:
        by_cpus = cpus // group.cpus if group.cpus else workers
        places += min(by_cpus, gpus) if group.use_gpu else by_cpus
    assert places >= workers


def test_a_group_without_a_place_is_described() -> None:
    group = Group(workers=8, cpus=12, use_gpu=True)
    assert str(group) == "8 workers with 12 CPUs and a GPU each"
    told = said_of([HEAD, GPU_NODE], {"CPU": 100.0, "GPU": 3.0})
    assert told == "nodes of 16 CPUs and 0 GPUs, 96 CPUs and 8 GPUs; 100 CPUs and 3 GPUs of them are free"
