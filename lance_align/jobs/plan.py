"""The Ray Data plan: tasks that read and decode a split each, a pool of actors that embed and write.

Two stages, because then rounds flow on two logical CPUs as well: the pool holds one of them and the tasks take turns
on the other. With a third stage that writes, nothing was written there before everything had been read (measured, Ray
2.60).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data

from lance_align.jobs.cluster import Shape
from lance_align.jobs.decode import Reader
from lance_align.jobs.encode import BlockWriter, Target
from lance_align.jobs.ids import Hashes
from lance_align.jobs.ledger import Answers, Ledger, Tally
from lance_align.jobs.receipts import Receipt
from lance_align.jobs.sources import Split
from lance_align.spec import ModelSpec
from lance_align.tables.done import read_done_ids

# Positions of rows: the split's number, then 2^40 rows in it.
ROWS_PER_SPLIT = 2**40
BLOCK_BYTES = 32 * 2**20  # of decoded rows between the stages; the pool gathers them to whole blocks of rows
# A worker that dies is replaced and its block tried again; a block that kills three workers ends the job.
MAX_RESTARTS = 3
MAX_RETRIES = 3


class LedgerActor:
    """The job's `Ledger` in a process of its own, filled with the ids of the table."""

    def __init__(self, uri: str, version: int, storage_options: Mapping[str, str] | None) -> None:
        done = read_done_ids(uri, version=version, storage_options=storage_options)
        self._ledger = Ledger(_strings(ids) for ids in done)

    def claim(self, first_position: int, hashes: Hashes, read_s: float) -> Answers:
        """See `Ledger.claim`."""
        return self._ledger.claim(first_position, hashes, read_s)

    def tally(self) -> Tally:
        """See `Ledger.tally`."""
        return self._ledger.tally()


@dataclasses.dataclass(frozen=True, slots=True)
class RemoteLedger:
    """The ledger as tasks and the driver see it. It never restarts: what was claimed would be forgotten.

    Attributes:
        handle: of the `LedgerActor`.
    """

    handle: Any

    @classmethod
    def start(cls, target: Target, *, version: int) -> RemoteLedger:
        """Start the actor; it reads the ids that `version` of the table holds."""
        actor = ray.remote(num_cpus=0, max_restarts=0)(LedgerActor)
        return cls(actor.remote(target.uri, version, target.storage_options))

    def claim(self, first_position: int, hashes: Hashes, read_s: float) -> Answers:
        """See `Ledger.claim`."""
        answer: Any = ray.get(self.handle.claim.remote(first_position, hashes, read_s))
        answers: Answers = answer
        return answers

    def tally(self) -> Tally:
        """See `Ledger.tally`."""
        answer: Any = ray.get(self.handle.tally.remote())
        tally: Tally = answer
        return tally

    def stop(self) -> None:
        """End the actor."""
        ray.kill(self.handle)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadSplit:
    """The first stage: one row that names a split in, its decoded rows out."""

    reader: Reader
    ledger: RemoteLedger

    def __call__(self, row: pa.Table) -> Iterator[pa.Table]:
        """Stream the rows of the split."""
        number: int = row.column("number")[0].as_py()
        split = Split.from_json(row.column("split")[0].as_py())
        yield from self.reader.rows(split, first_position=number * ROWS_PER_SPLIT, claims=self.ledger)


def receipts(
    splits: tuple[Split, ...],
    read: ReadSplit,
    spec: ModelSpec,
    target: Target,
    *,
    shape: Shape,
    device: str,
) -> Iterator[Receipt]:
    """Run the plan; receipts arrive as blocks are written, in no particular order.

    Raises:
        RayError: what a task raised, wrapped.
    """
    rows = [{"number": number, "split": split.to_json()} for number, split in enumerate(splits)]
    arguments = (spec, target, device, shape.threads)
    for batch in stream(rows, read.__call__, BlockWriter, arguments, shape=shape):
        texts: list[Any] = batch.column("receipt").to_pylist()
        yield from map(Receipt.from_json, texts)


def stream(
    rows: Sequence[Mapping[str, Any]],
    read: Callable[[pa.Table], Iterator[pa.Table]],
    worker: Callable[..., Callable[[pa.Table], pa.Table]],
    worker_arguments: tuple[Any, ...],
    *,
    shape: Shape,
) -> Iterator[pa.Table]:
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
    with ray.data.DataContext.current(context):  # a dataset keeps the settings it was made under
        dataset = _dataset(rows, read, worker, worker_arguments, shape)
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _dataset(
    rows: Sequence[Mapping[str, Any]], read: Any, worker: Any, worker_arguments: tuple[Any, ...], shape: Shape
) -> Any:
    dataset: Any = ray.data.from_items(list(rows), override_num_blocks=len(rows))
    dataset = dataset.map_batches(read, batch_size=1, batch_format="pyarrow", num_cpus=1)
    with warnings.catch_warnings():
        # Ray 2.60 announces that restarts will get another spelling, and has none yet; unbounded ones loop for ever.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        return dataset.map_batches(
            worker,
            fn_constructor_args=worker_arguments,
            batch_size=shape.block_rows,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=shape.actors),
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RETRIES,
        )


def _strings(ids: pa.StringArray) -> list[str]:
    texts: list[Any] = ids.to_pylist()
    return texts
