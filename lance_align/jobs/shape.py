"""How a job divides its executor's processors between models and readers."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

from lance_align.encoders.devices import Precision
from lance_align.encoders.engines.base import EngineName, default_engine
from lance_align.errors import ArgumentError
from lance_align.jobs.watchdog import DEFAULT_STALL_SECONDS
from lance_align.spec import ImageSpec, ModelSpec

# A pool actor on a CPU-only cluster uses this many logical CPUs, where the cluster has twice as many: torch's speed-up
# flattens beyond a few threads, and decoding needs the other half.
CPUS_PER_ACTOR = 4
# It reserves this much of one, and the job reads with fewer tasks instead. An actor keeps what it reserves until its
# job ends: were that half the cluster, the actors of two jobs would hold all of it and neither job could read.
RESERVED_CPUS = 0.1
SMALL_IMAGE_PIXELS = 128 * 128


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What an executor has.

    Attributes:
        cpus: logical CPUs.
        gpus: GPUs.
        is_local: this process does everything, with one model and one reader.
        notes: what else is to be known of them, by name.
    """

    cpus: int
    gpus: int = 0
    is_local: bool = False
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a job uses its executor's resources.

    Attributes:
        is_local: this process does everything.
        actors: processes that hold the model.
        cpus: logical CPUs each of them reserves, which may be fewer than it uses.
        gpus: GPUs each of them reserves.
        threads: torch threads each of them uses.
        readers: tasks that read and decode at once, as far as there is a CPU for each.
        block_rows: rows an actor embeds and writes at once, which is also the size of a fragment.
        stall_seconds: after so long without progress a worker ends itself, and its work is tried again elsewhere.
        device: where the model runs; see `load_encoder`.
        engine: what runs its image tower; see `load_encoder`.
        precision: what it computes in; see `load_encoder`.
        open_ended: `readers` is how many there may be at first: nodes which join later read too.
        notes: see `Resources`.
    """

    actors: int
    cpus: float
    gpus: float
    threads: int
    readers: int
    block_rows: int
    is_local: bool = False
    stall_seconds: float = DEFAULT_STALL_SECONDS
    device: str = "auto"
    engine: EngineName = "auto"
    precision: Precision = "auto"
    open_ended: bool = False
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def worker_device(self) -> str:
        """Where a worker's model runs: a worker that reserves a GPU uses it or says why not."""
        return "cuda" if self.device == "auto" and self.gpus else self.device

    @property
    def choices(self) -> dict[str, Any]:
        """What was planned, by the names of the job's options; workers say what they have (see `Gathering.choices`)."""
        names = ("readers", "actors", "threads", "device", "engine", "precision", "block_rows")
        chosen = {"executor": "local" if self.is_local else "ray"} | {name: getattr(self, name) for name in names}
        if self.device == "auto":
            chosen["device"] = "cuda" if self.gpus else "cpu"
        if self.precision == "auto":
            chosen["precision"] = "bfloat16" if chosen["device"].startswith("cuda") else "float32"
        if self.engine == "auto":
            chosen["engine"] = default_engine(chosen["device"], in_float32=chosen["precision"] == "float32")
        return {**chosen, **self.notes}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShapeOptions:
    """What a user says about the shape; see `Shape`, and None for the rules of `shape`."""

    actors: int | None = None
    readers: int | None = None
    threads: int | None = None
    block_rows: int | None = None
    stall_seconds: float = DEFAULT_STALL_SECONDS
    device: str = "auto"
    engine: EngineName = "auto"
    precision: Precision = "auto"


def shape(spec: ModelSpec | None, resources: Resources, options: ShapeOptions) -> Shape:
    """Divide the resources: one actor a GPU; without GPUs about half the CPUs for the model, the rest for reading.

    Args:
        spec: an encoder, or None for another model, which says `block_rows` itself.
        resources: of the executor.
        options: where they say nothing, block_rows is 1,024, or 128 of videos, and where a CPU embeds large images and
            1,024 would take minutes.

    Raises:
        ArgumentError: the device is none that workers of a cluster can have.
    """
    cpus, gpus = resources.cpus, _gpus(resources, options)
    block_rows = options.block_rows
    if block_rows is None:
        image = spec.image if spec is not None else ImageSpec(resize=(1, 1), crop=(1, 1))
        is_quick = gpus > 0 and image.frames is None  # 1,024 videos of 8 frames of 224 px would take 1.2 GB
        block_rows = 1024 if is_quick or image.pixels <= SMALL_IMAGE_PIXELS else 128
    actors = 1 if resources.is_local else options.actors or gpus or max(1, cpus // (2 * CPUS_PER_ACTOR))
    used, reserved, own_threads = 0, 0.0, 1
    if resources.is_local:
        own_threads = cpus
    elif gpus:
        reserved = 1.0 if cpus > actors else 0.0
        used = int(reserved)
    else:
        used = max(1, min(CPUS_PER_ACTOR, cpus // (2 * actors))) if cpus > actors else 0
        reserved = RESERVED_CPUS if used else 0.0
        cores = max(1, min(cpus, os.cpu_count() or 1))
        own_threads = CPUS_PER_ACTOR if used == CPUS_PER_ACTOR else max(1, cores // actors)
    readers = 1 if resources.is_local else options.readers or max(1, cpus - used * actors)
    return Shape(
        actors=actors,
        cpus=reserved,
        gpus=_share(gpus, actors),
        threads=options.threads or own_threads,
        readers=readers,
        block_rows=block_rows,
        is_local=resources.is_local,
        stall_seconds=options.stall_seconds,
        device=options.device,
        engine=options.engine,
        precision=options.precision,
        open_ended=gpus > 0 and options.readers is None,
        notes=resources.notes,
    )


def _gpus(resources: Resources, options: ShapeOptions) -> int:
    """How many GPUs there are for the model: none where it is to run on the CPU.

    Raises:
        ArgumentError: see `shape`.
    """
    kind, _, number = options.device.partition(":")
    if kind not in ("auto", "cuda"):
        return 0
    if resources.is_local:
        return resources.gpus
    if number not in ("", "0"):
        raise ArgumentError(
            f"device={options.device!r}, but Ray gives each worker a GPU of its own, which is 'cuda' there; take "
            "device='cuda', or executor='local'"
        )
    if kind == "cuda" and not resources.gpus:
        if options.actors is None:
            raise ArgumentError(
                f"device={options.device!r}, but the cluster has no GPU now; if it adds some when asked, say with "
                "actors how many, else take device='cpu'"
            )
        return options.actors
    return resources.gpus


def _share(gpus: int, actors: int) -> float:
    """What each of some actors reserves so that all of them start: as many on each GPU, in Ray's 1/10,000."""
    return 10_000 // math.ceil(actors / gpus) / 10_000 if gpus else 0.0
