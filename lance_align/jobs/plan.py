"""The Ray Data plan: tasks that read and decode splits, a pool of actors that embed and write.

Two stages, because then rounds flow on two logical CPUs as well: the pool is left one of them and the tasks take turns
on the other. With a third stage that writes, nothing was written there before everything had been read (measured, Ray
2.60).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import uuid
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data

from lance_align.jobs.ledger.actor import RemoteLedger
from lance_align.jobs.ledger.ledger import SPLIT_BITS
from lance_align.jobs.receipts import Receipt
from lance_align.jobs.shape import Shape
from lance_align.jobs.sources import Split
from lance_align.jobs.stages.decode import Reader
from lance_align.jobs.stages.encode import BlockWriter, Target
from lance_align.jobs.watchdog import watched, watched_items
from lance_align.spec import ModelSpec

GROUPS_PER_READER = 4  # so that all of them have work until the end
MAX_GROUP = 64
BLOCK_BYTES = 32 * 2**20  # of decoded rows between the stages; the pool gathers them to whole blocks of rows
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadSplits:
    """The first stage: one row that names splits in, their decoded rows out.

    Attributes:
        reader: what is done with each split.
        ledger: asked whose rows they are.
        rows: tables of fewer rows wait for the next one; small files would be small blocks, each of them a message.
    """

    reader: Reader
    ledger: RemoteLedger
    rows: int

    def __call__(self, row: pa.Table) -> Iterator[pa.Table]:
        """Stream the rows of the splits."""
        numbers: list[Any] = row.column("numbers")[0].as_py()
        splits: list[Any] = row.column("splits")[0].as_py()
        return gathered(self._tables(numbers, splits), rows=self.rows)

    def _tables(self, numbers: Sequence[int], splits: Sequence[str]) -> Iterator[pa.Table]:
        for number, split in zip(numbers, splits, strict=True):
            position = number << SPLIT_BITS
            yield from self.reader.rows(Split.from_json(split), first_position=position, claims=self.ledger)


def gathered(tables: Iterable[pa.Table], *, rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of at least `rows` rows or half of `BLOCK_BYTES`, but for the last."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= rows or sum(each.nbytes for each in held) >= BLOCK_BYTES // 2:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def grouped(splits: Mapping[int, Split], *, rows: int, at_least: int) -> Iterator[dict[int, Split]]:
    """Consecutive splits of few rows together, for one task each: a task costs about 50 ms (Ray 2.60, two cores).

    Args:
        splits: by their numbers, in order.
        rows: a group ends before it holds more; a split of more rows, or of unknown length, is a group of its own.
        at_least: groups end earlier where there would be fewer of them than that.
    """
    total = sum(split.rows or 0 for split in splits.values())
    rows = max(1, min(rows, total // max(1, at_least)))
    held: dict[int, Split] = {}
    count = 0
    for number, split in splits.items():
        if held and (split.rows is None or count + split.rows > rows or len(held) >= MAX_GROUP):
            yield held
            held, count = {}, 0
        held[number] = split
        count += rows + 1 if split.rows is None else split.rows
    if held:
        yield held


def receipts(
    splits: Mapping[int, Split],
    read: ReadSplits,
    spec: ModelSpec,
    target: Target,
    *,
    shape: Shape,
) -> Generator[Receipt, None, None]:
    """Run the plan; receipts arrive as blocks are written, in no particular order.

    Args:
        splits: by their numbers.

    Raises:
        RayError: what a task raised, wrapped.
    """
    groups = grouped(splits, rows=shape.block_rows, at_least=GROUPS_PER_READER * shape.readers)
    rows = [{"numbers": list(group), "splits": [split.to_json() for split in group.values()]} for group in groups]
    with contextlib.closing(stream(rows, read.__call__, BlockWriter, (spec, target, shape), shape=shape)) as batches:
        for batch in batches:
            texts: list[Any] = batch.column("receipt").to_pylist()
            yield from map(Receipt.from_json, texts)


def stream(
    rows: Sequence[Mapping[str, Any]],
    read: Callable[[pa.Table], Iterator[pa.Table]],
    worker: Callable[..., Callable[[pa.Table], pa.Table]],
    worker_arguments: tuple[Any, ...],
    *,
    shape: Shape,
) -> Generator[pa.Table, None, None]:
    """Run the two stages of a job; tables arrive as workers make them, in no particular order.

    Args:
        rows: one for each task of the first stage; none give no tables.
        read: the first stage: a table of one such row to tables of decoded rows.
        worker: the class of the pool's actors; called with `shape.block_rows` decoded rows at a time.
        worker_arguments: what it is made with.
        shape: how the cluster is used.

    Raises:
        RayError: what a task raised, wrapped.
    """
    if not rows:
        return
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    context.raise_original_map_exception = True  # else a typed error arrives as text
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = MAX_DEAD_STARTS
    # Workers watch themselves; this ends a job that gets no processors.
    context.execution_no_progress_timeout_s = max(MIN_PATIENCE_S, 4 * shape.stall_seconds)
    roster = Roster()
    with ray.data.DataContext.current(context):  # a dataset keeps the settings it was made under
        arguments = (worker, worker_arguments, shape.stall_seconds)
        dataset = _dataset(rows, WatchedRead(read, shape.stall_seconds), arguments, shape, roster)
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except BaseException as error:
        _let_go(error)
        raise
    finally:
        roster.dismiss()


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

    read: Callable[[pa.Table], Iterator[pa.Table]]
    stall_seconds: float

    def __call__(self, row: pa.Table) -> Iterator[pa.Table]:
        """See `stream`."""
        return watched_items(self.read(row), self.stall_seconds)


class WatchedWorker:
    """An actor of the pool under watch, as it starts and with each block."""

    def __init__(
        self, worker: Callable[..., Callable[[pa.Table], pa.Table]], arguments: tuple[Any, ...], stall_seconds: float
    ) -> None:
        self._stall_seconds = stall_seconds
        with watched(stall_seconds):
            self._worker = worker(*arguments)

    def __call__(self, block: pa.Table) -> pa.Table:
        """See `stream`."""
        with watched(self._stall_seconds):
            return self._worker(block)


def _dataset(
    rows: Sequence[Mapping[str, Any]], read: WatchedRead, worker: tuple[Any, ...], shape: Shape, roster: Roster
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
            batch_size=shape.block_rows,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=shape.actors, max_tasks_in_flight_per_actor=BLOCKS_PER_ACTOR),
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            ray_remote_args_fn=roster.enter,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RETRIES,
        )
