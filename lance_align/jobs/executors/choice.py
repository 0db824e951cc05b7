"""Which executor a run uses, and Ray only where it is needed.

``auto`` is local where no cluster is named and the work is small: `LOCAL_ROWS` rows to embed at most. A cluster is
named by RAY_ADDRESS (`ray job submit` sets it), by a Ray that this process is connected to, or by several actors or
readers. On two cores the demo's 1,914 pictures take 11 s in this process, and 39 to 45 s on Ray, which starts a dozen
processes first (measured, Ray 2.60).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lance_align.errors import ArgumentError
from lance_align.jobs.checks import check_choices
from lance_align.jobs.executors.base import ExecutorName
from lance_align.jobs.executors.local import LocalExecutor
from lance_align.jobs.shape import ShapeOptions
from lance_align.jobs.stopping import stopping

if TYPE_CHECKING:
    from lance_align.jobs.executors.ray import RayExecutor

LOCAL_ROWS = 2048  # small pictures, align-tiny, two cores: 13 s in all here, 39 s on Ray (30 November 2026)


class Executors:
    """The executors that one run may use.

    Args:
        name: what the user said.
        stack: ends what is started.
        tell: says what is being done, in a line.

    Attributes:
        may_be_local: whether the run may do its work in this process.
        must_be_local: whether it must.
    """

    def __init__(self, name: ExecutorName, stack: contextlib.ExitStack, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.may_be_local = name != "ray"
        self.must_be_local = name == "local"
        self._stack = stack
        self._ray: RayExecutor | None = None

    def for_rows(self, rows: int, *, most_local: int = LOCAL_ROWS) -> LocalExecutor | RayExecutor:
        """The executor for so many rows."""
        if self.must_be_local or (self.may_be_local and rows <= most_local):
            return LocalExecutor()
        return self.ray()

    def ray(self) -> RayExecutor:
        """Ray, started if it has to be.

        Raises:
            JobError: it does not start, or the named cluster does not answer.
        """
        if self._ray is None:
            self._tell("starting Ray")
            from lance_align.jobs.cluster import cluster  # Ray takes seconds to import
            from lance_align.jobs.executors.ray import RayExecutor

            self._stack.enter_context(cluster())
            self._stack.enter_context(stopping())  # takes the signals back that Ray handles
            self._ray = RayExecutor()
        return self._ray


@contextlib.contextmanager
def executors(
    name: ExecutorName,
    options: ShapeOptions,
    *,
    needs_ray: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Executors]:
    """The executors of a run, under which SIGTERM and Ctrl-C are orderly ends; see `stopping`.

    Args:
        name: auto, ray or local, as `check_executor` has passed it.
        options: actors and readers of several processes need Ray.
        needs_ray: something else does.
        tell: see `Executors`.
    """
    if name == "auto" and (needs_ray or _is_cluster_named() or _several(options)):
        name = "ray"
    with contextlib.ExitStack() as stack:
        stack.enter_context(stopping())
        yield Executors(name, stack, tell)


def check_executor(name: str, options: ShapeOptions) -> None:
    """Refuse what cannot be done.

    Raises:
        ArgumentError: an unknown name, or one process is to be several.
    """
    check_choices(words=ExecutorName, executor=name)
    if name == "local" and _several(options):
        raise ArgumentError(
            f"actors={options.actors}, readers={options.readers} with executor='local', which has one of each; leave "
            "them out, or take executor='ray'"
        )


def _several(options: ShapeOptions) -> bool:
    return any(number is not None and number > 1 for number in (options.actors, options.readers))


def _is_cluster_named() -> bool:
    ray: Any = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and bool(ray.is_initialized()))
