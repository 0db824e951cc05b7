"""What a job needs of the place where it runs."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import pyarrow as pa

from lance_align.jobs.ledger.registry import IdRegistry
from lance_align.jobs.policy import Policy
from lance_align.jobs.shape import Resources, Shape
from lance_align.jobs.stages.encode import Target

T = TypeVar("T")

ExecutorName = Literal["auto", "ray", "local"]

ReadTask = Callable[[pa.Table], Iterator[pa.Table]]  # one row that says what to read, to tables of decoded rows
Worker = Callable[[pa.Table], pa.Table]  # a block of decoded rows to what the driver is told


@dataclasses.dataclass(frozen=True, slots=True)
class Executor(ABC):
    """Runs the parts of a job: the id registry, the id pre-pass, and reading, encoding and writing."""

    @abstractmethod
    def resources(self) -> Resources:
        """What there is to divide."""

    @abstractmethod
    def id_registry(self, target: Target, *, version: int, policy: Policy) -> IdRegistry:
        """A registry that knows the ids of one version of the table; `IdRegistry.stop` ends it."""

    @abstractmethod
    def each(self, call: Callable[[T], None], tasks: Iterable[T], *, at_once: int, stall_seconds: float) -> None:
        """Do something with each task.

        Args:
            call: may be repeated for a task.
            at_once: tasks in flight, where there can be several.
            stall_seconds: a task that shows no progress for so long is given up, and tried again where possible.
        """

    @abstractmethod
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
        """Run the two stages of a job; tables arrive as workers make them, in no particular order.

        Args:
            rows: one for each task of the first stage; none give no tables.
            read: the first stage; a task that is executed again must give the same rows, cut into any tables.
            worker: the second stage: called once with `worker_arguments`, then with about `shape.block_rows` decoded
                rows at a time.
            worker_arguments: what it is made with.
            table_rows: rows that leave a task together. Cuts depend on nothing else: not on bytes, which differ
                between two executions of a task where an image comes or goes.
            shape: how the resources are used.
        """


def blocks(tables: Iterable[pa.Table], *, rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `rows` rows, but for the last; no rows give no tables."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        while len(table):
            part = table.slice(0, rows - count)
            table = table.slice(len(part))
            held.append(part)
            count += len(part)
            if count == rows:
                yield pa.concat_tables(held)
                held, count = [], 0
    if held:
        yield pa.concat_tables(held)
