"""A job in this process: one thread reads and decodes ahead, the job's own thread embeds and writes.

Decoding itself happens in the sandbox, a process of its own, so two cores have work. Guarantees are those of a
cluster: blocks, commits and ids go the same way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from lance_align.encoders.devices import has_accelerator
from lance_align.errors import JobError
from lance_align.jobs import watchdog
from lance_align.jobs.executors.base import Executor, ReadTask, Worker, blocks
from lance_align.jobs.failures import GO_ON
from lance_align.jobs.ledger.registry import IdRegistry, LocalRegistry, TableRegistry
from lance_align.jobs.policy import Policy
from lance_align.jobs.shape import Resources, Shape
from lance_align.jobs.stages.encode import Target

T = TypeVar("T")

LOOK_EVERY_S = 0.5  # whether the reader still lives; also how long a signal may wait for its handler
READ_AHEAD_BLOCKS = 1  # beside the one that is being made and the one that is being embedded


@dataclasses.dataclass(frozen=True, slots=True)
class LocalExecutor(Executor):
    """See `lance_align.jobs.executors`."""

    def resources(self) -> Resources:
        """The processors of this process."""
        return Resources(cpus=usable_cpus(), gpus=int(sys.platform != "darwin" and has_accelerator()), is_local=True)

    def id_registry(self, target: Target, *, version: int, policy: Policy) -> IdRegistry:
        """See `Executor.id_registry`."""
        return LocalRegistry(TableRegistry(target, version, policy))

    def each(self, call: Callable[[T], None], tasks: Iterable[T], *, at_once: int, stall_seconds: float) -> None:
        """One after the other."""
        del at_once, stall_seconds
        for task in tasks:
            call(task)

    def stream(
        self,
        rows: Sequence[Mapping[str, Any]],
        read: ReadTask,
        worker: Callable[..., Worker],
        worker_arguments: tuple[Any, ...],
        *,
        table_rows: int,
        shape: Shape,
    ) -> Generator[pa.Table, None, None]:
        """See `Executor.stream`; tables arrive in the order of the rows.

        Raises:
            JobError: nothing was read for `shape.stall_seconds`.
        """
        del table_rows  # blocks are cut at once
        if not rows:
            return
        tables = (table for row in rows for table in read(pa.table({name: [value] for name, value in row.items()})))
        with contextlib.closing(_Ahead(blocks(tables, rows=shape.block_rows))) as ahead, _kept_threads():
            work: Worker | None = None
            for block in ahead.items(shape.stall_seconds):
                work = work or worker(*worker_arguments)  # while the reader goes on
                yield work(block)


class _Ahead:
    """Draws items in a thread, a few ahead of the one that takes them."""

    def __init__(self, items: Iterator[pa.Table]) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[pa.Table | None, BaseException | None]] = queue.Queue(READ_AHEAD_BLOCKS)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="reader", daemon=True)

    def items(self, stall_seconds: float) -> Iterator[pa.Table]:
        """The items; an error of theirs is raised in its turn.

        Raises:
            JobError: none came for `stall_seconds`, nor a sign of life.
        """
        self._thread.start()
        while True:
            item, error = self._next(stall_seconds)
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    def close(self) -> None:
        """End the thread; it is not waited for where it hangs."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=LOOK_EVERY_S)

    def _next(self, stall_seconds: float) -> tuple[pa.Table | None, BaseException | None]:
        began = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=min(LOOK_EVERY_S, stall_seconds))
            if min(time.monotonic() - began, watchdog.quiet_s()) > stall_seconds:
                raise JobError(f"nothing was read for {stall_seconds:g} s (stall_seconds); {GO_ON}")

    def _draw(self) -> None:
        try:
            for item in self._items:
                if not self._put(item, None):
                    return
            self._put(None, None)
        except BaseException as error:  # noqa: BLE001  raised by `items`, in the job's own thread
            self._put(None, error)

    def _put(self, item: pa.Table | None, error: BaseException | None) -> bool:
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put((item, error), timeout=LOOK_EVERY_S)
                return True
        return False


@contextlib.contextmanager
def _kept_threads() -> Iterator[None]:
    """Leave torch's threads as they were: a job takes some for itself, and this process may have other plans."""
    torch: Any = sys.modules.get("torch")
    said = os.environ.get("OMP_NUM_THREADS", "")
    unloaded = int(said) if said.isdigit() else usable_cpus()  # what torch begins with
    before = unloaded if torch is None else torch.get_num_threads()
    try:
        yield
    finally:
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(before)


def usable_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
