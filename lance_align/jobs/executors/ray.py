"""A job on a Ray cluster: tasks that read and decode splits, a pool of actors that embed and write.

Two stages, because then commits flow on two logical CPUs as well: the pool is left one of them and the tasks take turns
on the other. With a third stage that writes, nothing was written there before everything had been read (measured, Ray
2.60).

Between the stages and to the driver a table travels as one cell. Ray cuts blocks by bytes, and keeps those of a killed
task that it has: another execution whose rows have other bytes would be cut elsewhere, and rows would come twice or
never. A cell is never cut.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import uuid
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lance_align.errors import LanceAlignError
from lance_align.jobs.cluster import store_notes
from lance_align.jobs.executors.base import Executor, ReadTask, Worker, blocks
from lance_align.jobs.failures import typed
from lance_align.jobs.ledger.registry import IdRegistry, TableRegistry
from lance_align.jobs.policy import Policy
from lance_align.jobs.shape import Resources, Shape
from lance_align.jobs.stages.encode import Target
from lance_align.jobs.watchdog import watched, watched_items

T = TypeVar("T")

# A worker that dies is replaced and its block tried again; a block that kills eleven workers ends the job. Of itself
# Ray Data tries for ever, in both stages. Fewer would not do: on a busy node a worker takes seconds to start, and one
# that somebody kills every two seconds would not come to its first row four times running.
MAX_RETRIES = 10
# An actor may be killed many times in a long run, by whatever blocks; the bound ends a model that never loads. (Ray
# warns that arguments of such an actor lie in the object store: Ray Data puts them there, and the driver keeps them.)
MAX_RESTARTS = 100
MAX_DEAD_STARTS = MAX_RETRIES  # in a row
MIN_PATIENCE_S = 1800.0  # Ray Data's own
# Waiting in an actor's queue; when the actor dies, each of them has one retry less.
BLOCKS_PER_ACTOR = 2
CELL = "table"  # the only column of what travels


@dataclasses.dataclass(frozen=True, slots=True)
class RayExecutor(Executor):
    """See `lance_align.jobs.executors`; used while Ray runs."""

    def resources(self) -> Resources:
        """What the cluster has just now."""
        found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        notes = store_notes(found.get("object_store_memory", 0.0))
        return Resources(cpus=int(found.get("CPU", 1)), gpus=int(found.get("GPU", 0)), notes=notes)

    def id_registry(self, target: Target, *, version: int, policy: Policy) -> IdRegistry:
        """See `Executor.id_registry`; it runs on the driver's node, whose loss ends the job anyway."""
        here: Any = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, max_restarts=0, scheduling_strategy=here)(IdRegistryActor)
        return RayRegistry(actor.remote(target, version, policy))

    def each(self, call: Callable[[T], None], tasks: Iterable[T], *, at_once: int, stall_seconds: float) -> None:
        """See `Executor.each`.

        Raises:
            RayError: what a task raised, wrapped.
        """
        remote: Any = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_watched_call)
        shared = ray.put(call)
        running: list[Any] = []
        for task in tasks:
            if len(running) >= at_once:
                running = _wait(running)
            running.append(remote.remote(shared, task, stall_seconds))
        while running:
            running = _wait(running)

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
        """See `Executor.stream`.

        Raises:
            RayError: what a task raised, wrapped.
        """
        if not rows:
            return
        context = ray.data.DataContext.get_current().copy()
        context.target_max_block_size = 1  # each cell is a block
        context.raise_original_map_exception = True  # else a typed error arrives as text
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_consecutive_actor_init_deaths = MAX_DEAD_STARTS
        # Workers watch themselves; this ends a job that gets no processors.
        context.execution_no_progress_timeout_s = max(MIN_PATIENCE_S, 4 * shape.stall_seconds)
        roster = Roster()
        with ray.data.DataContext.current(context):  # a dataset keeps the settings it was made under
            arguments = (worker, worker_arguments, shape.stall_seconds)
            table_rows = min(table_rows, shape.block_rows)
            reading = WatchedRead(read, table_rows, shape.stall_seconds)
            dataset = _dataset(rows, reading, arguments, roster, cells=shape.block_rows // table_rows, shape=shape)
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from unpacked(batch)
        except BaseException as error:
            _let_go(error)
            raise
        finally:
            roster.dismiss()


class IdRegistryActor(TableRegistry):
    """The registry in a process of its own. It never restarts: what was claimed would be forgotten."""


@dataclasses.dataclass(frozen=True, slots=True)
class RayRegistry(IdRegistry):
    """The registry behind calls.

    Attributes:
        handle: of the `IdRegistryActor`.
    """

    handle: Any

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return ray.get(getattr(self.handle, method).remote(*arguments, **options))
        except RayError as error:
            raise typed(error) from error

    def stop(self) -> None:
        """End the actor."""
        ray.kill(self.handle)


def packed(table: pa.Table) -> pa.Table:
    """A table of one row and one cell that holds all of `table`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    offsets = pa.array([0, data.size], pa.int64()).buffers()[1]
    return pa.table({CELL: pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, data])})


def unpacked(cells: pa.Table) -> Iterator[pa.Table]:
    """The tables in the cells, each without a copy."""
    for cell in cells.column(CELL):
        yield pa.ipc.open_stream(cell.as_buffer()).read_all()


def _watched_call(call: Callable[[T], None], task: T, stall_seconds: float) -> None:
    with watched(stall_seconds):
        call(task)


def _wait(running: list[Any]) -> list[Any]:
    done, rest = ray.wait(running, num_returns=1)
    ray.get(done)
    return list(rest)


class Roster:
    """The actors of one run's pool, by name, so that they end with the run whatever still refers to them.

    Ray Data lets go of them and leaves the rest to reference counting. After an error that was too late or never: the
    actors kept their processors, and the next job waited for these for an hour (measured, Ray 2.60).
    """

    def __init__(self) -> None:
        self._run = uuid.uuid4().hex
        self._names: list[str] = []

    def enter(self) -> dict[str, Any]:
        """Options of the next actor."""
        self._names.append(f"lance-align-{self._run}-{len(self._names)}")
        return {"name": self._names[-1]}

    def dismiss(self) -> None:
        """End those that live; none restarts."""
        for name in self._names:
            with contextlib.suppress(ValueError):  # it is gone, or never came
                ray.kill(ray.get_actor(name))


def _let_go(error: BaseException) -> None:
    """Cut an error and what led to it off the frames they came through: those hold the executor and its thread.

    Who keeps the error (a notebook does) would keep all of it. Emptying the frames is not enough: the executor's
    thread may still be in them.
    """
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            waiting += [each.__cause__, each.__context__, getattr(each, "cause", None)]  # the last is Ray's
    gc.collect()  # the executor's objects refer to each other


@dataclasses.dataclass(frozen=True, slots=True)
class WatchedRead:
    """The first stage under watch: a task that yields nothing for `stall_seconds` ends its process."""

    read: ReadTask
    table_rows: int
    stall_seconds: float

    def __call__(self, row: pa.Table) -> Iterator[pa.Table]:
        """See `Executor.stream`."""
        tables = blocks(self.read(row), rows=self.table_rows)
        yield from map(packed, watched_items(tables, self.stall_seconds))  # Ray wants a generator


class WatchedWorker:
    """An actor of the pool under watch, as it starts and with each block.

    An error of ours while it starts waits for the first block: Ray starts an actor that fails again and again, a block
    that fails ends the job.
    """

    def __init__(self, worker: Callable[..., Worker], arguments: tuple[Any, ...], stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._error: LanceAlignError | None = None
        with watched(stall_seconds):
            try:
                self._worker = worker(*arguments)
            except LanceAlignError as error:
                self._error = error

    def __call__(self, cells: pa.Table) -> pa.Table:
        """See `Executor.stream`."""
        if self._error is not None:
            raise self._error
        with watched(self._stall_seconds):
            return packed(self._worker(pa.concat_tables(unpacked(cells))))


def _dataset(
    rows: Sequence[Mapping[str, Any]],
    read: WatchedRead,
    worker: tuple[Any, ...],
    roster: Roster,
    *,
    cells: int,
    shape: Shape,
) -> Any:
    dataset: Any = ray.data.from_items(list(rows), override_num_blocks=len(rows))
    with warnings.catch_warnings():
        # Ray 2.60 announces other spellings for restarts and names, and has none yet.
        warnings.filterwarnings("ignore", message=r"`ray_remote_args\w*` is deprecated")
        # A bound method: a callable object would run in an actor.
        dataset = dataset.map_batches(
            read.__call__,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.TaskPoolStrategy(size=None if shape.open_ended else min(shape.readers, len(rows))),
            num_cpus=1,
            max_retries=MAX_RETRIES,
        )
        return dataset.map_batches(
            WatchedWorker,
            fn_constructor_args=worker,
            batch_size=cells,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=shape.actors, max_tasks_in_flight_per_actor=BLOCKS_PER_ACTOR),
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            ray_remote_args_fn=roster.enter,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RETRIES,
        )
