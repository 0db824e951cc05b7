"""Ray for a job: the cluster that is there, or one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import shutil
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import ray.data  # sets its loggers up
from ray._private import ray_logging
from ray._private.log import PlainRayHandler

from lance_align.errors import JobError
from lance_align.jobs.failures import GO_ON

_log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
STARTS = 2  # on this machine: one that is busy misses Ray's own 30 s for its first process now and then
START_S = 180.0  # a start takes 4 s on an idle machine of two cores, and was seen to take 60 on a busy one
LOOK_EVERY_S = 5.0  # at the head
LOST_AFTER = 3  # looks without an answer
REMEDY = "try again when the machine is less busy, or run without Ray: --executor local"


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """Use the Ray that this process is connected to, or that RAY_ADDRESS names, or start one on this machine.

    What is started here is stopped at the end. A local Ray has no dashboard, sends no usage statistics and writes
    nothing to the terminal; its log files have everything.

    Raises:
        JobError: Ray does not start in time, or RAY_ADDRESS names a cluster that does not answer.
    """
    _quieten()
    with contextlib.nullcontext() if ray.is_initialized() else _started(), _told_of_a_lost_head():
        yield


@contextlib.contextmanager
def _started() -> Iterator[None]:
    ended = threading.Event()
    try:
        with _quiet_start():
            _start_in_time(os.environ.get("RAY_ADDRESS"), ended)
        with _silent_retries():
            yield
    finally:
        ray.shutdown()
        ended.set()


def _start_in_time(address: str | None, ended: threading.Event) -> None:
    """Start Ray, twice at most, each time for `START_S` at most.

    A raylet that died leaves ``ray.init`` waiting for ever, so it runs in a thread that can be left behind. Where it
    succeeds the thread lives until the end: Linux kills Ray's processes with the thread that has started them.

    Raises:
        JobError: it did not start, in one line with the remedy.
    """
    error: BaseException | None = None
    for _ in range(1 if address else STARTS):
        outcome: queue.Queue[BaseException | None] = queue.Queue()
        threading.Thread(target=_start_into, args=(address, outcome, ended), name="ray-start", daemon=True).start()
        try:
            error = outcome.get(timeout=START_S)
        except queue.Empty:
            place = address or "on this machine"
            raise JobError(f"Ray did not start ({place}) within {START_S:g} s; {REMEDY}") from None
        if error is None:
            return
        ray.shutdown()
    said = f"Ray did not start ({address or 'on this machine'}): {_said(error)}"
    raise JobError(said if address else f"{said}; {REMEDY}") from error


def _start_into(address: str | None, outcome: queue.Queue[BaseException | None], ended: threading.Event) -> None:
    try:
        _start(address)
    except BaseException as error:  # noqa: BLE001  Ray raises a bare Exception too; it is told by the job's own thread
        outcome.put(error)
    else:
        outcome.put(None)
        ended.wait()


def _said(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _start(address: str | None) -> None:
    if address:
        _check_answers(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not os.access(Path.home(), os.W_OK):
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else Ray keeps a token file there, and does not start
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


def store_notes(store_bytes: float, *, memory: str = "/dev/shm") -> dict[str, str]:  # noqa: S108  it is only measured
    """What is to be known of the object store of a Ray on this machine alone; Ray's own warning goes unseen.

    Where shared memory is smaller than the store (64 MB in a container of Docker's), Ray keeps the store on the disk.

    Args:
        store_bytes: of the whole cluster.
        memory: where shared memory is.
    """
    nodes: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
    if len(nodes) > 1 or not os.path.isdir(memory):  # noqa: PTH112  one line
        return {}
    room = shutil.disk_usage(memory).total
    if room >= store_bytes:
        return {}
    return {"object_store": f"on the disk (slow): {memory} has {room / 1e6:,.0f} MB, it takes {store_bytes / 1e6:,.0f}"}


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


@contextlib.contextmanager
def _told_of_a_lost_head() -> Iterator[None]:
    """Log it where the cluster's head no longer answers: Ray 2.60 then ends this process after 60 s, without a word."""
    address: str = ray.get_runtime_context().gcs_address
    ended = threading.Event()
    threading.Thread(target=_watch_head, args=(address, ended), name="ray-head", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch_head(address: str, ended: threading.Event) -> None:
    host, _, port = address.rpartition(":")
    silent = 0
    while not ended.wait(LOOK_EVERY_S):
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_EVERY_S).close()
            silent = 0
        except OSError:
            silent += 1
        if silent == LOST_AFTER:
            _log.error("Ray's head at %s does not answer, so this process will end; %s", address, GO_ON)


def _quieten() -> None:
    """Keep Ray Data's notes and stack traces for its log files."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, PlainRayHandler):  # others are those of somebody who wants to see them
            handler.setLevel(logging.CRITICAL)
    # Few rows for many actors are no mistake.
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors", category=UserWarning)
