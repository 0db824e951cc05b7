"""Ray for a job: the cluster that is there, or one on this machine; and how a job divides its processors."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import socket
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import ray
import ray.data  # sets its loggers up
from ray._private import ray_logging

from lance_align.encoders.devices import Precision
from lance_align.encoders.engines.base import EngineName, default_engine
from lance_align.errors import JobError
from lance_align.jobs.watchdog import DEFAULT_STALL_SECONDS
from lance_align.spec import ImageSpec, ModelSpec

# A pool actor on a CPU-only cluster uses this many logical CPUs, where the cluster has twice as many: torch's speed-up
# flattens beyond a few threads, and decoding needs the other half.
CPUS_PER_ACTOR = 4
# It reserves this much of one, and the job reads with fewer tasks instead. An actor keeps what it reserves until its
# job ends: were that half the cluster, the actors of two jobs would hold all of it and neither job could read.
RESERVED_CPUS = 0.1
CONNECT_TIMEOUT_S = 10.0
SMALL_IMAGE_PIXELS = 128 * 128


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a job uses its cluster.

    Attributes:
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
    """

    actors: int
    cpus: float
    gpus: float
    threads: int
    readers: int
    block_rows: int
    stall_seconds: float = DEFAULT_STALL_SECONDS
    device: str = "auto"
    engine: EngineName = "auto"
    precision: Precision = "auto"
    open_ended: bool = False

    @property
    def choices(self) -> dict[str, Any]:
        """What was chosen, by the names of the job's options."""
        names = ("readers", "actors", "threads", "device", "engine", "precision", "block_rows")
        chosen = {name: getattr(self, name) for name in names}
        if self.device == "auto":
            chosen["device"] = "cuda" if self.gpus else "cpu"
        if self.precision == "auto":
            chosen["precision"] = "bfloat16" if chosen["device"].startswith("cuda") else "float32"
        if self.engine == "auto":
            chosen["engine"] = default_engine(chosen["device"], in_float32=chosen["precision"] == "float32")
        return chosen


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """Use the Ray that this process is connected to, or that RAY_ADDRESS names, or start one on this machine.

    What is started here is stopped at the end. A local Ray has no dashboard, sends no usage statistics and writes
    nothing to the terminal; its log files have everything.

    Raises:
        JobError: Ray does not start, or RAY_ADDRESS names a cluster that does not answer.
    """
    _quieten()
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    try:
        with _quiet_start():
            _start(address)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise JobError(f"Ray did not start ({address or 'on this machine'}): {str(error).splitlines()[0]}") from error
    try:
        with _silent_retries():
            yield
    finally:
        ray.shutdown()


def _start(address: str | None) -> None:
    if address:
        _check_answers(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_task_oom_retries", "3")  # Ray's own is endless: rows that never fit would loop
    ray.init(
        address="local",
        num_cpus=max(2, os.cpu_count() or 1),  # the model holds one for good: with no other, nothing would be read
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _check_answers(address: str) -> None:
    """Raise OSError if nobody listens at ``host:port``: Ray itself would try for several minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep what Ray's C++ core prints as it starts, straight to file descriptor 2, from the terminal.

    LanceDB warns whenever a process forks; Ray's processes fork and at once execute another program, which is safe.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it reports harmless conditions as errors
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's announced default; silences a warning
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fork")
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextlib.contextmanager
def _silent_retries() -> Iterator[None]:
    """Keep what Ray says of workers that died off standard output, where the report goes; the job says it itself.

    Ray 2.60 prints it whatever `log_to_driver` is. Its own switch, RAY_DEDUP_LOGS_SKIP_REGEX, is read when Ray is
    imported, and would hold for what this process does with Ray besides.
    """
    lines: Any = ray_logging.stdout_deduplicator
    before = lines.skip_re
    lines.skip_re = re.compile("")  # found in every line
    try:
        yield
    finally:
        lines.skip_re = before


def _quieten() -> None:
    """Keep Ray Data's notes and stack traces for its log files."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)
    # Few rows for many actors are no mistake.
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors", category=UserWarning)


def shape(
    spec: ModelSpec | None,
    *,
    actors: int | None,
    block_rows: int | None,
    readers: int | None = None,
    threads: int | None = None,
    stall_seconds: float = DEFAULT_STALL_SECONDS,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "auto",
) -> Shape:
    """Divide the cluster: one actor a GPU; without GPUs about half the CPUs for the model, the rest for reading.

    Args:
        spec: an encoder, or None for another model, which says `block_rows` itself.
        actors, readers, threads: None for the rule above; see `Shape`.
        block_rows: None for 1,024, or 128 of videos, and where a CPU embeds large images and 1,024 would take minutes.
        stall_seconds, device, engine, precision: see `Shape`.
    """
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    if block_rows is None:
        image = spec.image if spec is not None else ImageSpec(resize=(1, 1), crop=(1, 1))
        is_quick = gpus > 0 and image.frames is None  # 1,024 videos of 8 frames of 224 px would take 1.2 GB
        block_rows = 1024 if is_quick or image.pixels <= SMALL_IMAGE_PIXELS else 128
    actors = actors or gpus or max(1, cpus // (2 * CPUS_PER_ACTOR))
    if gpus:
        reserved = 1.0 if cpus > actors else 0.0
        used, own_threads = int(reserved), 1
    else:
        used = max(1, min(CPUS_PER_ACTOR, cpus // (2 * actors))) if cpus > actors else 0
        reserved = RESERVED_CPUS if used else 0.0
        cores = max(1, min(cpus, os.cpu_count() or 1))
        own_threads = CPUS_PER_ACTOR if used == CPUS_PER_ACTOR else max(1, cores // actors)
    return Shape(
        actors=actors,
        cpus=reserved,
        gpus=min(1.0, gpus / actors),
        threads=threads or own_threads,
        readers=readers or max(1, cpus - used * actors),
        block_rows=block_rows,
        stall_seconds=stall_seconds,
        device=device,
        engine=engine,
        precision=precision,
        open_ended=gpus > 0 and readers is None,
    )
